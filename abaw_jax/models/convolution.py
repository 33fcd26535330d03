"""Convolutions of images (B, H, W, D), and the layers that the convolutional encoders share.

An encoder gives one feature an image, float32 (B, D), pooled in its own way: a `FrameClassifier`
takes it with pooling "none". Padding and norms are torch's.
"""

import contextlib
import contextvars
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Float

from abaw_jax.models.layers import AnyArray, BatchNorm, dense_product

FORMS = ("grouped", "shifted")
_FORM: contextvars.ContextVar[str | None] = contextvars.ContextVar("form", default=None)
Sides = tuple[int, int]


class Pixels(NamedTuple):
    """What an encoder was made for: (x / 255 - mean) / std of images of `size` x `size` pixels.

    The two are those of `normalise_by_channel`, one of each a channel, red first.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


IMAGENET = dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def find_form(form: str | None = None) -> str:
    """How convolutions of groups are done: "grouped" or "shifted"; by default as suits the backend.

    "grouped": the one operation, which GPUs and TPUs are fast at and which other runtimes know:
    ONNX files are built with it. "shifted": a sum of shifted products, each tap of the kernel
    times the image moved by it, which XLA:CPU fuses into one loop; of its grouped convolution it
    has a slow form alone: 4 maps of 28 x 28 with 240 channels, 5 x 5, took 31 ms in place of 1.4,
    and with gradients 147 in place of 8 (two busy cores). In it, convolutions of single pixels
    become matrix products.
    """
    chosen = form or _FORM.get() or ("shifted" if jax.default_backend() == "cpu" else "grouped")
    if chosen not in FORMS:
        raise ValueError(f"form {chosen!r}; expected one of {FORMS}")
    return chosen


@contextlib.contextmanager
def use_form(form: str) -> Iterator[None]:
    """What is traced within takes this form where it names none: the model is to run elsewhere."""
    before = _FORM.set(form)
    try:
        yield
    finally:
        _FORM.reset(before)


def convolve(
    x: Float[AnyArray, "B H W I"],
    kernel: Float[AnyArray, "p q _ O"],
    *,
    stride: int = 1,
    padding: Sides = (0, 0),
    groups: int = 1,
    form: str | None = None,
) -> Float[jax.Array, "B h w O"]:
    """Convolution with `padding` zeros on either side of the rows and columns, as torch's Conv2d.

    Output o sees the I / groups inputs of its group, o * groups // O. form: as `find_form`; both
    give the same, and the same gradients, up to rounding.
    """
    inside, outputs = kernel.shape[2:]
    if x.shape[-1] != inside * groups or outputs % groups:
        raise ValueError(f"{x.shape[-1]} channels to {outputs} in {groups} groups of {inside}")
    shifted = find_form(form) == "shifted"
    if shifted and groups == 1 and kernel.shape[:2] == (1, 1) and stride == 1:
        return dense_product(x, kernel[0, 0], (((x.ndim - 1,), (0,)), ((), ())))
    if not shifted or groups == 1:
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            window_strides=(stride, stride),
            padding=[(side, side) for side in padding],
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )
    # Input i of each group, spread over the group's outputs.
    parts = (jnp.repeat(x[..., i::inside], outputs // groups, axis=-1) for i in range(inside))
    return sum(_depthwise(x, kernel[:, :, i], stride, padding) for i, x in enumerate(parts))


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _depthwise(x, kernel, stride, padding):
    """Each channel with a kernel (p, q, C) of its own, in shifted form: (B, H, W, C)."""
    padded = jnp.pad(x, ((0, 0), *((side, side) for side in padding), (0, 0)))
    return _sum_of_taps(padded, kernel, stride)


def _sum_of_taps(padded, kernel, stride):
    (batch, height, width, channels), (p, q, _) = padded.shape, kernel.shape
    rows, columns = (height - p) // stride * stride, (width - q) // stride * stride
    total = jnp.zeros((), padded.dtype)
    for i in range(p):
        for j in range(q):
            last = (batch, i + rows + 1, j + columns + 1, channels)
            moved = jax.lax.slice(padded, (0, i, j, 0), last, (1, stride, stride, 1))
            total = total + moved * kernel[i, j]
    return total


def _depthwise_forward(x, kernel, stride, padding):
    return _depthwise(x, kernel, stride, padding), (x, kernel)


def _depthwise_backward(stride, padding, saved, gradient):
    x, kernel = saved
    return (
        _gradient_of_input(gradient, kernel, x.shape, stride, padding),
        _gradient_of_kernel(gradient, x, kernel.shape, stride, padding).astype(kernel.dtype),
    )


def _gradient_of_input(gradient, kernel, shape, stride, padding):
    """The same sum, of the gradient with zeros between its pixels, by the kernel turned round."""
    zeros = [(0, 0, 0)]
    for axis in (1, 2):
        before = kernel.shape[axis - 1] - 1 - padding[axis - 1]
        covered = (gradient.shape[axis] - 1) * stride + 1
        # Negative where the last pixels, or more of the padding than the kernel's, go unseen.
        after = shape[axis] + kernel.shape[axis - 1] - 1 - before - covered
        zeros.append((before, after, stride - 1))
    spread = jax.lax.pad(gradient, jnp.zeros((), gradient.dtype), [*zeros, (0, 0, 0)])
    return _sum_of_taps(spread, kernel[::-1, ::-1], 1)


def _gradient_of_kernel(gradient, x, shape, stride, padding):
    """Sums over pixels, row by row: XLA:CPU takes 2 to 6 times as long for sums over them all."""
    (p, q, channels), (batch, rows, columns, _) = shape, gradient.shape
    padded = jnp.pad(x, ((0, 0), *((side, side) for side in padding), (0, 0)))

    def add_row(row, sums):
        seen = jax.lax.dynamic_slice_in_dim(padded, row * stride, p, axis=1)
        of_row = jax.lax.dynamic_index_in_dim(gradient, row, axis=1, keepdims=False)
        taps = ((i, j) for i in range(p) for j in range(q))
        last = (columns - 1) * stride + 1
        return tuple(
            total + seen[:, i, j : j + last : stride] * of_row
            for total, (i, j) in zip(sums, taps, strict=True)
        )

    start = tuple(jnp.zeros((batch, columns, channels), gradient.dtype) for _ in range(p * q))
    sums = jax.lax.fori_loop(0, rows, add_row, start)
    return jnp.stack([total.sum((0, 1)) for total in sums]).reshape(shape)


_depthwise.defvjp(_depthwise_forward, _depthwise_backward)


class Conv(nn.Module):
    """Convolution as torch's Conv2d: (B, H, W, I) -> (B, h, w, O), kernel (p, q, I / groups, O).

    padding: zeros on either side, by default half of the kernel, so that stride 1 keeps the size.
    Kernels start as normal numbers with variance 2 over the number of outputs that see a pixel of
    a channel (He et al. 2015, section 2.2), biases as zeros.
    """

    width: int
    kernel_size: Sides = (1, 1)
    stride: int = 1
    groups: int = 1
    padding: Sides | None = None
    bias: bool = False
    form: str | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[AnyArray, "B H W I"], fold: tuple[jax.Array, jax.Array] | None = None
    ) -> Float[jax.Array, "B h w O"]:
        """fold: `BatchNorm.fold` of a norm that is done here, with the convolution."""
        init = nn.initializers.variance_scaling(2.0 * self.groups, "fan_out", "normal")
        shape = (*self.kernel_size, x.shape[-1] // self.groups, self.width)
        kernel = self.param("kernel", init, shape)
        bias = self.param("bias", nn.initializers.zeros, (self.width,)) if self.bias else None
        if fold:
            factor, shift = fold
            kernel = kernel * factor
            bias = shift if bias is None else bias * factor + shift
        p, q = self.kernel_size
        out = convolve(
            jnp.asarray(x, self.dtype),
            kernel.astype(self.dtype),
            stride=self.stride,
            padding=(p // 2, q // 2) if self.padding is None else self.padding,
            groups=self.groups,
            form=self.form,
        )
        return out if bias is None else out + bias.astype(self.dtype)


class PReLU(nn.Module):
    """max(x, 0) + slope min(x, 0) with a slope a channel, 0.25 at first: (..., D) -> (..., D).

    He et al. 2015, as torch.nn.PReLU(D).
    """

    @nn.compact
    def __call__(self, x: Float[AnyArray, "*B D"]) -> Float[jax.Array, "*B D"]:
        init = nn.initializers.constant(0.25)
        slope = self.param("negative_slope", init, (x.shape[-1],))
        return jnp.where(x >= 0, x, slope.astype(x.dtype) * x)


class ConvNorm(nn.Module):
    """Convolution, BatchNorm, activation: (B, H, W, I) -> (B, h, w, O). Fields as of `Conv`.

    activation: "silu", "prelu" or None.
    """

    width: int
    kernel_size: Sides = (1, 1)
    stride: int = 1
    groups: int = 1
    padding: Sides | None = None
    activation: str | None = None
    form: str | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[AnyArray, "B H W I"], *, train: bool = False
    ) -> Float[jax.Array, "B h w O"]:
        conv = Conv(
            self.width,
            self.kernel_size,
            self.stride,
            self.groups,
            self.padding,
            form=self.form,
            dtype=self.dtype,
            name="conv",
        )
        norm = BatchNorm(dtype=self.dtype, name="norm")
        # Other runtimes fuse no norm with a convolution behind which its axes are turned. XLA:CPU
        # does, where kernels are large beside few small maps and folding would take the longer.
        if train or self.is_initializing() or find_form(self.form) == "shifted":
            x = norm(conv(x), train=train)
        else:
            x = conv(x, norm.fold())
        if self.activation is None:
            return x
        return {"silu": jax.nn.silu, "prelu": PReLU(name="prelu")}[self.activation](x)
