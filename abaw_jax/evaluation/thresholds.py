"""Thresholds of classes that are on or off: a class's own, where its F1 is highest.

Shapes: n rows, K classes.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from abaw_jax.tracks.track import Track


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
    # Of each level, the rows at or above it: all, and those that are on.
    said = np.bincount(place, minlength=len(levels))[::-1].cumsum()[::-1]
    hits = np.bincount(place[on], minlength=len(levels))[::-1].cumsum()[::-1]
    f1 = np.append(2 * hits / (said + on.sum()), 0.0)  # last: all rows off
    if f1[np.searchsorted(levels, default)] == f1.max():  # the cut that `default` makes
        return default
    cuts = (np.append(levels[0], levels[:-1]) + levels) / 2
    best = cuts[f1[:-1] == f1.max()]
    return float(best[np.argmin(np.abs(best - default))])


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
