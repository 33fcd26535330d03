"""wav2vec 2.0 (Baevski et al. 2020) and HuBERT (Hsu et al. 2021): sound as 50 vectors a second.

Their encoders are the same network: seven strided convolutions over the samples (a window of 400
samples, 25 ms, every 320), a projection, a positional convolution, a transformer. Two forms are
published: group norm after the first convolution with a post-norm transformer (base, and large on
LibriSpeech), and layer norm after all of them with a pre-norm one (large on more speech; "stable
layer norm" in transformers). What they need to be trained themselves is left out: quantiser,
targets, dropout, and the choice of frames to mask.

Samples are at 16 kHz, with mean 0 and variance 1 over the recording, as `encode_long` makes them.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Bool, Float, Int

from abaw_jax.models.layers import AnyArray, Dense, LayerNorm, Mlp, SelfAttention, exact_gelu
from abaw_jax.models.transformer import PostNormBlock

KERNELS, STRIDES = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)
WINDOW, STRIDE = 400, 320  # samples that a frame sees, and from one frame to the next

_LAYER_NORM = dict(extractor_norm="layer", conv_bias=True, norm_first=True)
# As published. wav2vec 2.0: base; large, of LibriSpeech; large_lv60, of Libri-Light, and XLSR.
# HuBERT: base, and large_lv60 as its "large".
SIZES = {
    "base": dict(width=768, depth=12, heads=12),
    "large": dict(width=1024, depth=24, heads=16),
    "large_lv60": dict(width=1024, depth=24, heads=16, **_LAYER_NORM),
}

fan_in = nn.initializers.variance_scaling(1.0, "fan_in", "normal")


def count_frames(samples: int) -> int:
    """Frames of a recording of so many samples: frame i sees those from 320 i to 320 i + 400."""
    return max((samples - WINDOW) // STRIDE + 1, 0)


def grouped_convolution(
    x: Float[AnyArray, "B T D"], kernel: Float[AnyArray, "K I D"], *, apart: bool
) -> Float[jax.Array, "B T D"]:
    """Convolution over time of D / I groups of I channels, with K // 2 zeros before the first frame
    and K - 1 - K // 2 behind the last.

    apart: as a convolution a group in place of one of groups. On CPU, with D = 768, I = 48, K = 128
    and on one core, 1000 frames took 90 ms against 120, and the gradients of 300 frames 0.19 s
    against 2.4; products of gathered windows took 320 to 380 ms.
    """
    size = kernel.shape[0]
    convolve = partial(
        jax.lax.conv_general_dilated,
        window_strides=(1,),
        padding=[(size // 2, size - 1 - size // 2)],
        dimension_numbers=("NWC", "WIO", "NWC"),
    )
    groups = kernel.shape[2] // kernel.shape[1]
    if not apart:
        return convolve(x, kernel, feature_group_count=groups)
    pairs = zip(jnp.split(x, groups, -1), jnp.split(kernel, groups, -1), strict=True)
    return jnp.concatenate([convolve(part, own) for part, own in pairs], -1)


class StridedConv(nn.Module):
    """Convolution over time without padding: (B, T, I) -> (B, (T - K) // stride + 1, width).

    On CPU, too, as the convolution that it is: at 16000 frames of 512 channels, K = 3 and on one
    core 86 ms, where products of reshaped or gathered frames took 120 to 136.
    """

    width: int
    kernel_size: int
    stride: int
    bias: bool
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[AnyArray, "B T I"]) -> Float[jax.Array, "B _ {self.width}"]:
        kernel = self.param("kernel", fan_in, (self.kernel_size, x.shape[-1], self.width))
        x = jax.lax.conv_general_dilated(
            jnp.asarray(x, self.dtype),
            kernel.astype(self.dtype),
            window_strides=(self.stride,),
            padding="VALID",
            dimension_numbers=("NWC", "WIO", "NWC"),
        )
        if self.bias:
            x = x + self.param("bias", nn.initializers.zeros, (self.width,)).astype(self.dtype)
        return x


class ChannelNorm(nn.Module):
    """Each channel with mean 0 and variance 1 over an example's first `counts` frames, scale, bias:
    (B, T, D) -> (B, T, D). torch.nn.GroupNorm of D groups, eps 1e-5; counts None: all frames.
    """

    @nn.compact
    def __call__(
        self, x: Float[AnyArray, "B T D"], counts: Int[AnyArray, " B"] | None = None
    ) -> Float[jax.Array, "B T D"]:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        where = None
        if counts is not None:
            where = (jnp.arange(x.shape[1]) < counts[:, None])[..., None]
        centred = x.astype(jnp.float32)
        centred = centred - centred.mean(1, keepdims=True, where=where)
        variance = jnp.square(centred).mean(1, keepdims=True, where=where)
        return (centred * (jax.lax.rsqrt(variance + 1e-5) * scale) + bias).astype(x.dtype)


class Extractor(nn.Module):
    """Samples (B, L) -> frames (B, count_frames(L), width): convolution, norm and GELU, 7 times.

    norm: "group", after the first convolution alone (ChannelNorm), or "layer", after each.
    """

    width: int = 512
    norm: str = "group"
    bias: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, samples: Float[AnyArray, "B L"], lengths: Int[AnyArray, " B"] | None = None
    ) -> Float[jax.Array, "B _ {self.width}"]:
        if self.norm not in ("group", "layer"):
            raise ValueError(f"norm {self.norm!r}; expected 'group' or 'layer'")
        x = samples[..., None]
        for i, (size, stride) in enumerate(zip(KERNELS, STRIDES, strict=True)):
            x = StridedConv(self.width, size, stride, self.bias, self.dtype, name=f"conv_{i}")(x)
            if self.norm == "layer":
                x = LayerNorm(epsilon=1e-5, dtype=self.dtype, name=f"norm_{i}")(x)
            elif i == 0:
                counts = None if lengths is None else (lengths - size) // stride + 1
                x = ChannelNorm(name="norm_0")(x, counts)
            x = exact_gelu(x)
        return x


class PositionalConv(nn.Module):
    """GELU of a weight-normalised grouped convolution over time: (B, T, D) -> (B, T, D).

    The kernel is scale * v / ||v||, with a norm for each of the K taps of v (K, I, D); Salimans and
    Kingma 2016 have one for each output. `kernel` holds v. apart: see `grouped_convolution`.
    """

    kernel_size: int = 128
    groups: int = 16
    apart: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[AnyArray, "B T D"]) -> Float[jax.Array, "B T D"]:
        width = x.shape[-1]
        v = self.param("kernel", fan_in, (self.kernel_size, width // self.groups, width))
        norm = jnp.sqrt(jnp.square(v).sum((1, 2), keepdims=True))
        scale = self.param("scale", lambda key: norm)
        bias = self.param("bias", nn.initializers.zeros, (width,))
        kernel = (v * (scale / norm)).astype(self.dtype)
        h = grouped_convolution(x, kernel, apart=self.apart)
        return exact_gelu(h + bias.astype(self.dtype))


class PreNormBlock(nn.Module):
    """A layer that normalises before each part: x (B, T, D), mask (B, T) or None -> (B, T, D)."""

    heads: int
    mlp_width: int
    dtype: DTypeLike = jnp.float32
    apart: bool = False  # see `SelfAttention`

    @nn.compact
    def __call__(
        self, x: Float[AnyArray, "B T D"], mask: Bool[AnyArray, "B T"] | None = None
    ) -> Float[jax.Array, "B T D"]:
        h = LayerNorm(epsilon=1e-5, dtype=self.dtype, name="norm1")(x)
        attend = SelfAttention(self.heads, dtype=self.dtype, apart=self.apart, name="attn")
        x = x + attend(h, mask)
        h = LayerNorm(epsilon=1e-5, dtype=self.dtype, name="norm2")(x)
        return x + Mlp(self.mlp_width, dtype=self.dtype, name="mlp")(h)


class Wav2Vec2(nn.Module):
    """Samples (B, L) -> hidden states (B, count_frames(L), D), of wav2vec 2.0 and HuBERT alike.

    lengths (B,): samples of each example, at least 400; what is behind them counts for nothing, and
    the states of an example's frames are those it has alone. (transformers' attention_mask leaves
    padding in the statistics of group norm.) Of frames behind them the states mean nothing. None:
    all of L.
    masked (B, N): frames whose projection is the learnt `mask_embed` instead, as in pre-training.
    layer: the states after so many transformer layers, 0 for what goes into the first; the last
    norm of the pre-norm form is not applied to them. None: the last hidden state, with that norm.
    `masking`: whether there is a `mask_embed`; some published weights have none. There is no
    dropout: who trains this, trains without.
    Raises ValueError for fewer than 400 samples and a layer that there is not.
    """

    width: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0
    conv_width: int = 512
    extractor_norm: str = "group"
    conv_bias: bool = False
    norm_first: bool = False
    position_kernel: int = 128
    position_groups: int = 16
    masking: bool = True
    apart: bool | None = None  # groups of the convolution and heads, each alone; None: on CPU
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        samples: Float[AnyArray, "B L"],
        lengths: Int[AnyArray, " B"] | None = None,
        masked: Bool[AnyArray, "B _"] | None = None,
        *,
        layer: int | None = None,
    ) -> Float[jax.Array, "B _ {self.width}"]:
        if samples.shape[1] < WINDOW:
            raise ValueError(f"{samples.shape[1]} samples; expected at least {WINDOW}, one frame")
        if layer is not None and not 0 <= layer <= self.depth:
            raise ValueError(f"layer {layer}; expected 0 to {self.depth}")
        norm = partial(LayerNorm, epsilon=1e-5, dtype=self.dtype)
        extract = Extractor(
            self.conv_width, self.extractor_norm, self.conv_bias, self.dtype, name="extractor"
        )
        x = norm(name="project_norm")(extract(samples, lengths))
        x = Dense(self.width, dtype=self.dtype, name="project")(x)
        if self.masking:
            embed = self.param("mask_embed", nn.initializers.uniform(1.0), (self.width,))
            if masked is not None:
                x = jnp.where(masked[..., None], embed.astype(x.dtype), x)
        apart = jax.default_backend() == "cpu" if self.apart is None else self.apart
        seen = None
        if lengths is not None:
            seen = jnp.arange(x.shape[1]) < ((lengths - WINDOW) // STRIDE + 1)[:, None]
            x = jnp.where(seen[..., None], x, 0)
        x = x + PositionalConv(
            self.position_kernel, self.position_groups, apart, self.dtype, name="positions"
        )(x)
        last = norm(name="norm")
        if not self.norm_first:
            x = last(x)
        mlp_width = round(self.width * self.mlp_ratio)
        for i in range(self.depth if layer is None else layer):
            if self.norm_first:
                block = PreNormBlock(self.heads, mlp_width, self.dtype, apart, name=f"layers_{i}")
            else:
                block = PostNormBlock(
                    self.heads, mlp_width, 0.0, "gelu", self.dtype, apart=apart, name=f"layers_{i}"
                )
            x = block(x, seen)
        return last(x) if self.norm_first and layer is None else x


@partial(jax.jit, static_argnames=("model", "layer"))
def _encode_block(model, params, samples, lengths, layer):
    return model.apply({"params": params}, samples, lengths, layer=layer).astype(jnp.float32)


def encode_long(
    model: Wav2Vec2,
    params: Any,
    samples: np.ndarray,
    *,
    block: int = 1128,
    margin: int = 64,
    layer: int | None = None,
    normalise: bool = True,
) -> Iterator[np.ndarray]:
    """Hidden states of a recording of any length, in parts: float32 (n, D), one behind the other.

    samples (L,) at 16 kHz: int16, or floats; a memory map will do, as only parts are read. What is
    yielded holds count_frames(L) frames in all, of which frame i sees the samples from 320 i to
    320 i + 400, as in one pass over the whole; of fewer than 400 samples there is none. A program
    of one shape computes `block` frames at a time (1000, 20 s, between its margins), so that memory
    does not grow with L; `margin` frames at each inner edge of a block are taken from its
    neighbour, and their default is as far as the positional convolution sees.

    A recording that fits into one block gives what the whole pass gives. A longer one does not
    quite: attention sees its block alone, and so do the statistics of group norm, where the model
    has it; mean and variance of the samples are the whole recording's. With layer norm in the
    extractor, and a margin of at least half of the positional kernel, what goes into the first
    layer is exactly that of the whole pass.
    normalise: whether samples are brought to mean 0 and variance 1; some published weights take
    them as they are, as shares of full scale.
    Raises ValueError for margins that leave nothing of a block.
    """
    if not 0 <= 2 * margin < block:
        raise ValueError(f"margin {margin}; expected 0 to below half of the block of {block}")
    total, done = count_frames(len(samples)), 0
    if not total:
        return
    mean, deviation = _moments(samples) if normalise else (0.0, 1.0)
    while done < total:
        first = max(min(done - margin, total - block), 0)
        stop = total if first + block >= total else first + block - margin
        # With all samples before the next frame: group norm counts those, too.
        held = np.zeros((1, block * STRIDE + WINDOW - 1), np.float32)
        part = _floats(samples[first * STRIDE :][: held.shape[1]])
        held[0, : len(part)] = (part - mean) / deviation
        states = _encode_block(model, params, held, np.array([len(part)]), layer)
        yield np.asarray(states[0, done - first : stop - first])
        done = stop


def _floats(samples: np.ndarray) -> np.ndarray:
    """float64, of int16 as shares of full scale."""
    samples = np.asarray(samples)
    return samples.astype(np.float64) / (32768 if samples.dtype == np.int16 else 1)


def _moments(samples: np.ndarray, size: int = 2**20) -> tuple[float, float]:
    """(mean, deviation) of a recording, by parts; the variance with transformers' 1e-7."""
    parts = [samples[i : i + size] for i in range(0, len(samples), size)]
    mean = sum(_floats(part).sum() for part in parts) / len(samples)
    variance = sum(np.square(_floats(part) - mean).sum() for part in parts) / len(samples)
    return float(mean), float(np.sqrt(variance + 1e-7))
