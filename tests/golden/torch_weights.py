"""Weights drawn for the golden files, and their way into PyTorch's parameters and back."""

import numpy as np
import torch
from torch import nn

IMAGE, PATCH, GRID = 16, 4, 4
PIXELS = 3 * PATCH**2
WIDTH, HEADS, DEPTH = 16, 4, 2
STEP = 128


class Draw:
    """Weights and inputs, drawn once as int8 and read as float32 multiples of 1/128."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.kept = {}

    def __call__(self, name, shape, scale=0.2, centre=0.0):
        drawn = self.rng.normal(centre * STEP, scale * STEP, shape).round().clip(-127, 127)
        self.kept[name] = drawn.astype(np.int8)
        return self[name]

    def __getitem__(self, name):
        return torch.tensor(self.kept[name].astype(np.float32) / STEP)

    def norm(self, name, width):
        self(f"{name}/scale", (width,), 0.1, 0.8)
        self(f"{name}/bias", (width,), 0.1)

    def dense(self, name, shape_in, shape_out):
        self(f"{name}/kernel", shape_in + shape_out)
        self(f"{name}/bias", shape_out, 0.1)

    def block(self, name, width, heads, hidden):
        """A transformer block, pre-norm or post-norm: the names are the same."""
        self.norm(f"{name}/norm1", width)
        self.dense(f"{name}/attn/qkv", (width,), (3, heads, width // heads))
        self.dense(f"{name}/attn/proj", (heads, width // heads), (width,))
        self.norm(f"{name}/norm2", width)
        self.dense(f"{name}/mlp/fc1", (width,), (hidden,))
        self.dense(f"{name}/mlp/fc2", (hidden,), (width,))

    def vit(self, name):
        self.dense(f"{name}/patch_embed", (PIXELS,), (WIDTH,))
        self(f"{name}/cls_token", (1, 1, WIDTH))
        for i in range(DEPTH):
            self.block(f"{name}/blocks_{i}", WIDTH, HEADS, 4 * WIDTH)


def matrix(draw, name, width_in):
    """The (out, in) weight and the bias of torch.nn.Linear."""
    kernel = draw[f"{name}/kernel"].reshape(width_in, -1)
    return kernel.T.contiguous(), draw[f"{name}/bias"].reshape(-1)


class Bound:
    """Torch parameters set from drawn weights; gives their gradients back in the drawn shapes.

    `back` maps a drawn name to a function of no arguments that returns its gradient.
    """

    def __init__(self, draw):
        self.draw, self.back = draw, {}

    def _set(self, name, parameter, value, invert):
        with torch.no_grad():
            parameter.copy_(value.reshape(parameter.shape))
        shape = self.draw.kept[name].shape
        self.back[name] = lambda: invert(parameter.grad).reshape(shape).numpy()

    def linear(self, name, weight, bias):
        """weight (out, in), or a convolution's (out, c, p, q) for kernels in (p, q, c) order."""
        width_out = weight.shape[0]
        value, bias_value = matrix(self.draw, name, weight[0].numel())
        if weight.ndim == 4:
            value = value.reshape(width_out, PATCH, PATCH, 3).permute(0, 3, 1, 2)

        def invert(gradient):
            rows = gradient.permute(0, 2, 3, 1) if gradient.ndim == 4 else gradient
            return rows.reshape(width_out, -1).T

        self._set(f"{name}/kernel", weight, value, invert)
        self._set(f"{name}/bias", bias, bias_value, lambda g: g)

    def norm(self, name, module):
        self._set(f"{name}/scale", module.weight, self.draw[f"{name}/scale"], lambda g: g)
        self._set(f"{name}/bias", module.bias, self.draw[f"{name}/bias"], lambda g: g)

    def token(self, name, parameter):
        self._set(name, parameter, self.draw[name], lambda g: g)

    def layer(self, name, layer):
        """torch.nn.TransformerEncoderLayer."""
        self.norm(f"{name}/norm1", layer.norm1)
        self.linear(
            f"{name}/attn/qkv", layer.self_attn.in_proj_weight, layer.self_attn.in_proj_bias
        )
        out = layer.self_attn.out_proj
        self.linear(f"{name}/attn/proj", out.weight, out.bias)
        self.norm(f"{name}/norm2", layer.norm2)
        self.linear(f"{name}/mlp/fc1", layer.linear1.weight, layer.linear1.bias)
        self.linear(f"{name}/mlp/fc2", layer.linear2.weight, layer.linear2.bias)

    def gradients(self):
        return {name: gradient() for name, gradient in self.back.items()}


def temporal(bound, name, width, heads, hidden, depth, activation):
    layer = nn.TransformerEncoderLayer(width, heads, hidden, 0.0, activation, batch_first=True)
    encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
    for i, one in enumerate(encoder.layers):
        bound.layer(f"{name}layers_{i}", one)
    return encoder


def save_cases(folder, cases):
    """Write each case, name -> (weights, inputs, what PyTorch finds), to <folder>/<name>.npz."""
    for name, (weights, inputs, found) in cases.items():
        arrays = {f"weights/{n}": a for n, a in weights.kept.items()}
        arrays |= {f"inputs/{n}": a for n, a in inputs.kept.items()}
        np.savez_compressed(folder / f"{name}.npz", **arrays, **found)
        size = (folder / f"{name}.npz").stat().st_size
        print(f"{name}.npz: {len(arrays) + len(found)} arrays, {size / 1024:.0f} KB")
