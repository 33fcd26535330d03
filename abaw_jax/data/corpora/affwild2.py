"""Aff-Wild2 as the organisers publish it: folders of crops, a text file of labels per video.

Source: Kollias et al., "The 6th Affective Behavior Analysis in-the-wild (ABAW) competition",
CVPR 2024 workshops. Row i (from 1) of a label file belongs to image i; the organisers' row count
is the decoder's frame count + 1. Frames without a detected face have no image.

The tracks' training, validation and test sets differ. Where several are read, the splits are those
of the main one: a video of its sets stays in its set, and has a further track's labels only if that
track has it in the same set. Training videos of further tracks that are in no set of the main one
are added to training, without labels of the main track, unless the main track validates or tests
another video of their recording.
"""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from abaw_jax.data.corpora import image_folder, video_folders
from abaw_jax.data.records import Split, Video
from abaw_jax.errors import InputError
from abaw_jax.evaluation.folds import recording
from abaw_jax.tracks import TRACKS, Track
from abaw_jax.tracks.annotations import (
    annotation_files,
    read_annotation,
    split_folder,
)

LABEL_FOLDERS = {"train": "Train_Set", "validation": "Validation_Set"}
LabelFiles = Mapping[str, Mapping[str, pathlib.Path]]  # split -> video -> its file, of one track


def read(
    image_roots: Sequence[str | os.PathLike],
    annotations: str | os.PathLike,
    task: str = "EXPR",
    test_list: str | os.PathLike | None = None,
    test_example: str | os.PathLike | None = None,
    max_unmatched: int = 1000,
    also: Sequence[str] = (),
) -> list[Split]:
    """Read the images and labels of one track, and the labels that further tracks have of them.

    Args:
      image_roots: folders of video folders (`cropped_aligned`, `cropped_aligned_new_50_vids`).
      annotations: the folder of the tracks' label folders, or the track's own, with `Train_Set`
        and / or `Validation_Set` in it; see `tracks.annotations.split_folder`.
      task: the name of a track, 'EXPR'.
      test_list: file of the test videos' names, one a line; None or '' without.
      test_example: the organisers' example submission; its lines give each test video's rows.
      max_unmatched: how many images without a row, or valid rows beyond the last image, a video
        may have (or half its rows, if that is more) before image and label files are taken not
        to belong together; and by how many rows two tracks' files of a video may differ.
      also: keys of further tracks, 'au'; `annotations` is then the folder of all tracks.

    Returns:
      Splits train, validation and (with a list or an example) test. A video's surplus images,
      beyond its rows, are left out. With further tracks every labelled video has rows of each, as
      many as the main track's file; those without a label are invalid. Without list and example it
      is not known which videos the main track keeps for its test: those that only further tracks
      have are then left out. Those left out are counted as `videos_of_further_tracks`.

    Raises:
      InputError: anything missing, malformed, contradictory or on both sides of a split.
    """
    tracks = {track.name: track for track in TRACKS.values()}
    if task not in tracks:
        raise InputError(f"task {task!r}: expected one of {', '.join(tracks)}")
    track = tracks[task]
    further = _further_files(annotations, track, also)
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
    found = [split for split, _ in splits]
    if not also:
        return found
    known = {name for _, owners in splits for name in owners}
    others = {
        name: (path, TRACKS[key])
        for key, files in further.items()
        for name, path in files.get("train", {}).items()
        if name not in known
    }
    count = len(others)
    judged = {recording(n) for split, owners in splits if split.name != "train" for n in owners}
    others = {name: file for name, file in others.items() if recording(name) not in judged}
    added = []
    for name, (path, owner) in others.items() if test_list or test_example else ():
        frames, skipped = video_folders.read_frames(name, places, roots, f"{path}: ")
        added.append(_video(path, frames, skipped, owner, max_unmatched))
    left_out = image_folder.nonzero({"videos_of_further_tracks": count - len(added)})
    return [_join_tracks(split, track, further, added, left_out, max_unmatched) for split in found]


def _further_files(
    annotations: str | os.PathLike, track: Track, also: Sequence[str]
) -> dict[str, LabelFiles]:
    """The label files of further tracks by key. InputError for a video in two of a track's sets."""
    known = [other.key for other in TRACKS.values() if other is not track and not other.per_clip]
    found = {}
    for key in also:
        if key not in known:
            raise InputError(
                f"also: {key!r}; expected tracks beside {track.key}: {', '.join(known)}"
            )
        for folder in LABEL_FOLDERS.values():
            if (own := pathlib.Path(annotations) / folder).is_dir():
                raise InputError(
                    f"{own}: is of one track, and labels of {key} are asked for as well; name the "
                    "folder of all annotations"
                )
        folders = _label_folders(annotations, TRACKS[key])
        found[key] = {name: annotation_files(folder) for name, folder in folders.items()}
        video_folders.refuse_shared([(Split(s, []), files) for s, files in found[key].items()])
    return found


def _join_tracks(
    split: Split,
    track: Track,
    further: Mapping[str, LabelFiles],
    added: list[Video],
    left_out: Mapping[str, int],
    max_unmatched: int,
) -> Split:
    """A split of the main track with the labels of further ones, and to training further videos."""
    if split.name not in LABEL_FOLDERS:
        return split
    if split.name == "train":
        skipped = {**split.skipped, **left_out}
        split = dataclasses.replace(split, videos=split.videos + added, skipped=skipped)
    videos = []
    for video in split.videos:
        labels = {track.key: _no_labels(video.rows, track), **video.labels}
        for key, files in further.items():
            path = files.get(split.name, {}).get(video.name)
            labels[key] = _no_labels(video.rows, TRACKS[key])
            if path:
                rows = read_annotation(path, TRACKS[key])
                if abs(len(rows) - video.rows) > max(max_unmatched, video.rows // 2):
                    raise InputError(
                        f"{path}: {len(rows)} rows for {video.name}, which has {video.rows} in "
                        "another track; replace one of the two files, or raise max_unmatched"
                    )
                labels[key][: len(rows)] = rows[: video.rows]
        videos.append(dataclasses.replace(video, labels=labels))
    return dataclasses.replace(split, videos=videos)


def _no_labels(rows: int, track: Track) -> np.ndarray:
    return np.full((rows, track.label_width), track.invalid, track.label_type)


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
