"""Weights that follow from a tensor's name and shape: golden files need not hold them."""

import math
import zlib

import numpy as np

SAMPLES = 64  # of a large array, that a golden file holds


def draw_weights(name: str, shape: tuple[int, ...], gain: float) -> np.ndarray:
    """Of torch's layers, by the last part of their names.

    gain: of a convolution or dense layer, output variance per input variance; a network has one
    with which signals neither grow nor die on their way.
    """
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    kind = name.rsplit(".", 1)[-1]
    if kind == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    if kind == "running_var":
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    if kind in ("running_mean", "bias"):
        return rng.normal(0, 0.1, shape).astype(np.float32)
    if len(shape) == 1:  # scales of norms, slopes of PReLUs
        return rng.uniform(0.6, 1.0, shape).astype(np.float32)
    fan_in = math.prod(shape[1:])
    return rng.normal(0, math.sqrt(gain / fan_in), shape).astype(np.float32)


def draw_images(size: int, count: int = 2) -> np.ndarray:
    """Images as an encoder takes them, float32 (B, S, S, 3)."""
    return np.random.default_rng(size).normal(size=(count, size, size, 3)).astype(np.float32)


def sample(array: np.ndarray) -> np.ndarray:
    """Some numbers of an array, all of it where it is small, evenly over its places."""
    flat = np.ravel(array)
    return flat[:: max(1, len(flat) // SAMPLES)]
