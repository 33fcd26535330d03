"""What a step optimises: one frozen dataclass of pure functions.

The loop, the step and the checkpoints see nothing but a Task, so whatever can be written as one
(masked reconstruction, labels of frames, labels of sequences) is trained by the same code.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from abaw_jax.errors import InputError
from abaw_jax.tracks.track import Track


class Aux(NamedTuple):
    """What a loss gives besides its sum.

    weight: scalar; the loss of a batch is loss_sum / weight, both summed over the global batch.
    metrics: name -> (sum, weight), reported as sum / weight; arrays are sufficient statistics.
    model_state: the new running statistics, {} for models without any.
    """

    weight: jax.Array
    metrics: dict[str, tuple[jax.Array, jax.Array]]
    model_state: Any


@dataclasses.dataclass(frozen=True)
class Task:
    """Pure functions of arrays; a batch is a dict of arrays whose first axis is the example.

    init: (key, batch) -> (params, model_state); only the shapes of the batch matter.
        model_state is {} or {'batch_stats': ...}.
    loss: (params, model_state, batch, rngs, train) -> (loss_sum, Aux); rngs holds one key for each
        name in `training.rng.STREAMS`. Sums, never means: the step divides once, by the sum of the
        weights, so that neither micro-batches nor devices change the value. (Losses that judge
        rows together, `tracks.track.Loss`, do so within a micro-batch: there its size matters.)
    predict: (params, model_state, batch) -> dict of arrays with the batch's first axis.
    whole: (global batch) -> the same with what its micro-batches must know of all of it, as arrays
        with the batch's first axis; the step calls it before it cuts. By default there is nothing.
    """

    init: Callable[..., tuple[Any, Any]]
    loss: Callable[..., tuple[jax.Array, Aux]]
    predict: Callable[..., dict[str, jax.Array]]
    whole: Callable[[Any], Any] = lambda batch: batch


# Pixels of images (B, S, S, 3), 0 .. 255, to what a model takes, float32 of the same shape. Inside
# the step: images travel to the device as bytes, a quarter of what floats would take.
Normalise = Callable[[jax.Array], jax.Array]


def normalise_by_channel(mean: Sequence[float], std: Sequence[float]) -> Normalise:
    """(x / 255 - mean) / std with the statistics of a corpus, one of each a channel."""
    mean, std = np.asarray(mean, np.float32), np.asarray(std, np.float32)
    return lambda images: images.astype(jnp.float32) * (1 / (255 * std)) - mean / std


def normalise_by_image(images: jax.Array) -> jax.Array:
    """(x - mean) / std with each image's own statistics over all pixels and channels.

    Takes exposure and contrast out. An even image, whose deviation is below 5 of 255, is not
    blown up to noise.
    """
    pixels = images.astype(jnp.float32)
    centred = pixels - pixels.mean((1, 2, 3), keepdims=True)
    deviation = jnp.sqrt(jnp.square(centred).mean((1, 2, 3), keepdims=True))
    return centred / jnp.maximum(deviation, 5.0)


def confusion_counts(logits: jax.Array, labels: jax.Array, weight: jax.Array) -> jax.Array:
    """Counts (C, C), rows true and columns predicted, of logits (..., C) and int labels (...).

    weight (...) is 0 for rows that do not count; their labels may be anything.
    """
    classes = logits.shape[-1]
    true = jax.nn.one_hot(labels.reshape(-1), classes) * weight.reshape(-1, 1)
    predicted = jax.nn.one_hot(logits.argmax(-1).reshape(-1), classes)
    # Counts must be exact: on accelerators the default product rounds to bfloat16 or TF32.
    return jnp.matmul(true.T, predicted, precision=jax.lax.Precision.HIGHEST)


def class_metrics(track: Track, logits, labels, valid) -> dict[str, Any]:
    """Accuracy and confusion counts of a track with one class a row; {} for any other track."""
    if track.label_type != "int32" or track.label_width != 1:
        return {}
    weight = valid.astype(jnp.float32)
    right = (logits.argmax(-1) == labels[..., 0]) * weight
    confusion = confusion_counts(logits, labels[..., 0], weight)
    return {
        "accuracy": (right.sum(), weight.sum()),
        "confusion": (confusion, jnp.float32(1)),
    }


def make_loss(
    track: Track, loss: str | None = None, activation: str | None = None, **options: Any
) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """(logits (..., K), labels (..., W), valid (...)) -> (losses, weights), as `Loss.function`.

    loss, activation: names of the track's, its defaults without. Options that are None were not
    asked for: a loss need not know them. Raises InputError for a name or an option that the track
    or the loss does not have.
    """
    chosen, activate = track.find_loss(loss), track.find_activation(activation)
    options = {key: value for key, value in options.items() if value is not None}
    if unknown := sorted(options.keys() - set(chosen.options)):
        raise InputError(
            f"loss {loss or 'by default'} of {track.name}: has no option {unknown[0]!r}; it takes "
            f"{', '.join(chosen.options) or 'none'}"
        )

    def compute(logits, labels, valid):
        outputs = activate(logits, train=True) if chosen.of_values else logits
        return chosen.function(outputs, labels, valid, **options)

    return compute
