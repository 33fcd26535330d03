"""Sequence model: features of frames in, logits of frames out."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Bool, Float, Float32

from abaw_jax.models.fusion import Pointwise, TwoViewFusion
from abaw_jax.models.heads import LastFrameHead, SequenceHead
from abaw_jax.models.layers import AnyArray, Dense, Dropout, RandomMask, alibi, sincos_1d
from abaw_jax.models.tcn import TemporalConvNet
from abaw_jax.models.transformer import TemporalEncoder

POSITIONS = ("none", "sincos", "alibi", "directed")
HEADS = ("frames", "last")


class SequenceModel(nn.Module):
    """Features to `width` numbers a frame, positions, temporal encoder, head.

    What stands before the encoder, in this order, each left out by the value in brackets:

        mask_rate [0]         this share of frames (mask_unit "values": of numbers) is zeroed in
                              training
        feature_dropout [0]   dropout of the features
        fuse [""]             the features are two halves, those of two views, and made one by this
                              method of `TwoViewFusion` with `fuse_width` positions
        join [()]             dense layers of these widths, LeakyReLU(join_slope) between them
        tcn [()]              causal convolutions of these widths, kernels of `tcn_kernel`
        project [False]       one dense layer to `width`, which otherwise is what the last of join
                              and tcn gives, or the features have
        positions ["none"]    "sincos" (added) or "alibi" (a bias of attention towards near frames)
                              or "directed" (the same, where each head sees one side alone, so that
                              before and after differ); with "none" attention sees frames as a set

    depth 0 leaves the encoder out.

    features (B, T, D), mask (False = padding), counted (which rows enter the head's BatchNorm
    statistics; by default those of `mask`) -> logits (B, R, C), R = T. With head "last" R = 1, in
    `counted` too: each window's last frame.

    head_between: "relu" in place of the head's BatchNorm, "norm".
    head_each: each of `outputs` has a head of its own, head_0, head_1, ...
    also: (name, outputs) of further heads on the same encoder; their logits follow in C, and
    `counted` has a column for each of them, too, (B, R, 1 + further heads).
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
    mask_rate: float = 0.0
    mask_unit: str = "frames"
    join: tuple[int, ...] = ()
    join_slope: float = 0.1
    tcn: tuple[int, ...] = ()
    tcn_kernel: int = 5
    project: bool = True
    head: str = "frames"
    head_each: bool = False
    fuse: str = ""
    fuse_width: int = 1024
    head_between: str = "norm"

    @nn.compact
    def __call__(
        self,
        features: Float[AnyArray, "B T D"],
        mask: Bool[AnyArray, "B T"],
        counted: Bool[AnyArray, "B R *G"] | None = None,
        *,
        train: bool = False,
    ) -> Float32[jax.Array, "B R C"]:
        if self.positions not in POSITIONS:
            raise ValueError(f"positions {self.positions!r}; expected one of {POSITIONS}")
        length, bias = features.shape[1], None
        x = self._prepare(features, train)
        if self.positions == "sincos":
            x = x + jnp.asarray(sincos_1d(np.arange(length), self.width), self.dtype)
        if self.positions in ("alibi", "directed"):
            bias = alibi(length, self.heads, directed=self.positions == "directed")
        x = Dropout(self.dropout)(x, train=train)
        x = TemporalEncoder(
            self.depth, self.heads, self.mlp_width, self.dropout, self.activation, self.dtype,
            name="encoder",
        )(x, mask, bias, train=train)  # fmt: skip
        counted = mask if counted is None else counted
        logits = []
        for name, outputs, goal in self._heads():
            rows = counted if counted.ndim == 2 else counted[..., goal]
            logits.append(self._predict(name, outputs, x, mask, rows, train))
        return jnp.concatenate(logits, -1) if len(logits) > 1 else logits[0]

    def _heads(self):
        """(name, outputs, column of `counted`) of each head, in the order of the logits."""
        own = [("head", self.outputs, 0)]
        if self.head_each:
            own = [(f"head_{k}", 1, 0) for k in range(self.outputs)]
        further = enumerate(self.also, 1)
        return own + [(f"head_{name}", outputs, i) for i, (name, outputs) in further]

    def _prepare(self, features, train):
        """All that stands before the positions: (B, T, D) -> (B, T, width)."""
        x = RandomMask(self.mask_rate, self.mask_unit)(features, train=train)
        x = Dropout(self.feature_dropout)(x, train=train)
        if self.fuse:
            whole, composite = jnp.split(x, 2, axis=-1)
            x = TwoViewFusion(self.fuse_width, self.fuse, name="fuse")(whole, composite)
        if self.join:
            x = Pointwise(self.join, self.join_slope, dtype=self.dtype, name="join")(x)
        if self.tcn:
            x = TemporalConvNet(self.tcn, self.tcn_kernel, self.dropout, self.dtype, name="tcn")(
                x, train=train
            )
        if self.project:
            return Dense(self.width, dtype=self.dtype, name="project")(x)
        if x.shape[-1] != self.width:
            raise ValueError(
                f"{x.shape[-1]} numbers a frame where width is {self.width}; without a projection "
                "the two are the same"
            )
        return x

    def _predict(self, name, outputs, x, mask, counted, train):
        """One head's logits (B, T or 1, C)."""
        options = self.head_width, outputs, self.dtype, self.head_between
        if self.head == "frames":
            head = SequenceHead(*options, name=name)
            return head(x, counted, train=train)
        if self.head == "last":
            head = LastFrameHead(*options, name=name)
            return head(x, mask, counted, train=train)[:, None]
        raise ValueError(f"head {self.head!r}; expected one of {HEADS}")
