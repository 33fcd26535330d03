"""Single images of basic expressions, in the layout of RAF-DB's basic set.

Beside the compounds of stills.py, as RAF-DB's two sets are. Everybody is in one image alone.
"""

import pathlib
from dataclasses import dataclass

from abaw_jax.data.demo import expressions as ex
from abaw_jax.data.demo import settings
from abaw_jax.data.demo.footage import new_folder, put
from abaw_jax.data.demo.stills import take
from abaw_jax.data.demo.streams import stream

ROOT = "rafdb"
LIST = "list_patition_label.txt"  # sic
# Labels 1 to 7, as published.
CLASSES = (ex.SURPRISE, ex.FEAR, ex.DISGUST, ex.HAPPINESS, ex.SADNESS, ex.ANGER, ex.NEUTRAL)


@dataclass(frozen=True)
class Singles:
    """The whole set: how many images of each class its two splits have."""

    train: int
    test: int


def plan(size: str, seed: int, corpus: str) -> list[Singles]:
    """One part; `corpus` can be ce alone."""
    del seed, corpus
    return [Singles(*settings.STILLS[size])]


def is_whole(out: pathlib.Path, singles: Singles) -> bool:
    """The folder is renamed into place when all is in it."""
    del singles
    return (out / ROOT).is_dir()


def write(job: tuple[str, int, Singles]) -> str:
    """Draw and write the images, of each class in turn, and the list of their labels."""
    out, seed, singles = pathlib.Path(job[0]), job[1], job[2]
    folder, rows = new_folder(out, ROOT), []
    (folder / "aligned").mkdir()
    for split, count in (("train", singles.train), ("test", singles.test)):
        for number in range(1, count * len(CLASSES) + 1):
            label, name = (number - 1) % len(CLASSES) + 1, f"{split}_{number:05d}"
            image = take(stream(seed, "single", split, number), (CLASSES[label - 1],))
            (folder / "aligned" / f"{name}_aligned.jpg").write_bytes(image)
            rows.append(f"{name}.jpg {label}\n")
    (folder / LIST).write_text("".join(rows))
    put(out, ROOT, out / ROOT)
    return ROOT


def finish(out: pathlib.Path, parts: list[Singles]) -> dict:
    """What there is: images of each split."""
    (whole,) = parts
    counts = {"train": whole.train, "test": whole.test}
    return {"singles": {split: count * len(CLASSES) for split, count in counts.items()}}
