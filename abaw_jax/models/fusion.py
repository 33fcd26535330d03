"""Several sources made one: features of modalities side by side, and two views of a face.

What an example lacks is said by `presence` (..., M), one entry a modality.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Bool, Float, Float32

from abaw_jax.models.layers import AnyArray, Dense, Dropout

METHODS = ("attention", "attention_local", "mean", "concatenation")
LOGITS_AT_ONCE = 2**20  # of scalar attention; 2**24 takes twice the time on CPU
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
    N = 1024. They are made for as many queries at a time as LOGITS_AT_ONCE allows, 4 MiB, and anew
    for the gradients: exact, and small whatever a compiler fuses.
    """
    query, key, value = (jnp.asarray(a, jnp.float32) for a in (query, key, value))

    @jax.checkpoint
    def attend(one):  # the same position of every example, (*B,)
        weights = jax.nn.softmax(one[..., None] * key, axis=-1)
        return (weights * value).sum(-1)

    size = key.size if isinstance(key.size, int) else EXAMPLES * key.shape[-1]
    at_once = min(max(LOGITS_AT_ONCE // size, 1), key.shape[-1])
    found = jax.lax.map(attend, jnp.moveaxis(query, -1, 0), batch_size=at_once)
    return jnp.moveaxis(found, 0, -1)


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
