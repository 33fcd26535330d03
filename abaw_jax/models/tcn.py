"""Causal temporal convolution network (Bai et al. 2018), as `ctyun` has it (arXiv 2403.11440).

Every output depends on its own frame and earlier ones alone. Padding stands on the right of a
window, so no mask is needed: what padded frames hold reaches none that is valid, and frames before
the first count as zeros. At padded frames the outputs are finite and mean nothing.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Float

from abaw_jax.models.layers import AnyArray, Dense, Dropout

# torch's, for kernels of (K, D, O): uniform within 1 / sqrt(K D).
conv_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class CausalConv(nn.Module):
    """Weight-normalised convolution over time, padded on the left: (B, T, D) -> (B, T, O).

    The kernel is scale * v / ||v||, the norm over all of v (K, D, O) but the output axis (Salimans
    and Kingma 2016, equation 2); scale starts as ||v||. `kernel` holds v. Frame t sees the frames
    t - k * dilation for k = 0 .. K - 1.

    XLA:CPU has a fast kernel for a convolution of one group: at B = 8, T = 300, 768 -> 256 and on
    one core 70 ms and, with gradients, 225 ms; sums of shifted products took 68 to 116 and 284 to
    323, one product of the gathered frames 136 and 316.
    """

    width: int
    kernel_size: int = 5
    dilation: int = 1
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[AnyArray, "B T D"]) -> Float[jax.Array, "B T {self.width}"]:
        v = self.param("kernel", conv_init, (self.kernel_size, x.shape[-1], self.width))
        norm = jnp.sqrt(jnp.square(v).sum((0, 1)))
        scale = self.param("scale", lambda key: norm)
        bias = self.param("bias", nn.initializers.zeros, (self.width,))
        convolved = jax.lax.conv_general_dilated(
            jnp.asarray(x, self.dtype),
            (v * (scale / norm)).astype(self.dtype),
            window_strides=(1,),
            padding=[((self.kernel_size - 1) * self.dilation, 0)],
            rhs_dilation=(self.dilation,),
            dimension_numbers=("NWC", "WIO", "NWC"),
        )
        return convolved + bias.astype(self.dtype)


class TemporalBlock(nn.Module):
    """Twice convolution, PReLU and dropout, beside a residual: (B, T, D) -> (B, T, O).

    The residual has a 1x1 convolution where widths differ; a PReLU follows the sum. Each PReLU has
    one slope, 0.25 at first, as torch's.
    """

    width: int
    kernel_size: int = 5
    dilation: int = 1
    dropout: float = 0.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[AnyArray, "B T D"], *, train: bool = False
    ) -> Float[jax.Array, "B T {self.width}"]:
        h = x
        for i in (1, 2):
            h = CausalConv(
                self.width, self.kernel_size, self.dilation, self.dtype, name=f"conv{i}"
            )(h)
            h = nn.PReLU(negative_slope_init=0.25, name=f"prelu{i}")(h)
            h = Dropout(self.dropout)(h, train=train)
        if x.shape[-1] != self.width:
            x = Dense(self.width, dtype=self.dtype, name="residual")(x)
        return nn.PReLU(negative_slope_init=0.25, name="prelu")(h + x)


class TemporalConvNet(nn.Module):
    """A block for each of `widths`, block i with dilation 2**i: (B, T, D) -> (B, T, widths[-1]).

    With K = `kernel_size` and n blocks an output sees 1 + 2 (K - 1) (2**n - 1) frames: 57 with
    `ctyun`'s three blocks of 768, 256 and 128.
    """

    widths: tuple[int, ...]
    kernel_size: int = 5
    dropout: float = 0.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[AnyArray, "B T D"], *, train: bool = False
    ) -> Float[AnyArray, "B T {self.widths[-1]}"]:
        for i, width in enumerate(self.widths):
            x = TemporalBlock(
                width, self.kernel_size, 2**i, self.dropout, self.dtype, name=f"layers_{i}"
            )(x, train=train)
        return x
