"""Aff-Wild2 as the organisers publish it: folders of crops, a text file of labels per video.

Source: Kollias et al., "The 6th Affective Behavior Analysis in-the-wild (ABAW) competition",
CVPR 2024 workshops. Row i (from 1) of a label file belongs to image i; the organisers' row count
is the decoder's frame count + 1. Frames without a detected face have no image.
"""

import os
import pathlib
from collections.abc import Sequence

from abaw_jax.data.corpora import image_folder
from abaw_jax.data.records import Split, Video
from abaw_jax.errors import InputError
from abaw_jax.evaluation.submission import read_example
from abaw_jax.tracks import TRACKS, Track
from abaw_jax.tracks.annotations import (
    annotation_files,
    read_annotation,
    read_lines,
    split_folder,
)

LABEL_FOLDERS = {"train": "Train_Set", "validation": "Validation_Set"}


def read(
    image_roots: Sequence[str | os.PathLike],
    annotations: str | os.PathLike,
    task: str = "EXPR",
    test_list: str | os.PathLike | None = None,
    test_example: str | os.PathLike | None = None,
    max_unmatched: int = 1000,
) -> list[Split]:
    """Read the images and labels of one track.

    Args:
      image_roots: folders of video folders (`cropped_aligned`, `cropped_aligned_new_50_vids`).
      annotations: the folder of the tracks' label folders, or the track's own, with `Train_Set`
        and / or `Validation_Set` in it; see `tracks.annotations.split_folder`.
      task: the name of a track, 'EXPR'.
      test_list: file of the test videos' names, one a line; None or '' without.
      test_example: the organisers' example submission; its lines give each test video's rows.
      max_unmatched: how many images without a row, or valid rows beyond the last image, a video
        may have (or half its rows, if that is more) before image and label files are taken not
        to belong together.

    Returns:
      Splits train, validation and (with a list or an example) test. A video's surplus images,
      beyond its rows, are left out.

    Raises:
      InputError: anything missing, malformed, contradictory or on both sides of a split.
    """
    tracks = {track.name: track for track in TRACKS.values()}
    if task not in tracks:
        raise InputError(f"task {task!r}: expected one of {', '.join(tracks)}")
    track = tracks[task]
    if isinstance(image_roots, str | os.PathLike):
        image_roots = [image_roots]
    if not image_roots:
        raise InputError("image_roots: is empty; name at least one folder of video folders")
    roots = [image_folder.check_folder(root, "image_roots") for root in image_roots]
    places = _video_folders(roots)
    splits = []
    for name, folder in _label_folders(annotations, track).items():
        files = annotation_files(folder)
        videos = []
        for video, path in files.items():
            frames, skipped = _frames(video, places, roots, f"{path}: ")
            videos.append(_video(path, frames, skipped, track, max_unmatched))
        entries = os.listdir(folder)
        hidden = sum(entry.startswith(".") for entry in entries)
        other = len(entries) - hidden - len(files)
        skipped = _nonzero({"hidden_files": hidden, "other_files": other})
        splits.append((Split(name, videos, skipped), files))
    if test_list or test_example:
        splits.append(_test_split(test_list, test_example, track, places, roots, max_unmatched))
    _refuse_shared(splits)
    return [split for split, _ in splits]


def _label_folders(annotations: str | os.PathLike, track: Track) -> dict[str, pathlib.Path]:
    """{'train': folder, 'validation': folder} of a track, those that exist."""
    root = image_folder.check_folder(annotations, "annotations")
    found = {name: split_folder(root, track, folder) for name, folder in LABEL_FOLDERS.items()}
    if not any(found.values()):
        wanted = " nor ".join(f"{track.folder_prefix}_*/{f}" for f in LABEL_FOLDERS.values())
        raise InputError(
            f"{root}: holds neither {wanted}; name the folder of all annotations or the folder of "
            f"{track.name} annotations, which holds Train_Set and Validation_Set"
        )
    return {name: folder for name, folder in found.items() if folder}


def _nonzero(counts: dict[str, int]) -> dict[str, int]:
    return {key: count for key, count in counts.items() if count}


def _video_folders(roots: list[pathlib.Path]) -> dict[str, list[pathlib.Path]]:
    places: dict[str, list[pathlib.Path]] = {}
    for root in dict.fromkeys(roots):
        for folder in image_folder.list_folder(root)[0]:
            places.setdefault(folder.name, []).append(folder)
    return places


def _frames(
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


def _video(
    path: pathlib.Path,
    frames: list[tuple[int, str]],
    skipped: dict[str, int],
    track: Track,
    max_unmatched: int,
) -> Video:
    """Match images and label rows by number."""
    name, labels, last = path.stem, read_annotation(path, track), frames[-1][0]
    rows = len(labels)
    kept = _match(path, name, frames, rows, max_unmatched)
    beyond = int(track.valid(labels[last:]).sum())
    if beyond > max(max_unmatched, rows // 2):
        raise InputError(
            f"{path}: {beyond} valid rows beyond the last image, frame {last} of {name}; they do "
            "not belong together: unpack all of its images, or raise max_unmatched"
        )
    surplus = {"surplus_images": len(frames) - len(kept)}
    return Video(name, kept, rows, {track.key: labels}, _nonzero({**skipped, **surplus}))


def _match(
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


def _test_split(
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
        frames, skipped = _frames(name, places, roots, where)
        rows = int(template[name].max()) if template else frames[-1][0]
        kept = _match(test_example, name, frames, rows, max_unmatched)
        skipped = _nonzero({**skipped, "surplus_images": len(frames) - len(kept)})
        videos.append(Video(name, kept, rows, {}, skipped))
        owners[name] = where.removesuffix(": ")
    return Split("test", videos), owners


def _refuse_shared(splits: list[tuple[Split, dict[str, str]]]) -> None:
    seen: dict[str, tuple[str, str]] = {}
    for split, owners in splits:
        for name, owner in owners.items():
            if name in seen:
                raise InputError(
                    f"{owner}: video {name} is in {split.name} and, by {seen[name][1]}, in "
                    f"{seen[name][0]}; remove it from one of the two"
                )
            seen[name] = (split.name, owner)
