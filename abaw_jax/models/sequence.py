"""Sequence model: features of frames in, logits of frames out."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Bool, Float, Float32

from abaw_jax.models.heads import SequenceHead
from abaw_jax.models.layers import AnyArray, Dense, alibi, sincos_1d
from abaw_jax.models.transformer import TemporalEncoder

POSITIONS = ("none", "sincos", "alibi", "directed")


class SequenceModel(nn.Module):
    """1x1 projection, positions, temporal encoder, per-frame head.

    positions: "none" (attention sees frames as a set), "sincos" (added to the projection) or
    "alibi" (a bias of attention towards near frames) or "directed" (the same, where each head sees
    one side alone, so that before and after differ). `feature_dropout` acts on the features.

    features (B, T, D), mask (False = padding), counted (which rows enter the head's BatchNorm
    statistics; by default those of `mask`) -> logits (B, T, C).

    also: (name, outputs) of further heads on the same encoder; their logits follow in C, and
    `counted` has a column for each head, (B, T, 1 + heads).
    """

    width: int
    depth: int
    heads: int
    mlp_width: int
    head_width: int
    outputs: int
    dropout: float = 0.0
    activation: str = "relu"
    positions: str = "none"
    feature_dropout: float = 0.0
    dtype: DTypeLike = jnp.float32
    also: tuple[tuple[str, int], ...] = ()

    @nn.compact
    def __call__(
        self,
        features: Float[AnyArray, "B T D"],
        mask: Bool[AnyArray, "B T"],
        counted: Bool[AnyArray, "B T *G"] | None = None,
        *,
        train: bool = False,
    ) -> Float32[jax.Array, "B T C"]:
        if self.positions not in POSITIONS:
            raise ValueError(f"positions {self.positions!r}; expected one of {POSITIONS}")
        length, bias = features.shape[1], None
        x = nn.Dropout(self.feature_dropout, deterministic=not train)(features)
        x = Dense(self.width, dtype=self.dtype, name="project")(x)
        if self.positions == "sincos":
            x = x + jnp.asarray(sincos_1d(np.arange(length), self.width), self.dtype)
        if self.positions in ("alibi", "directed"):
            bias = alibi(length, self.heads, directed=self.positions == "directed")
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = TemporalEncoder(
            self.depth, self.heads, self.mlp_width, self.dropout, self.activation, self.dtype,
            name="encoder",
        )(x, mask, bias, train=train)  # fmt: skip
        counted = mask if counted is None else counted
        logits = []
        for i, (name, outputs) in enumerate((("head", self.outputs), *self.also)):
            head = SequenceHead(
                self.head_width, outputs, self.dtype, name=f"head_{name}" if i else name
            )
            rows = counted if counted.ndim == 2 else counted[..., i]
            logits.append(head(x, rows, train=train))
        return jnp.concatenate(logits, -1) if self.also else logits[0]
