"""What a demo corpus consists of: names, people, frame rates and every video's irregularities.

Of recordings (VA, EXPR, AU and CE; recordings.py) or of clips (EMI; clips.py).
"""

from dataclasses import dataclass
from fractions import Fraction

from abaw_jax.data.demo import expressions as ex
from abaw_jax.data.demo import settings
from abaw_jax.data.demo.mimicry import draw_shares
from abaw_jax.data.demo.streams import stream

ROOTS = ("cropped_aligned", "cropped_aligned_new_50_vids")  # Aff-Wild2's two archives
BATCHES = ("batch1", "new_vids")  # folders of the containers, beside the archives
SPLITS = ("train", "validation", "test")
RATES = tuple(Fraction(r) for r in (30, "30000/1001", 25, 24, "24000/1001", 15))
SOUNDS = ("voice", "silent", "none")  # a voice, a track of zeros, no audio track
# Rows of the annotation against frames of the container: mostly one more; sometimes fewer than
# there are crops (a surplus to drop) or more (rows without image).
ROWS = (1, 1, 1, 1, -6, 9)
# Tracks that are labels of the same videos. The other corpora are named by their track.
SHARED = ("va", "expr", "au")


@dataclass(frozen=True)
class Shown:
    """One person of a recording: what the challenge calls a video."""

    name: str  # its folder and annotation file
    person: str  # whose stream draws them
    themes: tuple
    late: int  # frames before the first crop
    rows: int  # annotation rows


@dataclass(frozen=True)
class Recording:
    """One container file and the one or two people in it."""

    name: str  # the container's, without ending
    split: str
    root: str
    batch: str
    ending: str  # mp4 or avi
    rate: Fraction
    frames: int
    sound: str
    shown: tuple
    tasks: tuple  # what is annotated: VA, EXPR and AU, or CE


@dataclass(frozen=True)
class Clip:
    """One clip of a person who mimics, and the files it is to have."""

    name: str  # its number, of five digits
    split: str
    person: str
    frames: int
    shares: tuple  # of the votes, an emotion each
    faces: str  # some; none, an empty folder; absent, not even that
    sound: str  # a voice; silent; none, neither a file of sound nor a transcript (but faces)


def plan_corpus(size: str, seed: int, track: str = "expr") -> list[Recording]:
    """All recordings of a track's corpus, in a fixed order; CE's videos are named by numbers.

    People of the three splits are disjoint.
    """
    counts, span = settings.SIZES[size]
    compound = track == "ce"
    scenarios = ex.COMPOUND_THEMES if compound else ex.THEMES
    mark = "ce" if compound else ""  # nobody is in both corpora
    rng = stream(seed, "plan/ce" if compound else "plan", size)
    recordings, number, person = [], 0, 0
    for split, wanted in zip(SPLITS, counts, strict=True):
        people = max(2, round(wanted / settings.VIDEOS_PER_PERSON))
        themes = _themes(rng, scenarios, 4 * wanted)
        made = 0
        while made < wanted:
            number += 1
            pair = wanted - made >= 2 and (
                rng.random() < settings.PAIR_SHARE or (made == 1 and split != "test")
            )
            frames = int(rng.integers(span[0], span[1] + 1))
            runs = max(2, round(frames / settings.RUN))
            shown = []
            base = f"{number:02d}" if compound else _name(rng, number)
            for ending in _endings(rng, pair):
                turn = made
                shown.append(
                    Shown(
                        name=base + ending,
                        person=f"{mark}{person + turn % people}",
                        themes=tuple(themes.pop() for _ in range(runs)),
                        late=int(rng.integers(3, 9)) if turn % 6 == 1 else 0,
                        rows=frames + ROWS[turn % len(ROWS)],
                    )
                )
                made += 1
            new = number % 5 == 2
            recordings.append(
                Recording(
                    name=base,
                    split=split,
                    root=ROOTS[new],
                    batch=BATCHES[new],
                    ending="avi" if number % 4 == 3 else "mp4",
                    rate=RATES[int(rng.choice(6, p=(0.4, 0.2, 0.15, 0.1, 0.1, 0.05)))],
                    frames=frames,
                    sound=SOUNDS[{5: 1, 7: 2}.get(number % 8, 0)],
                    shown=tuple(shown),
                    tasks=("CE",) if compound else ("VA", "EXPR", "AU"),
                )
            )
        person += people
    return recordings


def plan_clips(size: str, seed: int) -> list[Clip]:
    """All clips of a corpus by their numbers: train, validation, test, as Hume-Vidmimic2's.

    People of the three splits are disjoint.
    """
    counts, span = settings.CLIP_SIZES[size]
    rng = stream(seed, "plan", "emi", size)
    clips = []
    for split, wanted in zip(SPLITS, counts, strict=True):
        for made in range(wanted):
            clips.append(
                Clip(
                    name=f"{len(clips):05d}",
                    split=split,
                    person=f"emi {split} {made // settings.CLIPS_PER_PERSON}",
                    # Some end before anything is seen.
                    frames=2 if made % 50 == 6 else int(rng.integers(*span, endpoint=True)),
                    shares=draw_shares(rng),
                    faces={3: "none", 5: "absent"}.get(made % 40, "some"),
                    sound=SOUNDS[{2: 1, 4: 2}.get(made % 40, 0)],
                )
            )
    return clips


def _themes(rng, themes: dict, count: int) -> list[str]:
    """Every theme equally often, each cycle of seven in another order."""
    names = list(themes)
    out = []
    while len(out) < count:
        out.extend(names[i] for i in rng.permutation(len(names)))
    return out


def _name(rng, number: int) -> str:
    """A name in one of Aff-Wild2's manners, with digits, `_` and `-` of its own."""
    wide, high = ((1280, 720), (1920, 1080), (640, 360))[int(rng.integers(3))]
    part = int(rng.integers(1, 5))
    return (
        f"video{number}",
        f"{number}-30-{wide}x{high}",
        f"video{number}_{part}",
        f"{number}-30-{wide}x{high}-{part}",
        f"video{number}",
    )[number % 5]


def _endings(rng, pair: bool) -> tuple:
    """Endings of the names of the people in one recording."""
    if not pair:
        return ("",)
    return (("_left", "_right"), ("", "_right"), ("", "_left"))[int(rng.integers(3))]
