"""Losses per example; whoever calls them sums and divides."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float32, Int

# What functions of arrays take: JAX's, tracers among them, or NumPy's.
AnyArray = jax.Array | np.ndarray
ClassWeights = Sequence[float] | Float[AnyArray, " C"] | None


def cross_entropy(
    logits: Float[AnyArray, "*B C"],
    labels: Int[AnyArray, "*B"] | Float[AnyArray, "*B C"],
    class_weights: ClassWeights = None,
    label_smoothing: float = 0.0,
) -> Float32[jax.Array, "*B"]:
    """Cross-entropy of each example: logits (..., C), labels (...) or (..., C) -> float32 (...).

    -sum_c w_c t_c log softmax(logits)_c, where t is the one-hot label, or the given distribution,
    smoothed to (1 - s) t + s / C (Szegedy et al. 2016, section 7). With weights, torch's
    `CrossEntropyLoss(weight=w)` then divides by sum_i w_(y_i): see `class_weight_of`.
    Integer labels must lie in [0, C); callers drop invalid rows.
    """
    logits = logits.astype(jnp.float32)
    classes = logits.shape[-1]
    soft = labels.ndim == logits.ndim
    target = labels.astype(jnp.float32) if soft else jax.nn.one_hot(labels, classes)
    if label_smoothing:
        target = (1 - label_smoothing) * target + label_smoothing / classes
    if class_weights is not None:
        target = target * jnp.asarray(class_weights, jnp.float32)
    return -(target * jax.nn.log_softmax(logits, axis=-1)).sum(-1)


def class_weight_of(
    labels: Int[AnyArray, "*B"], class_weights: ClassWeights
) -> Float32[jax.Array, "*B"]:
    """What each example adds to the normaliser: its class's weight, or 1. int (...) -> (...).

    The mean of torch's weighted cross-entropy is sum_i w_(y_i) l_i / sum_i w_(y_i).
    """
    if class_weights is None:
        return jnp.ones(labels.shape, jnp.float32)
    return jnp.asarray(class_weights, jnp.float32)[labels]
