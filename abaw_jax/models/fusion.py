"""Several sources made one: features of modalities side by side, and two views of a face.

What an example lacks is said by `presence` (..., M), one entry a modality.
"""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Bool, Float, Float32

from abaw_jax.models.layers import AnyArray, Dense, Dropout

METHODS = ("attention", "attention_local", "mean", "concatenation")
LOGITS_AT_ONCE = 2**20  # of scalar attention, 4 MiB
TOGETHER = 8  # examples of it in one group
EXAMPLES = 64  # that many are reckoned with where an exported program takes any number
NODES, ORDER, REACH = 64, 8, 0.5  # of its series
TINY = 1e-30  # in place of a range of 0


class Pointwise(nn.Module):
    """Parts (..., D1), (..., D2), ... side by side, then dense layers: (..., widths[-1]).

    Over time these are 1x1 convolutions. LeakyReLU stands between the layers (slope 0 = ReLU),
    dropout before the first. `fuxi`'s fusion of frames: widths (256, 128), slope 0.1; its last
    layers of a clip: dropout 0.5, widths (hidden, 6).
    """

    widths: tuple[int, ...]
    slope: float = 0.1
    dropout: float = 0.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, *parts: Float[AnyArray, "*B _"], train: bool = False
    ) -> Float[jax.Array, "*B {self.widths[-1]}"]:
        x = Dropout(self.dropout)(jnp.concatenate(parts, -1), train=train)
        for i, width in enumerate(self.widths):
            if i:
                x = jax.nn.leaky_relu(x, self.slope)
            x = Dense(width, dtype=self.dtype, name=f"fc{i + 1}")(x)
        return x


def fixed_gates(
    parts: Sequence[Float[AnyArray, "*B _"]],
    presence: Bool[AnyArray, "*B M"],
    weights: Sequence[float],
) -> list[Float[jax.Array, "*B _"]]:
    """Each modality's features times its weight where it is present, zeros where it is not."""
    gates = presence[..., None]
    return [
        jnp.where(gates[..., m, :], weight * part, 0.0)
        for m, (part, weight) in enumerate(zip(parts, weights, strict=True))
    ]


class LearnedGates(nn.Module):
    """Each modality's features times a gate in (0, 1), zeros where it is not present.

    The gate of a modality is sigmoid(Linear) of its features and of the presence of all: where
    another is missing it may count for more. What a missing modality holds is never read.
    """

    @nn.compact
    def __call__(
        self, parts: Sequence[Float[AnyArray, "*B _"]], presence: Bool[AnyArray, "*B M"]
    ) -> list[Float[jax.Array, "*B _"]]:
        gated = []
        ones = (1.0,) * presence.shape[-1]
        for m, part in enumerate(fixed_gates(parts, presence, ones)):
            seen = jnp.concatenate([part, presence.astype(part.dtype)], -1)
            gate = jax.nn.sigmoid(Dense(1, name=f"gate_{m}")(seen))
            gated.append(part * gate.astype(part.dtype))
        return gated


def scalar_attention(
    query: Float[AnyArray, "*B N"], key: Float[AnyArray, "*B N"], value: Float[AnyArray, "*B N"]
) -> Float32[jax.Array, "*B N"]:
    """Attention over N positions that hold one number each; softmax over keys, in float32.

    Made of sums of exponentials (`_exponential_sums`), and so are its gradients. Examples go in
    groups of up to TOGETHER, taken in strides, as neighbours lie on one device.
    """
    shape, width = query.shape, query.shape[-1]
    rows = [jnp.asarray(a, jnp.float32).reshape(-1, width) for a in (query, key, value)]
    count = rows[0].shape[0]
    if not isinstance(count, int):
        return _attend(*rows).reshape(shape)
    groups = [a.reshape(math.gcd(count, TOGETHER), -1, width).swapaxes(0, 1) for a in rows]
    found = jax.lax.map(lambda group: _attend(*group), groups)
    return found.swapaxes(0, 1).reshape(shape)


@jax.custom_vjp
def _attend(query, key, value):
    """The attention of (B, N), (B, N), (B, N) -> (B, N)."""
    return _attend_forward(query, key, value)[0]


def _attend_forward(query, key, value):
    """With the means of key and key * value under each query's weights: of them is the gradient
    that the query gets. Keys and values are centred, so that these means lose no digits."""
    centre = value.mean(-1, keepdims=True)
    key, value = key - key.mean(-1, keepdims=True), value - centre
    columns = jnp.stack([jnp.ones_like(key), value, key, key * value], -1)
    scale, sums = _exponential_sums(query, key, None, columns)
    total, *means = jnp.moveaxis(sums, -1, 0)
    means = [mean / total for mean in means]
    return means[0] + centre, (query, key, value, scale + jnp.log(total), means)


def _attend_backward(saved, gradient):
    """With weights w and output o: of the value the sum over queries of w g, of the key that of
    w g q (v - o), of the query g times the covariance of key and value under its weights."""
    query, key, value, log_total, (out, mean_key, mean_product) = saved
    columns = jnp.stack([gradient, gradient * query, gradient * query * out], -1)
    scale, sums = _exponential_sums(key, query, log_total, columns)
    of_value, of_key, of_out = jnp.moveaxis(jnp.exp(scale)[..., None] * sums, -1, 0)
    of_query = gradient * (mean_product - out * mean_key)
    return of_query, value * of_key - of_out, of_value


_attend.defvjp(_attend_forward, _attend_backward)


def _exponential_sums(x, y, shift, columns):
    """Sums over j of exp(x_i y_j - shift_j) columns_jc, as (scale, sums): exp(scale_i) sums_ic.

    x (B, I), y, shift (B, J), columns (B, J, C) -> (B, I), (B, I, C). No exponent may be above 0;
    or the shift is None, for 0, and the scale the largest exponent, which is at an end of y.

    Of one number x they are smooth functions: made at NODES places between the least and the
    largest x, they are had anywhere between by their Taylor series, of ORDER terms. Its rest is
    below REACH^ORDER / ORDER! = 1e-7 of a sum of the columns' magnitudes as long as the product of
    x's distance to a place and half of y's range is at most REACH. Where the range of x times that
    of y is larger, by half of which logits differ, every x has its sum made by itself.
    """
    if x.shape[-1] <= NODES:
        return _sums_at(x, y, shift, columns)
    low, high = x.min(-1, keepdims=True), x.max(-1, keepdims=True)
    least, most = y.min(-1, keepdims=True), y.max(-1, keepdims=True)
    step = (high - low) / (NODES - 1)
    near = (step * (most - least) <= 4 * REACH).all()
    return jax.lax.cond(near, _sums_by_series, _sums_at, x, y, shift, columns)


def _sums_by_series(x, y, shift, columns):
    low, least = x.min(-1, keepdims=True), y.min(-1, keepdims=True)
    step = jnp.maximum((x.max(-1, keepdims=True) - low) / (NODES - 1), TINY)
    half = (y.max(-1, keepdims=True) - least) / 2
    centre = least + half
    unit = ((y - centre) / jnp.maximum(half, TINY))[..., None]
    powers = [columns]
    for _ in range(ORDER - 1):
        powers.append(powers[-1] * unit)
    nodes = low + step * jnp.arange(NODES)
    scale, moments = _sums_at(nodes, y, shift, jnp.concatenate(powers, -1))
    index = jnp.round((x - low) / step).astype(jnp.int32)
    offset = x - jnp.take_along_axis(nodes, index, 1)
    scale = jnp.take_along_axis(scale, index, 1) + offset * centre
    terms = jnp.split(jnp.take_along_axis(moments, index[..., None], 1), ORDER, -1)
    offset = (offset * half)[..., None]
    sums = terms[-1]
    for n in reversed(range(1, ORDER)):
        sums = terms[n - 1] + sums * offset / n
    return scale, sums


def _sums_at(x, y, shift, columns):
    """As `_exponential_sums`, each x by itself: of I J exponentials LOGITS_AT_ONCE at a time."""

    def sums(some):
        exponents = some[..., None] * y[:, None]
        if shift is None:
            ends = y.min(-1, keepdims=True), y.max(-1, keepdims=True)
            scale = jnp.maximum(*(some * end for end in ends))
            exponents -= scale[..., None]
        else:
            scale = jnp.zeros_like(some)
            exponents -= shift[:, None]
        weights = jnp.exp(exponents)
        return scale, jnp.einsum("bij,bjc->bic", weights, columns, precision="highest")

    examples, count = x.shape
    examples = examples if isinstance(examples, int) else EXAMPLES
    size = max(LOGITS_AT_ONCE // (examples * y.shape[-1]), 1)
    if size >= count:
        return sums(x)
    chunks = jnp.pad(x, [(0, 0), (0, -count % size)]).reshape(x.shape[0], -1, size)
    found = jax.lax.map(sums, jnp.moveaxis(chunks, 1, 0))
    scale, found = (jnp.moveaxis(a, 0, 1) for a in found)
    rows = x.shape[0], -1
    return scale.reshape(rows)[:, :count], found.reshape(*rows, columns.shape[-1])[:, :count]


class TwoViewFusion(nn.Module):
    """Features of two views of a face, whole (..., D) and composite (..., D) -> one (..., N).

    `emotic_mae` (arXiv 2403.13039): x1 and x2 are projections of the two to N = `width` numbers, k
    one of [x1, x2]. method:

        attention        fused = x1 + attention(query x2, key k, value x1)
        attention_local  that + x1 * sigmoid(convolution over the positions of x1, x2 and k)
        mean             fused = (x1 + x2) / 2
        concatenation    fused = [x1, x2], 2 N wide

    Not published, and chosen here: the attention's scale (1, which is 1 / sqrt of the head's width
    1), and of the local attention all but that it convolves and stands beside self-attention: one
    channel out, kernel 7, its result added.
    """

    width: int = 1024
    method: str = "attention"
    local_kernel: int = 7

    @nn.compact
    def __call__(
        self, whole: Float[AnyArray, "*B D"], composite: Float[AnyArray, "*B D"]
    ) -> Float32[jax.Array, "*B N"]:
        if self.method not in METHODS:
            raise ValueError(f"method {self.method!r}; expected one of {METHODS}")
        x1 = Dense(self.width, name="whole")(whole)
        x2 = Dense(self.width, name="composite")(composite)
        if self.method == "mean":
            return (x1 + x2) / 2
        if self.method == "concatenation":
            return jnp.concatenate([x1, x2], -1)
        key = Dense(self.width, name="key")(jnp.concatenate([x1, x2], -1))
        fused = x1 + scalar_attention(x2, key, x1)
        if self.method == "attention_local":
            maps = jnp.stack([x1, x2, key], -1)
            local = nn.Conv(1, (self.local_kernel,), name="local")(maps)[..., 0]
            fused = fused + x1 * jax.nn.sigmoid(local)
        return fused
