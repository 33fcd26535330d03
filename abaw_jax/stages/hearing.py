"""Modalities that are made from recordings."""

from typing import Any

import numpy as np

from abaw_jax.data.acoustics import make_features
from abaw_jax.data.clips import average_rows
from abaw_jax.data.media import RATE, row_times
from abaw_jax.data.sound import HOP
from abaw_jax.recipe import Context
from abaw_jax.stages.prepare import corpus_root
from abaw_jax.stages.sources import Make, find_sources, listen_to


def make_heard(context: Context, name: str) -> tuple[Make, dict[str, Any]]:
    """The values of a modality, and what a store says of it."""
    clip, steps = context.track.per_clip, context.config.extract.steps.get(name)
    listen = listen_to(context, find_sources(context.config, corpus_root(context), name))
    compute, settings = make_features(name, whole=clip)

    def make(video: str, rows: int) -> np.ndarray | None:
        sound = listen(video)
        if sound is None or sound.silent:
            return None
        if steps:
            times = (np.arange(max(len(sound.samples) // HOP, 1)) + 0.5) * HOP / RATE
            return average_rows(compute(sound.samples, times), steps)
        return compute(sound.samples, row_times(sound, rows, clip=clip))

    return make, settings
