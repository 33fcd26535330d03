"""Whole clips whose modalities have time axes of their own.

A feature store with `steps` in its settings has of each clip rows of its own, at most so many: of
sound and words at their own times, not at those of the face's frames.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from abaw_jax.data.features import FeatureStore, make_standardise
from abaw_jax.data.pipeline import Batch
from abaw_jax.data.windows import Reader, draw_absent, make_feature_reader


def average_rows(values: np.ndarray, steps: int) -> np.ndarray:
    """Values (n, D) of n > `steps` rows as the means of `steps` parts of equal length (to a row),
    (steps, D); of fewer as they are."""
    if len(values) <= steps:
        return values
    ends = np.arange(steps + 1) * len(values) // steps
    sums = np.add.reduceat(values.astype(np.float64), ends[:-1])
    return (sums / np.diff(ends)[:, None]).astype(values.dtype)


def make_clip_reader(
    videos: Sequence[str], stores: Mapping[str, FeatureStore], absent_rate: float = 0.0
) -> Reader:
    """Read clips from stores, by name; float32, the last number of each row 1, or 0 where the clip
    has none:

        features          (T, sum of widths + 1): stores without `steps`, side by side at the rows
                          that are asked for
        features/<name>   (steps, width): any other, all its rows and after them zeros

    Standardised, and raises InputError, as `make_feature_reader`. An array that a training clip is
    to do without (`draw_absent`) is zeros, and its stores are not read.
    """
    own = {name: store for name, store in stores.items() if "steps" in store.settings}
    others = [store for name, store in stores.items() if name not in own]
    read_rows = make_feature_reader(videos, others)
    standardise = {name: make_standardise(store) for name, store in own.items()}
    for store in own.values():
        store.require(videos)
    width = sum(store.width for store in others)

    def read(video: int, rows: np.ndarray, rng: np.random.Generator | None) -> Batch:
        name, example = videos[video], {}
        absent = draw_absent(rng, absent_rate, len(own) + bool(others)).tolist()
        if others and absent.pop():
            example["features"] = np.zeros((len(rows), width + 1), np.float32)
        elif others:
            values = read_rows(video, rows, rng)["features"]
            seen = any(len(store.frames(name)) for store in others)
            example["features"] = np.pad(values, ((0, 0), (0, 1)), constant_values=seen)
        for (key, store), without in zip(own.items(), absent, strict=True):
            values = np.zeros((0, store.width), np.float32)
            if not without:
                values = standardise[key](store.read(name))
            padding = (0, store.settings["steps"] - len(values)), (0, 0)
            example[f"features/{key}"] = np.pad(values, padding)
        return example

    return read
