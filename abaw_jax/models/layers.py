"""Layers shared by the models, and the names of array axes used in docstrings and annotations.

B batch   T time   N tokens   D width   H heads   C classes   M modalities   P pixels of a patch
S side of an image   K kept patches   Q queries   E width of a head, D / H
"""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jax.typing import DTypeLike
from jaxtyping import Bool, Float, Float32, Real

# What functions of arrays take: JAX's, tracers among them, or NumPy's.
AnyArray = jax.Array | np.ndarray

xavier = nn.initializers.xavier_uniform()

# Variance from the centred values, as in torch: Flax's default, E[x^2] - E[x]^2, loses digits where
# a token's mean is large beside its spread, and is no faster on CPU.
LayerNorm = partial(nn.LayerNorm, use_fast_variance=False)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _product(x, kernel, precision):
    """Rows (R, *I) times a kernel (*I, *O) -> (R, *O)."""
    axes = tuple(range(1, x.ndim))
    inputs = (axes, tuple(range(len(axes))))
    return jax.lax.dot_general(x, kernel, (inputs, ((), ())), precision=precision)


def _product_forward(x, kernel, precision):
    return _product(x, kernel, precision), (x, kernel)


def _product_backward(precision, saved, gradient):
    x, kernel = saved
    outputs = (tuple(range(1, gradient.ndim)), tuple(range(x.ndim - 1, kernel.ndim)))
    rows = ((0,), (0,))
    return (
        jax.lax.dot_general(gradient, kernel, (outputs, ((), ())), precision=precision),
        jax.lax.dot_general(x, gradient, (rows, ((), ())), precision=precision),
    )


_product.defvjp(_product_forward, _product_backward)


def dense_product(x, kernel, dimension_numbers, precision=None):
    """`jax.lax.dot_general` as a dense layer calls it, with a gradient that XLA:CPU does fast.

    x (*B, *I), kernel (*I, *O) -> (*B, *O), all of I contracted. JAX writes the kernel's gradient
    as a product that starts with the transposed output gradient; XLA:CPU then computes that
    gradient anew in transposed order, and with it the gradients of the residual stream back to the
    last block. Starting with the transposed input instead makes a ViT's step 1.3 to 1.6 times as
    fast. Leading axes are flattened for the same reason; the kernel's are not: they may be sharded.
    """
    inputs = len(dimension_numbers[0][0])
    split = x.ndim - inputs
    rows = x.reshape(-1, *x.shape[split:])
    return _product(rows, kernel, precision).reshape(*x.shape[:split], *kernel.shape[inputs:])


Dense = partial(nn.Dense, dot_general=dense_product)
DenseGeneral = partial(nn.DenseGeneral, dot_general=dense_product)


class BatchNorm(nn.Module):
    """BatchNorm over the rows of (..., D), of those where `mask` (...) is True: momentum 0.1.

    Padded and invalid rows get normalised too but do not enter the statistics. As in torch, the
    batch is normalised by the biased variance while the running one takes the unbiased. With no
    valid row the running statistics are used and left as they are.
    """

    epsilon: float = 1e-5
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[AnyArray, "*B D"],
        mask: Bool[AnyArray, "*B"] | None = None,
        *,
        train: bool = False,
    ) -> Float[jax.Array, "*B D"]:
        width = x.shape[-1]
        mean = self.variable("batch_stats", "mean", jnp.zeros, (width,))
        variance = self.variable("batch_stats", "var", jnp.ones, (width,))
        scale = self.param("scale", nn.initializers.ones, (width,))
        bias = self.param("bias", nn.initializers.zeros, (width,))
        used_mean, used_variance = mean.value, variance.value
        if train:
            rows = x.astype(jnp.float32)
            weight = jnp.ones(x.shape[:-1]) if mask is None else mask
            weight = weight[..., None].astype(jnp.float32)
            axes = tuple(range(x.ndim - 1))
            count = jnp.float32(x.size // width) if mask is None else weight.sum()
            some = count > 0
            batch_mean = (rows * weight).sum(axes) / jnp.maximum(count, 1)
            centred = (rows - batch_mean) * weight
            batch_variance = jnp.square(centred).sum(axes) / jnp.maximum(count, 1)
            used_mean = jnp.where(some, batch_mean, used_mean)
            used_variance = jnp.where(some, batch_variance, used_variance)
            if not self.is_initializing():
                unbiased = used_variance * count / jnp.maximum(count - 1, 1)
                unbiased = jnp.where(some, unbiased, variance.value)
                mean.value = 0.9 * mean.value + 0.1 * jax.lax.stop_gradient(used_mean)
                variance.value = 0.9 * variance.value + 0.1 * jax.lax.stop_gradient(unbiased)
        normalised = (x.astype(jnp.float32) - used_mean) * jax.lax.rsqrt(
            used_variance + self.epsilon
        )
        return (normalised * scale + bias).astype(self.dtype)

    def fold(self) -> tuple[Float32[jax.Array, " D"], Float32[jax.Array, " D"]]:
        """(factor, shift) of a norm that has its variables: inference is x * factor + shift."""
        scale, bias = (self.get_variable("params", name) for name in ("scale", "bias"))
        mean, variance = (self.get_variable("batch_stats", name) for name in ("mean", "var"))
        factor = scale * jax.lax.rsqrt(variance + self.epsilon)
        return factor, bias - mean * factor


def keep_norms(frozen: Callable[[str], bool]) -> AbstractContextManager[None]:
    """A context in which BatchNorms whose parameters are frozen do in training what they do
    elsewhere: they normalise by their running statistics, which stay as they are.

    frozen: path of a parameter ('encoder/stem/norm/scale') -> bool.
    """

    def intercept(call, args, kwargs, context):
        module = context.module
        called = isinstance(module, BatchNorm) and context.method_name == "__call__"
        if called and frozen("/".join((*module.path, "scale"))):
            kwargs = {**kwargs, "train": False}
        return call(*args, **kwargs)

    return nn.intercept_methods(intercept)


def draw_mask(key: jax.Array, rate: float, shape: tuple[int, ...]) -> Bool[jax.Array, "..."]:
    """True at each place with probability `rate`, to 2**-32, independently: bool `shape`.

    A hash of the place's number and of 64 bits from `key`, in place of jax.random.bernoulli, whose
    generator takes half of a sequence model's training step on CPU; this takes a twentieth of that,
    and parts of an array on several devices are drawn where they lie. Good enough to drop numbers,
    and for nothing else. Beyond 2**32 places the mask repeats itself.
    """
    if not 0 <= rate < 1:
        raise ValueError(f"rate {rate}; expected 0 up to below 1")
    seed = jax.random.bits(key, (2,), jnp.uint32)
    place = jnp.zeros((), jnp.uint32)
    for axis in range(len(shape)):  # a sum: one long iota would be whole on every device
        stride = np.uint32(math.prod(shape[axis + 1 :]) % 2**32)
        place += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * stride
    return _hash(_hash(place ^ seed[0]) ^ seed[1]) < np.uint32(rate * 2**32)


def _hash(x: jax.Array) -> jax.Array:
    """A permutation of the 32-bit numbers, each bit of which hangs on all of x: uint32 (...).

    Shifts and products as in MurmurHash3's last step, with the constants of C. Wellons' lowbias32.
    """
    x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * np.uint32(0x846CA68B)
    return x ^ (x >> 16)


class Dropout(nn.Module):
    """Zeros numbers with probability `rate`, in training alone: (...) -> (...).

    Srivastava et al. 2014; what is kept is scaled by 1 / (1 - rate). Random stream "dropout".
    """

    rate: float

    @nn.compact
    def __call__(self, x: Float[AnyArray, "*B"], *, train: bool = False) -> Float[AnyArray, "*B"]:
        if not train or self.rate == 0.0:
            return x
        dropped = draw_mask(self.make_rng("dropout"), self.rate, x.shape)
        return jnp.where(dropped, jnp.zeros((), x.dtype), x / (1.0 - self.rate))


def exact_gelu(x: Float[AnyArray, "*B"]) -> Float[jax.Array, "*B"]:
    """GELU by the error function, as in torch.nn.GELU(); JAX's default is the tanh form.

    In float32 by erf as torch does: XLA:CPU takes a third of a step for the erfc that jax.nn.gelu
    calls. In bfloat16 by erfc: 1 + erf would round the negative tail to zero.
    """
    if x.dtype == jnp.float32:
        return 0.5 * x * (1.0 + jax.lax.erf(x * np.float32(np.sqrt(0.5))))
    return jax.nn.gelu(x, approximate=False)


def sincos_1d(positions: Real[np.ndarray, " N"], width: int) -> Float32[np.ndarray, "N {width}"]:
    """Sine and cosine of each position at width/2 frequencies, sines first.

    `width` must be even. Vaswani et al. 2017, section 3.5, with the halves concatenated instead of
    interleaved as in MAE's public code.
    """
    if width % 2:
        raise ValueError(f"sin-cos positions need an even width, got {width}")
    omega = 1.0 / 10000 ** (np.arange(width // 2, dtype=np.float64) / (width / 2))
    angles = np.outer(positions, omega)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


def sincos_2d(grid: int, width: int) -> Float32[np.ndarray, "1+{grid}**2 {width}"]:
    """Fixed positions of a grid x grid image of patches, with a zero row for the CLS token.

    The first half of the columns encodes the patch's column (width before height), as in MAE
    (He et al. 2022) and its public code.
    """
    rows, columns = np.divmod(np.arange(grid * grid), grid)
    table = np.concatenate([sincos_1d(columns, width // 2), sincos_1d(rows, width // 2)], axis=1)
    return np.concatenate([np.zeros((1, width), np.float32), table])


def alibi(
    length: int, heads: int, *, directed: bool = False
) -> Float32[np.ndarray, "{heads} {length} {length}"]:
    """Bias of attention towards near neighbours, -slope |i - j|: (H, T, T).

    The slopes of linear biases (Press et al. 2022), 2 ** (-8 h / H) for head h of H, h from 1; the
    paper's attention is causal, neither form here is its own. Directed: heads 2 p - 1 and 2 p have
    the slope of h = p; the first of the two sees no key after its query (-inf), the second none
    before it.
    """
    number = np.arange(1, heads + 1)
    slopes = 2.0 ** (-8.0 * ((number + 1) // 2 if directed else number) / heads)
    after = np.subtract.outer(np.arange(length), np.arange(length)).T  # j - i
    bias = -slopes[:, None, None] * np.abs(after)
    if directed:
        bias[0::2, after > 0] = bias[1::2, after < 0] = -np.inf
    return bias.astype(np.float32)


def attention(
    query: Float[AnyArray, "B H Q E"],
    key: Float[AnyArray, "B H N E"],
    value: Float[AnyArray, "B H N E"],
    mask: Bool[AnyArray, "B N"] | None = None,
    bias: Float[AnyArray, "H Q N"] | None = None,
    dropout: Callable[[jax.Array], jax.Array] = lambda weights: weights,
) -> Float[jax.Array, "B H Q E"]:
    """Scaled dot-product attention, softmax in float32. Vaswani et al. 2017, equation 1.

    mask is True where a key may be attended to; bias is added to the logits; `dropout` is applied
    to the weights. An example whose mask is False everywhere attends evenly to all its keys, so
    that padding alone makes no NaN.
    """
    scale = query.shape[-1] ** -0.5
    logits = jnp.einsum("bhqd,bhkd->bhqk", query * scale, key).astype(jnp.float32)
    if bias is not None:
        logits = logits + bias
    if mask is not None:
        logits = jnp.where(mask[:, None, None, :], logits, jnp.finfo(jnp.float32).min)
    weights = dropout(jax.nn.softmax(logits, axis=-1)).astype(value.dtype)
    return jnp.einsum("bhqk,bhkd->bhqd", weights, value)


def attention_apart(
    query: Float[AnyArray, "B H Q E"],
    key: Float[AnyArray, "B H N E"],
    value: Float[AnyArray, "B H N E"],
    mask: Bool[AnyArray, "B N"] | None = None,
) -> Float[jax.Array, "B H Q E"]:
    """`attention` without bias and dropout, one head after another, up to rounding.

    On CPU, of which a cache holds one head's logits and not all: with 12 heads of 64 and N = 1128,
    55 ms of one core in place of 79. Weights are divided by their sum behind the product.
    """

    def attend(head):
        query, key, value = head
        logits = jnp.einsum("bqd,bkd->bqk", query * query.shape[-1] ** -0.5, key)
        logits = logits.astype(jnp.float32)
        if mask is not None:
            logits = jnp.where(mask[:, None], logits, jnp.finfo(jnp.float32).min)
        weights = jnp.exp(logits - logits.max(-1, keepdims=True))
        product = jnp.einsum("bqk,bkd->bqd", weights.astype(value.dtype), value)
        return (product / weights.sum(-1, keepdims=True)).astype(value.dtype)

    by_head = [rearrange(x, "b h n d -> h b n d") for x in (query, key, value)]
    return rearrange(jax.lax.map(attend, by_head), "h b n d -> b h n d")


class SelfAttention(nn.Module):
    """Multi-head self-attention with one fused projection: (B, N, D) -> (B, N, D).

    `dropout` acts on the attention weights, as in torch.nn.MultiheadAttention. apart: as
    `attention_apart`, for long sequences on CPU; there is neither bias nor dropout then.
    """

    heads: int
    dropout: float = 0.0
    dtype: DTypeLike = jnp.float32
    apart: bool = False

    @nn.compact
    def __call__(
        self,
        x: Float[AnyArray, "B N D"],
        mask: Bool[AnyArray, "B N"] | None = None,
        bias: Float[AnyArray, "H N N"] | None = None,
        *,
        train: bool = False,
    ) -> Float[jax.Array, "B N D"]:
        width = x.shape[-1]
        if width % self.heads:
            raise ValueError(f"width {width} is not a multiple of {self.heads} heads")
        features = (3, self.heads, width // self.heads)
        qkv = DenseGeneral(features, kernel_init=xavier, dtype=self.dtype, name="qkv")(x)
        # Split, not indexed: its gradient is one concatenation instead of three padded sums.
        parts = jnp.split(qkv, 3, axis=2)
        query, key, value = (rearrange(part, "b n 1 h d -> b h n d") for part in parts)
        dropout = partial(Dropout(self.dropout), train=train)
        if self.apart:
            if bias is not None or (train and self.dropout):
                raise ValueError("heads apart know neither bias nor dropout")
            out = attention_apart(query, key, value, mask)
        else:
            out = attention(query, key, value, mask, bias, dropout)
        out = rearrange(out, "b h n d -> b n h d")
        return DenseGeneral(
            width, axis=(-2, -1), kernel_init=xavier, dtype=self.dtype, name="proj"
        )(out)


class Mlp(nn.Module):
    """Dense - activation - dropout - Dense: (..., D) -> (..., D)."""

    hidden: int
    activation: str = "gelu"
    dropout: float = 0.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[AnyArray, "*B D"], *, train: bool = False
    ) -> Float[jax.Array, "*B D"]:
        activation = {"gelu": exact_gelu, "relu": jax.nn.relu, "silu": jax.nn.silu}[self.activation]
        h = activation(Dense(self.hidden, kernel_init=xavier, dtype=self.dtype, name="fc1")(x))
        h = Dropout(self.dropout)(h, train=train)
        return Dense(x.shape[-1], kernel_init=xavier, dtype=self.dtype, name="fc2")(h)


class DropPath(nn.Module):
    """Stochastic depth: drops the whole branch of an example with probability `rate`.

    Huang et al. 2016; what is kept is scaled by 1 / (1 - rate). Random stream "drop_path".
    """

    rate: float

    @nn.compact
    def __call__(
        self, x: Float[AnyArray, "B ..."], *, train: bool = False
    ) -> Float[AnyArray, "B ..."]:
        if not train or self.rate == 0.0:
            return x
        shape = (x.shape[0],) + (1,) * (x.ndim - 1)
        kept = jax.random.bernoulli(self.make_rng("drop_path"), 1.0 - self.rate, shape)
        return jnp.where(kept, x / (1.0 - self.rate), 0.0).astype(x.dtype)


MASKED = ("frames", "values")


class RandomMask(nn.Module):
    """Zeros frames, or single values, of (B, T, D) with probability `rate`, in training alone.

    `masked_vit` (arXiv 2403.13731): frames in the paper, values in its code. Nothing is rescaled,
    unlike dropout. Not published, and chosen here: that every window of every step draws anew, and
    that no frame is spared, the predicted one among them. Random stream "mask".
    """

    rate: float
    unit: str = "frames"

    @nn.compact
    def __call__(
        self, x: Float[AnyArray, "B T D"], *, train: bool = False
    ) -> Float[AnyArray, "B T D"]:
        if self.unit not in MASKED:
            raise ValueError(f"unit {self.unit!r}; expected one of {MASKED}")
        if not train or self.rate == 0.0:
            return x
        shape = x.shape if self.unit == "values" else (*x.shape[:-1], 1)
        masked = draw_mask(self.make_rng("mask"), self.rate, shape)
        return jnp.where(masked, jnp.zeros((), x.dtype), x)
