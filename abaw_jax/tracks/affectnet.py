"""AffectNet's eight expressions in its order, which encoders of faces learn, and EXPR read of them.

Seven are Aff-Wild2's by name. Contempt is none of them, nor is it Other: what Aff-Wild2's
annotators meant by that is not known. So EXPR is read from the seven, and Other has no share.
"""

import dataclasses
import functools
from typing import Any

from abaw_jax.tracks import one_class
from abaw_jax.tracks.expr import EXPR

CLASSES = (
    "Neutral", "Happiness", "Sadness", "Surprise", "Fear", "Disgust", "Anger", "Contempt",
)  # fmt: skip

AFFECTNET = dataclasses.replace(
    EXPR,
    name="AffectNet's expressions",
    key="affectnet",
    classes=CLASSES,
    encode=functools.partial(one_class.encode, classes=len(CLASSES)),
    statistics=functools.partial(one_class.statistics, classes=len(CLASSES)),
)


def read_expressions(logits: Any) -> Any:
    """(..., 8) -> (..., 8): the probabilities of EXPR's classes, by name; of Other 0. JAX.

    The softmax over the logits of the seven that both have.
    """
    import jax.numpy as jnp

    shared = [CLASSES.index(name) for name in EXPR.classes if name in CLASSES]
    values = one_class.softmax(logits[..., jnp.array(shared)])
    places = jnp.array([i for i, name in enumerate(EXPR.classes) if name in CLASSES])
    shape = (*logits.shape[:-1], EXPR.outputs)
    return jnp.zeros(shape, jnp.float32).at[..., places].set(values)
