"""What stands between a face and the file: hands and things, focus, pixels, sensor, compression."""

import functools

import cv2
import numpy as np

from abaw_jax.data.demo import settings
from abaw_jax.data.demo.people import Person, Scene
from abaw_jax.data.demo.streams import stream, stretches

NOISE_FIELDS = 12  # drawn once, then shifted: fresh Gaussian noise would cost more than the face
FIXED = 4


@functools.cache
def _noise_fields() -> np.ndarray:
    """Unit noise with a little grain size: float32 (NOISE_FIELDS, 2 CROP, 2 CROP, 3)."""
    side = 2 * settings.CROP
    fields = stream(0, "sensor").standard_normal((NOISE_FIELDS, side, side, 3), np.float32)
    return np.stack([0.75 * f + 1.1 * cv2.blur(f, (2, 2)) for f in fields])


def draw_hidden(rng: np.random.Generator, frames: int) -> list:
    """What covers the face in each frame: a list of None or a thing's properties (dict)."""
    marks = stretches(rng, frames, settings.OCCLUSION_SHARE, settings.OCCLUSION_LENGTH)
    things = {0: None}
    for mark in np.unique(marks[marks > 0]):
        kind = ("hand", "cup", "bar")[rng.choice(3, p=(0.55, 0.25, 0.2))]
        place = rng.choice(3, p=(0.5, 0.3, 0.2))  # mouth, one eye, both brows
        side = rng.choice((-1, 1))
        centre = ((56 + 6 * side, 84), (56 + 20 * side, 46), (56 + 4 * side, 34))[place]
        things[int(mark)] = {
            "kind": kind,
            "centre": np.array(centre) + rng.normal(0, 5, 2),
            "angle": side * rng.uniform(0.2, 1.1),
            "size": rng.uniform(0.85, 1.25),
            "drift": rng.normal(0, 0.5, 2),
            "colour": tuple(int(v) for v in rng.integers(20, 230, 3)),
        }
    return [things[int(mark)] for mark in marks]


def draw_focus(rng: np.random.Generator, frames: int) -> np.ndarray:
    """Blur beyond the scene's, pixels: float32 (frames,)."""
    lost = stretches(rng, frames, settings.DEFOCUS_SHARE, (4, 16)) > 0
    return np.where(lost, settings.DEFOCUS * rng.uniform(0.6, 1.3, frames), 0).astype(np.float32)


def cover(image: np.ndarray, thing: dict | None, person: Person, age: int) -> np.ndarray:
    """Draw a thing over a crop, in place: uint8 (112, 112, 3)."""
    if thing is None:
        return image
    cos, sin = np.cos(thing["angle"]), np.sin(thing["angle"])
    turn = np.array([[cos, sin], [-sin, cos]]) * thing["size"]
    at = thing["centre"] + thing["drift"] * age

    def fill(points: list, colour: tuple) -> None:
        placed = np.rint((np.array(points) @ turn + at) * (1 << FIXED)).astype(np.int32)
        cv2.fillPoly(image, [placed], colour, cv2.LINE_AA, FIXED)

    if thing["kind"] == "hand":
        skin = np.array(person.skin[::-1], float) * 0.92
        for finger in range(4):
            x = -15 + 9.5 * finger
            tip = -16 - 3 * (1.5 - abs(finger - 1.5))
            colour = tuple(float(v) for v in skin * (0.93 + 0.04 * (finger % 2)))
            fill([(x - 4, 8), (x - 4, tip + 3), (x - 2, tip), (x + 2, tip), (x + 4, tip + 3),
                  (x + 4, 8)], colour)  # fmt: skip
        fill([(-19, 5), (18, 5), (21, 24), (14, 70), (-14, 70), (-22, 24)], tuple(skin.tolist()))
    elif thing["kind"] == "cup":
        fill([(-14, -16), (14, -16), (11, 18), (-11, 18)], thing["colour"])
        fill([(-14, -16), (14, -16), (13.5, -12), (-13.5, -12)], (235, 235, 235))
    else:
        fill([(-80, -7), (80, -7), (80, 7), (-80, 7)], thing["colour"])
    return image


def film(
    rng: np.random.Generator, image: np.ndarray, scene: Scene, defocus: float
) -> tuple[np.ndarray, bytes]:
    """The crop as filmed, uint8 (112, 112, 3), and as the JPEG bytes of the file."""
    if scene.side < settings.CROP:
        size = (scene.side, scene.side)
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    scale = scene.side / settings.CROP
    image = cv2.GaussianBlur(image, (0, 0), max(0.2, (scene.blur + defocus) * scale))
    x, y = rng.integers(0, settings.CROP, 2)
    field = _noise_fields()[rng.integers(NOISE_FIELDS)]
    grain = field[y : y + image.shape[0], x : x + image.shape[1]]
    image = np.clip(image + scene.noise * grain, 0, 255).astype(np.uint8)
    if scene.side < settings.CROP:
        image = cv2.resize(image, (settings.CROP, settings.CROP), interpolation=cv2.INTER_LINEAR)
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, scene.quality])
    if not done:
        raise RuntimeError("OpenCV could not encode a crop as JPEG")
    return image, data.tobytes()
