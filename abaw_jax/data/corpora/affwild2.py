"""Aff-Wild2 as the organisers publish it: folders of crops, a text file of labels per video.

Source: Kollias et al., "The 6th Affective Behavior Analysis in-the-wild (ABAW) competition",
CVPR 2024 workshops. Row i (from 1) of a label file belongs to image i; the organisers' row count
is the decoder's frame count + 1. Frames without a detected face have no image.
"""

import dataclasses
import os
import pathlib
import re
from collections.abc import Sequence

import numpy as np

from abaw_jax.data.corpora import image_folder
from abaw_jax.data.records import Split, Video
from abaw_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class _Labels:
    """How one task's label rows look."""

    key: str
    columns: tuple[str, ...]  # of the submission; the label row of EXPR is one integer
    width: int
    number: type
    expected: str

    def valid(self, values: np.ndarray) -> np.ndarray:
        """Which rows hold only legal numbers, (N, K) -> (N,)."""
        if self.key == "va":
            return ((abs(values) <= 1) | (values == -5)).all(axis=1)
        return ((values >= -1) & (values <= (7 if self.key == "expr" else 1))).all(axis=1)


TASKS = {
    "VA": _Labels("va", ("valence", "arousal"), 2, float, "two numbers in [-1, 1], or -5"),
    "EXPR": _Labels(
        "expr",
        ("Neutral", "Anger", "Disgust", "Fear", "Happiness", "Sadness", "Surprise", "Other"),
        1,
        int,
        "one integer from 0 to 7, or -1",
    ),
    "AU": _Labels(
        "au",
        tuple(f"AU{n}" for n in (1, 2, 4, 6, 7, 10, 12, 15, 23, 24, 25, 26)),
        12,
        int,
        "12 integers 0 or 1, or -1",
    ),
}


def read(
    image_roots: Sequence[str | os.PathLike],
    annotations: str | os.PathLike,
    task: str = "EXPR",
    test_list: str | os.PathLike | None = None,
    test_example: str | os.PathLike | None = None,
    max_unmatched: int = 1000,
) -> list[Split]:
    """Read the images and labels of one task.

    Args:
      image_roots: folders of video folders (`cropped_aligned`, `cropped_aligned_new_50_vids`).
      annotations: the folder of the tasks' folders; the task's is found by its prefix (VA, EXPR
        or AU: `EXPR_Recognition_Challenge`, `EXPR_Classification_Challenge`, `EXPR_Set`), or the
        task's folder itself, with `Train_Set` and / or `Validation_Set` in it.
      task: 'VA', 'EXPR' or 'AU'.
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
    if task not in TASKS:
        raise InputError(f"task {task!r}: expected one of {', '.join(TASKS)}")
    if isinstance(image_roots, str | os.PathLike):
        image_roots = [image_roots]
    if not image_roots:
        raise InputError("image_roots: is empty; name at least one folder of video folders")
    roots = [image_folder.check_folder(root, "image_roots") for root in image_roots]
    places = _video_folders(roots)
    splits = []
    for name, folder in _label_folders(annotations, task).items():
        videos, owners, hidden, other = [], {}, 0, 0
        for path in sorted(folder.iterdir()):
            if path.name.startswith("."):
                hidden += 1
            elif path.suffix != ".txt" or path.is_dir():
                other += 1
            else:
                labels = read_labels(path, task)
                frames, skipped = _frames(path.stem, places, roots, f"{path}: ")
                videos.append(_video(path, frames, skipped, labels, max_unmatched))
                owners[path.stem] = str(path)
        if not videos:
            raise InputError(f"{folder}: holds no label files; expected <video>.txt")
        skipped = _nonzero({"hidden_files": hidden, "other_files": other})
        splits.append((Split(name, videos, skipped), owners))
    if test_list or test_example:
        splits.append(_test_split(test_list, test_example, task, places, roots, max_unmatched))
    _refuse_shared(splits)
    return [split for split, _ in splits]


def read_labels(path: str | os.PathLike, task: str = "EXPR") -> dict[str, np.ndarray]:
    """Read one label file: {'expr' | 'va' | 'au': (rows, K) int32 or float32}.

    The first line is passed over unread: in places it is wider or narrower than the rows.

    Raises:
      InputError: the file cannot be read, has no rows, or a row (named) is not what it should be.
    """
    kind = TASKS[task]
    lines = _lines(path)[1:]
    if not lines:
        raise InputError(f"{path}: has no rows below its first line; expected one a frame")
    rows = []
    for number, line in enumerate(lines, start=2):
        parts = line.split(",")
        try:
            if len(parts) != kind.width:
                raise ValueError
            rows.append([kind.number(part) for part in parts])
        except ValueError:
            raise InputError(
                f"{path}: line {number}: {line.strip()[:60]!r}; expected {kind.expected}"
            ) from None
    values = np.array(rows, np.float64)
    wrong = np.flatnonzero(~kind.valid(values))
    if wrong.size:
        raise InputError(
            f"{path}: line {wrong[0] + 2}: {lines[wrong[0]].strip()[:60]!r} is out of range; "
            f"expected {kind.expected}"
        )
    return {kind.key: values.astype(np.float32 if kind.number is float else np.int32)}


def read_example(path: str | os.PathLike, task: str = "EXPR") -> dict[str, int]:
    """Read an example submission: {video: number of its last frame}, in its order.

    Raises:
      InputError: another task's file, or a line that is no `<video>/<frame>.jpg,...`.
    """
    lines = _lines(path)
    header = [name.strip() for name in lines[0].split(",")] if lines else []
    if header != ["image_location", *TASKS[task].columns]:
        raise InputError(
            f"{path}: line 1: {(lines or [''])[0].strip()[:60]!r}; expected "
            f"image_location,{','.join(TASKS[task].columns)}: name the {task} example"
        )
    rows: dict[str, int] = {}
    for number, line in enumerate(lines[1:], start=2):
        video, slash, file = line.partition(",")[0].strip().rpartition("/")
        frame = file.rpartition(".")[0]
        if not (slash and video and _is_number(frame) and int(frame)):
            raise InputError(
                f"{path}: line {number}: {line.strip()[:60]!r}; expected <video>/<frame>.jpg,..., "
                "frames from 1 upwards"
            )
        rows[video] = max(int(frame), rows.get(video, 0))
    if not rows:
        raise InputError(f"{path}: has no lines below the header; name the organisers' example")
    return rows


def _lines(path: str | os.PathLike) -> list[str]:
    """A text file's lines without the empty ones at its end."""
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is no text file ({error.reason})") from error
    lines = text.split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _nonzero(counts: dict[str, int]) -> dict[str, int]:
    return {key: count for key, count in counts.items() if count}


def _label_folders(annotations: str | os.PathLike, task: str) -> dict[str, pathlib.Path]:
    """{'train': folder, 'validation': folder} of a task, those that exist."""
    annotations = image_folder.check_folder(annotations, "annotations")

    def sets(folder: pathlib.Path) -> dict[str, pathlib.Path]:
        inner = image_folder.list_folder(folder)[0]
        found = {}
        for name in ("train", "validation"):
            matching = [p for p in inner if p.name.lower().startswith(name)]
            if len(matching) > 1:
                raise InputError(
                    f"{folder}: {matching[0].name} and {matching[1].name} both hold the {name} "
                    "labels; keep one"
                )
            if matching:
                found[name] = matching[0]
        return found

    inner = image_folder.list_folder(annotations)[0]
    # VA and AU begin other words too: Validation_Set, Audio.
    prefix = re.compile(task if task == "EXPR" else rf"{task}(?![a-z])", re.IGNORECASE)
    matching = [p for p in inner if prefix.match(p.name)]
    if len(matching) > 1:
        raise InputError(
            f"{annotations}: {matching[0].name} and {matching[1].name} both begin with {task}; "
            "name one of the two as the annotation folder"
        )
    folder = matching[0] if matching else annotations
    found = sets(folder)
    if not found:
        lacks = "neither Train_Set nor Validation_Set"
        raise InputError(
            f"{folder}: has {lacks if matching else f'no folder whose name begins with {task}'}; "
            f"name the folder of the tasks' label folders, which hold Train_Set and Validation_Set"
        )
    return found


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
        folders, images, skipped = image_folder.list_folder(folder)
        numbered = {}
        for path in images:
            stem = os.path.splitext(os.path.basename(path))[0]
            if not _is_number(stem):
                skipped["other_files"] = skipped.get("other_files", 0) + 1
                continue
            if int(stem) == 0:
                raise InputError(f"{path}: frame 0; frames are numbered from 1, rename them")
            if int(stem) in numbered:
                raise InputError(
                    f"{path}: is frame {int(stem)}, as {numbered[int(stem)]} is; "
                    "keep one of the two"
                )
            numbered[int(stem)] = path
        if folders:
            skipped["other_files"] = skipped.get("other_files", 0) + len(folders)
        if numbered:
            found.append((folder, sorted(numbered.items()), skipped))
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
    path: object,
    frames: list[tuple[int, str]],
    skipped: dict[str, int],
    labels: dict[str, np.ndarray],
    max_unmatched: int,
) -> Video:
    """Match images and label rows by number."""
    name, (values,) = path.stem, labels.values()
    rows, last = len(values), frames[-1][0]
    valid = (values != (-5 if "va" in labels else -1)).all(axis=1)
    kept = _match(path, name, frames, rows, max_unmatched)
    beyond = int(valid[last:].sum())
    if beyond > max(max_unmatched, rows // 2):
        raise InputError(
            f"{path}: {beyond} valid rows beyond the last image, frame {last} of {name}; they do "
            "not belong together: unpack all of its images, or raise max_unmatched"
        )
    surplus = {"surplus_images": len(frames) - len(kept)}
    return Video(name, kept, rows, labels, _nonzero({**skipped, **surplus}))


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
    task: str,
    places: dict[str, list[pathlib.Path]],
    roots: list[pathlib.Path],
    max_unmatched: int,
) -> tuple[Split, dict[str, str]]:
    """The test videos, in the example's order or, without one, the list's."""
    listed: dict[str, int] = {}
    for number, line in enumerate(_lines(test_list) if test_list else [], start=1):
        name = line.strip()
        if name in listed:
            raise InputError(
                f"{test_list}: line {number}: {name!r} is on line {listed[name]} too; remove one"
            )
        if name:
            listed[name] = number
    if test_list and not listed:
        raise InputError(f"{test_list}: names no video; expected one a line")
    template = read_example(test_example, task) if test_example else {}
    if test_list and test_example and set(template) != set(listed):
        missing = [name for name in listed if name not in template]
        extra = [name for name in template if name not in listed]
        raise InputError(
            f"{test_list}: line {listed[missing[0]]}: {missing[0]} is not in {test_example}"
            if missing
            else f"{test_example}: video {extra[0]} is not in {test_list}; the two must name the "
            "same videos"
        )
    videos, owners = [], {}
    for name in template or listed:
        where = f"{test_list}: line {listed[name]}: " if test_list else f"{test_example}: "
        frames, skipped = _frames(name, places, roots, where)
        rows = template.get(name, frames[-1][0])
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
