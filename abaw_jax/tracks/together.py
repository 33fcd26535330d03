"""Several tracks of one model: their labels and outputs side by side, in columns.

Of one track alone columns are what they are: its labels in their own type, its outputs. Of several
labels are float32, in which class numbers are exact, each track's with its own mark for invalid.
NumPy or JAX in, the same out.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from abaw_jax.tracks.track import Track


def join_labels(labels: Sequence[np.ndarray]) -> np.ndarray:
    """Labels (..., W) of each track -> (..., sum of W)."""
    if len(labels) == 1:
        return labels[0]
    return np.concatenate([rows.astype(np.float32) for rows in labels], axis=-1)


def split_labels(labels: Any, tracks: Sequence[Track]) -> list[Any]:
    """The inverse of `join_labels`: one array (..., W) a track, of its type."""
    if len(tracks) == 1:
        return [labels]
    parts = _split(labels, [track.label_width for track in tracks])
    return [part.astype(track.label_type) for part, track in zip(parts, tracks, strict=True)]


def split_outputs(outputs: Any, tracks: Sequence[Track]) -> list[Any]:
    """Logits or values (..., sum of K) -> one array (..., K) a track."""
    return [outputs] if len(tracks) == 1 else _split(outputs, [track.outputs for track in tracks])


def invalid_labels(tracks: Sequence[Track]) -> np.ndarray:
    """The row (sum of W,) that is invalid for every track."""
    rows = [np.full(track.label_width, track.invalid, track.label_type) for track in tracks]
    return join_labels(rows)


def output_names(tracks: Sequence[Track]) -> list[str]:
    """What a prediction calls the values of each track; the first is the main one."""
    return ["probabilities", *(f"probabilities_{track.key}" for track in tracks[1:])]


def score_tracks(
    tracks: Sequence[Track], found: Mapping[str, Iterable[tuple[np.ndarray, np.ndarray]]]
) -> dict[str, float]:
    """Figures of several tracks, by name; those of all but the first begin with the track's key.

    found: track key -> (values (n, K), label rows (n, W)) of any parts of what is scored, together.
    Of tracks but the first that are not in `found`, or have no valid row, there is no figure.
    """
    figures = {}
    for track in tracks:
        pairs = list(found.get(track.key, ()))
        main = track is tracks[0]
        if main or any(track.valid(rows).any() for _, rows in pairs):
            statistics = sum(track.evaluate(track.decode(values), rows) for values, rows in pairs)
            metrics = track.summary(statistics).metrics
            figures |= {name if main else f"{track.key}_{name}": x for name, x in metrics.items()}
    return figures


def _split(values: Any, widths: Sequence[int]) -> list[Any]:
    ends = itertools.accumulate(widths)
    return [values[..., end - width : end] for end, width in zip(ends, widths, strict=True)]
