"""What a frame classifier may learn in place of its track, and how the track is read from it.

Of CE the images that there are to learn from say more than CE asks: RAF-DB's compounds are eleven,
seven of which are CE's, and each is a pair of basic emotions, which other images show singly; of
those alone CE is read without a single label of its own.
Of EXPR public encoders have learnt AffectNet's eight expressions in its place.
Importing this imports no JAX.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from abaw_jax.errors import InputError
from abaw_jax.tracks import one_class
from abaw_jax.tracks.affectnet import AFFECTNET, read_expressions
from abaw_jax.tracks.au import AU
from abaw_jax.tracks.ce import CE
from abaw_jax.tracks.expr import EXPR
from abaw_jax.tracks.track import Track

# The basic emotions of each of RAF-DB's compounds: the noun of its adverb, and the adjective's.
PARTS = {
    "Fearfully_Surprised": ("Fear", "Surprise"),
    "Happily_Surprised": ("Happiness", "Surprise"),
    "Sadly_Surprised": ("Sadness", "Surprise"),
    "Disgustedly_Surprised": ("Disgust", "Surprise"),
    "Angrily_Surprised": ("Anger", "Surprise"),
    "Sadly_Fearful": ("Sadness", "Fear"),
    "Sadly_Angry": ("Sadness", "Anger"),
    "Angrily_Disgusted": ("Anger", "Disgust"),
    "Fearfully_Angry": ("Fear", "Anger"),
    "Happily_Disgusted": ("Happiness", "Disgust"),
    "Sadly_Disgusted": ("Sadness", "Disgust"),
}

# CE's seven in its order, then RAF-DB's other four: one class a row, -1 for none.
COMPOUNDS = dataclasses.replace(
    CE,
    name="RAF-DB's compounds",
    key="compounds",
    classes=tuple(PARTS),
    label_range=(0, len(PARTS) - 1),
    encode=functools.partial(one_class.encode, classes=len(PARTS)),
    statistics=functools.partial(one_class.statistics, classes=len(PARTS)),
)
# Each on or off by itself; all off in a neutral face, all -1 where nothing is known.
_EMOTIONS = ("Anger", "Disgust", "Fear", "Happiness", "Sadness", "Surprise")
BASIC = dataclasses.replace(
    AU, name="basic emotions", key="basic", classes=_EMOTIONS, label_width=len(_EMOTIONS)
)
# One class of EXPR a row; of images of two emotions none.
SINGLES = dataclasses.replace(EXPR, name="single emotions", key="singles")


@dataclasses.dataclass(frozen=True)
class Target:
    """What is learnt in place of a track.

    track: its labels, outputs and losses; it is none of the competition's.
    read: its logits (..., K) -> the values of the track that it stands for. JAX.
    late: label rows (n, W) -> bool (n,), which of them a curriculum comes to last; None where
        nothing tells.
    """

    track: Track
    read: Callable[[Any], Any]
    late: Callable[[np.ndarray], np.ndarray] | None = None


def read_compounds(logits: Any) -> Any:
    """(..., 11) -> (..., 7): the probabilities of CE's classes, divided by their sum.

    That is the softmax over their own logits.
    """
    return one_class.softmax(logits[..., : CE.outputs])


def read_basic(logits: Any) -> Any:
    """(..., 6) -> (..., 7): of each class the sum of its two emotions' sigmoids, divided by the
    sum over the classes.

    In logarithms, so that no sum is 0.
    """
    import jax
    import jax.numpy as jnp

    logs = jax.nn.log_sigmoid(logits.astype(jnp.float32))
    pairs = np.array([[_EMOTIONS.index(part) for part in PARTS[name]] for name in CE.classes])
    return one_class.softmax(jnp.logaddexp(logs[..., pairs[:, 0]], logs[..., pairs[:, 1]]))


def read_singles(logits: Any) -> Any:
    """(..., 8) -> (..., 7): of each class the mean of its two expressions' probabilities, divided
    by the sum over the classes; the mean and the sum are the same then.

    `hsemotion` (arXiv 2403.11590), zero-shot; as `evaluation.compound.add`, in logarithms.
    """
    import jax
    import jax.numpy as jnp

    logs = jax.nn.log_softmax(logits.astype(jnp.float32))
    pairs = np.array([[EXPR.classes.index(part) for part in PARTS[name]] for name in CE.classes])
    return one_class.softmax(jnp.logaddexp(logs[..., pairs[:, 0]], logs[..., pairs[:, 1]]))


def pair_rows(labels: np.ndarray) -> np.ndarray:
    """Labels of COMPOUNDS (n, 1) -> of BASIC (n, 6): both emotions are on; -1 stays -1."""
    pairs = np.array([[part in parts for part in _EMOTIONS] for parts in PARTS.values()])
    return np.where(labels >= 0, pairs[labels[:, 0]], BASIC.invalid).astype(BASIC.label_type)


def _is_pair(labels: np.ndarray) -> np.ndarray:
    return labels.sum(axis=-1) > 1


# Track key -> name in a config -> target.
TARGETS = {
    EXPR.key: {"affectnet": Target(AFFECTNET, read_expressions)},
    CE.key: {
        "compounds": Target(COMPOUNDS, read_compounds),
        "basic": Target(BASIC, read_basic, late=_is_pair),
        "singles": Target(SINGLES, read_singles),
    },
}


def find_target(track: Track, name: str | None) -> Target | None:
    """The target of that name; None without a name. InputError names those that the track has."""
    if not name:
        return None
    known = TARGETS.get(track.key, {})
    if name not in known:
        raise InputError(
            f"target {name!r}: {track.name} has no such; expected one of "
            f"{', '.join((*known, repr('')))}, the last for the track itself"
        )
    return known[name]
