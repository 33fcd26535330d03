"""Single images of compound expressions, in the layout of RAF-DB's compound set.

C-EXPR-DB has no labels: it is on such images that one trains. Everybody is in one image alone, and
nobody in the videos.
"""

import os
import pathlib
from dataclasses import dataclass

import numpy as np

from abaw_jax.data.demo import settings
from abaw_jax.data.demo.camera import film
from abaw_jax.data.demo.expressions import COMPOUNDS, MORE_COMPOUNDS
from abaw_jax.data.demo.face import draw_face
from abaw_jax.data.demo.footage import new_folder, put
from abaw_jax.data.demo.people import draw_person, draw_scene
from abaw_jax.data.demo.story import blend, move_head, show, vary
from abaw_jax.data.demo.streams import stream

ROOT = "rafdb_compound"
CLASSES = COMPOUNDS | MORE_COMPOUNDS


@dataclass(frozen=True)
class Stills:
    """The images of one class in one split."""

    split: str  # train or test: validation here, as RAF-DB has it
    name: str  # of the class
    count: int

    @property
    def folder(self) -> str:
        """`Sadly Angry`."""
        return self.name.replace("_", " ")


def plan(size: str, seed: int, corpus: str) -> list[Stills]:
    """A part for each class of each split; `corpus` can be ce alone."""
    del seed, corpus
    counts = zip(("train", "test"), settings.STILLS[size], strict=True)
    return [Stills(split, name, count) for split, count in counts for name in CLASSES]


def is_whole(out: pathlib.Path, stills: Stills) -> bool:
    """Folders are renamed into place when all images are in them."""
    return (out / ROOT / stills.split / stills.folder).is_dir()


def write(job: tuple[str, int, Stills]) -> str:
    """Draw and write the images of one part."""
    out, seed, stills = pathlib.Path(job[0]), job[1], job[2]
    part = f"{stills.split}-{stills.name}"
    folder = new_folder(out, part)
    for number in range(1, stills.count + 1):
        rng = stream(seed, "still", stills.split, stills.name, number)
        image = take(rng, CLASSES[stills.name])
        (folder / f"{stills.split}_{number:05d}_aligned.jpg").write_bytes(image)
    put(out, part, out / ROOT / stills.split / stills.folder)
    return part


def take(rng: np.random.Generator, parts: tuple[int, ...]) -> bytes:
    """One person who shows an expression, or a compound of two, once: a JPEG."""
    person, scene = draw_person(rng), draw_scene(rng)
    units = vary(rng, blend(rng, parts)) * rng.uniform(*settings.STILL_STRENGTH) * person.gain
    silent, still = np.zeros((0, 3), np.float32), np.zeros(1)
    shown = show(rng, person, np.clip(units, 0, 1)[None], silent, idle=np.zeros(1, bool))[0]
    pose = move_head(rng, closer=still, sunk=still)[0]
    return film(rng, draw_face(person, scene, shown, pose), scene, 0.0)[1]


def finish(out: pathlib.Path, parts: list[Stills]) -> dict:
    """What there is: images of each split."""
    counts: dict[str, int] = {}
    for part in parts:
        found = len(os.listdir(out / ROOT / part.split / part.folder))
        counts[part.split] = counts.get(part.split, 0) + found
    return {"stills": counts}
