"""Labels of sequences: a model over windows of features, one output a frame."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from abaw_jax.tasks.task import Aux, Task, class_metrics, loss_options, row_weight
from abaw_jax.tracks.track import Track


def make_sequences_task(
    model: nn.Module,
    track: Track,
    *,
    class_weights: Sequence[float] | None = None,
    label_smoothing: float = 0.0,
) -> Task:
    """The track's loss on every valid frame of every window of the global batch.

    model: (features (B, T, D), mask (B, T), counted (B, T), train) -> logits (B, T, C), as
    SequenceModel. Batch: features float32 (B, T, D), mask bool (B, T) (False = padding), label
    (B, T, W). Frames that are padding or unlabelled count for nothing, neither in the loss nor in
    BatchNorm's statistics. predict gives `probabilities` (B, T, C).
    """
    options = loss_options(class_weights, label_smoothing)

    def init(key, batch):
        variables = dict(model.init(key, batch["features"], batch["mask"]))
        return variables.pop("params"), variables

    def loss(params, model_state, batch, rngs, train):
        labels, mask = batch["label"], batch["mask"]
        valid = track.valid(labels) & mask
        variables = {"params": params, **model_state}
        inputs = (batch["features"], mask, valid)
        if train and model_state:
            logits, model_state = model.apply(
                variables, *inputs, train=True, rngs=rngs, mutable=list(model_state)
            )
        else:
            logits = model.apply(variables, *inputs, train=train, rngs=rngs)
        weight = row_weight(labels, valid, class_weights)
        losses = jnp.where(valid, track.loss(logits, labels, **options), 0.0)
        metrics = class_metrics(track, logits, labels, valid)
        return losses.sum(), Aux(weight.sum(), metrics, model_state)

    def predict(params, model_state, batch):
        logits = model.apply({"params": params, **model_state}, batch["features"], batch["mask"])
        return {"probabilities": track.activation(logits)}

    return Task(init, loss, predict)
