"""FER2013: 35,887 grey faces of 48 x 48, as the published csv or as folders per class.

Source: Goodfellow et al., "Challenges in representation learning", 2013. csv columns `emotion`,
`pixels`, `Usage`; emotion 0 Angry 1 Disgust 2 Fear 3 Happy 4 Sad 5 Surprise 6 Neutral.
"""

import csv
import os
import pathlib
from collections.abc import Iterator

import cv2
import numpy as np

from abaw_jax.data.corpora import image_folder
from abaw_jax.data.records import Split
from abaw_jax.errors import InputError

CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
USAGES = {"Training": "train", "PublicTest": "validation", "PrivateTest": "test"}
SIZE = 48


def read(path: str | os.PathLike) -> list[Split]:
    """Read FER2013 from the csv, a folder holding it, or folders `<split>/<class>/*.jpg`.

    The csv's pixels are encoded once, as PNG: nothing is lost. Training is the training split,
    PublicTest validation, PrivateTest test.

    Raises:
      InputError: no such file, a row with wrong columns, classes, pixels or usage (with its line).
    """
    if not os.fspath(path):
        raise InputError("path: is empty; name fer2013.csv or the folder of class folders")
    path = pathlib.Path(path)
    if path.is_dir():
        tables = sorted(p for p in path.glob("*.csv") if not p.name.startswith("."))
        if not tables:
            return image_folder.read(path, classes=True)
        named = [p for p in tables if p.name == "fer2013.csv"]
        if not named and len(tables) > 1:
            raise InputError(f"{path}: holds {len(tables)} csv files; name the one to read")
        path = (named or tables)[0]
    if not path.is_file():
        raise InputError(f"{path}: does not exist; expected fer2013.csv or a folder")
    if path.suffix.lower() != ".csv":
        raise InputError(f"{path}: is no csv file; unpack archives and name the folder or the csv")
    return _read_csv(path)


def _read_csv(path: pathlib.Path) -> list[Split]:
    images = {name: [] for name in USAGES.values()}
    for _, split, image, label in read_rows(path):
        images[split].append((image, label))
    splits = [image_folder.image_set(name, rows, {}) for name, rows in images.items() if rows]
    if not splits:
        raise InputError(f"{path}: holds no rows; expected one image a row")
    return splits


def read_rows(path: pathlib.Path) -> Iterator[tuple[str, str, bytes, int]]:
    """Where it stands, split, image and label of each row of the csv. InputError as `read`."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file)
            header = [name.strip().lower() for name in next(rows, [])]
            missing = [n for n in ("emotion", "pixels", "usage") if n not in header]
            if missing:
                raise InputError(
                    f"{path}:1: no column {missing[0]!r}; expected emotion,pixels,Usage"
                )
            at = [header.index(name) for name in ("emotion", "pixels", "usage")]
            for row in rows:
                where = f"{path}:{rows.line_num}"
                if len(row) != len(header):
                    raise InputError(f"{where}: {len(row)} columns, expected {len(header)}")
                emotion, pixels, usage = (row[i].strip() for i in at)
                if usage not in USAGES:
                    raise InputError(
                        f"{where}: Usage {usage!r}; expected one of {', '.join(USAGES)}"
                    )
                yield where, USAGES[usage], _encode(pixels, where), _label(emotion, where)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as csv ({error})") from error


def _label(emotion: str, where: str) -> int:
    if emotion not in ("0", "1", "2", "3", "4", "5", "6"):
        raise InputError(f"{where}: emotion {emotion!r}; expected an integer from 0 to 6")
    return image_folder.EXPRESSIONS[CLASSES[int(emotion)]]


def _encode(pixels: str, where: str) -> bytes:
    try:
        values = np.array(pixels.split(), np.int64)
    except ValueError as error:
        raise InputError(f"{where}: pixels: {error}; expected integers 0..255") from error
    if values.size != SIZE * SIZE or values.min() < 0 or values.max() > 255:
        raise InputError(
            f"{where}: {values.size} pixels from {values.min(initial=0)} to "
            f"{values.max(initial=0)}; expected {SIZE * SIZE} from 0 to 255"
        )
    done, data = cv2.imencode(".png", values.reshape(SIZE, SIZE).astype(np.uint8))
    if not done:
        raise RuntimeError(f"{where}: OpenCV could not write a PNG")
    return data.tobytes()
