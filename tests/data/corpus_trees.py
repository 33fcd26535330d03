"""Small corpora on disk, in their published layouts, for the tests of the readers."""

import pathlib

import cv2
import numpy as np
import pytest
import simplejpeg

from abaw_jax.data import records
from abaw_jax.data.corpora import affwild2
from abaw_jax.data.records import Split, Video
from abaw_jax.errors import InputError
from abaw_jax.tracks import EXPR

HEADER = ",".join(EXPR.classes)


def jpeg(value: int = 0, size: int = 16) -> bytes:
    """A small JPEG whose pixels depend on `value`."""
    rng = np.random.default_rng(value)
    return simplejpeg.encode_jpeg(rng.integers(0, 256, (size, size, 3), np.uint8), quality=90)


def png(value: int = 0, size: int = 16) -> bytes:
    rng = np.random.default_rng(value)
    return cv2.imencode(".png", rng.integers(0, 256, (size, size, 3), np.uint8))[1].tobytes()


def write(path: pathlib.Path, content: bytes | str) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, str):
        path.write_text(content, encoding="utf-8")
    else:
        path.write_bytes(content)
    return path


class AffWild2:
    """An Aff-Wild2 tree in `root`; `arguments` are those of the reader."""

    def __init__(self, root: pathlib.Path, folder: str = "EXPR_Recognition_Challenge"):
        self.root = root
        self.roots = (root / "cropped_aligned", root / "cropped_aligned_new_50_vids")
        for path in self.roots:
            path.mkdir(parents=True)
        self.annotations = root / "6th ABAW Annotations"
        self.folder = self.annotations / folder
        self.test_list = root / "names" / "Expression_Recognition_Challenge_test_set_release.txt"
        self.example = root / "examples" / "CVPR_6th_ABAW_Expr_test_set_example.txt"

    @property
    def arguments(self) -> dict:
        found = {
            "image_roots": self.roots,
            "annotations": self.annotations,
            "test_list": self.test_list if self.test_list.exists() else "",
            "test_example": self.example if self.example.exists() else "",
        }
        return found

    @property
    def texts(self) -> dict:
        """`arguments` as a config gives them."""
        roots = tuple(map(str, self.roots))
        return {k: roots if k == "image_roots" else str(v) for k, v in self.arguments.items()}

    def images(self, video: str, frames, which: int = 0) -> list[pathlib.Path]:
        folder = self.roots[which] / video
        folder.mkdir(exist_ok=True)
        return [write(folder / f"{n:05d}.jpg", jpeg(n)) for n in frames]

    def labels(self, split: str, video: str, rows, header: str = HEADER) -> pathlib.Path:
        return write(
            self.folder / f"{split}_Set" / f"{video}.txt", "\n".join([header, *map(str, rows)])
        )

    def test(self, rows: dict[str, int], example: bool = True) -> None:
        write(self.test_list, "".join(f"{name}\n" for name in rows))
        if example:
            lines = [
                f"{v}/{n:05d}.jpg,0\n" for v, count in rows.items() for n in range(1, count + 1)
            ]
            write(self.example, "".join([f"image_location,{HEADER}\n", *lines]))


def small_affwild2(root: pathlib.Path) -> AffWild2:
    """Two training videos, one validation and one test video, with gaps, +1 rows and the like."""
    tree = AffWild2(root)
    tree.images("video10_1_left", [3, 4, 6])
    tree.labels("Train", "video10_1_left", [0, 1, 2, -1, 4, 5, 6])
    tree.images("28-30-1280x720-4", [1, 2, 3], which=1)
    tree.labels("Train", "28-30-1280x720-4", [7, 7, -1, 7])
    tree.images("9_right", [1, 2, 3, 4])
    tree.labels("Validation", "9_right", [3, 3, 3, 3, 3])
    tree.images("video45_1", [2, 5])
    tree.test({"video45_1": 7})
    return tree


def make(tree, folder, **options):
    splits = affwild2.read(**tree.arguments)
    return records.write_corpus(folder, "affwild2", splits, progress=False, **options)


def contents(folder):
    return {p.name: p.read_bytes() for p in sorted(pathlib.Path(folder).iterdir())}


def image_split(images, name="train"):
    return Split(name, [Video("", list(enumerate(images, start=1)), len(images))])


def one_line(caught, *words):
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert str(word) in message, message


def fill(root: pathlib.Path, *paths: str) -> None:
    """Small images, no two alike."""
    for i, path in enumerate(paths):
        write(root / path, jpeg(i))


def refused(call, *words) -> None:
    """`call` raises InputError in one line that has all of `words`."""
    with pytest.raises(InputError) as caught:
        call()
    one_line(caught, *words)
