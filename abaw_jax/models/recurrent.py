"""Bidirectional GRU encoder of a whole sequence, as in `fuxi`'s EMI part (arXiv 2403.10825)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from jax.typing import DTypeLike
from jaxtyping import Bool, Float, Float32

from abaw_jax.models.layers import AnyArray, Dense, DenseGeneral, LayerNorm


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
        start = jnp.zeros((2, len(x), self.width), jnp.float32)
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
