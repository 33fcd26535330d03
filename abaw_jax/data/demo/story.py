"""What happens in a video: the latent state of every frame, from which all modalities are made.

A video is a chain of runs, each under one theme; a run is a chain of episodes with rest between.
The annotated label is the episode's expression. One frame often cannot tell it: resting faces
resemble expressions, onsets are weak, and many apexes stand half-way to a look-alike's prototype.
What can is the window: the person's face at rest, the theme's clear episodes, the manner of moving.
(In mimicry.py people face the camera for a clip instead; both share the functions below.)
"""

from dataclasses import dataclass

import numpy as np

from abaw_jax.data.demo import expressions as ex
from abaw_jax.data.demo import settings
from abaw_jax.data.demo.people import AUS, Person
from abaw_jax.data.demo.streams import smooth_noise, stretches

BROWS, LIPS, JAW = (AUS.index(1), AUS.index(2)), AUS.index(25), AUS.index(26)


@dataclass(frozen=True)
class Story:
    """The latent state of n frames."""

    felt: np.ndarray  # float32 (n, 8) intensity of each expression, column 0 is 0; EMI's (n, 6)
    expressed: np.ndarray  # float32 (n, 12) action units against the person's rest, no speech
    shown: np.ndarray  # float32 (n, 12) action units as a camera sees them
    valence: np.ndarray  # float32 (n,) in [-1, 1]
    arousal: np.ndarray  # float32 (n,) in [-1, 1]
    pose: (
        np.ndarray
    )  # float32 (n, 6) shift x, y (pixels), rotation (degrees), log scale, yaw, pitch
    gaze: np.ndarray  # float32 (n, 2) in [-1, 1]
    blink: np.ndarray  # float32 (n,) 1 = eyes closed
    voice: np.ndarray  # bool (n,) speaks
    syllables: np.ndarray  # float32 (m, 3) start and length in frames, vowel number
    # int32 (n,) the expression, with the annotator's lag; None where a whole clip is judged
    labels: np.ndarray | None = None


@dataclass(frozen=True)
class Episode:
    """One expression from onset to offset."""

    start: int
    length: int
    label: int
    units: np.ndarray  # float32 (12,) at the apex
    strength: float
    rehearsed: bool  # swells and ebbs: put on, hence Other


def tell_story(rng: np.random.Generator, person: Person, frames: int, themes: tuple) -> Story:
    """The state of `frames` frames of a person, whose runs follow `themes` (names, in order)."""
    episodes = _episodes(rng, frames, themes)
    felt = np.zeros((frames, len(ex.EXPRESSIONS)), np.float32)
    expressed = np.zeros((frames, len(AUS)), np.float32)
    truth = np.zeros(frames, np.int32)
    for episode in episodes:
        _play(rng, episode, felt, expressed, truth)
    expressed *= person.gain
    valence, arousal = affect(rng, felt, ex.CIRCUMPLEX)
    voice = stretches(rng, frames, settings.VOICE_SHARE, (15, 60)) > 0
    syllables = draw_syllables(rng, voice, arousal)
    expressed = np.clip(expressed, 0, 1)
    idle = voice & np.isin(truth, (ex.NEUTRAL, ex.OTHER))
    return Story(
        labels=_annotate(rng, truth),
        felt=felt,
        expressed=expressed,
        shown=show(rng, person, expressed, syllables, idle),
        valence=valence,
        arousal=arousal,
        pose=move_head(rng, felt[:, ex.ANGER], felt[:, ex.SADNESS]),
        gaze=np.clip(smooth_noise(rng, frames, 6, 2) * 0.45, -1, 1),
        blink=draw_blinks(rng, frames),
        voice=voice,
        syllables=syllables,
    )


def _episodes(rng: np.random.Generator, frames: int, themes: tuple) -> list:
    """Episodes of all runs. The first of a run is clear and its theme's main expression."""
    borders = np.linspace(0, frames, len(themes) + 1).astype(int)
    themes_of = ex.THEMES | ex.COMPOUND_THEMES
    episodes = []
    for theme, begin, end in zip(themes, borders[:-1], borders[1:], strict=True):
        main, chances = themes_of[theme]
        at = begin + int(rng.integers(*settings.NEUTRAL)) // 2
        first = True
        while end - at >= settings.SHORT[0]:
            label = main if first else int(rng.choice(len(chances), p=chances))
            clear = first or rng.random() < settings.CLEAR_SHARE
            slow = ex.SADNESS in ex.PARTS[label]
            bout = not first and not slow and rng.random() < settings.BOUT_SHARE
            span = settings.SHORT if bout else settings.LONG
            units, rehearsed = _apex(rng, label, clear)
            strength = rng.uniform(0.85, 1.0) if first else rng.uniform(*settings.STRENGTH)
            for _ in range(rng.integers(*settings.BOUT_EPISODES, endpoint=True) if bout else 1):
                length = int(min(rng.integers(*span, endpoint=True), end - at))
                if length < settings.SHORT[0]:
                    break
                episodes.append(Episode(at, length, label, units, strength, rehearsed))
                gap = settings.SHORT if bout else settings.NEUTRAL
                at += length + int(rng.integers(*gap))
            first = False
    return episodes


def _apex(rng: np.random.Generator, label: int, clear: bool) -> tuple[np.ndarray, bool]:
    """Action units at an episode's apex, and whether it is put on."""
    rehearsed = False
    if label == ex.OTHER:
        own = ex.OTHER_KINDS[rng.integers(len(ex.OTHER_KINDS))]
        if rng.random() < settings.REHEARSED_SHARE:
            own, clear, rehearsed = ex.PROTOTYPES[rng.integers(1, ex.OTHER)], True, True
    elif label >= ex.COMPOUND:
        own = blend(rng, ex.PARTS[label])
    else:
        own = ex.PROTOTYPES[label]
    if not clear:
        part = rng.uniform(*settings.CONFUSED)
        other = ex.LOOK_ALIKE[label]
        look = ex.OTHER_KINDS[0] if other == ex.OTHER else ex.PROTOTYPES[other]
        own = part * own + (1 - part) * look
    return vary(rng, own), rehearsed


def blend(rng: np.random.Generator, parts: tuple[int, ...]) -> np.ndarray:
    """Action units of a compound of expressions, the stronger in each unit: (12,)."""
    shares = rng.uniform(*settings.BLEND, (len(parts), 1))
    return (shares * ex.PROTOTYPES[list(parts)]).max(axis=0)


def vary(rng: np.random.Generator, own: np.ndarray) -> np.ndarray:
    """Action units (12,) as one person on one occasion moves them: float32 (12,)."""
    varied = own * rng.uniform(0.85, 1.15, len(AUS)) + 0.12 * rng.random(len(AUS)) ** 3
    return np.clip(varied, 0, 1).astype(np.float32)


def _play(
    rng: np.random.Generator,
    episode: Episode,
    felt: np.ndarray,
    expressed: np.ndarray,
    truth: np.ndarray,
) -> None:
    """Add one episode to the arrays of the frames (they are written to)."""
    length, label = episode.length, episode.label
    parts = ex.PARTS[label]
    pace = sum(ex.ONSET[part] for part in parts) / len(parts)
    onset = min(pace * rng.uniform(0.7, 1.3), 0.4 * length)
    offset = min(pace * rng.uniform(1.0, 2.0), 0.45 * length)
    at = np.arange(length) + 0.5
    rise, fall = np.clip(at / onset, 0, 1), np.clip((length - at) / offset, 0, 1)
    envelope = (rise**2 * (3 - 2 * rise)) * (fall**2 * (3 - 2 * fall))
    if label == ex.SURPRISE:
        envelope *= 1 - 0.35 * at / length  # brief: it wanes from its start
    if label == ex.ANGER:
        envelope *= 0.7 + 0.3 * at / length  # builds up
    if episode.rehearsed:
        period = rng.uniform(*settings.REHEARSED_PERIOD)
        envelope *= 0.5 - 0.5 * np.cos(2 * np.pi * at / period)
    envelope = envelope * episode.strength
    where = slice(episode.start, episode.start + length)
    for part in parts:
        felt[where, part] = np.maximum(felt[where, part], envelope)
    moved = envelope[:, None] * episode.units
    if ex.FEAR in parts:
        moved = moved * (1 + settings.TREMOR * rng.choice((-1, 1), (length, 1)))
    expressed[where] = np.maximum(expressed[where], moved)
    truth[episode.start + int(0.25 * onset) : episode.start + length - int(0.3 * offset)] = label


def _annotate(rng: np.random.Generator, truth: np.ndarray) -> np.ndarray:
    """Labels as an annotator gives them: late by a constant, each border misplaced besides."""
    frames = len(truth)
    lag = rng.integers(*settings.ANNOTATION_LAG, endpoint=True)
    jitter = rng.integers(-settings.BORDER_JITTER, settings.BORDER_JITTER + 1, frames)
    borders = np.flatnonzero(np.diff(truth)) + 1
    pieces = np.concatenate([truth[:1], truth[borders]])
    moved = np.clip(np.maximum.accumulate(borders + lag + jitter[borders]), 0, frames)
    edges = np.concatenate([[0], moved, [frames]])
    return np.repeat(pieces, np.diff(edges)).astype(np.int32)


def show(
    rng: np.random.Generator,
    person: Person,
    expressed: np.ndarray,
    syllables: np.ndarray,
    idle: np.ndarray,
) -> np.ndarray:
    """Action units as seen: rest and expression saturate together; speech and idling are added.

    idle: bool (n,) where brows may flash.
    """
    frames = len(expressed)
    shown = 1 - (1 - person.rest) * (1 - np.minimum(expressed, 0.98))
    mouth = aperture(syllables, frames)
    shown[:, LIPS] = np.maximum(shown[:, LIPS], settings.SPEECH_JAW[0] * mouth)
    shown[:, JAW] = np.maximum(shown[:, JAW], settings.SPEECH_JAW[1] * mouth)
    shown += settings.AU_WANDER * smooth_noise(rng, frames, 5, len(AUS))
    for start in np.flatnonzero(idle & (rng.random(frames) < settings.BROW_FLASH)):
        length = int(rng.integers(4, 8))
        flash = 0.6 * np.sin(np.pi * (np.arange(length) + 0.5) / length)
        part = shown[start : start + length]
        part[:, BROWS] = np.maximum(part[:, BROWS], flash[: len(part), None])
    return np.clip(shown, 0, 1).astype(np.float32)


def aperture(syllables: np.ndarray, frames: int) -> np.ndarray:
    """How far speech opens the mouth: float32 (frames,) in [0, 1], a hump for every syllable."""
    at = np.arange(frames)[:, None] + 0.5
    part = (at - syllables[None, :, 0]) / np.maximum(syllables[None, :, 1], 1e-3)
    wide = 0.55 + 0.45 * (syllables[None, :, 2] % 3) / 2
    humps = np.where((part > 0) & (part < 1), np.sin(np.pi * np.clip(part, 0, 1)) * wide, 0)
    return humps.max(axis=1, initial=0).astype(np.float32)


def draw_syllables(
    rng: np.random.Generator, voice: np.ndarray, arousal: np.ndarray, pace: float = 1.0
) -> np.ndarray:
    """Syllables while the voice lasts, quicker with arousal: float32 (m, 3).

    pace: frames that last as long as one of a video.
    """
    out, at = [], 0.0
    while at < len(voice):
        if not voice[int(at)]:
            at += 1
            continue
        length = pace * rng.uniform(3.5, 6.5) * (1.15 - 0.45 * arousal[int(at)])
        out.append((at, 0.85 * length, rng.integers(5)))
        at += length + (pace * rng.uniform(4, 10) if rng.random() < 0.1 else 0)
    return np.array(out, np.float32).reshape(-1, 3)


def affect(
    rng: np.random.Generator, felt: np.ndarray, places: np.ndarray, pace: float = 0.2
) -> tuple[np.ndarray, np.ndarray]:
    """Valence and arousal: they follow what is felt, late and smoothly, about a drifting mood.

    felt (n, K) intensities; places (K, 2) where on the circumplex each lies; pace: share of the way
    that is gone in a frame.
    """
    frames = len(felt)
    target = felt @ places / np.maximum(felt.sum(axis=1, keepdims=True), 1.0)
    mood = 0.08 * smooth_noise(rng, frames, 25, 2) + 0.03 * smooth_noise(rng, frames, 3, 2)
    state, out = np.zeros(2), np.empty((frames, 2), np.float32)
    for i in range(frames):
        state += pace * (target[i] - state)
        out[i] = state
    out = np.clip(out + mood, -1, 1)
    return out[:, 0], out[:, 1]


def move_head(rng: np.random.Generator, closer: np.ndarray, sunk: np.ndarray) -> np.ndarray:
    """Head movement left in the crops, float32 (n, 6); the angry head comes closer, the sad sinks.

    closer, sunk: (n,) how much so.
    """
    frames = len(closer)
    spread = np.array(
        [settings.SHIFT] * 2 + [settings.ROTATION, settings.SCALE] + [settings.TURN] * 2
    )
    pose = 0.6 * spread * smooth_noise(rng, frames, 8, 6)
    pose[:, :2] += 0.5 * rng.standard_normal((frames, 2))  # the aligner's jitter
    pose[:, 3] += 0.04 * closer
    pose[:, 5] += 0.25 * sunk
    return pose.astype(np.float32)


def draw_blinks(rng: np.random.Generator, frames: int) -> np.ndarray:
    """Closed lids for 3 to 5 frames at random moments: float32 (frames,) in [0, 1]."""
    blink = np.zeros(frames, np.float32)
    for start in np.flatnonzero(rng.random(frames) < 0.008):
        length = int(rng.integers(3, 6))
        part = blink[start : start + length]
        part[:] = np.sin(np.pi * (np.arange(len(part)) + 0.5) / length)
    return blink
