"""Bidirectional GRU encoders of whole sequences, and what is said of a clip by several of them: the
EMI part of `fuxi` (arXiv 2403.10825)."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from jax.typing import DTypeLike
from jaxtyping import Bool, Float, Float32

from abaw_jax.models.fusion import Pointwise
from abaw_jax.models.layers import AnyArray, Dense, DenseGeneral, Dropout, LayerNorm


def _uniform(bound: float):
    """Values within `bound` of 0, all equally likely."""

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


class BidirectionalGRU(nn.Module):
    """One layer, both directions: x (B, T, D) -> states (B, T, 2 W), final states (B, 2 W).

    W = `width`; the direction forward in time comes first in the last axis. torch.nn.GRU's gates
    (Cho et al. 2014, with the reset gate behind the product):

        r, z = sigmoid(W_i x + b_i + W_h h + b_h)
        n = tanh(W_in x + b_in + r * (W_hn h + b_hn))
        h' = (1 - z) * n + z * h

    Frames where `mask` is False leave the state as it was: wherever they stand, the final states
    are those of the other frames alone, as of torch's packed sequences; of no frame at all, zeros.
    `input` holds W_i and b_i, `kernel` and `bias` are W_h and b_h, with the axes direction, gate
    (r, z, n) and width; all start as torch's. The products with x are in `dtype`, the recurrence
    in float32.
    """

    width: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[AnyArray, "B T D"], mask: Bool[AnyArray, "B T"]
    ) -> tuple[
        Float32[jax.Array, "B T 2*{self.width}"],
        Float32[jax.Array, "B 2*{self.width}"],
    ]:
        init, gates = _uniform(self.width**-0.5), (2, 3, self.width)
        given = DenseGeneral(
            gates, kernel_init=init, bias_init=init, dtype=self.dtype, name="input"
        )(x)
        kernel = self.param("kernel", init, (2, self.width, 3, self.width))
        bias = self.param("bias", init, gates)

        def advance(state, frame):  # (2, B, W); of one time: (2, B, 3, W), (2, B, 1)
            given, seen = frame
            own = jnp.einsum("dbh,dhgw->dbgw", state, kernel) + bias[:, None]
            reset, update = jnp.moveaxis(jax.nn.sigmoid(given[:, :, :2] + own[:, :, :2]), 2, 0)
            candidate = jnp.tanh(given[:, :, 2] + reset * own[:, :, 2])
            state = jnp.where(seen, (1 - update) * candidate + update * state, state)
            return state, state

        frames = _both_ways(rearrange(given.astype(jnp.float32), "b t d g w -> t d b g w"))
        seen = _both_ways(jnp.stack([mask.T, mask.T], 1))[..., None]
        start = jnp.zeros((2, x.shape[0], self.width), jnp.float32)
        final, states = jax.lax.scan(advance, start, (frames, seen))
        states = rearrange(_both_ways(states), "t d b w -> b t (d w)")
        return states, rearrange(final, "d b w -> b (d w)")


def _both_ways(values: jax.Array) -> jax.Array:
    """(T, 2, ...) with the second direction's times reversed; its own inverse."""
    return jnp.stack([values[:, 0], values[::-1, 1]], 1)


class GRUEncoder(nn.Module):
    """A sequence as one vector: x (B, T, D), mask (B, T) (False = padding) -> (B, outputs).

    Two bidirectional layers with LayerNorm between, the final states of the second's two
    directions, Linear, LeakyReLU. Not published, and chosen here: that the first layer's final
    states are left out, and LeakyReLU's slope (torch's, 0.01).
    """

    width: int
    outputs: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[AnyArray, "B T D"], mask: Bool[AnyArray, "B T"]
    ) -> Float[jax.Array, "B {self.outputs}"]:
        states, _ = BidirectionalGRU(self.width, self.dtype, name="layers_0")(x, mask)
        states = LayerNorm(epsilon=1e-5, dtype=self.dtype, name="norm")(states)
        _, final = BidirectionalGRU(self.width, self.dtype, name="layers_1")(states, mask)
        return jax.nn.leaky_relu(Dense(self.outputs, dtype=self.dtype, name="project")(final), 0.01)


class ClipModel(nn.Module):
    """Modalities of clips, each on a time axis of its own -> logits of the clips (B, C).

    features: name -> (B, T, D + 1), T and D of each its own; the last number of a row is 1, or 0
    where there is none, whatever else it holds. A `GRUEncoder` a modality, encoder_<name>, of
    states `width` wide each way and `vector` numbers out; these side by side in the order of the
    names, dropout, Linear to `head_width`, LeakyReLU, Linear. Of a modality that a clip lacks the
    states are zeros, and its numbers a constant that is learnt. feature_dropout: of what goes in.

    Not published, and chosen here: all widths, LeakyReLU's slope (torch's, 0.01).
    """

    width: int
    vector: int
    head_width: int
    outputs: int
    dropout: float = 0.0
    feature_dropout: float = 0.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, features: Mapping[str, Float[AnyArray, "B _ _"]], *, train: bool = False
    ) -> Float32[jax.Array, "B {self.outputs}"]:
        parts = []
        for name in sorted(features):
            x, mask = features[name][..., :-1], features[name][..., -1] > 0
            x = Dropout(self.feature_dropout)(x, train=train)
            encoder = GRUEncoder(self.width, self.vector, self.dtype, name=f"encoder_{name}")
            parts.append(encoder(x, mask))
        widths = self.head_width, self.outputs
        head = Pointwise(widths, 0.01, self.dropout, self.dtype, name="head")
        return head(*parts, train=train).astype(jnp.float32)
