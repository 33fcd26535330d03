"""A person before the camera: from a story's frames to the crops that are found and filed."""

import os
import pathlib
import shutil
from collections.abc import Iterator

import numpy as np

from abaw_jax.data.demo import settings
from abaw_jax.data.demo.camera import cover, draw_focus, draw_hidden, film
from abaw_jax.data.demo.face import draw_face
from abaw_jax.data.demo.people import Person, Scene
from abaw_jax.data.demo.story import Story
from abaw_jax.data.demo.streams import stretches

PARTS = ".demo_corpus_parts"  # unfinished crops


def shoot(
    rng: np.random.Generator, person: Person, scene: Scene, story: Story, late: int = 0
) -> Iterator[tuple[np.ndarray, bytes | None]]:
    """Each frame's crop, uint8 (112, 112, 3), and its JPEG bytes; None where no face is found.

    late: frames before the first crop.
    """
    frames = len(story.shown)
    things, focus = draw_hidden(rng, frames), draw_focus(rng, frames)
    missed = _missed(rng, frames, late)
    age = 0
    for i in range(frames):
        crop = draw_face(
            person, scene, story.shown[i], story.pose[i], story.gaze[i], story.blink[i]
        )
        age = age + 1 if i and things[i] is things[i - 1] else 0
        crop = cover(crop, things[i], person, age)
        crop, data = film(rng, crop, scene, float(focus[i]))
        yield crop, None if missed[i] else data


def _missed(rng: np.random.Generator, frames: int, late: int) -> np.ndarray:
    """Frames without a crop: bool (frames,). Long gaps, single ones, and a late start."""
    share = settings.GAP_SHARE
    missed = stretches(rng, frames, 0.7 * share, (2, 12)) > 0
    missed |= rng.random(frames) < 0.3 * share
    missed[:late] = True
    missed[late] = False
    return missed


def new_folder(out: pathlib.Path, name: str) -> pathlib.Path:
    """An empty folder for crops, out of the readers' sight."""
    folder = out / PARTS / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def put(out: pathlib.Path, name: str, place: pathlib.Path) -> None:
    """Rename a folder that is whole into its place."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if not place.exists():
        os.rename(out / PARTS / name, place)
