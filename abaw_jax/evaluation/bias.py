"""Class priors: re-weighting probabilities, and the search for the weights that score best.

Apart from smoothing, so that a result says which of the two it used. Both are tuned on validation
only. For tracks that choose one class per frame.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from abaw_jax.errors import InputError
from abaw_jax.evaluation.predictions import Prediction
from abaw_jax.tracks.track import Track


def apply_bias(values: np.ndarray, bias: Sequence[float]) -> np.ndarray:
    """Probabilities (n, K) times exp(bias (K,)), each row scaled to sum to 1; dtype kept.

    A bias of log(target prior / training prior) is the prior correction of Saerens et al. (2002),
    equation 4. A row of zeros stays.
    """
    weighted = values * np.exp(np.asarray(bias, np.float64))
    total = weighted.sum(axis=1, keepdims=True)
    return np.divide(weighted, total, out=np.zeros_like(weighted), where=total > 0).astype(
        values.dtype
    )


@dataclasses.dataclass(frozen=True)
class Bias:
    """bias (K,) for `apply_bias`, the score with it, and the score without."""

    bias: tuple[float, ...]
    score: float
    score_before: float


def search_bias(
    predictions: Mapping[str, Prediction],
    labels: Mapping[str, np.ndarray],
    track: Track,
    *,
    grid: Sequence[float] = tuple(np.linspace(-2, 2, 17)),
    rounds: int = 3,
) -> Bias:
    """Coordinate ascent: each class in turn takes the step of `grid` that scores best.

    predictions: gap-free, one value row per label row (as `smooth_prediction` gives). labels:
    video -> (rows, W). Stops after a round without gain. The score never falls below the one
    without bias. Raises InputError if a video is absent or has another number of rows.
    """
    for video, rows in labels.items():
        if video not in predictions or len(predictions[video].values) != len(rows):
            raise InputError(
                f"the search for a bias needs one prediction per row of {video}: fill gaps first"
            )
    rows = np.concatenate(list(labels.values()))
    keep = track.valid(rows)
    values = np.concatenate([predictions[video].values for video in labels])[keep]
    rows = rows[keep]
    # Products are compared as sums of logarithms: one addition per candidate.
    logs = np.log(np.maximum(values.astype(np.float64), 1e-30))

    def score(bias: np.ndarray) -> float:
        return track.summary(track.evaluate(track.decode(logs + bias), rows)).score

    bias = np.zeros(track.outputs)
    before = best = score(bias)
    for _ in range(rounds):
        start = best
        for k in range(track.outputs):
            for step in grid:
                trial = bias.copy()
                trial[k] = step
                found = score(trial)
                if found > best:
                    best, bias = found, trial
        if best == start:
            break
    return Bias(tuple(float(b) for b in bias), best, before)
