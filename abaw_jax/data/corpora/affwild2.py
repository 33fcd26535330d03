"""Aff-Wild2 as the organisers publish it: folders of crops, a text file of labels per video.

Source: Kollias et al., "The 6th Affective Behavior Analysis in-the-wild (ABAW) competition",
CVPR 2024 workshops. Row i (from 1) of a label file belongs to image i; the organisers' row count
is the decoder's frame count + 1. Frames without a detected face have no image.
"""

import os
import pathlib
from collections.abc import Sequence

from abaw_jax.data.corpora import image_folder, video_folders
from abaw_jax.data.records import Split, Video
from abaw_jax.errors import InputError
from abaw_jax.tracks import TRACKS, Track
from abaw_jax.tracks.annotations import (
    annotation_files,
    read_annotation,
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
    roots = video_folders.check_roots(image_roots)
    places = video_folders.find_videos(roots)
    splits = []
    for name, folder in _label_folders(annotations, track).items():
        files = annotation_files(folder)
        videos = []
        for video, path in files.items():
            frames, skipped = video_folders.read_frames(video, places, roots, f"{path}: ")
            videos.append(_video(path, frames, skipped, track, max_unmatched))
        entries = os.listdir(folder)
        hidden = sum(entry.startswith(".") for entry in entries)
        other = len(entries) - hidden - len(files)
        skipped = image_folder.nonzero({"hidden_files": hidden, "other_files": other})
        splits.append((Split(name, videos, skipped), files))
    if test_list or test_example:
        splits.append(
            video_folders.read_test(test_list, test_example, track, places, roots, max_unmatched)
        )
    video_folders.refuse_shared(splits)
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
    kept = video_folders.match_rows(path, name, frames, rows, max_unmatched)
    beyond = int(track.valid(labels[last:]).sum())
    if beyond > max(max_unmatched, rows // 2):
        raise InputError(
            f"{path}: {beyond} valid rows beyond the last image, frame {last} of {name}; they do "
            "not belong together: unpack all of its images, or raise max_unmatched"
        )
    surplus = {"surplus_images": len(frames) - len(kept)}
    return Video(
        name, kept, rows, {track.key: labels}, image_folder.nonzero({**skipped, **surplus})
    )
