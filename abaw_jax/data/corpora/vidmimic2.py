"""Hume-Vidmimic2 as the organisers publish it: a csv table a split, a folder of faces per clip.

Source: the EMI track of Kollias et al., "The 6th Affective Behavior Analysis in-the-wild (ABAW)
competition", CVPR 2024 workshops. Labels are of whole clips. A clip is a video of as many rows as
its last image's number; each of its rows, and so each of its images, holds the clip's label. What
scores clips takes the first row (`stages.extract.video_labels`).

Sound and transcripts are read by the stage `extract` (`data.media`). Of sound and of the supplied
features (`data.supplied`) the first 12 seconds of a clip are kept, of images all.
"""

import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from abaw_jax.data.corpora import image_folder
from abaw_jax.data.records import Split, Video
from abaw_jax.errors import InputError
from abaw_jax.evaluation.submission import read_example
from abaw_jax.tracks import EMI
from abaw_jax.tracks.annotations import clip_name, read_clip_names, read_clip_table

# The longest clip lasts 1,250 s, 75,000 frames at 60 a second: beyond lie no frame numbers.
LAST_FRAME = 100_000


def read(
    train_table: str | os.PathLike,
    validation_table: str | os.PathLike,
    face_images: str | os.PathLike | Sequence[str | os.PathLike],
    test_table: str | os.PathLike | None = None,
    test_example: str | os.PathLike | None = None,
) -> list[Split]:
    """Read the clips of the EMI track.

    Args:
      train_table, validation_table: `train_split.csv`, `valid_split.csv`: `Filename` and the six
        emotions in any case and order, see `tracks.annotations.read_clip_table`.
      face_images: the folder of the clips' folders, or several (`face_images`,
        `test/face_images`); a clip's images lie in one of them.
      test_table: a table of the test clips, of which `Filename` alone is read; None or '' without.
      test_example: the organisers' example submission, whose order the test clips then have. With
        both, they must name the same clips.

    Returns:
      Splits train, validation and (with a table or an example) test. Images are numbered as their
      files, one higher in clips that begin with 0. A clip without an image is kept, as one row
      that holds its label, and counted as `absent_folders` or `empty_folders`.

    Raises:
      InputError: anything missing, malformed or contradictory; a clip in two splits; a split of
        which no clip has an image.
    """
    if isinstance(face_images, str | os.PathLike):
        face_images = [face_images]
    if not face_images:
        raise InputError("face_images: is empty; name at least one folder of clips' folders")
    folders = find_clips(face_images)
    tables = {"train": train_table, "validation": validation_table}
    clips = {name: dict(read_clip_table(table, EMI)) for name, table in tables.items()}
    if test_table or test_example:
        tables["test"] = test_example or test_table
        clips["test"] = dict.fromkeys(_test_clips(test_table, test_example))
    _refuse_shared(clips, tables)
    splits = []
    for name, labels in clips.items():
        videos = [_video(clip, folders.get(clip, []), label) for clip, label in labels.items()]
        if not any(video.frames for video in videos):
            raise InputError(
                f"{tables[name]}: none of its {len(videos)} clips has an image; searched "
                f"{', '.join(map(str, face_images))}: name the folder of their folders in "
                "face_images"
            )
        splits.append(Split(name, videos))
    return splits


def find_clips(face_images: Sequence[str | os.PathLike]) -> dict[str, list[pathlib.Path]]:
    """Clip name -> its folders, in whatever way they write its number; other folders are left."""
    found: dict[str, list[pathlib.Path]] = {}
    for root in dict.fromkeys(image_folder.check_folder(r, "face_images") for r in face_images):
        for folder in image_folder.list_folder(root)[0]:
            if clip := clip_name(folder.name):
                found.setdefault(clip, []).append(folder)
    return found


def list_images(
    name: str, folders: Sequence[pathlib.Path]
) -> tuple[list[tuple[int, str]], dict[str, int]]:
    """A clip's images by frame, from 1, and what was passed over; InputError if two folders have
    some, or a number cannot be a frame's."""
    found, skipped = [], {}
    for folder in folders:
        images, passed_over = image_folder.list_frames(folder)
        image_folder.add_counts(skipped, passed_over)
        if images:
            found.append((folder, images))
    if len(found) > 1:
        raise InputError(
            f"{found[1][0]}: holds images of clip {name}, as {found[0][0]} does; keep one of the "
            "two"
        )
    if not found:
        image_folder.add_counts(skipped, {"empty_folders" if folders else "absent_folders": 1})
    images = found[0][1] if found else {}
    # Frames count from 1; from 0 here and there, by the tool that cut the clips up.
    shift = 1 if 0 in images else 0
    frames = [(number + shift, path) for number, path in images.items()]
    if frames and frames[-1][0] > LAST_FRAME:
        raise InputError(
            f"{frames[-1][1]}: frame {frames[-1][0]}; expected at most {LAST_FRAME}, a clip's "
            "images numbered in order: rename it"
        )
    return frames, skipped


def _video(name: str, folders: list[pathlib.Path], label: np.ndarray | None) -> Video:
    """One clip; label (1, 6), None in the test set."""
    frames, skipped = list_images(name, folders)
    rows = frames[-1][0] if frames else 1
    labels = {} if label is None else {EMI.key: np.repeat(label, rows, axis=0)}
    return Video(name, frames, rows, labels, skipped)


def _test_clips(table: str | os.PathLike | None, example: str | os.PathLike | None) -> list[str]:
    """The test clips, in the example's order or, without one, the table's."""
    listed = read_clip_names(table, EMI) if table else []
    wanted = list(read_example(example, EMI).frames) if example else []
    if table and example and (different := sorted(set(listed) ^ set(wanted))):
        holder, other = (table, example) if different[0] in listed else (example, table)
        raise InputError(
            f"{holder}: clip {different[0]} is not in {other}; the two must name the same clips"
        )
    return wanted or listed


def _refuse_shared(
    clips: Mapping[str, Mapping[str, object]], tables: Mapping[str, str | os.PathLike]
) -> None:
    seen: dict[str, str] = {}
    for split, names in clips.items():
        for name in names:
            if name in seen:
                raise InputError(
                    f"{tables[split]}: clip {name} is in {split} and, by {tables[seen[name]]}, in "
                    f"{seen[name]}; remove it from one of the two"
                )
            seen[name] = split
