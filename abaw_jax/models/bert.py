"""Text encoders of BERT's class (Devlin et al. 2019) and RoBERTa's (Liu et al. 2019).

Token ids -> the hidden states of every layer. Both are post-norm transformers with exact GELU over
the sum of word, position and type embeddings; RoBERTa counts positions of tokens that are no
padding, from 2 on, has one type, and another eps. Parameters stand for those of transformers'
BertModel and RobertaModel; `interop/keys/bert.py` names them.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Bool, Float, Int

from abaw_jax.models.layers import AnyArray, Dense, Dropout, LayerNorm
from abaw_jax.models.transformer import PostNormBlock

_BERT = dict(types=2, positions=512, first_position=0, epsilon=1e-12)
_ROBERTA = dict(types=1, positions=514, first_position=2, epsilon=1e-5)
_BASE = dict(width=768, depth=12, heads=12, mlp_width=3072)
_LARGE = dict(width=1024, depth=24, heads=16, mlp_width=4096)
# Fields of `BertEncoder` by name, with the vocabularies of the published English weights; `tiny` is
# chosen here, for training from nothing on a few hundred words, which its tokenizer counts.
SIZES: dict[str, dict[str, Any]] = {
    "bert_base": {"vocabulary": 30522, **_BASE, **_BERT},
    "bert_large": {"vocabulary": 30522, **_LARGE, **_BERT},
    "roberta_base": {"vocabulary": 50265, **_BASE, **_ROBERTA},
    "roberta_large": {"vocabulary": 50265, **_LARGE, **_ROBERTA},
    "tiny": {**_BERT, "width": 64, "depth": 2, "heads": 4, "mlp_width": 128, "positions": 128},
}


class BertEncoder(nn.Module):
    """Token ids (B, N) -> (hidden states, pooled).

    The hidden states are depth + 1 arrays (B, N, D): of the embeddings, then of each layer. Pooled
    is Dense and tanh of the last state of the first token, (B, D); None without `pooler`. Padding
    is not attended to; what stands there in the states means nothing.

    vocabulary, positions, types: rows of the three tables. first_position: the row of the first
    token; 0: every token counts (BERT), else those alone that are no padding, which has the row
    before (RoBERTa's padding id + 1). dropout: of embeddings and in every block; it acts inside the
    feed-forward part too, unlike the papers' code.
    """

    vocabulary: int
    width: int
    depth: int
    heads: int
    mlp_width: int
    positions: int
    types: int
    first_position: int
    epsilon: float
    pooler: bool = False
    dropout: float = 0.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        tokens: Int[AnyArray, "B N"],
        mask: Bool[AnyArray, "B N"],
        types: Int[AnyArray, "B N"] | None = None,
        *,
        train: bool = False,
    ) -> tuple[tuple[Float[jax.Array, "B N {self.width}"], ...], Float[jax.Array, "B _"] | None]:
        """mask: False where a token is padding. types: 0 everywhere by default.

        Raises ValueError for more tokens than there are positions.
        """
        length = tokens.shape[1]
        if length + self.first_position > self.positions:
            most = self.positions - self.first_position
            raise ValueError(f"{length} tokens; expected at most {most}, as there are positions")
        places = jnp.arange(length)[None]
        if self.first_position:
            places = jnp.cumsum(mask, axis=1) * mask + self.first_position - 1
        table = partial(
            nn.Embed,
            features=self.width,
            embedding_init=nn.initializers.normal(0.02),
            dtype=self.dtype,
        )
        x = table(self.vocabulary, name="words")(tokens)
        x += table(self.types, name="types")(jnp.zeros_like(tokens) if types is None else types)
        x += table(self.positions, name="places")(places)
        x = LayerNorm(epsilon=self.epsilon, dtype=self.dtype, name="norm")(x)
        states = [Dropout(self.dropout)(x, train=train)]
        for i in range(self.depth):
            block = PostNormBlock(
                self.heads, self.mlp_width, self.dropout, "gelu", self.dtype, self.epsilon,
                name=f"layers_{i}",
            )  # fmt: skip
            states.append(block(states[-1], mask, train=train))
        if not self.pooler:
            return tuple(states), None
        pooled = Dense(self.width, dtype=self.dtype, name="pooler")(states[-1][:, 0])
        return tuple(states), jnp.tanh(pooled)


class MaskedWords(nn.Module):
    """An encoder, and Dense from its last states to the words there are: tokens (B, N), mask (B, N)
    -> logits (B, N, V). Devlin et al. 2019, section 3.1, with a plain layer for the head."""

    encoder: BertEncoder

    @nn.compact
    def __call__(
        self,
        tokens: Int[AnyArray, "B N"],
        mask: Bool[AnyArray, "B N"],
        *,
        train: bool = False,
    ) -> Float[jax.Array, "B N {self.encoder.vocabulary}"]:
        states, _ = self.encoder(tokens, mask, train=train)
        return Dense(self.encoder.vocabulary, dtype=self.encoder.dtype, name="head")(states[-1])
