"""The post-norm transformer encoder over time (Vaswani et al. 2017) with torch's defaults.

`torch.nn.TransformerEncoderLayer`: LayerNorm eps 1e-5 after each residual sum, dropout on the
attention weights, after the attention, inside and after the feed-forward part.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Bool, Float

from abaw_jax.models.layers import AnyArray, Dropout, LayerNorm, Mlp, SelfAttention


class PostNormBlock(nn.Module):
    """One encoder layer: x (B, T, D), mask (B, T) bool or None -> (B, T, D)."""

    heads: int
    mlp_width: int
    dropout: float = 0.0
    activation: str = "relu"
    dtype: DTypeLike = jnp.float32
    epsilon: float = 1e-5  # of the two norms
    apart: bool = False  # see `SelfAttention`

    @nn.compact
    def __call__(
        self,
        x: Float[AnyArray, "B T D"],
        mask: Bool[AnyArray, "B T"] | None = None,
        bias: Float[AnyArray, "H T T"] | None = None,
        *,
        train: bool = False,
    ) -> Float[jax.Array, "B T D"]:
        drop = partial(Dropout(self.dropout), train=train)
        attend = SelfAttention(self.heads, self.dropout, self.dtype, self.apart, name="attn")
        h = attend(x, mask, bias, train=train)
        x = LayerNorm(epsilon=self.epsilon, dtype=self.dtype, name="norm1")(x + drop(h))
        h = Mlp(self.mlp_width, self.activation, self.dropout, self.dtype, name="mlp")(
            x, train=train
        )
        return LayerNorm(epsilon=self.epsilon, dtype=self.dtype, name="norm2")(x + drop(h))


class TemporalEncoder(nn.Module):
    """`depth` post-norm layers: x (B, T, D), mask (B, T) bool (False = padding) -> (B, T, D).

    bias (H, T, T) is added to the logits of every layer's attention, None for none.
    """

    depth: int
    heads: int
    mlp_width: int
    dropout: float = 0.0
    activation: str = "relu"
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[AnyArray, "B T D"],
        mask: Bool[AnyArray, "B T"] | None = None,
        bias: Float[AnyArray, "H T T"] | None = None,
        *,
        train: bool = False,
    ) -> Float[AnyArray, "B T D"]:
        for i in range(self.depth):
            x = PostNormBlock(
                self.heads, self.mlp_width, self.dropout, self.activation, self.dtype,
                name=f"layers_{i}",
            )(x, mask, bias, train=train)  # fmt: skip
        return x
