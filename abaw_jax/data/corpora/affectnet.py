"""AffectNet: faces from the web with an expression, valence and arousal; two layouts.

Source: Mollahosseini, Hasani and Mahoor, "AffectNet: a database for facial expression, valence,
and arousal computing in the wild", IEEE Transactions on Affective Computing, 2019.

Of its eight expressions seven are Aff-Wild2's. Contempt is not: it is left without a label of EXPR,
as to take it for Other would be a guess at what Aff-Wild2's annotators meant by that. All eight are
labels of `tracks.affectnet`.
"""

import array
import csv
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from abaw_jax.data.corpora import image_folder
from abaw_jax.data.images import Crop, Image
from abaw_jax.data.records import Split
from abaw_jax.errors import InputError
from abaw_jax.tracks import EXPR, VA
from abaw_jax.tracks.affectnet import AFFECTNET

CLASSES = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger")  # 0..6
CONTEMPT, NON_FACE = 7, 10  # 8 is None, 9 Uncertain
UNRATED = -2  # valence and arousal of images that show none of the eight
COLUMNS = (
    "subdirectory_filepath",
    "face_x",
    "face_y",
    "face_width",
    "face_height",
    "facial_landmarks",
    "expression",
    "valence",
    "arousal",
)
LISTS = {"train": "training.csv", "validation": "validation.csv"}
REDUCED = {"train": "train_set", "validation": "val_set"}


def read(root: str | os.PathLike, max_missing: int = 1000) -> list[Split]:
    """Read the full version (two csv and `Manually_Annotated_Images`) or the reduced one.

    Of the full version each face is cut out by its box; an image without one is taken whole. Images
    said to show no face are left out. Each label stands or falls by itself: valence and arousal
    stay where the expression is none of Aff-Wild2's.

    Args:
      root: the folder that holds the csv files (or `Manually_Annotated_file_lists` with them) and
        `Manually_Annotated_Images`; or the one that holds `train_set` and `val_set`.
      max_missing: how many rows of a csv file may be without their image.

    Returns:
      Splits train and validation, those that are there, labelled with `expr`, `affectnet` and
      `va`.

    Raises:
      InputError: neither layout; a row that is not as published, or one too many without its image
        (with the line); an annotation that is missing or holds no such number.
    """
    root = image_folder.check_folder(root, "AffectNet's root")
    reduced = {s: root / folder for s, folder in REDUCED.items() if (root / folder).is_dir()}
    if reduced:
        return [_read_reduced(name, folder) for name, folder in reduced.items()]
    lists = {
        split: folder / file
        for split, file in LISTS.items()
        for folder in (root / "Manually_Annotated_file_lists", root)
        if (folder / file).is_file()
    }
    if not lists:
        raise InputError(
            f"{root}: holds neither {' nor '.join(LISTS.values())} nor train_set nor val_set; name "
            "the folder that AffectNet was unpacked in"
        )
    places = [root / d / "Manually_Annotated_Images" for d in ("", "Manually_Annotated")]
    images = image_folder.first_of(places, root, "AffectNet")
    return [_read_full(name, path, images, max_missing) for name, path in lists.items()]


class _Rows:
    """The images and labels of a split, packed as they come: there are 420,000."""

    def __init__(self):
        self.images: list[Image] = []
        self.classes, self.own = array.array("b"), array.array("b")
        self.ratings = array.array("f")
        self.skipped: dict[str, int] = {}

    def add(self, where: str, image: Image, texts: Sequence[str]) -> None:
        """Take an image with its expression, valence and arousal, as the text of numbers."""
        expression, *ratings = _numbers(where, texts)
        if expression == NON_FACE:
            image_folder.add_counts(self.skipped, {"non_face_images": 1})
            return
        if expression == CONTEMPT:
            image_folder.add_counts(self.skipped, {"contempt_labels": 1})
        known = expression < len(CLASSES)
        self.images.append(image)
        self.classes.append(
            image_folder.EXPRESSIONS[CLASSES[int(expression)]] if known else EXPR.invalid
        )
        self.own.append(int(expression) if expression <= CONTEMPT else AFFECTNET.invalid)
        self.ratings.extend([VA.invalid, VA.invalid] if UNRATED in ratings else ratings)

    def split(self, name: str, source: pathlib.Path) -> Split:
        if not self.images:
            raise InputError(f"{source}: gives no images; unpack AffectNet again")
        labels = {
            EXPR.key: np.array(self.classes, EXPR.label_type)[:, None],
            AFFECTNET.key: np.array(self.own, AFFECTNET.label_type)[:, None],
            VA.key: np.array(self.ratings, VA.label_type).reshape(-1, 2),
        }
        return image_folder.labelled_set(name, self.images, labels, self.skipped)


def _numbers(where: str, texts: Sequence[str]) -> list[float]:
    try:
        expression, *ratings = map(float, texts)
    except ValueError as error:
        raise InputError(f"{where}: {error}; expected expression, valence and arousal") from error
    if expression not in range(NON_FACE + 1):
        raise InputError(f"{where}: expression {texts[0]!r}; expected an integer from 0 to 10")
    for text, rating in zip(texts[1:], ratings, strict=True):
        if not (-1 <= rating <= 1 or rating == UNRATED):
            raise InputError(
                f"{where}: valence or arousal {text!r}; expected -1 to 1, or -2 for none"
            )
    return [expression, *ratings]


def _read_full(name: str, path: pathlib.Path, images: pathlib.Path, max_missing: int) -> Split:
    rows = _Rows()
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader, columns = csv.reader(file), list(COLUMNS)
            for cells in reader:
                where = f"{path}:{reader.line_num}"
                if reader.line_num == 1 and cells[:1] and _plain(cells[0]) == COLUMNS[0]:
                    columns = [_plain(cell) for cell in cells]
                    missing = [column for column in COLUMNS if column not in columns]
                    if missing:
                        raise InputError(f"{where}: no column {missing[0]!r}; copy it again")
                    continue
                if len(cells) != len(columns):
                    raise InputError(f"{where}: {len(cells)} columns, expected {len(columns)}")
                row = dict(zip(columns, cells, strict=True))
                image = image_folder.below(images, row[COLUMNS[0]].strip(), where)
                if os.path.isfile(image):
                    texts = [row[column].strip() for column in COLUMNS[-3:]]
                    rows.add(where, _face(image, row, where), texts)
                else:
                    image_folder.count_missing(rows.skipped, max_missing, where, image)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as csv ({error})") from error
    return rows.split(name, path)


def _plain(cell: str) -> str:
    return cell.strip().lower()


def _face(image: str, row: dict[str, str], where: str) -> Image:
    """The part of the image in the row's box, all of it where there is none: width below 0."""
    try:
        box = [int(float(row[column])) for column in COLUMNS[1:5]]
    except (ValueError, OverflowError) as error:
        raise InputError(f"{where}: {error}; expected face_x to face_height as pixels") from error
    _, _, width, height = box
    return Crop(image, *box) if width > 0 and height > 0 else image


def _read_reduced(name: str, folder: pathlib.Path) -> Split:
    rows = _Rows()
    images = image_folder.check_folder(folder / "images", "AffectNet's images")
    annotations = image_folder.check_folder(folder / "annotations", "AffectNet's annotations")
    folders, paths, rows.skipped = image_folder.list_folder(images)
    image_folder.add_counts(rows.skipped, {"other_files": len(folders)})
    for path in paths:
        stem = os.path.splitext(os.path.basename(path))[0]
        files = [annotations / f"{stem}_{kind}.npy" for kind in ("exp", "val", "aro")]
        rows.add(f"{annotations}/{stem}_*.npy", path, [_read_scalar(file) for file in files])
    return rows.split(name, images)


def _read_scalar(path: pathlib.Path) -> str:
    """The one number of a .npy file, which may hold it as text."""
    try:
        with open(path, "rb") as file:
            value = np.load(file, allow_pickle=False)
        if not isinstance(value, np.ndarray) or value.size != 1 or value.dtype.kind not in "iufUS":
            raise ValueError(f"{getattr(value, 'dtype', 'archive')}, not one number")
        return str(value.astype(np.str_).item()).strip()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); restore it") from error
    except Exception as error:  # np.load lets what zipfile and its parser of headers raise through
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: is no annotation ({reason}); restore it") from error
