"""EfficientNet (Tan and Le 2019) in the form of timm's `efficientnet_b0` and `efficientnet_b2`.

Inverted residuals with squeeze-and-excitation, SiLU, BatchNorm eps 1e-5, torch's padding; not the
form with TensorFlow's padding and eps 1e-3, whose weights timm names `tf_efficientnet_*`.
"""

import math
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Float, Float32

from abaw_jax.models.convolution import IMAGENET, Conv, ConvNorm, Pixels
from abaw_jax.models.layers import AnyArray, DropPath


class Stage(NamedTuple):
    """Blocks of one width; the first has the stride. expansion: of the width inside a block."""

    blocks: int
    kernel_size: int
    stride: int
    expansion: int
    width: int


# Tan and Le 2019, table 1; B2 by the factors of their public code.
STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
SIZES = {
    "B0": dict(width_factor=1.0, depth_factor=1.0),
    "B2": dict(width_factor=1.1, depth_factor=1.2),
}
# Sizes as `hsemotion` has them (arXiv 2403.11590).
PIXELS = {"B0": Pixels(224, **IMAGENET), "B2": Pixels(260, **IMAGENET)}
# For faces of 48 pixels; not published, chosen here: maps of 24, 12, 6 pixels. In training the time
# goes by the numbers of the maps: tiny has a fifth of small's.
SMALL = dict(
    last=512,
    stages=(
        Stage(1, 3, 1, 1, 24),
        Stage(3, 3, 1, 4, 32),
        Stage(3, 3, 2, 4, 64),
        Stage(4, 3, 2, 4, 112),
    ),
)
TINY = dict(
    last=256,
    stages=(
        Stage(1, 3, 1, 1, 16),
        Stage(2, 3, 2, 3, 32),
        Stage(2, 3, 2, 4, 64),
        Stage(1, 3, 1, 4, 96),
    ),
)


def scale_width(width: int, factor: float) -> int:
    """The multiple of 8 next to width * factor, at least nine tenths of it."""
    wanted = width * factor
    scaled = max(8, int(wanted + 4) // 8 * 8)
    return scaled if scaled >= 0.9 * wanted else scaled + 8


class SqueezeExcite(nn.Module):
    """Each channel times a gate that all channels' means set: (B, H, W, D) -> (B, H, W, D).

    Hu et al. 2018, figure 2; `reduced` is the width in between.
    """

    reduced: int
    form: str | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[AnyArray, "B H W D"]) -> Float[jax.Array, "B H W D"]:
        conv = partial(Conv, bias=True, form=self.form, dtype=self.dtype)
        means = jnp.mean(x, (1, 2), keepdims=True)  # x.mean is no one operation in ONNX
        gate = jax.nn.silu(conv(self.reduced, name="reduce")(means))
        return x * jax.nn.sigmoid(conv(x.shape[-1], name="expand")(gate))


class InvertedResidual(nn.Module):
    """Wider, depthwise, gated, narrower, beside a residual where shapes allow: (B, H, W, I) ->
    (B, h, w, D). Sandler et al. 2018, figure 4; without expansion there is no first convolution.
    """

    width: int
    kernel_size: int
    stride: int = 1
    expansion: int = 6
    drop_path: float = 0.0
    form: str | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[AnyArray, "B H W I"], *, train: bool = False
    ) -> Float[jax.Array, "B h w D"]:
        conv = partial(ConvNorm, form=self.form, dtype=self.dtype)
        width, h = x.shape[-1], x
        hidden = width * self.expansion
        if self.expansion != 1:
            h = conv(hidden, activation="silu", name="expand")(h, train=train)
        sides = (self.kernel_size, self.kernel_size)
        h = conv(hidden, sides, self.stride, hidden, activation="silu", name="depthwise")(
            h, train=train
        )
        h = SqueezeExcite(width // 4, self.form, self.dtype, name="se")(h)
        h = conv(self.width, name="project")(h, train=train)
        if self.stride != 1 or width != self.width:
            return h
        return x + DropPath(self.drop_path)(h, train=train)


class StageBlocks(nn.Module):
    """The blocks of a stage, `layers_0` on, with a rate of drop path each."""

    stage: Stage
    drop_path: tuple[float, ...]
    form: str | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[AnyArray, "B H W I"], *, train: bool = False
    ) -> Float[jax.Array, "B h w D"]:
        _, kernel_size, stride, expansion, width = self.stage
        for i, rate in enumerate(self.drop_path):
            x = InvertedResidual(
                width,
                kernel_size,
                1 if i else stride,
                expansion,
                rate,
                self.form,
                self.dtype,
                name=f"layers_{i}",
            )(x, train=train)
        return x


class EfficientNet(nn.Module):
    """Images (B, S, S, 3), scaled as `PIXELS` says, -> the mean of the last map, float32 (B, D).

    drop_path: the rate grows linearly from 0 at the first block and would reach this after the
    last; Tan and Le 2019 train with 0.2. last: width of a feature before it is scaled. form: as
    `models.convolution.find_form`.
    """

    width_factor: float = 1.0
    depth_factor: float = 1.0
    stages: tuple[Stage, ...] = STAGES
    last: int = 1280
    drop_path: float = 0.0
    form: str | None = None
    dtype: DTypeLike = jnp.float32

    @property
    def width(self) -> int:
        """Numbers of a feature: 1280 of B0, 1408 of B2."""
        return scale_width(self.last, self.width_factor)

    @property
    def scaled_stages(self) -> tuple[Stage, ...]:
        return tuple(
            stage._replace(
                blocks=math.ceil(stage.blocks * self.depth_factor),
                width=scale_width(stage.width, self.width_factor),
            )
            for stage in self.stages
        )

    @nn.compact
    def __call__(
        self, images: Float[AnyArray, "B S S 3"], *, train: bool = False
    ) -> Float32[jax.Array, "B D"]:
        conv = partial(ConvNorm, activation="silu", form=self.form, dtype=self.dtype)
        stem = scale_width(32, self.width_factor)
        x = conv(stem, (3, 3), 2, name="stem")(images, train=train)
        stages, before = self.scaled_stages, 0
        depth = sum(stage.blocks for stage in stages)
        for i, stage in enumerate(stages):
            rates = tuple(self.drop_path * (before + k) / depth for k in range(stage.blocks))
            x = StageBlocks(stage, rates, self.form, self.dtype, name=f"blocks_{i}")(x, train=train)
            before += stage.blocks
        x = conv(self.width, name="last")(x, train=train)
        return jnp.mean(x.astype(jnp.float32), (1, 2))
