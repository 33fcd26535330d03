"""Matching the distribution of predicted numbers to that of the training labels.

A model that is unsure predicts near the mean, and smoothing narrows its predictions further; the
CCC counts both. Each output is scaled and shifted to the mean and standard deviation that its
labels had in training. No label of the rows that are predicted is looked at.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Matching:
    """value -> scale * value + shift, clipped to the labels' bounds; K numbers of each."""

    scale: tuple[float, ...]
    shift: tuple[float, ...]

    def __call__(self, values: np.ndarray, bounds: tuple[float, float]) -> np.ndarray:
        """(n, K) -> (n, K), of the same dtype, within `bounds`."""
        moved = values * np.array(self.scale) + np.array(self.shift)
        return np.clip(moved, *bounds).astype(values.dtype)


def fit_matching(values: np.ndarray, labels: np.ndarray) -> Matching:
    """From predictions (n, K) and training labels (m, K), all valid, of different rows.

    An output that is constant is shifted alone.
    """
    values, labels = values.astype(np.float64), labels.astype(np.float64)
    spread = values.std(axis=0)
    scale = np.divide(labels.std(axis=0), spread, out=np.ones(len(spread)), where=spread > 1e-9)
    shift = labels.mean(axis=0) - scale * values.mean(axis=0)
    return Matching(tuple(scale.tolist()), tuple(shift.tolist()))
