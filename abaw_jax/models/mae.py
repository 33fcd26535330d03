"""Masked autoencoder (He et al. 2022, "Masked autoencoders are scalable vision learners").

Masking, target and loss are pure functions; the noise that decides the mask is an argument.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Float32, Int32, Shaped

from abaw_jax.models.layers import AnyArray, Dense, LayerNorm, sincos_2d, xavier
from abaw_jax.models.vit import Block, ViT, patchify


def random_mask(
    noise: Float[AnyArray, "B N"], mask_ratio: float
) -> tuple[Int32[jax.Array, "B K"], Int32[jax.Array, "B N"], Float32[jax.Array, "B N"]]:
    """Keep the int(N * (1 - mask_ratio)) patches of least noise.

    noise (B, N) -> keep (B, K), indices in order of noise; restore (B, N), the place of each patch
    in [kept, masked]; mask (B, N), 1 where masked.
    """
    kept = int(noise.shape[1] * (1 - mask_ratio))
    shuffle = jnp.argsort(noise, axis=1)
    restore = jnp.argsort(shuffle, axis=1)
    return shuffle[:, :kept], restore, (restore >= kept).astype(jnp.float32)


def reconstruction_target(
    images: Shaped[AnyArray, "B S S 3"], patch_size: int, norm_pix_loss: bool
) -> Float32[AnyArray, "B N P"]:
    """The pixels of each patch.

    With `norm_pix_loss` each patch is standardised by its own mean and *unbiased* variance, with
    eps 1e-6 inside the root (He et al. 2022, section 3, and the public code).
    """
    target = patchify(images.astype(jnp.float32), patch_size)
    if norm_pix_loss:
        mean = target.mean(axis=-1, keepdims=True)
        variance = target.var(axis=-1, keepdims=True, ddof=1)
        target = (target - mean) / jnp.sqrt(variance + 1e-6)
    return target


def reconstruction_loss(
    prediction: Float[AnyArray, "B N P"],
    target: Float32[AnyArray, "B N P"],
    mask: Float32[AnyArray, "B N"],
) -> tuple[Float32[jax.Array, ""], Float32[jax.Array, ""]]:
    """Squared error of the patches whose mask is 1, as (sum, weight); the loss is sum / weight."""
    error = jnp.square(prediction.astype(jnp.float32) - target).mean(axis=-1)
    return (error * mask).sum(), jnp.sum(mask)


class MAE(nn.Module):
    """ViT encoder on the kept patches, transformer decoder on all.

    images (B, S, S, 3), noise (B, N) -> prediction (B, N, P) and mask (B, N).
    """

    encoder: ViT
    decoder_width: int = 512
    decoder_depth: int = 8
    decoder_heads: int = 16
    mask_ratio: float = 0.75

    @nn.compact
    def __call__(
        self,
        images: Float[AnyArray, "B S S 3"],
        noise: Float[AnyArray, "B N"],
        *,
        train: bool = False,
    ) -> tuple[Float[jax.Array, "B N P"], Float32[jax.Array, "B N"]]:
        dtype = self.encoder.dtype
        keep, restore, mask = random_mask(noise, self.mask_ratio)
        tokens = self.encoder(images, keep, train=train)
        epsilon = self.encoder.epsilon
        tokens = LayerNorm(epsilon=epsilon, dtype=dtype, name="norm")(tokens)
        x = Dense(self.decoder_width, kernel_init=xavier, dtype=dtype, name="decoder_embed")(tokens)
        mask_token = self.param(
            "mask_token", nn.initializers.normal(0.02), (1, 1, self.decoder_width)
        ).astype(dtype)
        cls_token, visible = x[:, :1], x[:, 1:]
        hidden = jnp.broadcast_to(
            mask_token, (x.shape[0], noise.shape[1] - visible.shape[1], self.decoder_width)
        )
        x = jnp.concatenate([visible, hidden], axis=1)
        x = jnp.take_along_axis(x, restore[..., None], axis=1)
        x = jnp.concatenate([cls_token, x], axis=1)
        x = x + jnp.asarray(sincos_2d(self.encoder.grid, self.decoder_width), dtype)
        for i in range(self.decoder_depth):
            block = Block(
                self.decoder_heads, dtype=dtype, epsilon=epsilon, name=f"decoder_blocks_{i}"
            )
            x = block(x, train)
        x = LayerNorm(epsilon=epsilon, dtype=dtype, name="decoder_norm")(x)
        pixels = 3 * self.encoder.patch_size**2
        x = Dense(pixels, kernel_init=xavier, dtype=dtype, name="decoder_pred")(x)
        return x[:, 1:], mask
