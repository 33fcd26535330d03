"""Tracks of the other two kinds, numbers and switches, made of EXPR by new functions; and members
drawn around labels."""

import dataclasses

import numpy as np

from abaw_jax.evaluation.predictions import Prediction
from abaw_jax.tracks import EXPR, Summary


def ccc(x, y):
    """By its definition."""
    cov = np.mean((x - x.mean()) * (y - y.mean()))
    return 2 * cov / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)


def _moments(predicted, labels):
    x, y = predicted.astype(np.float64), labels.astype(np.float64)
    return np.stack([np.ones_like(x), x, y, x * x, y * y, x * y]).sum(axis=1)


def _mean_ccc(sums, classes):
    n = np.maximum(sums[0], 1)
    x, y, xx, yy, xy = sums[1:] / n
    below = xx - x * x + yy - y * y + (x - y) ** 2
    score = np.divide(2 * (xy - x * y), below, out=np.zeros(len(x)), where=below > 0)
    return Summary(float(score.mean()), {"mean_ccc": float(score.mean())}, ())


NUMBERS = dataclasses.replace(
    EXPR,
    name="NUMBERS",
    key="numbers",
    classes=("valence", "arousal"),
    label_width=2,
    label_type="float32",
    label_range=(-1, 1),
    invalid=-5,
    score_name="mean_ccc",
    decode=lambda values: np.clip(values, -1, 1).astype(np.float32),
    encode=lambda rows: rows.astype(np.float32),
    statistics=_moments,
    summarise=_mean_ccc,
)


def _counts(predicted, labels):
    p, t = predicted.astype(np.int64), labels.astype(np.int64)
    return np.stack([(p * t).sum(0), p.sum(0), t.sum(0)])


def _mean_f1(sums, classes):
    below = sums[1] + sums[2]
    f1 = np.divide(2 * sums[0], below, out=np.zeros(len(below)), where=below > 0)
    return Summary(float(f1.mean()), {"mean_f1": float(f1.mean())}, ())


SWITCHES = dataclasses.replace(
    EXPR,
    name="SWITCHES",
    key="switches",
    classes=("AU1", "AU2", "AU4"),
    label_width=3,
    label_type="int32",
    label_range=(0, 1),
    invalid=-1,
    score_name="mean_f1",
    decode=lambda values: (values >= 0.5).astype(np.int32),
    encode=lambda rows: rows.astype(np.float32),
    statistics=_counts,
    summarise=_mean_f1,
    thresholds=0.5,
)
KINDS = {track.name: track for track in (EXPR, NUMBERS, SWITCHES)}


def draw_labels(track, rng, videos=12, rows=60, invalid=0.1):
    """video -> label rows that change every few frames; some carry no label."""
    found = {}
    for v in range(videos):
        steps = rows // 5 + 1
        if track.label_type == "float32":
            changes = rng.uniform(-0.9, 0.9, (steps, track.label_width))
        elif track.label_width < track.outputs:
            changes = rng.integers(0, track.outputs, (steps, 1))
        else:
            changes = rng.integers(0, 2, (steps, track.label_width))
        labels = np.repeat(changes, 5, axis=0)[:rows].astype(track.label_type)
        labels[rng.random(rows) < invalid] = track.invalid
        found[f"video{v:02d}"] = labels
    return found


def draw_member(track, labels, rng, noise):
    """Labels as values, blurred: each video of all its frames."""
    found = {}
    for video, rows in labels.items():
        valid = track.valid(rows)[:, None]
        values = track.encode(np.where(valid, rows, 0).astype(track.label_type))
        values = values + noise * rng.normal(size=values.shape)
        if track.label_type == "int32" and track.label_width < track.outputs:
            values = np.exp(values - values.max(axis=1, keepdims=True))
            values /= values.sum(axis=1, keepdims=True)
        elif track.label_type == "int32":
            values = 1 / (1 + np.exp(-2 * (values - 0.5)))
        else:
            values = np.clip(values, -1, 1)
        frames = np.arange(1, len(rows) + 1, dtype=np.int32)
        found[video] = Prediction(frames, values.astype(np.float32))
    return found


def rows_of(track, noise, seed=0, videos=6, rows=60):
    """Members' values (M, L, K) and labels (L, W), all valid."""
    rng = np.random.default_rng(seed)
    labels = draw_labels(track, rng, videos, rows, invalid=0)
    members = [draw_member(track, labels, rng, n) for n in noise]
    values = np.stack([np.concatenate([m[v].values for v in labels]) for m in members])
    return values, np.concatenate(list(labels.values()))
