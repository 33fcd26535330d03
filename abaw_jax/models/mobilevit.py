"""MobileViT (Mehta and Rastegari 2022) in the form of timm's `mobilevit_s`.

Inverted residuals without squeeze-and-excitation, and blocks in which transformers attend between
patches: each pixel to the pixels at the same place of all patches. SiLU, BatchNorm and LayerNorm
eps 1e-5.
"""

from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jax.typing import DTypeLike
from jaxtyping import Float, Float32

from abaw_jax.models.convolution import IMAGENET, Conv, ConvNorm, Pixels
from abaw_jax.models.layers import AnyArray, DropPath, LayerNorm
from abaw_jax.models.vit import Block

PATCH = 2
HEADS = 4


class Stage(NamedTuple):
    """Inverted residuals of one width, the first with the stride; depth: of the transformer behind
    them, of `inner` width, 0 for none."""

    blocks: int
    stride: int
    width: int
    inner: int = 0
    depth: int = 0


# Mehta and Rastegari 2022, table 4; the inside of a residual is 4 times as wide in all of S.
SIZES = {
    "S": dict(
        width=640,
        stages=(
            Stage(1, 1, 32),
            Stage(3, 2, 64),
            Stage(1, 2, 96, 144, 2),
            Stage(1, 2, 128, 192, 4),
            Stage(1, 2, 160, 240, 3),
        ),
    ),
}
# The size is `hsemotion`'s (arXiv 2403.11590), which does not say how pixels are scaled. timm's own
# weights were trained at 256 pixels in 0 .. 1: mean 0, std 1.
PIXELS = {"S": Pixels(224, **IMAGENET)}


class InvertedResidual(nn.Module):
    """Four times as wide, depthwise, narrower: (B, H, W, I) -> (B, h, w, D).

    Beside a residual where shapes allow, Sandler et al. 2018, figure 4.
    """

    width: int
    stride: int = 1
    drop_path: float = 0.0
    form: str | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[AnyArray, "B H W I"], *, train: bool = False
    ) -> Float[jax.Array, "B h w D"]:
        conv = partial(ConvNorm, form=self.form, dtype=self.dtype)
        hidden = 4 * x.shape[-1]
        h = conv(hidden, activation="silu", name="expand")(x, train=train)
        h = conv(hidden, (3, 3), self.stride, hidden, activation="silu", name="depthwise")(
            h, train=train
        )
        h = conv(self.width, name="project")(h, train=train)
        if self.stride != 1 or x.shape[-1] != self.width:
            return h
        return x + DropPath(self.drop_path)(h, train=train)


class MobileViTBlock(nn.Module):
    """Convolution, transformer between patches, convolution of both: (B, H, W, D) of one shape.

    Mehta and Rastegari 2022, figure 1b. A map whose sides the patch does not divide is resized up
    bilinearly for the transformer, and back, as in the public code.
    """

    inner: int
    depth: int
    drop_path: float = 0.0
    form: str | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[AnyArray, "B H W D"], *, train: bool = False
    ) -> Float[jax.Array, "B H W D"]:
        conv = partial(ConvNorm, activation="silu", form=self.form, dtype=self.dtype)
        width = x.shape[-1]
        h = conv(width, (3, 3), name="local")(x, train=train)
        h = Conv(self.inner, form=self.form, dtype=self.dtype, name="widen")(h)
        sides = h.shape[1:3]
        rows, columns = (-(-side // PATCH) for side in sides)
        h = _resize(h, (rows * PATCH, columns * PATCH))
        h = rearrange(h, "b (h p) (w q) d -> (b p q) (h w) d", p=PATCH, q=PATCH)
        for i in range(self.depth):
            h = Block(HEADS, 2.0, self.drop_path, self.dtype, 1e-5, "silu", name=f"layers_{i}")(
                h, train
            )
        h = LayerNorm(epsilon=1e-5, dtype=self.dtype, name="norm")(h)
        h = rearrange(h, "(b p q) (h w) d -> b (h p) (w q) d", p=PATCH, q=PATCH, h=rows)
        h = conv(width, name="narrow")(_resize(h, sides), train=train)
        return conv(width, (3, 3), name="fuse")(jnp.concatenate([x, h], axis=-1), train=train)


def _resize(x, sides):
    """Bilinear, as torch's interpolate without aligned corners: (B, H, W, D) -> (B, h, w, D)."""
    if x.shape[1:3] == tuple(sides):
        return x
    rows, columns = map(_linear, x.shape[1:3], sides)
    x = jnp.einsum("bhwd,ih->biwd", x, rows.astype(x.dtype), precision="highest")
    return jnp.einsum("bhwd,jw->bhjd", x, columns.astype(x.dtype), precision="highest")


def _linear(before: int, after: int) -> Float32[np.ndarray, "{after} {before}"]:
    """What each pixel before counts for in each after: between centres, linearly.

    A product, as jax.image.resize takes no symbol for a number of images where ONNX is written.
    """
    centre = np.clip((np.arange(after) + 0.5) * before / after - 0.5, 0, before - 1)
    return np.maximum(1 - np.abs(centre[:, None] - np.arange(before)), 0).astype(np.float32)


class StageBlocks(nn.Module):
    """The inverted residuals of a stage, `layers_0` on, and its MobileViT block, `attend`."""

    stage: Stage
    drop_path: float = 0.0
    form: str | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[AnyArray, "B H W I"], *, train: bool = False
    ) -> Float[jax.Array, "B h w D"]:
        blocks, stride, width, inner, depth = self.stage
        rest = (self.drop_path, self.form, self.dtype)
        for i in range(blocks):
            x = InvertedResidual(width, 1 if i else stride, *rest, name=f"layers_{i}")(
                x, train=train
            )
        if not depth:
            return x
        return MobileViTBlock(inner, depth, *rest, name="attend")(x, train=train)


class MobileViT(nn.Module):
    """Images (B, S, S, 3), scaled as `PIXELS` says, -> the mean of the last map, float32 (B, D).

    width: of a feature. drop_path: the rate of all residuals that have one. form: as
    `models.convolution.find_form`.
    """

    width: int
    stages: tuple[Stage, ...]
    drop_path: float = 0.0
    form: str | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, images: Float[AnyArray, "B S S 3"], *, train: bool = False
    ) -> Float32[jax.Array, "B D"]:
        conv = partial(ConvNorm, activation="silu", form=self.form, dtype=self.dtype)
        x = conv(16, (3, 3), 2, name="stem")(images, train=train)
        for i, stage in enumerate(self.stages):
            x = StageBlocks(stage, self.drop_path, self.form, self.dtype, name=f"blocks_{i}")(
                x, train=train
            )
        x = conv(self.width, name="last")(x, train=train)
        return x.astype(jnp.float32).mean((1, 2))
