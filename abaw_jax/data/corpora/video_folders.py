"""Folders of crops, one a video, as the releases of Aff-Wild2 have them: roots -> frames.

A video lies in one of several roots. Its images are named by their 1-based frame numbers; frames
without a detected face have no image.
"""

import os
import pathlib
from collections.abc import Sequence

from abaw_jax.data.corpora import image_folder
from abaw_jax.data.records import Split, Video
from abaw_jax.errors import InputError
from abaw_jax.evaluation.folds import recording
from abaw_jax.evaluation.submission import read_example
from abaw_jax.tracks import Track
from abaw_jax.tracks.annotations import read_lines


def check_roots(image_roots: Sequence[str | os.PathLike]) -> list[pathlib.Path]:
    """The roots, each a folder; one path alone is taken for a list of one."""
    if isinstance(image_roots, str | os.PathLike):
        image_roots = [image_roots]
    if not image_roots:
        raise InputError("image_roots: is empty; name at least one folder of video folders")
    return [image_folder.check_folder(root, "image_roots") for root in image_roots]


def find_videos(roots: list[pathlib.Path]) -> dict[str, list[pathlib.Path]]:
    """Video name -> its folders, one where the roots are as they should be."""
    places: dict[str, list[pathlib.Path]] = {}
    for root in dict.fromkeys(roots):
        for folder in image_folder.list_folder(root)[0]:
            places.setdefault(folder.name, []).append(folder)
    return places


def read_frames(
    name: str, places: dict[str, list[pathlib.Path]], roots: list[pathlib.Path], where: str
) -> tuple[list[tuple[int, str]], dict[str, int]]:
    """A video's (frame number, path) in the order of the numbers, and what was passed over."""
    found = []
    for folder in places.get(name, []):
        numbered, skipped = image_folder.list_frames(folder)
        if 0 in numbered:
            raise InputError(f"{numbered[0]}: frame 0; frames are numbered from 1, rename them")
        if numbered:
            found.append((folder, list(numbered.items()), skipped))
    searched = ", ".join(map(str, roots))
    if not found:
        state = "an empty folder" if name in places else "no folder"
        raise InputError(
            f"{where}video {name} has {state} of images; searched {searched}: unpack its images "
            "or name their root in image_roots"
        )
    if len(found) > 1:
        raise InputError(
            f"{where}video {name} has images in {found[0][0]} and in {found[1][0]}; keep one of "
            "the two roots in image_roots"
        )
    return found[0][1], found[0][2]


def match_rows(
    path: object, name: str, frames: list[tuple[int, str]], rows: int, max_unmatched: int
) -> list[tuple[int, str]]:
    """The frames within the rows. InputError where too many are beyond them."""
    kept = [frame for frame in frames if frame[0] <= rows]
    surplus = len(frames) - len(kept)
    if surplus > max(max_unmatched, rows // 2) or not kept:
        raise InputError(
            f"{path}: {rows} rows for {name}, whose {len(frames)} images run from frame "
            f"{frames[0][0]} to {frames[-1][0]}; {surplus} are beyond the rows: they do not belong "
            "together, replace one of the two, or raise max_unmatched"
        )
    return kept


def read_test(
    test_list: str | os.PathLike | None,
    test_example: str | os.PathLike | None,
    track: Track,
    places: dict[str, list[pathlib.Path]],
    roots: list[pathlib.Path],
    max_unmatched: int,
) -> tuple[Split, dict[str, str]]:
    """The test videos, in the example's order or, without one, the list's."""
    listed: dict[str, int] = {}
    for number, line in enumerate(read_lines(test_list) if test_list else [], start=1):
        name = line.strip()
        if name in listed:
            raise InputError(
                f"{test_list}:{number}: {name!r} is on line {listed[name]} too; remove one"
            )
        if name:
            listed[name] = number
    if test_list and not listed:
        raise InputError(f"{test_list}: names no video; expected one a line")
    template = read_example(test_example, track).frames if test_example else {}
    if test_list and test_example and set(template) != set(listed):
        missing = [name for name in listed if name not in template]
        extra = [name for name in template if name not in listed]
        raise InputError(
            f"{test_list}:{listed[missing[0]]}: {missing[0]} is not in {test_example}"
            if missing
            else f"{test_example}: video {extra[0]} is not in {test_list}; the two must name the "
            "same videos"
        )
    videos, owners = [], {}
    for name in template or listed:
        where = f"{test_list}:{listed[name]}: " if test_list else f"{test_example}: "
        frames, skipped = read_frames(name, places, roots, where)
        rows = int(template[name].max()) if template else frames[-1][0]
        kept = match_rows(test_example, name, frames, rows, max_unmatched)
        skipped = image_folder.nonzero({**skipped, "surplus_images": len(frames) - len(kept)})
        videos.append(Video(name, kept, rows, {}, skipped))
        owners[name] = where.removesuffix(": ")
    return Split("test", videos), owners


def refuse_shared(splits: list[tuple[Split, dict[str, str]]]) -> None:
    """Raise InputError if a video is in two splits; each comes with its videos' sources.

    Two people of one recording (`x_left`, `x_right`) on two sides share its room and its sound but
    are not one person; the split may be the organisers': that is printed, not refused.
    """
    seen: dict[str, tuple[str, str]] = {}
    recordings: dict[str, tuple[str, str]] = {}
    shared = []
    for split, owners in splits:
        for name, owner in owners.items():
            if name in seen:
                raise InputError(
                    f"{owner}: video {name} is in {split.name} and, by {seen[name][1]}, in "
                    f"{seen[name][0]}; remove it from one of the two"
                )
            seen[name] = (split.name, owner)
            there, other = recordings.setdefault(recording(name), (split.name, name))
            if there != split.name:
                shared.append(f"{name} of {split.name}, {other} of {there}")
    if shared:
        print(
            f"{len(shared)} videos show a recording that another split shows too (such as "
            f"{shared[0]}): scores may be too high",
            flush=True,
        )
