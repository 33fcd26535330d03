"""s-Aff-Wild2, of the multi-task challenge: images of Aff-Wild2 with VA, EXPR and AU labels.

Source: Kollias, "ABAW: learning from synthetic data & multi-task learning challenges", ECCV 2022
workshops. One file a split; a row is an image, its valence and arousal, its expression and its
twelve action units, each with Aff-Wild2's mark where it has none. The header has 5 names.
"""

import dataclasses
import os
import pathlib
import re
from collections.abc import Sequence

import numpy as np

from abaw_jax.data.corpora import image_folder, video_folders
from abaw_jax.data.records import Split, Video
from abaw_jax.errors import InputError
from abaw_jax.tracks import AU, EXPR, VA
from abaw_jax.tracks.annotations import parse_rows, read_lines, split_cells

FILES = {
    "train": "training_set_annotations.txt",
    "validation": "validation_set_annotations.txt",
}
TRACKS = {track.name: track for track in (VA, EXPR, AU)}  # in the order of a row's columns
WIDTH = 1 + sum(track.label_width for track in TRACKS.values())
LOCATION = re.compile(r"([^/]+)/([0-9]{1,7})\.(?:jpg|jpeg|png)", re.IGNORECASE)


def read(
    image_roots: Sequence[str | os.PathLike],
    annotations: str | os.PathLike,
    task: str = "EXPR",
    test_list: str | os.PathLike | None = None,
    test_example: str | os.PathLike | None = None,
    max_unmatched: int = 1000,
    also: Sequence[str] = (),
) -> list[Split]:
    """Read the images that the rows name, and the labels of three tracks.

    A row counts for each track whose labels it has. Frames that no row names are without labels,
    and their images, as a root of all Aff-Wild2 has them, are left out.

    Args:
      image_roots: folders of video folders; a video lies in one of them.
      annotations: the folder of `training_set_annotations.txt` and, or, the validation set's.
      task: the track that is to be learned, 'VA', 'EXPR' or 'AU'; the test example is its.
      test_list: file of the test videos' names, one a line; None or '' without.
      test_example: an example submission of `task`; its lines give each test video's rows.
      max_unmatched: how many rows of a video may be without an image (or half of them, if that is
        more), before images and rows are taken not to belong together.
      also: keys of the tracks that are learned besides; their labels are read in any case.

    Returns:
      Splits train, validation and (with a list or an example) test; labels `va`, `expr` and `au`.

    Raises:
      InputError: anything missing, malformed, contradictory or on both sides of a split.
    """
    if task not in TRACKS:
        raise InputError(f"task {task!r}: s-Aff-Wild2 has {', '.join(TRACKS)}")
    for key in also:
        if key.upper() not in TRACKS:
            raise InputError(f"also: {key!r}; s-Aff-Wild2 has {', '.join(TRACKS).lower()}")
    roots = video_folders.check_roots(image_roots)
    places = video_folders.find_videos(roots)
    folder = image_folder.check_folder(annotations, "annotations")
    files = {name: folder / file for name, file in FILES.items() if (folder / file).is_file()}
    if not files:
        raise InputError(f"{folder}: holds neither {' nor '.join(FILES.values())}; name the folder")
    splits = []
    for name, path in files.items():
        videos, owners = [], {}
        for video, rows in _read_rows(path).items():
            owners[video] = f"{path}:{rows.line}"
            frames, skipped = video_folders.read_frames(video, places, roots, f"{owners[video]}: ")
            videos.append(_video(video, rows, frames, skipped, owners[video], max_unmatched))
        splits.append((Split(name, videos), owners))
    if test_list or test_example:
        track = TRACKS[task]
        splits.append(
            video_folders.read_test(test_list, test_example, track, places, roots, max_unmatched)
        )
    video_folders.refuse_shared(splits)
    return [split for split, _ in splits]


@dataclasses.dataclass(frozen=True)
class _Rows:
    """The rows of one video. line: of the first; frames: (n,) from 1; labels: key -> (n, W)."""

    line: int
    frames: np.ndarray
    labels: dict[str, np.ndarray]


def _read_rows(path: pathlib.Path) -> dict[str, _Rows]:
    """Video -> its rows, in the file's order. InputError with the line of a row that is wrong."""
    header, *lines = read_lines(path)
    if "/" in header or not lines:
        what = "is a row already" if "/" in header else "is the only one"
        raise InputError(f"{path}:1: {what}; expected `image,valence,...` above the rows")
    columns = {name: [] for name in TRACKS}
    numbers, videos = [], {}
    for at, line in enumerate(lines):
        where = f"{path}:{at + 2}"
        line = ",".join(split_cells(line, where))  # the units may be in quotes together: one name
        if line.count(",") != WIDTH - 1:
            raise InputError(f"{where}: has {line.count(',') + 1} columns; expected {WIDTH}")
        location, valence, arousal, expression, units = line.split(",", 4)
        found = LOCATION.fullmatch(location.strip())
        if not found or not int(found[2]):
            raise InputError(f"{where}: {location!r}; expected an image as `video45_1/00001.jpg`")
        videos.setdefault(found[1], []).append(at)
        numbers.append(int(found[2]))
        texts = (f"{valence},{arousal}", expression, units)
        for column, text in zip(columns.values(), texts, strict=True):
            column.append(text)
    labels = {
        track.key: parse_rows(columns[name], track, path, first_line=2, allow_invalid=True)
        for name, track in TRACKS.items()
    }
    frames, rows = np.array(numbers), {}
    for video, at in videos.items():
        order = np.argsort(frames[at], kind="stable")
        twins = np.flatnonzero(np.diff(frames[at][order]) == 0)
        if len(twins):
            first, second = (at[order[twins[0] + i]] + 2 for i in (0, 1))
            raise InputError(f"{path}:{second}: is of the image of line {first} too; remove one")
        rows[video] = _Rows(at[0] + 2, frames[at], {key: labels[key][at] for key in labels})
    return rows


def _video(
    name: str,
    rows: _Rows,
    frames: list[tuple[int, str]],
    skipped: dict[str, int],
    where: str,
    max_unmatched: int,
) -> Video:
    """Match images and rows by number."""
    named = set(rows.frames.tolist())
    kept = [frame for frame in frames if frame[0] in named]
    lacking = len(named) - len(kept)
    if lacking > max(max_unmatched, len(named) // 2) or not kept:
        raise InputError(
            f"{where}: {lacking} of the {len(named)} rows of {name} have no image, though frames "
            f"{frames[0][0]} to {frames[-1][0]} have; they do not belong together: unpack all of "
            "its images, or raise max_unmatched"
        )
    count, labels = int(rows.frames.max()), {}
    for track in TRACKS.values():
        shape = count, track.label_width
        labels[track.key] = np.full(shape, track.invalid, track.label_type)
        labels[track.key][rows.frames - 1] = rows.labels[track.key]
    unnamed = {"unnamed_images": len(frames) - len(kept)}
    return Video(name, kept, count, labels, image_folder.nonzero({**skipped, **unnamed}))
