"""DDAMFN: dual-direction attention mixed feature network (Zhang et al. 2023, Electronics 12, 3595).

In the form of its public code's second version, DDAMFN++: bottlenecks as in MobileFaceNet with
depthwise kernels of several sizes side by side and coordinate attention (Hou et al. 2021), then
heads that each attend over the rows and over the columns of the last map.
"""

from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Float, Float32

from abaw_jax.models.convolution import IMAGENET, Conv, ConvNorm, Pixels
from abaw_jax.models.layers import AnyArray, BatchNorm


class Mixed(NamedTuple):
    """The inside of a bottleneck: channels with a kernel of 3 x 3, 5 x 5, 7 x 7, ... each."""

    width: int
    channels: tuple[int, ...]


class Stage(NamedTuple):
    """A bottleneck with stride 2, then `blocks` residual ones of the same width."""

    first: Mixed
    blocks: int
    residual: Mixed


STAGES = (
    Stage(Mixed(64, (64, 32, 32)), 9, Mixed(64, (96, 32))),
    Stage(Mixed(128, (128, 64, 64)), 16, Mixed(128, (192, 64))),
    Stage(Mixed(256, (256, 256, 256, 256)), 6, Mixed(256, (172, 170, 170))),
)
SIZES = {"default": dict(width=512, heads=2)}
# Scaled as in its public code; `hsemotion` (arXiv 2403.11590) gives the size alone.
PIXELS = {"default": Pixels(112, **IMAGENET)}


class CoordinateAttention(nn.Module):
    """Gates of each row times gates of each column: (B, H, W, D), between 0 and 1.

    Hou et al. 2021, section 3.2. learnt: whether a row or column is summed up by a depthwise
    convolution over the whole of it, in place of its mean.
    """

    learnt: bool = False
    form: str | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[AnyArray, "B H W D"], *, train: bool = False
    ) -> Float[jax.Array, "B H W D"]:
        height, width_of, width = x.shape[1:]
        if self.learnt:
            whole = partial(
                ConvNorm, width, groups=width, padding=(0, 0), form=self.form, dtype=self.dtype
            )
            rows = whole(kernel_size=(1, width_of), name="rows")(x, train=train)
            columns = whole(kernel_size=(height, 1), name="columns")(x, train=train)
        else:
            rows, columns = x.mean(2, keepdims=True), x.mean(1, keepdims=True)
        both = jnp.concatenate([rows, columns.swapaxes(1, 2)], axis=1)  # (B, H + W, 1, D)
        conv = partial(Conv, bias=True, form=self.form, dtype=self.dtype)
        both = conv(max(8, width // 32), name="reduce")(both)
        both = jax.nn.hard_swish(BatchNorm(dtype=self.dtype, name="norm")(both, train=train))
        rows = jax.nn.sigmoid(conv(width, name="expand_rows")(both[:, :height]))
        columns = jax.nn.sigmoid(conv(width, name="expand_columns")(both[:, height:]))
        return rows * columns.swapaxes(1, 2)


class MixedBottleneck(nn.Module):
    """Wider, depthwise by several kernels, attended, narrower: (B, H, W, I) -> (B, h, w, D).

    What follows the depthwise convolutions of the public code, a norm and a PReLU, its forward pass
    leaves out, and so does this.
    """

    mixed: Mixed
    stride: int = 1
    residual: bool = True
    form: str | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[AnyArray, "B H W I"], *, train: bool = False
    ) -> Float[jax.Array, "B h w D"]:
        options = dict(form=self.form, dtype=self.dtype)
        width, channels = self.mixed
        h = ConvNorm(sum(channels), activation="prelu", name="expand", **options)(x, train=train)
        ends = [sum(channels[: i + 1]) for i in range(len(channels) - 1)]
        parts = []
        for i, part in enumerate(jnp.split(h, ends, axis=-1)):
            wide, side = part.shape[-1], 3 + 2 * i
            conv = Conv(wide, (side, side), self.stride, wide, name=f"conv_{i}", **options)
            parts.append(conv(part))
        h = jnp.concatenate(parts, axis=-1)
        h = h * CoordinateAttention(name="attend", **options)(h, train=train)
        h = ConvNorm(width, name="project", **options)(h, train=train)
        return x + h if self.residual else h


class Residuals(nn.Module):
    """`blocks` residual bottlenecks, `layers_0` on: (B, H, W, D) of one shape."""

    blocks: int
    mixed: Mixed
    form: str | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[AnyArray, "B H W D"], *, train: bool = False
    ) -> Float[jax.Array, "B H W D"]:
        for i in range(self.blocks):
            x = MixedBottleneck(
                self.mixed, form=self.form, dtype=self.dtype, name=f"layers_{i}"
            )(x, train=train)  # fmt: skip
        return x


class DDAMFN(nn.Module):
    """Images (B, S, S, 3), scaled as `PIXELS` says, -> features, float32 (B, D).

    The map times the greatest gate of the `heads`, then a depthwise convolution over the whole of
    it, so that the input's size is fixed. Blocks 0 and 1 are convolutions; of the others the even
    ones halve the map. form: as `models.convolution.find_form`.
    """

    width: int = 512
    heads: int = 2
    stages: tuple[Stage, ...] = STAGES
    form: str | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, images: Float[AnyArray, "B S S 3"], *, train: bool = False
    ) -> Float32[jax.Array, "B D"]:
        options = dict(form=self.form, dtype=self.dtype)
        conv = partial(ConvNorm, activation="prelu", **options)
        x = conv(64, (3, 3), 2, name="blocks_0")(images, train=train)
        x = conv(64, (3, 3), groups=64, name="blocks_1")(x, train=train)
        for i, (first, blocks, residual) in enumerate(self.stages):
            name = f"blocks_{2 * i + 2}"
            x = MixedBottleneck(first, 2, residual=False, name=name, **options)(x, train=train)
            x = Residuals(blocks, residual, name=f"blocks_{2 * i + 3}", **options)(x, train=train)
        x = conv(self.width, name=f"blocks_{2 * len(self.stages) + 2}")(x, train=train)
        gates = [
            CoordinateAttention(learnt=True, name=f"heads_{i}", **options)(x, train=train)
            for i in range(self.heads)
        ]
        gate = jnp.stack(gates).max(0)
        x = ConvNorm(
            self.width, x.shape[1:3], groups=self.width, padding=(0, 0), name="pool", **options
        )(x * gate, train=train)
        return x[:, 0, 0].astype(jnp.float32)
