"""EMI's clips: a person mimics what they saw, and voters say which of six emotions it was.

The shares of the votes come first; face, voice and words follow from them, each with errors of its
own: a face that keeps still, a flat voice, words about nothing. So each says something of the
shares that the others hide. Pain in the face: Prkachin, Pain 51 (1992); the smile of joy, with the
eyes: Ekman, Davidson & Friesen, J. Pers. Soc. Psychol. 58 (1990). The other faces and the places
on the circumplex are the demo's own choice.
"""

import numpy as np

from abaw_jax.data.demo import settings
from abaw_jax.data.demo.expressions import units
from abaw_jax.data.demo.people import Person
from abaw_jax.data.demo.sound import COMMON
from abaw_jax.data.demo.story import Story, affect, draw_blinks, draw_syllables, move_head, show
from abaw_jax.data.demo.streams import smooth_noise

EMOTIONS = ("Admiration", "Amusement", "Determination", "Empathic Pain", "Excitement", "Joy")
DETERMINATION, PAIN = 2, 3
PROTOTYPES = np.stack(
    [
        units(AU1=0.6, AU2=0.45, AU12=0.45, AU25=0.3),
        units(AU6=0.85, AU7=0.5, AU12=0.8, AU25=0.75, AU26=0.55),
        units(AU4=0.75, AU7=0.5, AU23=0.6, AU24=0.75),
        units(AU1=0.55, AU4=0.8, AU7=0.6, AU10=0.6, AU15=0.45),
        units(AU1=0.7, AU2=0.9, AU12=0.65, AU25=0.75, AU26=0.65),
        units(AU6=0.65, AU12=0.95, AU25=0.2),
    ]
)
PLACES = np.array(  # valence, arousal
    [(0.5, -0.2), (0.6, 0.6), (-0.1, 0.45), (-0.75, -0.1), (0.55, 0.95), (0.8, 0.25)], np.float32
)
WORDS = (
    "admire respect impressive talented hero brave inspiring beautiful masterful genius",
    "haha funny silly joke hilarious laugh ridiculous comedy prank tickle",
    "will must never quit focus push forward goal stronger finish",
    "ouch poor hurts terrible feel your pain sorry wound awful",
    "yes finally amazing cannot wait go hurry wild thrilling incredible adventure",
    "happy glad lovely delighted wonderful smile sunny warm bliss cheerful",
)
# How likely a voter sees each emotion (a column) where one (a row) was shown above all.
SEEN_TOO = np.array(
    [
        [0.8, 0.05, 0.1, 0.02, 0.15, 0.25],
        [0.02, 0.8, 0.0, 0.0, 0.2, 0.4],
        [0.15, 0.0, 0.8, 0.1, 0.1, 0.0],
        [0.1, 0.0, 0.1, 0.8, 0.0, 0.0],
        [0.15, 0.2, 0.1, 0.0, 0.8, 0.3],
        [0.15, 0.35, 0.0, 0.0, 0.25, 0.8],
    ]
)


def draw_shares(rng: np.random.Generator) -> tuple:
    """The votes of two or three people, as shares from 0 to 1: an emotion each; most are 0."""
    voters = int(rng.integers(2, 4))
    chances = SEEN_TOO[rng.integers(len(EMOTIONS))]
    return tuple(round(float(votes) / voters, 3) for votes in rng.binomial(voters, chances))


def tell_clip(rng: np.random.Generator, person: Person, frames: int, shares: tuple) -> Story:
    """The state of `frames` frames of a person who mimics with these shares."""
    course = _course(rng, frames)[:, None]
    face, voice = (course * _conveyed(rng, shares, hidden) for hidden in settings.HIDDEN)
    moved = 1 - np.prod(1 - face[:, :, None] * PROTOTYPES, axis=1)
    expressed = np.clip(moved * person.gain, 0, 1).astype(np.float32)
    valence, arousal = affect(rng, voice, PLACES, pace=0.7)
    speaks = np.arange(frames) >= rng.integers(0, 1 + frames // 5)
    syllables = draw_syllables(rng, speaks, arousal, pace=settings.CLIP_RATE / 30)
    return Story(
        felt=(course * np.float32(shares)).astype(np.float32),
        expressed=expressed,
        shown=show(rng, person, expressed, syllables, idle=speaks & (course[:, 0] == 0)),
        valence=valence,
        arousal=arousal,
        pose=move_head(rng, closer=face[:, DETERMINATION], sunk=face[:, PAIN]),
        gaze=np.clip(smooth_noise(rng, frames, 3, 2) * 0.45, -1, 1),
        blink=draw_blinks(rng, frames),
        voice=speaks,
        syllables=syllables,
    )


def _course(rng: np.random.Generator, frames: int) -> np.ndarray:
    """Onset, apex and offset: float (frames,) in [0, 1]."""
    start, apex, fall, end = np.array((0.05, 0.2, 0.75, 0.95)) + rng.uniform(-0.05, 0.1, 4)
    at = (np.arange(frames) + 0.5) / frames
    ramp = np.minimum((at - start) / (apex - start), (end - at) / (end - fall)).clip(0, 1)
    return ramp**2 * (3 - 2 * ramp)


def _conveyed(rng: np.random.Generator, shares: tuple, hidden: float) -> np.ndarray:
    """What one modality shows of the shares: float (6,). `hidden`: chance that it is little.

    Each emotion is over- or understated, and one that nobody voted for may slip in.
    """
    strength = rng.uniform(0.0, 0.25) if rng.random() < hidden else rng.uniform(0.75, 1.0)
    stated = strength * np.asarray(shares) * rng.uniform(*settings.STATED, len(shares))
    if rng.random() < settings.SLIP_SHARE:
        stated[rng.integers(len(shares))] += rng.uniform(0.3, 0.6)
    return np.minimum(stated, 1)


def transcribe_clip(rng: np.random.Generator, story: Story, shares: tuple) -> str:
    """Words said, one a syllable; '' where nothing was understood."""
    chance = settings.WORD_OF_EMOTION * np.asarray(shares)
    chance /= max(1.0, chance.sum())
    if rng.random() < settings.SMALL_TALK:
        chance *= 0
    if rng.random() < settings.UNHEARD:
        return ""
    bank = [*(words.split() for words in WORDS), COMMON]
    said = rng.choice(len(bank), size=len(story.syllables), p=[*chance, 1 - chance.sum()])
    return " ".join(str(rng.choice(bank[emotion])) for emotion in said)
