"""Labels of frames: an encoder with a head on single images."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from abaw_jax.errors import InputError
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


def make_frames_task(
    model: nn.Module,
    track: Track,
    *,
    normalise: Normalise,
    loss: str | None = None,
    activation: str | None = None,
    mixup: float = 0.0,
    cutmix: float = 0.0,
    read: Callable[[jax.Array], jax.Array] | None = None,
    also: Sequence[Goal] = (),
    **options: Any,
) -> Task:
    """A loss of the track on labelled images.

    model: (images (B, S, S, 3), train) -> (logits (B, C), features (B, D)), as FrameClassifier.
    normalise: of the pixels. Batch: image uint8 (B, S, S, 3), label (B, W), optional mask bool
    (B,) (False = padding). Rows that are padding or unlabelled count for nothing. loss, activation,
    options: as `make_loss`; with cross-entropy's class_weights the normaliser is the sum of the
    rows' weights, as in torch. mixup, cutmix: alpha of the Beta distribution, 0 = off; with both,
    each batch draws one of them. read: the track's logits -> values of what it is learnt for, in
    place of its activation (`tracks.targets`). predict gives `probabilities` (B, C), `features`
    (B, D).

    also: goals of further tracks (see `tasks.goals`), of which the model has a head each, in this
    order; label then holds the labels of all, side by side, and predict gives what `output_names`
    says besides. Raises InputError as `make_loss` and `check_tracks`, and for mixing with a loss
    that judges rows together.
    """
    own = make_goal(track, loss, activation, **options)
    goals = (own._replace(activate=read) if read else own, *also)
    check_tracks([goal.track for goal in goals])
    mixed = bool(mixup or cutmix)
    for goal in goals:
        if mixed:
            _check_mixing(goal)

    def forward(params, model_state, images, train=False, rngs=None):
        images = normalise(images)
        variables = {"params": params, **model_state}
        if not (train and model_state):
            return model.apply(variables, images, train=train, rngs=rngs), model_state
        return model.apply(variables, images, train=train, rngs=rngs, mutable=list(model_state))

    def init(key, batch):
        images = normalise(batch["image"])
        variables = dict(model.init(key, images))
        return variables.pop("params"), variables

    def compute(params, model_state, batch, rngs, train):
        images, share = batch["image"], jnp.float32(1)
        if train and mixed:
            images, share = mix_images(rngs["mixup"], images, mixup, cutmix)
        (logits, _), model_state = forward(params, model_state, images, train, rngs)
        parts = []
        for goal, own, (labels, valid) in zip(
            goals, goal_logits(goals, logits), goal_labels(goals, batch), strict=True
        ):
            losses, weights = goal.loss(own, labels, valid)
            if train and mixed:
                # Both labels by their shares (Zhang et al. 2018): of losses that are linear in
                # their target, as cross-entropy is, this is the loss of the soft label.
                other_losses, other_weights = goal.loss(own, labels[::-1], valid[::-1])
                weights = share * weights + (1 - share) * other_weights
                losses = share * losses + (1 - share) * other_losses
            parts.append(goal_part(goal, losses, weights, own, labels, valid))
        loss_sum, weight, metrics = add_parts(goals, parts, batch)
        return loss_sum, Aux(weight, metrics, model_state)

    def predict(params, model_state, batch):
        (logits, features), _ = forward(params, model_state, batch["image"])
        return {**activate_goals(goals, logits), "features": features.astype(jnp.float32)}

    return Task(init, compute, predict, lambda batch: whole_batch(goals, batch))


def make_encoding_task(model: nn.Module, *, normalise: Normalise) -> Task:
    """What an encoder makes of images: predict gives `features` (B, D). There is nothing to learn.

    model: as in `make_frames_task`.
    """

    def init(key, batch):
        variables = dict(model.init(key, normalise(batch["image"])))
        return variables.pop("params"), variables

    def compute(params, model_state, batch, rngs, train):
        raise TypeError("features alone have no loss")

    def predict(params, model_state, batch):
        _, features = model.apply({"params": params, **model_state}, normalise(batch["image"]))
        return {"features": features.astype(jnp.float32)}

    return Task(init, compute, predict)


def _check_mixing(goal: Goal) -> None:
    """Raise InputError for a loss that judges rows together."""
    track, name = goal.track, goal.loss_name
    if not track.find_loss(name).per_row:
        single = (name for name, known in track.losses().items() if known.per_row)
        raise InputError(
            f"loss {name or 'by default'} of {track.name}: judges rows together, so that losses of "
            f"mixed images do not mix; set mixup and cutmix to 0, or take {', '.join(single)}"
        )


def mix_images(key, images, mixup: float, cutmix: float) -> tuple[jax.Array, jax.Array]:
    """Mix each image with that of the reversed batch: (images, share of the image itself).

    mixup (Zhang et al. 2018): x = s a + (1 - s) b; cutmix (Yun et al. 2019): a box of area 1 - s
    of b is pasted into a, s then recomputed from the box as clipped. s ~ Beta(alpha, alpha), one
    a batch as in timm. uint8 in; float32 with the same range out.
    """
    keys = jax.random.split(key, 4)
    pixels = images.astype(jnp.float32)
    other = pixels[::-1]
    height, width = images.shape[1:3]
    share = jax.random.beta(keys[0], mixup or 1.0, mixup or 1.0)
    blended = share * pixels + (1 - share) * other
    cut_share = jax.random.beta(keys[1], cutmix or 1.0, cutmix or 1.0)
    side = jnp.sqrt(1 - cut_share)
    centre = jax.random.uniform(keys[2], (2,))
    row = jnp.abs((jnp.arange(height) + 0.5) / height - centre[0]) < side / 2
    column = jnp.abs((jnp.arange(width) + 0.5) / width - centre[1]) < side / 2
    box = row[:, None] & column[None, :]
    pasted = jnp.where(box[None, :, :, None], other, pixels)
    chance = {(True, True): 0.5, (True, False): 0.0, (False, True): 1.0}[bool(mixup), bool(cutmix)]
    cut = jax.random.bernoulli(keys[3], chance)
    return jnp.where(cut, pasted, blended), jnp.where(cut, 1 - box.mean(), share)
