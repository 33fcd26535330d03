"""Feature stores that the user has, as modalities: what fits the prepared videos, and when it lies.

`config.extract.stores` names them; `modalities.py` says what is made of them.
"""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from abaw_jax.data.clips import average_rows
from abaw_jax.data.features import FeatureStore
from abaw_jax.data.media import row_times
from abaw_jax.data.records import load_index
from abaw_jax.data.windows import nearest_before
from abaw_jax.errors import InputError
from abaw_jax.recipe import Context
from abaw_jax.stages.prepare import corpus_root
from abaw_jax.stages.sources import Make, find_recordings, listen_to

LATE = 0.1  # seconds behind a timed store's last row that are still its: a codec's padding


def check_stores(context: Context, splits: Sequence[str]) -> None:
    """Raise InputError for a store of the user's, of the modalities that are learnt, which does
    not fit the prepared videos, before anything is trained: as `open_store` and its function
    do, and where no training video is in it."""
    for name in filter(
        context.config.extract.stores.__contains__, context.config.sequence.modalities
    ):
        store, has = open_store(context, name)
        for split in splits:
            index = load_index(context.folder("prepare") / "records", split)
            rows = np.diff(index.rows).tolist()
            found = [has(video, count) for video, count in zip(index.videos, rows, strict=True)]
            if split == "train" and not any(found):
                raise without_any(store.folder, name)


def require_store(folder: pathlib.Path, name: str) -> None:
    if not (folder / "features.json").is_file():
        raise InputError(
            f"config.extract.stores.{name}: {folder} has no features.json; name a folder that "
            "`python -m abaw_jax.supplied` or `abaw_jax.data.features` has written"
        )


def without_any(folder: pathlib.Path, name: str) -> InputError:
    return InputError(
        f"{folder}: no training video has any {name}; leave it out of config.sequence.modalities"
    )


def make_supplied(context: Context, name: str) -> tuple[Make, dict[str, Any]]:
    """A store that the user has, of all splits. One with a `rate` has rows a second, from time 0:
    it covers a video as far as they reach, or is shared out evenly where no recording tells how
    long that lasts."""
    store, has = open_store(context, name)
    steps, rate = context.config.extract.steps.get(name), store.settings.get("rate")
    place = _place_by_time(context, rate) if rate else None

    def make(video: str, rows: int) -> np.ndarray | None:
        if not has(video, rows):
            return None
        values = store.read(video)
        if steps:
            values = average_rows(values, steps)
            return np.column_stack([values, np.ones(len(values), np.float32)])
        if place:
            at, there = place(video, rows, len(values))
        else:
            at, there = nearest_before(store.frames(video), np.arange(rows)), np.ones(rows, bool)
        values = np.where(there[:, None], values[at], 0)
        return np.column_stack([values, there]) if there.any() else None

    return make, {"encoder": store.settings["encoder"], "width": store.width + 1}


def open_store(context: Context, name: str) -> tuple[FeatureStore, Callable[[str, int], bool]]:
    """A store that the user has, and (video, rows) -> whether it holds anything of the video.

    Raises InputError for a folder that is no store, and a rate that is none; the function for a
    file that is none of it, that is of other frames, or has more rows than it may.
    """
    folder = corpus_root(context) / context.config.extract.stores[name]
    require_store(folder, name)
    store, steps = FeatureStore(folder), context.config.extract.steps.get(name)
    rate = store.settings.get("rate")
    if rate is not None and not (isinstance(rate, int | float) and 0 < rate < np.inf):
        raise InputError(
            f"{folder / 'features.json'}: rate is {rate!r}; expected rows a second, above 0"
        )

    def has(video: str, rows: int) -> bool:
        path = folder / f"{video}.npz"
        if not path.is_file() or not (count := len(store.frames(video))):
            return False
        if rate is None and not steps:
            _check_reach(context, store, video, rows)
        if rate is None and steps and count > steps:
            raise InputError(
                f"{path}: {count} rows, of no known `rate` a second; expected at most "
                f"config.extract.steps.{name} = {steps}: raise it, or store the first rows alone"
            )
        return True

    return store, has


def _check_reach(context: Context, store: FeatureStore, video: str, rows: int) -> None:
    """Raise InputError where a video's features end far from its rows, by what the corpus allows
    of its images: they are of other frames."""
    last = int(store.frames(video)[-1])
    if abs(last - rows) > max(context.config.corpus.get("max_unmatched", 1000), rows // 2):
        raise InputError(
            f"{store.folder / video}.npz: its last frame is {last}, and the video has {rows} rows; "
            "number its frames as the rows, from 1, or give features.json a `rate`"
        )


def _place_by_time(
    context: Context, rate: float
) -> Callable[[str, int, int], tuple[np.ndarray, np.ndarray]]:
    """(video, rows, count) -> of each row the one of `count`, `rate` a second, at its time, and
    whether they reach so far: int (rows,), bool (rows,)."""
    clip = context.track.per_clip
    listen = listen_to(context, find_recordings(context))

    def place(video: str, rows: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        sound = listen(video)
        if sound is None or not (sound.seconds or (not clip and len(sound.times) > 1)):
            return (np.arange(rows) * 2 + 1) * count // (2 * rows), np.ones(rows, bool)
        times = row_times(sound, rows, clip=clip)
        return (times * rate).astype(int).clip(0, count - 1), times < count / rate + LATE

    return place
