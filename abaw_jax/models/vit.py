"""Vision transformer (Dosovitskiy et al. 2021) in the form that masked autoencoders use.

Pre-norm blocks, LayerNorm eps 1e-6, exact GELU, bias on every projection, fixed sin-cos positions;
learned ones and another eps for weights that were trained with them.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from jax.typing import DTypeLike
from jaxtyping import Float, Int, Shaped

from abaw_jax.models.layers import (
    AnyArray,
    Dense,
    DropPath,
    LayerNorm,
    Mlp,
    SelfAttention,
    sincos_2d,
    xavier,
)

POSITIONS = ("sincos", "learned")
# Width, depth and heads by size: Ti and S of Touvron et al. 2021 (DeiT), the others of
# Dosovitskiy et al. 2021, table 1. Any of them takes any patch and image size.
SIZES = {
    "Ti": dict(width=192, depth=12, heads=3),
    "S": dict(width=384, depth=12, heads=6),
    "B": dict(width=768, depth=12, heads=12),
    "L": dict(width=1024, depth=24, heads=16),
    "H": dict(width=1280, depth=32, heads=16),
}


def patchify(images: Shaped[AnyArray, "B S S 3"], patch_size: int) -> Shaped[AnyArray, "B N P"]:
    """Patches in row order, pixels by (row, column, channel)."""
    return rearrange(images, "b (h p) (w q) c -> b (h w) (p q c)", p=patch_size, q=patch_size)


class Block(nn.Module):
    """Pre-norm transformer block: (B, N, D) -> (B, N, D)."""

    heads: int
    mlp_ratio: float = 4.0
    drop_path: float = 0.0
    dtype: DTypeLike = jnp.float32
    epsilon: float = 1e-6
    activation: str = "gelu"

    @nn.compact
    def __call__(
        self, x: Float[AnyArray, "B N D"], train: bool = False
    ) -> Float[jax.Array, "B N D"]:
        h = LayerNorm(epsilon=self.epsilon, dtype=self.dtype, name="norm1")(x)
        h = SelfAttention(self.heads, dtype=self.dtype, name="attn")(h, train=train)
        x = x + DropPath(self.drop_path)(h, train=train)
        h = LayerNorm(epsilon=self.epsilon, dtype=self.dtype, name="norm2")(x)
        hidden = int(x.shape[-1] * self.mlp_ratio)
        h = Mlp(hidden, self.activation, dtype=self.dtype, name="mlp")(h, train=train)
        return x + DropPath(self.drop_path)(h, train=train)


class ViT(nn.Module):
    """Encoder without its last norm: images (B, S, S, 3) -> tokens (B, 1 + N, D), CLS first.

    `drop_path` is the rate of the last block; it grows linearly from 0 at the first.
    With `keep` (B, K), indices of patches, only those are encoded: tokens (B, 1 + K, D).
    `remat` recomputes each block in the backward pass instead of storing it.
    positions: "sincos" (fixed), or "learned": the parameter `pos_embed` (1, 1 + N, D), CLS first.
    epsilon: that of all LayerNorms, of those above the encoder too.
    """

    image_size: int
    patch_size: int
    width: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0
    drop_path: float = 0.0
    remat: bool = False
    dtype: DTypeLike = jnp.float32
    positions: str = "sincos"
    epsilon: float = 1e-6

    @property
    def grid(self) -> int:
        """Patches along a side. Raises ValueError where the patch does not divide the image."""
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image size {self.image_size} is not a multiple of patch size {self.patch_size}"
            )
        return self.image_size // self.patch_size

    @nn.compact
    def __call__(
        self,
        images: Float[AnyArray, "B S S 3"],
        keep: Int[AnyArray, "B K"] | None = None,
        *,
        train: bool = False,
    ) -> Float[jax.Array, "B _ D"]:
        patches = patchify(images.astype(self.dtype), self.patch_size)
        if patches.shape[1] != self.grid**2:
            raise ValueError(f"images of shape {images.shape}, not of {self.image_size} pixels")
        positions = jnp.asarray(self._positions(), self.dtype)
        embed = Dense(self.width, kernel_init=xavier, dtype=self.dtype, name="patch_embed")
        if keep is None:
            x = embed(patches) + positions[1:]
        else:
            # Patches are dropped before they are embedded: the same values for less work.
            x = embed(jnp.take_along_axis(patches, keep[..., None], axis=1)) + positions[1:][keep]
        cls_token = self.param("cls_token", nn.initializers.normal(0.02), (1, 1, self.width))
        cls_tokens = jnp.broadcast_to(
            cls_token.astype(self.dtype) + positions[:1], (x.shape[0], 1, self.width)
        )
        x = jnp.concatenate([cls_tokens, x], axis=1)
        block = nn.remat(Block, static_argnums=(2,)) if self.remat else Block
        for i in range(self.depth):
            rate = self.drop_path * i / max(self.depth - 1, 1)
            options = (self.heads, self.mlp_ratio, rate, self.dtype, self.epsilon)
            x = block(*options, name=f"blocks_{i}")(x, train)
        return x

    def _positions(self) -> Float[AnyArray, "_ D"]:
        """(1 + N, D), CLS first."""
        if self.positions not in POSITIONS:
            raise ValueError(f"positions {self.positions!r}; expected one of {POSITIONS}")
        if self.positions == "sincos":
            return sincos_2d(self.grid, self.width)
        shape = (1, 1 + self.grid**2, self.width)
        return self.param("pos_embed", nn.initializers.normal(0.02), shape)[0]
