"""Clips of RAVDESS as numbers: what is read, heard and standardised; no benchmark itself."""

import dataclasses
import pathlib
import zipfile

import numpy as np

from abaw_jax.data.acoustics import COEFFICIENTS, log_mel_patches, mfcc, prosody
from abaw_jax.data.media import RATE, SOUND, find_files, read_sound
from abaw_jax.errors import InputError, within
from abaw_jax.files import atomic_write

# In the order of the third number of a file's name, from 1.
EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
MEL = 64  # of a row the first numbers are log-mel bands
WIDTH = MEL + 2 * COEFFICIENTS + 5
ROWS, SHIFT = 75, 10  # rows of 40 ms: of a clip, and how far the training moves it either way


@dataclasses.dataclass(frozen=True, eq=False)
class Clips:
    """n clips. names: n. labels, actors: int (n,). units: (n, 35), statistics: (n, 259), float32.
    files: n paths."""

    names: tuple[str, ...]
    files: tuple[str, ...]
    labels: np.ndarray
    actors: np.ndarray
    units: np.ndarray
    statistics: np.ndarray


def read_clips(root: pathlib.Path) -> Clips:
    """The speech clips of a folder in the published layout. Raises InputError for a folder without
    any, for a file of another name, and for a clip that au_mfcc.npz lacks."""
    files = find_files(sorted(root.glob("Actor_*")), SOUND)
    if not files:
        raise InputError(
            f"{root}: has no Actor_01/03-01-01-01-01-01-01.wav or the like; name RAVDESS's folder "
            "by --data, or by ABAW_SHARED the folder of data/ravdess"
        )
    names = tuple(sorted(files, key=lambda name: (name[-2:], name)))
    numbers = []
    for name in names:
        fields = name.split("-")
        right = len(fields) == 7 and all(f.isdecimal() and len(f) == 2 for f in fields)
        if not right or not 1 <= int(fields[2]) <= len(EMOTIONS):
            raise InputError(
                f"{files[name]}: expected seven numbers, of which the third, the emotion, is 01 to "
                f"{len(EMOTIONS):02}, as 03-01-06-01-02-01-12; move other files away"
            )
        numbers.append([int(fields[2]) - 1, int(fields[6])])
    labels, actors = np.array(numbers).T
    path = root / "au_mfcc.npz"
    try:
        with np.load(path) as table:
            clips, units, statistics = (table[key] for key in ("clip", "au", "mfcc"))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: cannot be read ({error}); expected clip, au, mfcc") from error
    rows_given = {len(clips), len(units), len(statistics)}
    if len(rows_given) > 1 or not (np.isfinite(units).all() and np.isfinite(statistics).all()):
        raise InputError(f"{path}: expected clip, au, mfcc with a row a clip and finite numbers")
    # The first number says in which form a take is kept: 01 with picture, 03 sound alone.
    rows = {str(clip)[3:]: i for i, clip in enumerate(clips)}
    if absent := [name for name in names if name[3:] not in rows]:
        raise InputError(f"{path}: lacks clip {absent[0]} ({len(absent)} of {len(names)})")
    index = [rows[name[3:]] for name in names]
    paths = tuple(files[name] for name in names)
    return Clips(names, paths, labels, actors, units[index], statistics[index])


def hear(samples: np.ndarray) -> np.ndarray:
    """Samples int16 (m,) at 16 kHz -> float32 (ROWS + 2 SHIFT, WIDTH), a row every 40 ms: the part
    around the middle of the clip's power. Before its start and behind its end the rows there are
    repeated."""
    if len(samples) < 2 * RATE // 100:
        raise InputError(f"{len(samples)} samples; expected 20 ms of sound at least")
    levels = np.concatenate([mfcc(samples), prosody(samples)], axis=1)
    patches = -(-2 * len(levels) // 96)
    padded = np.pad(samples, (0, (patches * 96 - 1) * 160 + 400 - len(samples)))
    bands = np.concatenate(log_mel_patches(padded))[: 2 * len(levels)]
    bands = bands.reshape(-1, 2, MEL).mean(axis=1)  # every 20 ms, as the others
    values = np.concatenate([bands, levels], axis=1)
    values = np.pad(values, ((0, len(values) % 2), (0, 0)), mode="edge")
    values = values.reshape(-1, 2, WIDTH).mean(axis=1)
    power = np.cumsum(np.exp(values[:, :MEL]).sum(axis=1))
    first = int(np.searchsorted(power, power[-1] / 2)) - ROWS // 2 - SHIFT
    return values[np.arange(first, first + ROWS + 2 * SHIFT).clip(0, len(values) - 1)]


def hear_all(clips: Clips, kept: pathlib.Path) -> np.ndarray:
    """`hear` of all clips (n, ROWS + 2 SHIFT, WIDTH); read from `kept` if it is of these clips."""
    if kept.exists():
        with np.load(kept) as found:
            if tuple(found["names"].tolist()) == clips.names:
                return found["rows"]
    rows = []
    for path in clips.files:
        with within(path):
            rows.append(hear(read_sound(path).samples))
    rows = np.stack(rows).astype(np.float32)
    with atomic_write(kept) as file:
        np.savez(file, names=np.array(clips.names), rows=rows)
    return rows


def standardise(values: np.ndarray, train_rows: np.ndarray) -> np.ndarray:
    """Each number of the last axis less its mean over the training rows, by its deviation there."""
    seen = values[train_rows].reshape(-1, values.shape[-1]).astype(np.float64)
    return ((values - seen.mean(axis=0)) / (seen.std(axis=0) + 1e-6)).astype(np.float32)


def standardise_sound(values: np.ndarray, train_rows: np.ndarray) -> np.ndarray:
    """Log-mel by each clip's own mean and deviation; the others as `standardise`."""
    bands, middle = values[..., :MEL], values[:, SHIFT:-SHIFT, :MEL]
    mean, spread = middle.mean((1, 2), keepdims=True), middle.std((1, 2), keepdims=True)
    others = standardise(values[..., MEL:], train_rows)
    return np.concatenate([(bands - mean) / (spread + 1e-6), others], axis=-1)


def disturb(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Sound of clips as training sees it (b, ROWS, WIDTH): moved in time and, of the bands, in
    pitch; louder, tilted; twice a stretch of time and a band of frequencies blanked (SpecAugment,
    Park et al. 2019)."""
    out = np.empty((len(rows), ROWS, WIDTH), np.float32)
    for clip, given in zip(out, rows, strict=True):
        start = rng.integers(0, 2 * SHIFT + 1)
        clip[:] = given[start : start + ROWS] * rng.uniform(0.9, 1.1)
        tilt = np.linspace(-1, 1, MEL, dtype=np.float32) * rng.normal(0, 0.2)
        clip[:, :MEL] = np.roll(clip[:, :MEL], rng.integers(-3, 4), axis=1)
        clip[:, :MEL] += rng.normal(0, 0.1) + tilt
        for _ in range(2):
            length, height = rng.integers(0, 13), rng.integers(0, 9)
            first, low = rng.integers(0, ROWS - length), rng.integers(0, MEL - height)
            clip[first : first + length] = 0
            clip[:, low : low + height] = 0
    return out
