"""Tables of positions for another number of patches."""

import math

import numpy as np
from jaxtyping import Float


def resize_positions(table: Float[np.ndarray, "1 N D"], grid: int) -> Float[np.ndarray, "1 M D"]:
    """A table of one CLS row and a square of patches, for grid x grid patches.

    Bicubic, as MAE's and transformers' code have it (torch.nn.functional.interpolate with
    align_corners=False): cubic convolution with a = -0.75, edges repeated, no low-pass filter.
    """
    old = math.isqrt(table.shape[1] - 1)
    weights = _cubic(old, grid)
    square = table[0, 1:].reshape(old, old, -1).astype(np.float64)
    square = np.einsum("ir,jc,rcd->ijd", weights, weights, square)
    rows = [table[0, :1], square.reshape(grid * grid, -1).astype(table.dtype)]
    return np.concatenate(rows)[None]


def _cubic(old: int, new: int) -> Float[np.ndarray, "new old"]:
    """Share of each old place in each new one (Keys 1981)."""
    place = (np.arange(new) + 0.5) * old / new - 0.5
    first = np.floor(place).astype(int)
    weights = np.zeros((new, old))
    for offset in (-1, 0, 1, 2):
        distance = np.abs(place - (first + offset))
        near = (1.25 * distance - 2.25) * distance**2 + 1
        far = -0.75 * (((distance - 5) * distance + 8) * distance - 4)
        share = np.where(distance <= 1, near, np.where(distance < 2, far, 0))
        np.add.at(weights, (np.arange(new), (first + offset).clip(0, old - 1)), share)
    return weights
