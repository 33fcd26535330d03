"""Labels of sequences: a model over windows of features, one output a frame or a clip."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from abaw_jax.tasks.goals import (
    Goal,
    activate_goals,
    add_parts,
    check_tracks,
    goal_labels,
    goal_logits,
    goal_part,
    make_goal,
    whole_batch,
)
from abaw_jax.tasks.task import Aux, Normalise, Task
from abaw_jax.tracks.track import Track

Inputs = Callable[[Any], Any]  # batch -> what the model takes of it, beside the mask


def take_features(batch: Any) -> jax.Array:
    """The features (B, T, D), as `SequenceModel` takes them."""
    return batch["features"]


def make_pixel_inputs(normalise: Normalise) -> Inputs:
    """Crops, and features where there are any, as `PixelSequenceModel` takes them.

    Of a batch: image uint8 (B, T, S, S, 3), seen bool (B, T), and features, if at all.
    """

    def take(batch: Any) -> dict[str, jax.Array]:
        inputs = {name: batch[name] for name in ("seen", "features") if name in batch}
        return {**inputs, "image": jax.vmap(normalise)(batch["image"])}

    return take


def make_sequences_task(
    model: nn.Module,
    track: Track,
    *,
    inputs: Inputs = take_features,
    loss: str | None = None,
    activation: str | None = None,
    also: Sequence[Goal] = (),
    last: bool = False,
    clips: bool = False,
    **options: Any,
) -> Task:
    """A loss of the track on every valid frame (or clip) of every window of the global batch.

    model: (inputs(batch), mask (B, T), counted (B, T), train) -> logits (B, T, C), as
    SequenceModel. With `last` it predicts each window's last frame: `counted` is (B, 1), logits
    are (B, 1, C), and of the labels that frame's alone are read. Batch: what `inputs` takes, as
    features float32 (B, T, D); mask bool (B, T) (False = padding), label (B, T, W). Frames that
    are padding or unlabelled count for nothing, neither in the loss nor in BatchNorm's statistics.
    loss, activation, options: as `make_loss`. predict gives `probabilities` of the logits' shape.

    Of a track whose labels are of clips a window is a clip, every frame of which holds its label:
    the logits of its frames are averaged (`mean_over_frames`) before activation, losses and metrics
    see one row a clip, and predict gives (B, C). With `clips` the model itself says one thing of a
    clip, (features, train) -> logits (B, C), as ClipModel: features are the batch's arrays
    `features` and `features/<name>`, by name, the first as "frames".

    also: goals of further tracks, as in `make_frames_task`; each head's BatchNorm counts the frames
    that are valid for its own track. Raises InputError as `make_loss` and `check_tracks`.
    """
    goals = (make_goal(track, loss, activation, **options), *also)
    check_tracks([goal.track for goal in goals])

    def arguments(batch):
        return (clip_features(batch),) if clips else (inputs(batch), batch["mask"])

    def pool(logits, mask):
        return logits if clips else mean_over_frames(logits, mask)

    def init(key, batch):
        variables = dict(model.init(key, *arguments(batch)))
        return variables.pop("params"), variables

    def compute(params, model_state, batch, rngs, train):
        mask, labelled = batch["mask"], goal_labels(goals, judged(batch, last))
        valid = [rows for _, rows in labelled]  # of frames: they enter BatchNorm
        variables = {"params": params, **model_state}
        given = arguments(batch)
        if not clips:
            given = (*given, jnp.stack(valid, -1) if also else valid[0])
        if train and model_state:
            logits, model_state = model.apply(
                variables, *given, train=True, rngs=rngs, mutable=list(model_state)
            )
        else:
            logits = model.apply(variables, *given, train=train, rngs=rngs)
        parts = []
        for goal, own, (labels, valid) in zip(
            goals, goal_logits(goals, logits), labelled, strict=True
        ):
            if track.per_clip:  # a clip's first row is no padding, unless all of it is
                own, labels, valid = pool(own, mask), labels[:, 0], valid[:, 0]
            losses, weights = goal.loss(own, labels, valid)
            parts.append(goal_part(goal, losses, weights, own, labels, valid))
        loss_sum, weight, metrics = add_parts(goals, parts, judged(batch, last))
        return loss_sum, Aux(weight, metrics, model_state)

    def predict(params, model_state, batch):
        logits = model.apply({"params": params, **model_state}, *arguments(batch))
        if track.per_clip:
            logits = pool(logits, batch.get("mask"))
        return activate_goals(goals, logits)

    def whole(batch):
        return whole_batch(goals, judged(batch, last)) | batch

    return Task(init, compute, predict, whole)


def judged(batch: Any, last: bool) -> Any:
    """The batch with labels and mask of the frames that are predicted: all, or the last ones."""
    if not last:
        return batch
    return {**batch, "label": batch["label"][:, -1:], "mask": batch["mask"][:, -1:]}


def clip_features(batch: Any) -> dict[str, jax.Array]:
    """Modality -> its features in a batch of clips; "frames": those of the window's frames."""
    names = {name: name.partition("/")[::2] for name in batch}
    return {own or "frames": batch[k] for k, (kind, own) in names.items() if kind == "features"}


def mean_over_frames(values: jax.Array, mask: jax.Array) -> jax.Array:
    """The mean of each window's frames that are no padding: (B, T, C), (B, T) -> (B, C).

    0 for a window of padding alone.
    """
    weight = mask[..., None].astype(values.dtype)
    return (values * weight).sum(1) / jnp.maximum(weight.sum(1), 1)
