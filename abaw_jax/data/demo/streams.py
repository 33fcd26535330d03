"""Random streams by name, so that one video's draws depend on no other's."""

import zlib

import numpy as np


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """A generator that depends on `seed` and `names` alone."""
    return np.random.default_rng([seed, zlib.crc32("/".join(map(str, names)).encode())])


def smooth_noise(rng: np.random.Generator, frames: int, width: float, columns: int) -> np.ndarray:
    """Gaussian noise of unit variance, smooth over about `width` frames: float32 (frames, columns).

    White noise convolved with a Gaussian, scaled to unit variance whatever the number of frames.
    """
    radius = int(np.ceil(2.5 * width))
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / max(width, 1e-6)) ** 2)
    kernel /= np.sqrt(np.square(kernel).sum())
    white = rng.standard_normal((frames + 2 * radius, columns))
    smooth = [np.convolve(white[:, i], kernel, mode="valid") for i in range(columns)]
    return np.stack(smooth, axis=1).astype(np.float32)


def stretches(rng: np.random.Generator, frames: int, share: float, length: tuple) -> np.ndarray:
    """Number of the stretch each frame lies in, 0 outside: int32 (frames,).

    Stretches last length[0] .. length[1] frames and cover about `share` of them.
    """
    marks = np.zeros(frames, np.int32)
    count = rng.poisson(share * frames / np.mean(length))
    for number in range(1, count + 1):
        start = rng.integers(0, frames)
        marks[start : start + rng.integers(length[0], length[1] + 1)] = number
    return marks
