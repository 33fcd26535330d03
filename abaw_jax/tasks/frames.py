"""Labels of frames: an encoder with a head on single images."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from abaw_jax.tasks.task import (
    Aux,
    Normalise,
    Task,
    class_metrics,
    loss_options,
    row_weight,
)
from abaw_jax.tracks.track import Track


def make_frames_task(
    model: nn.Module,
    track: Track,
    *,
    normalise: Normalise,
    class_weights: Sequence[float] | None = None,
    label_smoothing: float = 0.0,
    mixup: float = 0.0,
    cutmix: float = 0.0,
) -> Task:
    """The track's loss on labelled images.

    model: (images (B, S, S, 3), train) -> (logits (B, C), features (B, D)), as FrameClassifier.
    normalise: of the pixels. Batch: image uint8 (B, S, S, 3), label (B, W), optional mask bool
    (B,) (False = padding). Rows that are padding or unlabelled count for nothing. With
    class_weights the normaliser is the sum of the rows' weights, as in torch. mixup, cutmix: alpha
    of the Beta distribution, 0 = off; with both, each batch draws one of them. predict gives
    `probabilities` (B, C), `features` (B, D).
    """
    options = loss_options(class_weights, label_smoothing)

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

    def rows(logits, labels, mask):
        """Weight, loss and correctness of each row; 0 where it does not count."""
        valid = track.valid(labels) & mask
        weight = row_weight(labels, valid, class_weights)
        return weight, jnp.where(valid, track.loss(logits, labels, **options), 0.0), valid

    def loss(params, model_state, batch, rngs, train):
        images, labels = batch["image"], batch["label"]
        mask = batch.get("mask", jnp.ones(labels.shape[0], bool))
        share = jnp.float32(1)
        if train and (mixup or cutmix):
            images, share = mix_images(rngs["mixup"], images, mixup, cutmix)
        (logits, _), model_state = forward(params, model_state, images, train, rngs)
        weight, losses, valid = rows(logits, labels, mask)
        if train and (mixup or cutmix):
            # The loss is linear in its target, so two labels by their shares equal a soft one.
            other_weight, other_losses, _ = rows(logits, labels[::-1], mask[::-1])
            weight = share * weight + (1 - share) * other_weight
            losses = share * losses + (1 - share) * other_losses
        metrics = class_metrics(track, logits, labels, valid)
        return losses.sum(), Aux(weight.sum(), metrics, model_state)

    def predict(params, model_state, batch):
        (logits, features), _ = forward(params, model_state, batch["image"])
        return {
            "probabilities": track.activation(logits),
            "features": features.astype(jnp.float32),
        }

    return Task(init, loss, predict)


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
