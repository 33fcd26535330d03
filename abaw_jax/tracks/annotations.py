"""The organisers' annotation files, read the same way by the corpus reader and by the scorer.

Of tracks whose labels are of frames, a file `<video>.txt` has one header line, which is skipped
without being parsed (for EXPR it holds 8 names above rows of one integer), then one row per frame:
row i, counted from 1, belongs to image i. The organisers count one row more than there are frames;
rows without an image are kept here.

Of tracks whose labels are of clips, one csv table a split: a header with the submission's names in
any case and order, then one row per clip, which is named by its number.
"""

import csv
import os
import pathlib
import re
from collections.abc import Sequence

import numpy as np

from abaw_jax.errors import InputError
from abaw_jax.tracks.plain_rows import is_label, parse_plain_rows
from abaw_jax.tracks.track import Track


def read_annotation(path: str | os.PathLike, track: Track) -> np.ndarray:
    """Label rows of one video: (rows, W) of the track's label type, invalid numbers kept as found.

    Row i (0-based) belongs to frame i + 1. Line ends may be of any system; blank lines are allowed
    only at the end. Raises InputError as `file:line` for a row of another width, a number that does
    not parse, or one that is neither in the track's range nor its mark for invalid.
    """
    data = _read_bytes(path)
    if (rows := parse_plain_rows(data, track)) is not None:
        return rows
    # A stray byte in the header is nobody's concern, one below is a row that does not parse.
    lines = _split_lines(data.decode("utf-8-sig", errors="replace"))[1:]
    if not lines:
        raise InputError(f"{path}: has no row below its header line; copy the annotations again")
    return parse_rows(lines, track, path, first_line=2, allow_invalid=True)


def read_lines(path: str | os.PathLike) -> list[str]:
    """The lines of a text file in UTF-8 without the blank ones at its end; at least one.

    Line ends may be of any system, and a byte order mark is dropped. Raises InputError if the file
    cannot be read or is not in UTF-8.
    """
    try:
        return _split_lines(_read_bytes(path).decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not text in UTF-8 ({error.reason})") from error


def split_cells(line: str, where: str) -> list[str]:
    """The cells of one line of a csv table, with quotes or without; of an empty line none.

    Line by line, so that a quote that is never closed spoils its own line alone. Raises InputError,
    beginning with `where` (file:line), for that and for a cell beyond csv's 131,072 characters.
    """
    try:
        return next(csv.reader([line], skipinitialspace=True, strict=True), [])
    except csv.Error as error:
        raise InputError(
            f"{where}: {_shown(line)} is no line of a csv table ({error}); mend its quotes"
        ) from error


def _read_bytes(path: str | os.PathLike) -> bytes:
    try:
        return pathlib.Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def _split_lines(text: str) -> list[str]:
    return text.replace("\r\n", "\n").replace("\r", "\n").rstrip().split("\n")


def parse_rows(
    lines: list[str],
    track: Track,
    path: str | os.PathLike,
    *,
    first_line: int,
    allow_invalid: bool,
) -> np.ndarray:
    """Comma separated label rows -> (len(lines), W); see `read_annotation` for the errors.

    `first_line`: line number of lines[0] in the file `path`. `allow_invalid`: whether the track's
    mark for unlabelled rows may stand here (in annotations, not in predictions).
    """
    width = track.label_width
    number = int if track.label_type == "int32" else float
    for index, line in enumerate(lines):
        if line.count(",") != width - 1:
            raise InputError(
                f"{path}:{first_line + index}: {_shown(line)} has {line.count(',') + 1} columns; "
                f"expected {width} for {track.name}"
            )
    tokens = ",".join(lines).split(",")
    try:
        values = np.array(list(map(number, tokens)), dtype=np.float64)
    except (ValueError, OverflowError):
        values = np.array([_number(token, number) for token in tokens])
    values = values.reshape(len(lines), width)
    good = is_label(values, track, allow_invalid=allow_invalid)
    if not good.all():
        bad = int(np.argmin(good.all(axis=1)))
        low, high = track.label_range
        unlabelled = f", or {track.invalid:g} for no label" if allow_invalid else ""
        kind = "integers" if number is int else "numbers"
        raise InputError(
            f"{path}:{first_line + bad}: {_shown(lines[bad])}; {track.name} rows hold {kind} "
            f"from {low:g} to {high:g}{unlabelled}"
        )
    return values.astype(track.label_type)


# Split -> the name of its table, for tracks whose labels are of clips.
CLIP_TABLES = {"Train_Set": "train_split.csv", "Validation_Set": "valid_split.csv"}


def read_labels(
    annotations: str | os.PathLike, track: Track, split: str
) -> tuple[dict[str, np.ndarray], pathlib.Path]:
    """All labels of one split: (video or clip -> (rows, W), the folder or table they were read of).

    `annotations`: as in `find_split`; for tracks whose labels are of clips the table, or the folder
    that holds it. Raises InputError as the functions that it calls.
    """
    if not track.per_clip:
        folder = find_split(annotations, track, split)
        return {v: read_annotation(f, track) for v, f in annotation_files(folder).items()}, folder
    path = pathlib.Path(annotations)
    if path.is_dir():
        path = path / CLIP_TABLES.get(split, split)
    return read_clip_table(path, track), path


def read_clip_table(path: str | os.PathLike, track: Track) -> dict[str, np.ndarray]:
    """A csv table of clips -> clip name (`clip_name`) -> its label row (1, W), in the file's order.

    Columns are found by their names, in any case; others are passed over. Raises InputError as
    file:line for a header that lacks one, a row of another width, a clip that is no number or
    stands twice, and for numbers as `read_annotation` does.
    """
    clips = _clip_cells(path, track, track.classes)
    rows = [",".join(cells) for cells in clips.values()]
    values = parse_rows(rows, track, path, first_line=2, allow_invalid=True)
    return {clip: row[None] for clip, row in zip(clips, values, strict=True)}


def read_clip_names(path: str | os.PathLike, track: Track) -> list[str]:
    """The clips that a csv table names, in its order; it may have labels, which are not read.

    Raises InputError as `read_clip_table`.
    """
    return list(_clip_cells(path, track, ()))


def _clip_cells(
    path: str | os.PathLike, track: Track, classes: Sequence[str]
) -> dict[str, list[str]]:
    """Clip name -> its cells in the columns of `classes`."""
    header, *lines = (
        split_cells(line, f"{path}:{number}") for number, line in enumerate(read_lines(path), 1)
    )
    found = [name.strip().lower() for name in header]
    wanted = (track.location_column, *classes)
    for name in wanted:
        if (count := found.count(name.lower())) != 1:
            raise InputError(
                f"{path}:1: has {count} columns {name!r}; expected one each of {','.join(wanted)}"
            )
    columns = [found.index(name.lower()) for name in wanted]
    if not lines:
        raise InputError(f"{path}: has no row below its header line; copy the table again")
    numbers, clips = {}, {}
    for number, cells in enumerate(lines, start=2):
        if len(cells) != len(header):
            raise InputError(
                f"{path}:{number}: has {len(cells)} columns; its header has {len(header)}"
            )
        clip = clip_name(cells[columns[0]])
        if clip is None or clip in clips:
            what = "is no clip's number" if clip is None else f"stands in line {numbers[clip]} too"
            raise InputError(f"{path}:{number}: {cells[columns[0]]!r} {what}; mend the table")
        numbers[clip] = number
        clips[clip] = [cells[column] for column in columns[1:]]
    return clips


def clip_name(text: str) -> str | None:
    """A clip's name: its number in at least five digits, however it is written; None for others."""
    text = text.strip()
    return text.zfill(5) if text.isascii() and text.isdigit() else None


def _shown(line: str) -> str:
    """A row as an error message quotes it."""
    return repr(line.strip()[:80]) if line.strip() else "an empty row"


def _number(token: str, number: type) -> float:
    """The token's value, NaN where it is not a number of that type."""
    try:
        return float(number(token))
    except (ValueError, OverflowError):
        return float("nan")


def annotation_files(folder: str | os.PathLike) -> dict[str, pathlib.Path]:
    """Video name -> its `<video>.txt`, sorted by name; hidden files (`._x`, `.DS_Store`) are left.

    Raises InputError if there is none.
    """
    folder = pathlib.Path(folder)
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror})") from error
    files = {
        name.removesuffix(".txt"): folder / name
        for name in names
        if name.endswith(".txt") and not name.startswith(".")
    }
    if not files:
        raise InputError(f"{folder}: holds no <video>.txt; name the folder of annotation files")
    return files


def split_folder(annotations: str | os.PathLike, track: Track, split: str) -> pathlib.Path | None:
    """The folder of one split ('Train_Set', 'Validation_Set') of a track, None if there is none.

    `annotations` is the split's parent (`EXPR_Recognition_Challenge`) or the folder above
    (`6th ABAW Annotations`). The challenge's folder is known by its first part alone, as its name
    differs between the years (`EXPR_Recognition_Challenge`, `EXPR_Classification_Challenge`,
    `EXPR_Set`). Raises InputError if several fit.
    """
    root = pathlib.Path(annotations)
    try:
        names = sorted(os.listdir(root))
    except OSError as error:
        raise InputError(
            f"{root}: cannot be read ({error.strerror}); name the folder of {track.name} "
            "annotations"
        ) from error
    if (root / split).is_dir():
        return root / split
    # 'VA' must not match 'Validation_Set', so the prefix ends at an underscore or with the name.
    prefix = re.compile(rf"{re.escape(track.folder_prefix)}(_|$)", re.IGNORECASE)
    found = [name for name in names if prefix.match(name) and (root / name / split).is_dir()]
    if len(found) > 1:
        raise InputError(
            f"{root}: {', '.join(found)} all hold {track.name} {split}; name one of them"
        )
    return root / found[0] / split if found else None


def find_split(annotations: str | os.PathLike, track: Track, split: str) -> pathlib.Path:
    """`split_folder`, or `annotations` itself where it holds the annotation files.

    Raises InputError if no folder fits, or if several do.
    """
    root = pathlib.Path(annotations)
    if found := split_folder(root, track, split):
        return found
    # Last, as a note or a list of videos may lie beside the folders.
    if any(path.suffix == ".txt" and not path.name.startswith(".") for path in root.iterdir()):
        return root
    raise InputError(
        f"{root}: holds neither {split}, nor {track.folder_prefix}_*/{split}, nor <video>.txt "
        f"files; name the folder of {track.name} annotations"
    )
