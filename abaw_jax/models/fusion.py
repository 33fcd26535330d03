"""Several sources made one: features of modalities side by side, and two views of a face.

What an example lacks is said by `presence` (..., M), one entry a modality.
"""

import math
from collections.abc import Sequence
from functools import partial

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

    The logits are the outer product of query and key, N^2 an example: 4 GiB for 1,024 examples at
    N = 1024. They are made for LOGITS_AT_ONCE at a time, 4 MiB, and anew for the gradients: exact,
    and small whatever a compiler fuses. Examples go in groups of up to TOGETHER, taken in strides,
    as neighbours lie on one device.
    """
    shape, width = query.shape, query.shape[-1]
    rows = [jnp.asarray(a, jnp.float32).reshape(-1, width) for a in (query, key, value)]
    count = rows[0].shape[0]
    if not isinstance(count, int):
        return _attend(*rows, max(LOGITS_AT_ONCE // (EXAMPLES * width), 1)).reshape(shape)
    group = math.gcd(count, TOGETHER)
    at_once = max(LOGITS_AT_ONCE // (group * width), 1)
    groups = [a.reshape(group, -1, width).swapaxes(0, 1) for a in rows]
    found = jax.lax.map(lambda group: _attend(*group, at_once), groups)
    return found.swapaxes(0, 1).reshape(shape)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _attend(query, key, value, at_once):
    """The attention of (B, N), (B, N), (B, N) -> (B, N), for `at_once` queries at a time."""
    return _attend_forward(query, key, value, at_once)[0]


def _attend_forward(query, key, value, at_once):
    """With the means of key and key * value under each query's weights: of them is the gradient
    that the query gets. Keys and values are centred, so that these means lose no digits."""
    centre = value.mean(-1, keepdims=True)
    key, value = key - key.mean(-1, keepdims=True), value - centre
    columns = jnp.stack([jnp.ones_like(key), value, key, key * value], -1)

    def sums(some):
        return jnp.einsum("bqn,bnc->bqc", _weigh(some, key), columns, precision="highest")

    sums = jax.lax.map(sums, _in_chunks(query, at_once))
    sums = jnp.moveaxis(sums, 0, 1).reshape(*key.shape[:1], -1, 4)[:, : query.shape[1]]
    total, *means = jnp.moveaxis(sums, -1, 0)
    means = [mean / total for mean in means]
    return means[0] + centre, (query, key, value, total, means)


def _attend_backward(at_once, saved, gradient):
    """With weights w and output o: of the value the sum over queries of w g, of the key that of
    w g q (v - o), of the query g times the covariance of key and value under its weights."""
    query, key, value, total, (out, mean_key, mean_product) = saved
    columns = jnp.stack([gradient, gradient * query, gradient * query * out], -1) / total[..., None]

    def add(sums, some):
        weights = _weigh(some[0], key)
        # In this order of axes XLA:CPU takes a quarter of the time that "bnc" takes.
        return sums + jnp.einsum("bqn,bqc->bcn", weights, some[1], precision="highest"), None

    chunks = _in_chunks(query, at_once), _in_chunks(columns, at_once)
    sums, _ = jax.lax.scan(add, jnp.zeros((key.shape[0], 3, key.shape[1])), chunks)
    of_value, of_key, of_out = jnp.moveaxis(sums, 1, 0)
    of_query = gradient * (mean_product - out * mean_key)
    return of_query, value * of_key - of_out, of_value


_attend.defvjp(_attend_forward, _attend_backward)


def _weigh(query, key):
    """Weights before their sum is made 1: (B, Q), (B, N) -> (B, Q, N). The largest is 1.

    A product's largest value is at an end of the keys: no pass over all of them is needed.
    """
    ends = (query * end(key, -1, keepdims=True) for end in (jnp.max, jnp.min))
    return jnp.exp(query[..., None] * key[:, None] - jnp.maximum(*ends)[..., None])


def _in_chunks(rows, size):
    """(B, N, ...) -> (chunks, B, size, ...), with zeros after the last."""
    count = rows.shape[1]
    size = min(size, count)
    rows = jnp.pad(rows, [(0, 0), (0, -count % size), *[(0, 0)] * (rows.ndim - 2)])
    return jnp.moveaxis(rows.reshape(rows.shape[0], -1, size, *rows.shape[2:]), 1, 0)


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
