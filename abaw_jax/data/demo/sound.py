"""Speech-like sound and the words said, from the same latent state as the face.

A source-filter voice (Fant, Acoustic Theory of Speech Production, 1960): glottal pulses and breath
through formants. Pitch, its range, loudness and brightness rise with arousal; spread lips (pleasant
valence) raise the formants; an unpleasant one roughens the pulses (Banse & Scherer 1996).
"""

import numpy as np

from abaw_jax.data.demo import expressions as ex
from abaw_jax.data.demo import settings
from abaw_jax.data.demo.people import Person
from abaw_jax.data.demo.story import Story
from abaw_jax.data.demo.streams import stretches

FORMANTS = np.array(  # a e i o u, Hz: rounded from Peterson & Barney (1952)
    [(730, 1090, 2440), (530, 1840, 2480), (270, 2290, 3010), (570, 840, 2410), (300, 870, 2240)],
    float,
)
BANDWIDTHS = np.array([90.0, 110.0, 170.0])
WORDS = {
    ex.NEUTRAL: "then the next one is here and I put it on the table as usual",
    ex.ANGER: "stop it now I told you never enough how dare you get out unfair liar",
    ex.DISGUST: "ugh gross that smells rotten take it away filthy yuck I feel sick slimy",
    ex.FEAR: "careful it is coming hide please no help who is there run danger scared",
    ex.HAPPINESS: "great lovely I love this haha so good wonderful thank you happy fun",
    ex.SADNESS: "gone I miss him nothing left alone sorry tired lost it hurts cry",
    ex.SURPRISE: "oh wow what really no way look at that suddenly unbelievable wait",
    ex.OTHER: "well maybe I suppose let me think it depends perhaps indeed right hmm",
}
COMMON = "and so it was you know I mean the a that there we they she he when to of yes no".split()


def speak(rng: np.random.Generator, person: Person, story: Story, rate: float) -> np.ndarray:
    """The voice: float32 (samples,) at 16 kHz, one frame lasting 1 / rate seconds."""
    frames = len(story.arousal)
    per_frame = settings.SOUND_RATE / rate
    total = round(frames * per_frame)
    sound = np.zeros(total, np.float32)
    drift = 1 + 0.04 * rng.standard_normal()
    for start, length, vowel in story.syllables:
        at = min(int(start), frames - 1)
        first = int(start * per_frame)
        size = min(int(length * per_frame), total - first)
        if size < 160:
            continue
        sound[first : first + size] += _syllable(
            rng, person, size, int(vowel), float(story.arousal[at]), float(story.valence[at]), drift
        )
    lost = stretches(rng, frames, 0.05, (5, 20)) > 0  # the voice fails
    at = np.minimum((np.arange(total) / per_frame).astype(int), frames - 1)
    return np.where(lost[at], 0, sound).astype(np.float32)


def breathe(rng: np.random.Generator, story: Story, rate: float) -> np.ndarray:
    """Breath between the words, faster and harder with arousal, as Boiten et al. found
    (Psychological Bulletin 115, 1994); how much so is made up: float32 (samples,) as `speak`."""
    frames = len(story.arousal)
    at = np.arange(round(frames * settings.SOUND_RATE / rate)) * rate / settings.SOUND_RATE
    arousal = np.interp(at - 0.5, np.arange(frames), story.arousal)
    pace = settings.BREATHS * np.exp(settings.BREATH_PACE * arousal)
    phase = rng.random() + np.cumsum(pace) * rate / settings.SOUND_RATE
    loud = settings.BREATH_LEVEL * np.exp(settings.BREATH_GAIN * arousal)
    shape = np.sin(np.pi * phase) ** 2
    air = rng.standard_normal(len(at))
    air[1:] -= 0.7 * air[:-1]  # hissing: little at low frequencies
    silent = ~story.voice[np.minimum(at.astype(int), frames - 1)]
    return (loud * shape * air * silent).astype(np.float32)


def _syllable(
    rng: np.random.Generator,
    person: Person,
    size: int,
    vowel: int,
    arousal: float,
    valence: float,
    drift: float,
) -> np.ndarray:
    """One vowel with a breathy onset: float32 (size,)."""
    part = np.linspace(0, 1, size)
    fall = (0.12 + 0.2 * max(arousal, 0)) * rng.normal(0.6, 0.5)
    pitch = person.pitch * drift * (1 + 0.38 * arousal + fall * (0.5 - part))
    pitch *= (
        1
        + (0.01 + 0.05 * max(-valence, 0))
        * np.repeat(rng.standard_normal(size // 80 + 1), 80)[:size]
    )
    phase = np.cumsum(np.maximum(pitch, 40.0)) / settings.SOUND_RATE
    pulses = np.diff(np.floor(phase), prepend=0.0)
    source = pulses + (0.03 + 0.05 * max(0.0, -arousal)) * rng.standard_normal(size)
    frequency = np.fft.rfftfreq(size, 1 / settings.SOUND_RATE)
    formants = FORMANTS[vowel] * person.tract * (1 + 0.07 * valence)
    response = np.prod(
        formants**2
        / (
            formants**2
            - frequency[:, None] ** 2
            + 1j * BANDWIDTHS * np.maximum(frequency[:, None], 1.0)
        ),
        axis=1,
    )
    tilt = 1 / (1 + (frequency / (350 + 700 * max(0.0, arousal + 0.2))) ** 2) ** 0.5
    voiced = np.fft.irfft(np.fft.rfft(source) * response * tilt, size)
    shape = np.minimum(1, part / 0.12) * np.minimum(1, (1 - part) / 0.3)
    loud = 0.1 * np.exp(1.1 * arousal + 0.15 * rng.standard_normal())
    return (loud * shape * voiced / (np.sqrt(np.mean(voiced**2)) + 1e-6)).astype(np.float32)


def mix(rng: np.random.Generator, voices: list, room: float) -> np.ndarray:
    """Voices of equal length and the room's noise: int16 (samples,)."""
    total = np.sum(voices, axis=0)
    hum = np.cumsum(rng.standard_normal(len(total)) * 0.02) * 0.02
    hum = hum - np.linspace(hum[0], hum[-1], len(hum))
    noisy = total + room * (rng.standard_normal(len(total)) + np.clip(hum, -2, 2))
    return (np.tanh(noisy) * 32767).astype(np.int16)


def transcribe(rng: np.random.Generator, story: Story) -> str:
    """Words said, one a syllable; '' where nobody speaks."""
    words = []
    for start, _, _ in story.syllables:
        label = int(story.labels[min(int(start), len(story.labels) - 1)])
        own = rng.random() < settings.WORD_OF_EXPRESSION
        fitting = " ".join(WORDS[part] for part in ex.PARTS[label]).split()
        words.append(str(rng.choice(fitting if own else COMMON)))
    return " ".join(words)
