"""Masked reconstruction: a masked autoencoder on images without labels."""

import jax
import jax.numpy as jnp

from abaw_jax.models.mae import MAE, reconstruction_loss, reconstruction_target
from abaw_jax.tasks.task import Aux, Normalise, Task


def make_reconstruct_task(model: MAE, *, normalise: Normalise, norm_pix_loss: bool = True) -> Task:
    """Squared error on the masked patches (He et al. 2022). Batch: image uint8 (B, S, S, 3).

    normalise: of the pixels. The noise that decides the mask is
    drawn for the whole global batch from the stream 'mask'. predict gives `features` (B, D): the
    mean of the encoder's patch tokens, nothing masked.
    """
    encoder = model.encoder
    patches = encoder.grid**2

    def init(key, batch):
        noise = jnp.zeros((batch["image"].shape[0], patches))
        images = normalise(batch["image"])
        return model.init(key, images, noise)["params"], {}

    def loss(params, model_state, batch, rngs, train):
        images = normalise(batch["image"])
        noise = jax.random.uniform(rngs["mask"], (images.shape[0], patches))
        prediction, mask = model.apply({"params": params}, images, noise, train=train, rngs=rngs)
        if "mask" in batch:
            mask = mask * batch["mask"][:, None]
        target = reconstruction_target(images, encoder.patch_size, norm_pix_loss)
        loss_sum, weight = reconstruction_loss(prediction, target, mask)
        return loss_sum, Aux(weight, {}, model_state)

    def predict(params, model_state, batch):
        images = normalise(batch["image"])
        tokens = encoder.apply({"params": params["encoder"]}, images)
        return {"features": tokens[:, 1:].mean(axis=1).astype(jnp.float32)}

    return Task(init, loss, predict)
