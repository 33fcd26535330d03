"""FER+: ten votes on each image of FER2013, in the order of its csv.

Source: Barsoum, Zhang, Ferrer and Zhang, "Training deep networks for facial expression recognition
with crowd-sourced label distribution", ICMI 2016, and the authors' code.

The label is the majority vote as the authors take it: classes with a single vote do not count, and
a class needs more than half of the votes that do. Without one (a tie, say), or where it is
`unknown`, there is no label. Neither is there for contempt, which Aff-Wild2 does not know as a
class. An image of which the majority says that it shows no face (`NF`) is left out.
"""

import csv
import os
import pathlib
import re
from collections.abc import Iterator

from abaw_jax.data.corpora import fer2013, image_folder
from abaw_jax.data.images import Image
from abaw_jax.data.records import Split
from abaw_jax.errors import InputError
from abaw_jax.tracks import EXPR

VOTES = (
    "neutral",
    "happiness",
    "surprise",
    "sadness",
    "anger",
    "disgust",
    "fear",
    "contempt",
    "unknown",
    "nf",
)
COLUMNS = ("usage", "image name", *VOTES)
FILE = "fer2013new.csv"


def read(path: str | os.PathLike, votes: str | os.PathLike = "") -> list[Split]:
    """Read the votes, and the images from FER2013's csv or, by `Image name`, from files.

    Args:
      path: FER2013's csv; or a folder with `fer2013.csv` in it; or, without one, a folder with the
        images that `fer2013new.csv` names, at any depth (`FER2013Train/fer0000000.png`).
      votes: `fer2013new.csv`; '' where it lies in the folder of `path`.

    Raises:
      InputError: a file that is missing; a row of either csv that is not as published (with its
        line), or without its image; two csv of which row i is not of the same part in both.
    """
    if not os.fspath(path):
        raise InputError("path: is empty; name fer2013.csv or the folder of FER+'s images")
    path = pathlib.Path(path)
    folder = path if path.is_dir() else path.parent
    table = pathlib.Path(votes) if os.fspath(votes) else folder / FILE
    if not table.is_file():
        raise InputError(f"{table}: does not exist; name {FILE} in the key votes")
    path = path / "fer2013.csv" if (path / "fer2013.csv").is_file() else path
    rows, skipped = (_of_files if path.is_dir() else _of_csv)(path, table)
    parts = {name: [] for name in fer2013.USAGES.values()}
    for split, image, winner in rows:
        if winner == "nf":
            image_folder.add_counts(skipped, {"non_face_images": 1})
            continue
        if winner not in image_folder.EXPRESSIONS:
            image_folder.add_counts(skipped, {f"{winner or 'undecided'}_labels": 1})
        parts[split].append((image, image_folder.EXPRESSIONS.get(winner, EXPR.invalid)))
    chosen = {name: images for name, images in parts.items() if images}
    if not chosen:
        raise InputError(f"{table}: leaves no image; expected votes on one image a row")
    return [
        image_folder.image_set(name, images, skipped if i == 0 else {})
        for i, (name, images) in enumerate(chosen.items())
    ]


def majority(counts: list[int]) -> str:
    """The name in `VOTES` with more than half of the votes, '' if there is none."""
    counted = [count if count > 1 else 0 for count in counts]
    most = max(counted)
    return VOTES[counted.index(most)] if 2 * most > sum(counted) else ""


def _read_votes(table: pathlib.Path) -> Iterator[tuple[str, str, str, str]]:
    """Where it stands, split, image name (empty for some without a face) and winner of each row."""
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = [name.strip().lower() for name in next(reader, [])]
            missing = [name for name in COLUMNS if name not in header]
            if missing:
                raise InputError(f"{table}:1: no column {missing[0]!r}; copy it again")
            at = [header.index(name) for name in COLUMNS]
            for cells in reader:
                where = f"{table}:{reader.line_num}"
                if len(cells) != len(header):
                    raise InputError(f"{where}: {len(cells)} columns, expected {len(header)}")
                usage, name, *votes = (cells[i].strip() for i in at)
                if usage not in fer2013.USAGES:
                    raise InputError(f"{where}: Usage {usage!r}; expected one of FER2013's")
                if not all(re.fullmatch("[0-9]{1,4}", vote) for vote in votes):
                    raise InputError(f"{where}: votes {','.join(votes)}; expected counts")
                yield where, fer2013.USAGES[usage], name, majority([int(vote) for vote in votes])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table}: cannot be read as csv ({error})") from error


Rows = tuple[Iterator[tuple[str, Image, str]], dict[str, int]]


def _of_csv(path: pathlib.Path, table: pathlib.Path) -> Rows:
    """Split, image and winner of each row of both csv; nothing is passed over."""

    def rows():
        votes = _read_votes(table)
        for where, split, image, _ in fer2013.read_rows(path):
            line, voted, _, winner = next(votes, (table, None, "", ""))
            if voted != split:
                state = "ends before" if voted is None else f"is of {voted}, and not of {split} as"
                raise InputError(f"{line}: {state} {where}; expected the same rows in both")
            yield split, image, winner
        for line, *_ in votes:
            raise InputError(f"{line}: {path} ends before; expected the same rows in both")

    return rows(), {}


def _of_files(folder: pathlib.Path, table: pathlib.Path) -> Rows:
    paths, skipped = image_folder.walk(folder)
    found = {os.path.basename(path): path for path in paths}

    def rows():
        for where, split, name, winner in _read_votes(table):
            if winner != "nf" and name not in found:
                raise InputError(
                    f"{where}: {name!r} has no image below {folder}; restore it, or put "
                    "fer2013.csv there"
                )
            yield split, found.get(name, ""), winner

    if len(found) < len(paths):
        raise InputError(f"{folder}: two images have the same name; keep one version of each")
    return rows(), skipped
