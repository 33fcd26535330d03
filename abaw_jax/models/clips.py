"""Whole clips by their statistics (`hsemotion`), or by a transformer over all modalities' rows.

Both take what `models.recurrent.ClipModel` takes: name -> (B, T, D + 1), T and D of each modality
its own; the last number of a row is 1, or 0 where there is none, whatever else it holds.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jax.typing import DTypeLike
from jaxtyping import Bool, Float, Float32

from abaw_jax.models.fusion import Pointwise
from abaw_jax.models.layers import AnyArray, Dense, Dropout, sincos_1d
from abaw_jax.models.transformer import TemporalEncoder


def clip_statistics(
    x: Float[AnyArray, "B T D"], mask: Bool[AnyArray, "B T"]
) -> Float32[jax.Array, "B 4*D"]:
    """Mean, deviation (ddof 0), minimum and maximum over the rows where `mask` is True, one
    after another; zeros where there is none."""
    x, seen = x.astype(jnp.float32), mask[..., None]
    count = jnp.maximum(seen.sum(1), 1)
    mean = jnp.where(seen, x, 0).sum(1) / count
    variance = jnp.where(seen, jnp.square(x - mean[:, None]), 0).sum(1) / count
    positive = variance > 0  # the root has no gradient at 0
    deviation = jnp.where(positive, jnp.sqrt(jnp.where(positive, variance, 1)), 0)
    lowest, highest = (
        f(jnp.where(seen, x, empty), 1) for f, empty in ((jnp.min, jnp.inf), (jnp.max, -jnp.inf))
    )
    extremes = jnp.where(seen.any(1), jnp.stack([lowest, highest]), 0)
    return jnp.concatenate([mean, deviation, *extremes], -1)


class ClipStatistics(nn.Module):
    """`clip_statistics` of each modality side by side in the order of the names, Linear: (B, C).

    The EMI part of `hsemotion` (arXiv 2403.11590), whose outputs go through a sigmoid.
    feature_dropout: of the statistics; 0 in the paper.
    """

    outputs: int
    feature_dropout: float = 0.0

    @nn.compact
    def __call__(
        self, features: Mapping[str, Float[AnyArray, "B _ _"]], *, train: bool = False
    ) -> Float32[jax.Array, "B {self.outputs}"]:
        parts = [
            clip_statistics(rows[..., :-1], rows[..., -1] > 0)
            for _, rows in sorted(features.items())
        ]
        x = Dropout(self.feature_dropout)(jnp.concatenate(parts, -1), train=train)
        return Dense(self.outputs, name="head")(x)


class ClipTransformer(nn.Module):
    """Rows of all modalities as the tokens of one sequence: (B, C).

    Each modality's rows go through a Linear to `width`, with sin-cos positions and a learnt vector
    that says which modality it is; the rows of all, one modality after another, through post-norm
    layers without further positions; the mean of those that are there (zeros if none is), dropout,
    Linear to `head_width`, LeakyReLU (slope 0.01), Linear. No paper's: the alternative of the same
    inputs to `models.recurrent.ClipModel`.
    """

    width: int
    depth: int
    heads: int
    mlp_width: int
    head_width: int
    outputs: int
    dropout: float = 0.0
    feature_dropout: float = 0.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, features: Mapping[str, Float[AnyArray, "B _ _"]], *, train: bool = False
    ) -> Float32[jax.Array, "B {self.outputs}"]:
        tokens, masks = [], []
        for name, rows in sorted(features.items()):
            x = Dropout(self.feature_dropout)(rows[..., :-1], train=train)
            x = Dense(self.width, dtype=self.dtype, name=f"project_{name}")(x)
            kind = self.param(f"kind_{name}", nn.initializers.normal(0.02), (self.width,))
            places = sincos_1d(np.arange(rows.shape[1]), self.width)
            tokens.append(x + jnp.asarray(places + kind, self.dtype))
            masks.append(rows[..., -1] > 0)
        mask = jnp.concatenate(masks, 1)
        x = Dropout(self.dropout)(jnp.concatenate(tokens, 1), train=train)
        x = TemporalEncoder(
            self.depth, self.heads, self.mlp_width, self.dropout, dtype=self.dtype, name="encoder"
        )(x, mask, train=train)
        weight = rearrange(mask, "b t -> b t 1").astype(x.dtype)
        mean = (x * weight).sum(1) / jnp.maximum(weight.sum(1), 1)
        head = Pointwise(
            (self.head_width, self.outputs), 0.01, self.dropout, self.dtype, name="head"
        )
        return head(mean, train=train).astype(jnp.float32)
