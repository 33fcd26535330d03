"""People and the scenes they are filmed in."""

from dataclasses import dataclass

import numpy as np

from abaw_jax.data.demo import settings

AUS = (1, 2, 4, 6, 7, 10, 12, 15, 23, 24, 25, 26)  # Aff-Wild2's twelve, in its order

# What faces at rest may look like to a stranger: action unit -> intensity.
REST_BANK = (
    {4: 0.6},  # low brow: anger's
    {4: 0.35, 7: 0.5},  # narrow, stern eyes
    {15: 0.65},  # down-turned lips: sadness's
    {1: 0.55, 15: 0.35},  # worried
    {12: 0.55},  # lips that smile by themselves
    {6: 0.5, 12: 0.3},
    {1: 0.55, 2: 0.6},  # high brows: surprise's
    {10: 0.5},  # short upper lip: disgust's
    {23: 0.5, 24: 0.5},  # thin lips
    {25: 0.55, 26: 0.2},  # open mouth
)
SKINS = ((232, 198, 172), (222, 178, 148), (198, 150, 118), (176, 126, 94), (146, 102, 76))
HAIRS = ((38, 28, 24), (70, 46, 30), (120, 82, 48), (150, 112, 66), (120, 54, 34), (104, 102, 100))
HAIR_STYLES = ("short", "fringe", "long", "side", "bald")
EYES = ((70, 48, 30), (92, 112, 76), (84, 118, 150), (40, 30, 26))


@dataclass(frozen=True)
class Person:
    """One person. Colours are RGB 0..255; lengths are pixels of the 112-pixel crop."""

    rest: np.ndarray  # float32 (12,) action units of the resting face
    gain: np.ndarray  # float32 (12,) how strongly each unit moves
    skin: tuple
    hair: tuple
    iris: tuple
    hair_style: str
    beard: float  # 0 none .. 1 full
    moustache: bool
    glasses: int  # 0 none, 1 clear, 2 dark
    lipstick: float
    face: np.ndarray  # float32 (14,) proportions, see FACE
    pitch: float  # Hz, of the voice
    tract: float  # formant scale


# Names of Person.face's entries and their mean and standard deviation.
FACE = {
    "jaw_width": (35.0, 1.38),
    "cheek_width": (41.0, 1.21),
    "chin": (104.0, 1.38),
    "top": (2.0, 1.65),
    "eye_distance": (17.5, 0.55),
    "eye_height": (46.0, 0.66),
    "eye_width": (9.4, 0.39),
    "eye_opening": (1.0, 0.07),
    "brow_height": (11.5, 0.77),
    "brow_thickness": (3.0, 0.28),
    "nose_width": (7.5, 0.55),
    "mouth_height": (84.0, 0.83),
    "mouth_width": (17.0, 0.77),
    "lips": (3.9, 0.28),
}


@dataclass(frozen=True)
class Scene:
    """One recording: light, place and camera."""

    background: np.ndarray  # uint8 (CROP, CROP, 3) BGR
    clothes: tuple
    light: tuple  # direction x, y and contrast
    cast: np.ndarray  # float32 (3,) BGR gain
    noise: float
    blur: float
    side: int  # pixels at which the face was filmed
    quality: int  # JPEG
    pose: np.ndarray  # float32 (6,) the mean of shift x, y, rotation, log scale, yaw, pitch
    room: float  # sound level of the noise


def draw_person(rng: np.random.Generator) -> Person:
    """A person, with resting face, proportions, colours and voice of their own."""
    rest = np.zeros(len(AUS))
    traits = 1 + (rng.random() < settings.REST_TRAITS - 1)
    for trait in rng.choice(len(REST_BANK), size=traits, replace=False):
        for unit, value in REST_BANK[trait].items():
            at = AUS.index(unit)
            rest[at] = max(rest[at], value * rng.uniform(*settings.REST_STRENGTH))
    bearded = rng.random() < 0.15
    return Person(
        rest=rest.astype(np.float32),
        gain=(rng.uniform(*settings.EXPRESSIVENESS) * rng.uniform(0.8, 1.15, len(AUS))).astype(
            np.float32
        ),
        skin=_near(rng, SKINS[rng.integers(len(SKINS))], 8),
        hair=_near(rng, HAIRS[rng.integers(len(HAIRS))], 10),
        iris=EYES[rng.integers(len(EYES))],
        hair_style=HAIR_STYLES[rng.choice(5, p=(0.36, 0.08, 0.26, 0.22, 0.08))],
        beard=float(rng.uniform(0.25, 0.8)) if bearded else 0.0,
        moustache=bool(bearded and rng.random() < 0.6),
        glasses=int(rng.choice(3, p=(0.88, 0.1, 0.02))),
        lipstick=0.0 if bearded else float(rng.choice((0.0, 0.5, 1.0), p=(0.6, 0.3, 0.1))),
        face=np.array([rng.normal(*value) for value in FACE.values()], np.float32),
        pitch=float(rng.uniform(90, 150) if bearded else rng.uniform(100, 240)),
        tract=float(rng.uniform(0.9, 1.15)),
    )


def draw_scene(rng: np.random.Generator) -> Scene:
    """A recording's light, background and camera."""
    angle = rng.uniform(0, 2 * np.pi)
    spread = (settings.SHIFT, settings.SHIFT, settings.ROTATION, settings.SCALE)
    pose = rng.normal(0, np.array([*spread, settings.TURN, settings.TURN]) * 0.8)
    return Scene(
        background=_background(rng),
        clothes=tuple(int(v) for v in rng.integers(20, 220, 3)),
        light=(float(np.cos(angle)), float(np.sin(angle)), float(rng.uniform(0.05, 0.3))),
        cast=(rng.uniform(0.72, 1.1) * rng.uniform(0.9, 1.1, 3)).astype(np.float32),
        noise=float(rng.uniform(*settings.SENSOR_NOISE)),
        blur=float(rng.uniform(*settings.BLUR)),
        side=int(rng.uniform(*settings.SMALL_FACE)),
        quality=int(rng.integers(*settings.JPEG_QUALITY)),
        pose=pose.astype(np.float32),
        room=float(np.exp(rng.uniform(*np.log(settings.ROOM_NOISE)))),
    )


def _near(rng: np.random.Generator, colour: tuple, spread: float) -> tuple:
    """A colour near the given one."""
    moved = np.asarray(colour) * rng.uniform(0.92, 1.06) + rng.normal(0, spread / 2, 3)
    return tuple(int(v) for v in np.clip(moved, 8, 250))


def _background(rng: np.random.Generator) -> np.ndarray:
    """A blurred room: a colour field of 4 x 4 patches, enlarged. uint8 (CROP, CROP, 3)."""
    grey = rng.uniform(40, 200) + rng.normal(0, 30, (4, 4, 1))
    field = np.clip(grey + rng.normal(0, 22, 3) + rng.normal(0, 9, (4, 4, 3)), 0, 255)
    at = np.linspace(0, 3, settings.CROP)
    low = np.clip(at.astype(int), 0, 2)
    part = (at - low)[:, None, None]
    rows = field[low] * (1 - part) + field[low + 1] * part
    part = (at - low)[None, :, None]
    return (rows[:, low] * (1 - part) + rows[:, low + 1] * part).astype(np.uint8)
