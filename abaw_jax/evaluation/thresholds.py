"""Thresholds of classes that are on or off: a class's own, where its F1 is highest.

Shapes: n rows, K classes.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from abaw_jax.tracks.track import Track

LEVELS = 0x3C01  # numbers of half precision from 0 to 1, whose bits are 0x3C00


def search_thresholds(values: np.ndarray, labels: np.ndarray, default: float) -> np.ndarray:
    """The threshold of each class whose F1 is the highest that these rows allow: float64 (K,).

    values: (n, K). labels: int (n, K), 0 or 1, all valid. A class is on from its threshold up, so
    only cuts between values that differ count: the threshold is the middle of the two, or the
    lowest value for all rows on. Of equally good cuts the one nearest to `default` is taken, of two
    as near the lower; and `default` itself where none is better, as for a class that never occurs.
    Tune on validation only: the F1 that is reached is that of the rows it was chosen on.
    """
    found = [_search(v, y, default) for v, y in zip(values.T, labels.T, strict=True)]
    return np.array(found, np.float64)


def _search(values: np.ndarray, labels: np.ndarray, default: float) -> float:
    """Of one class: (n,), (n,)."""
    levels, place = np.unique(values.astype(np.float64), return_inverse=True)
    on = labels == 1
    counts = [np.bincount(place[of], minlength=len(levels)) for of in (~on, on)]
    f1 = np.append(_f1_from(np.stack(counts)), 0.0)  # last: all rows off
    if f1[np.searchsorted(levels, default)] == f1.max():  # the cut that `default` makes
        return default
    cuts = (np.append(levels[0], levels[:-1]) + levels) / 2
    best = cuts[f1[:-1] == f1.max()]
    return float(best[np.argmin(np.abs(best - default))])


def count_levels(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Rows by class, label and value: int64 (K, 2, LEVELS); those of parts add up.

    values: (n, K), from 0 to 1, counted in half precision: each within 1/2048 of itself. labels:
    int (n, K), 0 or 1, all valid.
    """
    # In the order of their bits, as numbers without sign are; of zero the sign is dropped.
    levels = np.abs(np.clip(values, 0, 1)).astype(np.float16).view(np.uint16)
    counts = [
        np.bincount(level + LEVELS * label, minlength=2 * LEVELS)
        for level, label in zip(levels.T, labels.T.astype(np.int64), strict=True)
    ]
    return np.stack(counts).reshape(-1, 2, LEVELS)


def reachable_f1(counts: np.ndarray) -> float:
    """Mean over the classes of the highest F1 that a threshold of its own gives each, from
    `count_levels`: what `search_thresholds` finds, but for the rounding."""
    return float(_f1_from(counts).max(axis=-1).mean())


def _f1_from(counts: np.ndarray) -> np.ndarray:
    """F1 of a class that is on from each level up: (..., 2, levels) -> (..., levels); 0 without
    any row that is on or said to be."""
    at_least = counts[..., ::-1].cumsum(axis=-1)[..., ::-1]
    hits, below = at_least[..., 1, :], at_least.sum(axis=-2) + counts[..., 1, :].sum(-1)[..., None]
    return np.divide(2 * hits, below, out=np.zeros(hits.shape), where=below > 0)


def with_thresholds(track: Track, thresholds: Sequence[float] | None) -> Track:
    """The track, decided by these thresholds, one for each class, wherever it is decoded.

    None: the track as it is.
    """
    if thresholds is None:
        return track
    decode = functools.partial(track.decode, thresholds=thresholds)
    return dataclasses.replace(track, decode=decode, thresholds=tuple(thresholds))


def centre_values(values: np.ndarray, thresholds: Sequence[float], default: float) -> np.ndarray:
    """Probabilities (n, K) moved so that `default` decides what each class's own threshold decided.

    Below its threshold a class is stretched over 0 .. default, above it over default .. 1; what is
    written so needs no thresholds beside it. float32.
    """
    limits = np.asarray(thresholds, np.float64)
    values = values.astype(np.float64)
    on = values >= limits
    below = default * np.divide(values, limits, out=np.zeros_like(values), where=limits > 0)
    room = np.where(limits < 1, 1 - limits, 1)
    above = default + (1 - default) * np.clip((values - limits) / room, 0, 1)
    moved = np.where(on, above, below).astype(np.float32)
    # Rounded to 32 bits, a value just below its threshold must stay below.
    highest = np.nextafter(np.float32(default), np.float32(0))
    return np.where(on, np.maximum(moved, np.float32(default)), np.minimum(moved, highest))
