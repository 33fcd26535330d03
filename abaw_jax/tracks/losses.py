"""The losses of the three kinds of tracks, by the names that configs use. Imports JAX.

One class a row (EXPR, CE), units that are on or off (AU), numbers (VA, EMI). `Loss` says what the
functions take and give; formulas and sources stand in `training/losses.py`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from abaw_jax.tracks.track import Loss
from abaw_jax.training import losses


def _cross_entropy(logits, labels, valid, class_weights=None, label_smoothing=0.0):
    """Normalised by the sum of the rows' class weights, as in torch."""
    label = labels[..., 0]
    # An invalid row is computed as class 0 and then dropped, so that its gradient is 0, not NaN.
    known = jnp.where(label >= 0, label, 0)
    rows = losses.cross_entropy(logits, known, class_weights, label_smoothing)
    weights = losses.class_weight_of(jnp.where(valid, label, 0), class_weights)
    return jnp.where(valid, rows, 0.0), jnp.where(valid, weights, 0.0)


def _class_focal(logits, labels, valid, **options):
    rows = losses.focal(logits, jnp.where(valid, labels[..., 0], 0), **options)
    return jnp.where(valid, rows, 0.0), valid.astype(jnp.float32)


def _class_f1(probabilities, labels, valid):
    targets = jax.nn.one_hot(jnp.where(valid, labels[..., 0], 0), probabilities.shape[-1])
    return losses.soft_f1_loss(probabilities, targets, valid)


def _per_row(function: Callable[..., Any]) -> Callable[..., Any]:
    """From a loss of each row (outputs, targets, **options) to a `Loss.function`, rows weigh 1."""

    def loss(outputs, labels, valid, **options):
        # An invalid row's marks are no targets: it is computed as zeros and then dropped.
        targets = jnp.where(valid[..., None], labels, 0).astype(jnp.float32)
        rows = function(outputs, targets, **options)
        return jnp.where(valid, rows, 0.0), valid.astype(jnp.float32)

    return loss


def _sequence_ccc(values, labels, valid):
    return losses.ccc_loss(values, labels, valid, per_sequence=True)


def _together(function: Callable[..., Any]) -> Loss:
    """A loss of values that judges rows together."""
    return Loss(function, per_row=False, of_values=True)


CLASS_LOSSES = {
    "cross_entropy": Loss(_cross_entropy, ("class_weights", "label_smoothing")),
    "focal": Loss(_class_focal, ("class_weights", "gamma", "alpha")),
    "soft_f1": _together(_class_f1),
}
UNIT_LOSSES = {
    "binary_cross_entropy": Loss(
        _per_row(losses.binary_cross_entropy),
        ("class_weights", "positive_weights", "label_smoothing"),
    ),
    "focal": Loss(_per_row(losses.binary_focal), ("class_weights", "gamma", "alpha")),
    "asymmetric": Loss(
        _per_row(losses.asymmetric),
        ("class_weights", "gamma_positive", "gamma_negative", "margin"),
    ),
    "soft_f1": _together(losses.soft_f1_loss),
}
VALUE_LOSSES = {
    "mse": Loss(_per_row(losses.squared_error), of_values=True),
    "ccc": _together(losses.ccc_loss),
    "ccc_sequence": _together(_sequence_ccc),
    "pearson": _together(losses.pearson_loss),
}
