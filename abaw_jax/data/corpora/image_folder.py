"""Plain folders of images, with or without a folder per class."""

import difflib
import os
import pathlib
import re
from collections.abc import Iterable, Sequence

import numpy as np

from abaw_jax.data.images import Image
from abaw_jax.data.records import Split, Video
from abaw_jax.errors import InputError
from abaw_jax.tracks import EXPR, Track

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png")

ALIASES = {
    "neutrality": "Neutral",
    "angry": "Anger",
    "disgusted": "Disgust",
    "fearful": "Fear",
    "happy": "Happiness",
    "sad": "Sadness",
    "surprised": "Surprise",
}
# The classes in the challenge's order, by every name that data sets give them, in small letters.
EXPRESSIONS = {name.lower(): label for label, name in enumerate(EXPR.classes)}
EXPRESSIONS |= {alias: EXPR.classes.index(name) for alias, name in ALIASES.items()}

SPLITS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "publictest": "validation",
    "test": "test",
    "privatetest": "test",
}


def read(root: str | os.PathLike, classes: bool = False) -> list[Split]:
    """Read a folder of images; folders inside it may be nested to any depth.

    Where all folders in `root` are named as splits (train, val, validation, test, public_test,
    private_test, ...) each is that split; otherwise everything is the training split.

    Args:
      root: the folder.
      classes: whether the images lie in one folder per expression. Folder names are mapped to the
        challenge's classes by name ('angry', 'Anger' -> 1).

    Returns:
      Splits of one video named '', its images in the order of their paths.

    Raises:
      InputError: no such folder, no images, a class folder with an unknown name.
    """
    root = check_folder(root, "root")
    folders, _, _ = list_folder(root)
    named = {folder: SPLITS.get(_plain(folder.name)) for folder in folders}
    if folders and all(named.values()):
        chosen = list(named.items())
    else:
        chosen = [(root, "train")]
    splits = []
    for folder, name in chosen:
        twin = [f for f, n in chosen if n == name and f != folder]
        if twin:
            raise InputError(
                f"{folder}: and {twin[0].name} are both the {name} split; keep one of the two"
            )
        images, skipped = _read_classes(folder) if classes else walk(folder)
        if not classes:
            images = [(path, None) for path in images]
        if not images:
            raise InputError(
                f"{folder}: holds no images; expected files ending in {', '.join(IMAGE_ENDINGS)}"
                f"{' in one folder per class' if classes else ''}"
            )
        splits.append(image_set(name, images, skipped))
    return sorted(splits, key=lambda split: ("train", "validation", "test").index(split.name))


def image_set(
    name: str,
    images: Iterable[tuple[str | bytes, int | None]],
    skipped: dict[str, int],
    track: Track = EXPR,
) -> Split:
    """A split of unrelated images, each with its class of `track`; class None = unlabelled."""
    images = list(images)
    labels = {}
    if images and images[0][1] is not None:
        labels = {track.key: np.array([[label] for _, label in images], track.label_type)}
    return labelled_set(name, [image for image, _ in images], labels, skipped)


def labelled_set(
    name: str, images: Sequence[Image], labels: dict[str, np.ndarray], skipped: dict[str, int]
) -> Split:
    """A split of unrelated images: one video named '', numbered from 1; labels as in `Video`."""
    video = Video("", list(enumerate(images, start=1)), len(images), labels)
    return Split(name, [video], nonzero(skipped))


def first_of(candidates: Sequence[pathlib.Path], root: pathlib.Path, what: str) -> pathlib.Path:
    """The first of several paths below `root` that exists, a folder or a file.

    what: the folder to name instead, for the InputError that is raised where none does.
    """
    for path in candidates:
        if path.exists():
            return path
    named = " or ".join(str(path.relative_to(root)) for path in candidates)
    raise InputError(f"{root}: has no {named}; name the folder of {what}")


def below(folder: pathlib.Path, name: str, where: str) -> str:
    """The path of `name`, as a list gives it, in `folder`. InputError if it leads out of it."""
    if name.startswith("/") or ".." in name.split("/") or not name.strip():
        raise InputError(f"{where}: {name!r}; expected the path of an image below {folder}")
    return os.path.join(folder, name)


def count_missing(skipped: dict[str, int], limit: int, where: str, path: str) -> None:
    """Count an image that a list names and the disk lacks. InputError beyond `limit` of them."""
    add_counts(skipped, {"missing_images": 1})
    if skipped["missing_images"] > limit:
        raise InputError(
            f"{where}: has no image {path}, and {limit} rows before it have none; unpack all "
            "images, or raise max_missing"
        )


def check_folder(path: str | os.PathLike, what: str) -> pathlib.Path:
    """Return `path` if it is a folder. Raises InputError, saying which one is wanted."""
    if not os.fspath(path):
        raise InputError(f"{what}: is empty; name a folder")
    path = pathlib.Path(path)
    if not path.is_dir():
        state = "is a file" if path.exists() else "does not exist"
        raise InputError(f"{path}: {state}; expected the folder for {what}")
    return path


def list_folder(folder: pathlib.Path) -> tuple[list[pathlib.Path], list[str], dict[str, int]]:
    """List one folder: (folders, image paths, {reason: files passed over}), each by name."""
    folders, images, skipped = [], [], {}
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror})") from error
    for entry in entries:
        if entry.name.startswith("."):  # .DS_Store, ._00001.jpg
            skipped["hidden_files"] = skipped.get("hidden_files", 0) + 1
        elif entry.is_dir():
            folders.append(pathlib.Path(entry.path))
        elif entry.name.lower().endswith(IMAGE_ENDINGS):
            images.append(entry.path)
        else:
            skipped["other_files"] = skipped.get("other_files", 0) + 1
    return folders, images, skipped


def list_frames(folder: pathlib.Path) -> tuple[dict[int, str], dict[str, int]]:
    """List one video's folder: (path by the number that names it, ascending; as `list_folder`).

    Raises InputError for two images of one number.
    """
    folders, images, skipped = list_folder(folder)
    numbered: dict[int, str] = {}
    other = len(folders)
    for path in images:
        stem = os.path.splitext(os.path.basename(path))[0]
        if not (stem.isascii() and stem.isdecimal()):
            other += 1
        elif int(stem) in numbered:
            raise InputError(
                f"{path}: is frame {int(stem)}, as {numbered[int(stem)]} is; keep one of the two"
            )
        else:
            numbered[int(stem)] = path
    if other:
        skipped["other_files"] = skipped.get("other_files", 0) + other
    return dict(sorted(numbered.items())), skipped


def add_counts(total: dict[str, int], more: dict[str, int]) -> None:
    """Add counts of what was passed over into `total`."""
    for key, count in more.items():
        total[key] = total.get(key, 0) + count


def nonzero(counts: dict[str, int]) -> dict[str, int]:
    """The counts that are not 0."""
    return {key: count for key, count in counts.items() if count}


def walk(folder: pathlib.Path) -> tuple[list[str], dict[str, int]]:
    """All images below a folder, a folder's own before its folders', and what was passed over."""
    folders, images, skipped = list_folder(folder)
    for inner in folders:
        below, more = walk(inner)
        images += below
        add_counts(skipped, more)
    return images, skipped


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]", "", name.lower())


def _read_classes(folder: pathlib.Path) -> tuple[list[tuple[str, int]], dict[str, int]]:
    folders, loose, skipped = list_folder(folder)
    if loose:
        skipped["images_outside_classes"] = len(loose)
    images, seen = [], {}
    for inner in folders:
        name = _plain(inner.name)
        if name not in EXPRESSIONS:
            near = difflib.get_close_matches(name, EXPRESSIONS, 1)
            raise InputError(
                f"{inner}: {inner.name!r} is no expression"
                f"{f', nearest is {near[0]!r}' if near else ''}; expected folders named "
                f"{', '.join(EXPR.classes)}: rename it or move it away"
            )
        label = EXPRESSIONS[name]
        if label in seen:
            raise InputError(f"{inner}: and {seen[label]} are the same class; merge the two")
        seen[label] = inner.name
        below, more = walk(inner)
        images += [(path, label) for path in below]
        add_counts(skipped, more)
    return images, skipped
