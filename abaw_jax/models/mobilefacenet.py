"""MobileFaceNet (Chen et al. 2018) in the form of insightface's public code.

Depthwise residual bottlenecks with a PReLU a channel; a depthwise convolution over the whole of the
last map in place of a mean, so that the input's size is fixed.
"""

from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Float, Float32

from abaw_jax.models.convolution import ConvNorm, Pixels
from abaw_jax.models.layers import AnyArray, BatchNorm, Dense


class Stage(NamedTuple):
    """A bottleneck with stride 2, of `hidden` width inside, then `blocks` residual ones of
    `residual` width inside; `width` is times the model's scale."""

    width: int
    hidden: int
    blocks: int
    residual: int


# Of the public code: one residual at 28 pixels less than in table 1 of Chen et al. 2018, and every
# width between bottlenecks twice the paper's.
STAGES = (Stage(64, 128, 4, 128), Stage(128, 256, 6, 256), Stage(128, 512, 2, 256))
SIZES = {"default": dict(width=512, scale=2)}
PIXELS = {"default": Pixels(112, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))}


class Bottleneck(nn.Module):
    """Wider, depthwise, narrower: (B, H, W, I) -> (B, h, w, D); a residual beside it where asked.

    Chen et al. 2018, section 3.2.
    """

    width: int
    hidden: int
    stride: int = 1
    residual: bool = True
    form: str | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[AnyArray, "B H W I"], *, train: bool = False
    ) -> Float[jax.Array, "B h w D"]:
        conv = partial(ConvNorm, form=self.form, dtype=self.dtype)
        h = conv(self.hidden, activation="prelu", name="expand")(x, train=train)
        h = conv(
            self.hidden, (3, 3), self.stride, self.hidden, activation="prelu", name="depthwise"
        )(h, train=train)
        h = conv(self.width, name="project")(h, train=train)
        return x + h if self.residual else h


class Residuals(nn.Module):
    """`blocks` residual bottlenecks, `layers_0` on: (B, H, W, D) of one shape."""

    blocks: int
    hidden: int
    form: str | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[AnyArray, "B H W D"], *, train: bool = False
    ) -> Float[jax.Array, "B H W D"]:
        for i in range(self.blocks):
            x = Bottleneck(
                x.shape[-1], self.hidden, form=self.form, dtype=self.dtype, name=f"layers_{i}"
            )(x, train=train)
        return x


class MobileFaceNet(nn.Module):
    """Images (B, S, S, 3), scaled as `PIXELS` says, -> embeddings, float32 (B, D), not normed.

    width: of an embedding. Blocks 0 and 1 are convolutions, the second in 64 groups; of the others
    the even ones halve the map. form: as `models.convolution.find_form`.
    """

    width: int = 512
    scale: int = 2
    stages: tuple[Stage, ...] = STAGES
    form: str | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, images: Float[AnyArray, "B S S 3"], *, train: bool = False
    ) -> Float32[jax.Array, "B D"]:
        options = dict(form=self.form, dtype=self.dtype)
        conv = partial(ConvNorm, activation="prelu", **options)
        x = conv(64 * self.scale, (3, 3), 2, name="blocks_0")(images, train=train)
        x = conv(64 * self.scale, (3, 3), groups=64, name="blocks_1")(x, train=train)
        for i, stage in enumerate(self.stages):
            width, name = stage.width * self.scale, f"blocks_{2 * i + 2}"
            x = Bottleneck(width, stage.hidden, 2, residual=False, name=name, **options)(
                x, train=train
            )
            name = f"blocks_{2 * i + 3}"
            x = Residuals(stage.blocks, stage.residual, name=name, **options)(x, train=train)
        x = conv(512, name="last")(x, train=train)
        # Chen et al. 2018, section 3.1: each place of the map has a weight of its own.
        x = ConvNorm(512, x.shape[1:3], groups=512, padding=(0, 0), name="pool", **options)(
            x, train=train
        )
        x = Dense(self.width, use_bias=False, dtype=self.dtype, name="embed")(x[:, 0, 0])
        return BatchNorm(name="norm")(x, train=train)
