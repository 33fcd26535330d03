"""Modalities that are made from recordings.

`sound`, `mfcc` and `prosody` are computed (`data/acoustics.py`). `wav2vec2` and `vggish` are what a
converted encoder makes of the sound, whose folder `extract.wav2vec2` or `extract.vggish` names: the
last hidden states of a wav2vec 2.0 or HuBERT, 50 a second, and VGGish's embeddings, one for each
0.96 s. A row has the state in whose time it is seen, by the recording's time stamps. (hsemotion's
int(i * n / rows) of row i, which stretches n states over all rows, is the same only where sound and
picture begin and end together and no picture is left out.)

Encoders take a recording in blocks of one size: memory does not grow with its length, but for the
rows, and one program does for all.
"""

import pathlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from abaw_jax.data.acoustics import PATCHES, make_features, patch_blocks, states_at
from abaw_jax.data.clips import average_rows
from abaw_jax.data.media import RATE, row_times
from abaw_jax.data.sound import HOP
from abaw_jax.data.supplied import SECONDS
from abaw_jax.interop.archive import content_hash
from abaw_jax.models.wav2vec2 import STRIDE, count_frames, encode_long
from abaw_jax.recipe import Context
from abaw_jax.stages.prepare import corpus_root
from abaw_jax.stages.sources import (
    SOUND_ENCODERS,
    Make,
    find_sources,
    listen_to,
    load_encoder,
)

# (samples, times (rows,)) -> values (rows, width), as those of `Make`; without times, as many rows
# as the modality has of so much sound. None where that is too little for one.
Hear = Callable[[np.ndarray, np.ndarray | None], np.ndarray | None]
BLOCK = 12  # VGGish's patches at a time: those of a clip


class SoundEncoder(NamedTuple):
    """states: int16 (n,) at 16 kHz -> float32 (m, width) one behind the other, `rate` a second."""

    states: Callable[[np.ndarray], Iterator[np.ndarray]]
    width: int
    rate: float


def learnt_encoders(config: Any) -> dict[str, str]:
    """Modality -> folder, of those that are made by an encoder of sound; without a folder, they may
    be names of stores."""
    names = [name for name in SOUND_ENCODERS if name in config.sequence.modalities]
    return {name: config.extract[name] for name in names if config.extract[name]}


def check_sound_encoders(config: Any) -> None:
    """Raise InputError for an encoder that is learnt from and cannot be read."""
    for name, folder in learnt_encoders(config).items():
        load_encoder(folder, name, name)


def _open_wav2vec2(folder: pathlib.Path, *, clip: bool) -> SoundEncoder:
    model, variables, sizes = load_encoder(folder, "wav2vec2", "wav2vec2")
    block = {"block": count_frames(int(SECONDS * RATE))} if clip else {}  # no clip is longer
    states = partial(
        encode_long, model, variables["params"], normalise=sizes["normalise"], **block
    )  # fmt: skip
    return SoundEncoder(states, model.width, RATE / STRIDE)


def _open_vggish(folder: pathlib.Path, *, clip: bool) -> SoundEncoder:
    del clip
    model, variables, _ = load_encoder(folder, "vggish", "vggish")
    apply = jax.jit(model.apply)

    def states(samples: np.ndarray) -> Iterator[np.ndarray]:
        for patches in patch_blocks(samples, BLOCK):
            padding = (0, BLOCK - len(patches)), (0, 0), (0, 0)
            yield np.asarray(apply(variables, np.pad(patches, padding)))[: len(patches)]

    return SoundEncoder(states, model.embedding, PATCHES)


OPEN = {"wav2vec2": _open_wav2vec2, "vggish": _open_vggish}


def _encode(context: Context, name: str) -> tuple[Hear, dict[str, Any]]:
    folder = pathlib.Path(context.config.extract[name])
    encoder = OPEN[name](folder, clip=context.track.per_clip)

    def hear(samples: np.ndarray, times: np.ndarray | None) -> np.ndarray | None:
        parts = encoder.states(samples)
        if times is not None:
            return states_at(parts, times, rate=encoder.rate, seconds=len(samples) / RATE)
        found = list(parts)
        return np.pad(np.concatenate(found), ((0, 0), (0, 1)), constant_values=1) if found else None

    return hear, {"encoder": content_hash(folder), "width": encoder.width + 1}


def _measure(context: Context, name: str) -> tuple[Hear, dict[str, Any]]:
    compute, settings = make_features(name, whole=context.track.per_clip)

    def hear(samples: np.ndarray, times: np.ndarray | None) -> np.ndarray:
        if times is None:
            times = (np.arange(max(len(samples) // HOP, 1)) + 0.5) * HOP / RATE
        return compute(samples, times)

    return hear, settings


def make_heard(context: Context, name: str) -> tuple[Make, dict[str, Any]]:
    """The values of a modality, and what a store says of it."""
    clip, steps = context.track.per_clip, context.config.extract.steps.get(name)
    listen = listen_to(context, find_sources(context.config, corpus_root(context), name))
    hear, settings = (_encode if name in OPEN else _measure)(context, name)

    def make(video: str, rows: int) -> np.ndarray | None:
        sound = listen(video)
        if sound is None or sound.silent:
            return None
        if steps:
            values = hear(sound.samples, None)
            return None if values is None else average_rows(values, steps)
        return hear(sound.samples, row_times(sound, rows, clip=clip))

    return make, settings
