"""Losses per example; whoever calls them sums and divides."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp


def cross_entropy(
    logits: jax.Array,
    labels: jax.Array,
    class_weights: Sequence[float] | jax.Array | None = None,
    label_smoothing: float = 0.0,
) -> jax.Array:
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
    labels: jax.Array, class_weights: Sequence[float] | jax.Array | None
) -> jax.Array:
    """What each example adds to the normaliser: its class's weight, or 1. int (...) -> (...).

    The mean of torch's weighted cross-entropy is sum_i w_(y_i) l_i / sum_i w_(y_i).
    """
    if class_weights is None:
        return jnp.ones(labels.shape, jnp.float32)
    return jnp.asarray(class_weights, jnp.float32)[labels]
