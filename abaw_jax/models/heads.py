"""What stands on top of an encoder: the pooled frame classifier, heads of a sequence's frames."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from jax.typing import DTypeLike
from jaxtyping import Bool, Float, Float32

from abaw_jax.models.fusion import Pointwise
from abaw_jax.models.layers import AnyArray, BatchNorm, Dense, Dropout, LayerNorm

BETWEEN = ("norm", "relu")
POOLINGS = ("mean", "cls", "norm_mean")


def pool_tokens(
    tokens: Float[AnyArray, "B *N D"], pooling: str, epsilon: float = 1e-6
) -> Float[jax.Array, "B D"]:
    """The feature of each image from its tokens, CLS first, normed by `fc_norm` of the module that
    calls it.

    pooling "mean": mean of the patch tokens (MAE's `global_pool`); "cls": the CLS token;
    "norm_mean": mean of the patch tokens, each of them normed; "none": the encoder pools by itself,
    as the convolutional ones do, and its feature is taken as it is.
    """
    if pooling == "none":
        return tokens
    if pooling not in POOLINGS:
        raise ValueError(f"pooling {pooling!r}; expected one of {POOLINGS}")
    norm = LayerNorm(epsilon=epsilon, name="fc_norm")
    if pooling == "norm_mean":
        return norm(tokens)[:, 1:].mean(axis=1)
    return norm(tokens[:, 0] if pooling == "cls" else tokens[:, 1:].mean(axis=1))


class FrameClassifier(nn.Module):
    """Encoder, pooled and projected: images (B, S, S, 3) -> logits (B, C), features (B, D).

    encoder: (images, train) -> tokens (B, 1 + N, D), CLS first, or features (B, D).
    outputs: 0 for no head: logits (B, 0).
    pooling: as `pool_tokens`.
    also: (name, outputs) of further heads on the same features; their logits follow in C.
    """

    encoder: nn.Module
    outputs: int
    pooling: str = "mean"
    dropout: float = 0.0
    also: tuple[tuple[str, int], ...] = ()

    @nn.compact
    def __call__(
        self, images: Float[AnyArray, "B S S 3"], *, train: bool = False
    ) -> tuple[Float32[jax.Array, "B C"], Float32[jax.Array, "B D"]]:
        tokens = self.encoder(images, train=train)
        epsilon = 1e-6 if self.pooling == "none" else self.encoder.epsilon
        features = pool_tokens(tokens, self.pooling, epsilon)
        if not self.outputs:
            return jnp.zeros((len(features), 0), jnp.float32), features
        dropped = Dropout(self.dropout)(features, train=train)
        # A head that starts near zero, as in MAE's fine-tuning code: first steps leave the
        # pre-trained encoder alone.
        init = nn.initializers.truncated_normal(2e-5)
        logits = Dense(self.outputs, kernel_init=init, name="head")(dropped)
        further = [
            Dense(outputs, kernel_init=init, name=f"head_{name}")(dropped)
            for name, outputs in self.also
        ]
        return (jnp.concatenate([logits, *further], -1) if further else logits), features


def _between(kind, x, mask, dtype, train):
    """What stands between a head's two dense layers."""
    if kind not in BETWEEN:
        raise ValueError(f"between {kind!r}; expected one of {BETWEEN}")
    if kind == "relu":
        return jax.nn.relu(x)
    return BatchNorm(dtype=dtype, name="norm")(x, mask, train=train)


class SequenceHead(nn.Module):
    """Per frame Linear(D, hidden) - BatchNorm - Linear(hidden, C): (B, T, D) -> (B, T, C).

    between: what stands between the two; "relu" in place of "norm".
    """

    hidden: int
    outputs: int
    dtype: DTypeLike = jnp.float32
    between: str = "norm"

    @nn.compact
    def __call__(
        self, x: Float[AnyArray, "B T D"], mask: Bool[AnyArray, "B T"], *, train: bool = False
    ) -> Float32[jax.Array, "B T C"]:
        x = Dense(self.hidden, dtype=self.dtype, name="fc1")(x)
        x = _between(self.between, x, mask, self.dtype, train)
        return Dense(self.outputs, name="fc2")(x)


class LastFrameHead(nn.Module):
    """What a whole window says of its last frame: (B, T, D) -> (B, C).

    Flatten, Linear(T D, hidden), BatchNorm, Linear(hidden, C), as in `masked_vit` (arXiv
    2403.13731), whose windows end at the frame that they predict; `between` as in `SequenceHead`.
    The first layer holds T: all windows have the length that the parameters were made with. Frames
    outside `mask` enter as zeros; `counted` (by default `mask`; R = T, or 1) says at the last frame
    whether the window enters the BatchNorm statistics.
    """

    hidden: int
    outputs: int
    dtype: DTypeLike = jnp.float32
    between: str = "norm"

    @nn.compact
    def __call__(
        self,
        x: Float[AnyArray, "B T D"],
        mask: Bool[AnyArray, "B T"],
        counted: Bool[AnyArray, "B R"] | None = None,
        *,
        train: bool = False,
    ) -> Float32[jax.Array, "B C"]:
        flat = rearrange(jnp.where(mask[..., None], x, 0.0), "b t d -> b (t d)")
        h = Dense(self.hidden, dtype=self.dtype, name="fc1")(flat)
        rows = (mask if counted is None else counted)[:, -1]
        h = _between(self.between, h, rows, self.dtype, train)
        return Dense(self.outputs, name="fc2")(h)


class FrameHeads(nn.Module):
    """What is said of each frame by itself: features (B, T, D) -> logits (B, T, C).

    Dropout, Linear(D, hidden), ReLU, Linear(hidden, C), as `hsemotion` (arXiv 2403.11590) has it of
    an encoder's feature; hidden 0: Linear(D, C) alone, as of its scores. `mask` and `counted`, as
    of `SequenceModel`, are not looked at: no frame sees another.

    also: (name, outputs) of further heads on the same features; their logits follow in C.
    """

    hidden: int
    outputs: int
    dropout: float = 0.0
    also: tuple[tuple[str, int], ...] = ()
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        features: Float[AnyArray, "B T D"],
        mask: Bool[AnyArray, "B T"],
        counted: Bool[AnyArray, "B R *G"] | None = None,
        *,
        train: bool = False,
    ) -> Float32[jax.Array, "B T C"]:
        del mask, counted
        logits = []
        for name, outputs in (("head", self.outputs), *((f"head_{n}", o) for n, o in self.also)):
            widths = (self.hidden, outputs) if self.hidden else (outputs,)
            head = Pointwise(widths, 0.0, self.dropout, self.dtype, name=name)
            logits.append(head(features, train=train).astype(jnp.float32))
        return jnp.concatenate(logits, -1) if len(logits) > 1 else logits[0]
