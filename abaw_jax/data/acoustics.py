"""Features of sound at a steady rate: patches for VGGish, MFCC, and what the voice does (prosody).

The last two have a row every 20 ms, as the hidden states of wav2vec 2.0: row i is of the 64 ms
around 0.02 i seconds, as data/sound.py cuts them. `at_rows` brings them to annotation rows. Samples
are int16 at 16 kHz. Of no samples there are no rows.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from abaw_jax.data.media import RATE
from abaw_jax.data.sound import BANDS, HOP, LOUDNESS, PITCH, sound_features, voice_windows, width

COEFFICIENTS = 13
REACH = 0.1  # seconds to either side of a row over which features are averaged
# Of VGGish's patches: samples of a window and from one to the next, points, bands, windows.
_WINDOW, _HOP, _POINTS, _BANDS, _FRAMES = 400, 160, 512, 64, 96
PATCHES = RATE / (_HOP * _FRAMES)  # a second


def log_mel_patches(samples: np.ndarray) -> np.ndarray:
    """VGGish's input (Hershey et al. 2017; the values of AudioSet's code): float32 (n, 96, 64).

    Patch i is of the 0.96 s from 0.96 i on: 96 windows of 25 ms (periodic Hann) every 10 ms, the
    magnitudes of their spectra in 64 mel bands from 125 to 7500 Hz, log(mel + 0.01). Frames behind
    the last whole patch are left, so sound of less than 0.975 s has none.
    """
    frames = max((len(samples) - _WINDOW) // _HOP + 1, 0)
    patches = np.zeros((frames // _FRAMES, _FRAMES, _BANDS), np.float32)
    taper = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_WINDOW) / _WINDOW)
    for i in range(len(patches)):
        part = samples[i * _FRAMES * _HOP :][: (_FRAMES - 1) * _HOP + _WINDOW] / 32768
        framed = np.lib.stride_tricks.sliding_window_view(part, _WINDOW)[::_HOP]
        spectrum = np.abs(np.fft.rfft(framed * taper, _POINTS))
        patches[i] = np.log(spectrum @ _mel_bank() + 0.01)
    return patches


def patch_blocks(samples: np.ndarray, most: int) -> Iterator[np.ndarray]:
    """`log_mel_patches` of a recording of any length, up to so many at a time."""
    size = most * _FRAMES * _HOP
    for first in range(0, len(samples), size):
        patches = log_mel_patches(samples[first:][: size + _WINDOW - _HOP])
        if len(patches):
            yield patches


@functools.cache
def _mel_bank() -> np.ndarray:
    """Triangles over mel (not over Hz, as librosa's), the lowest bin in none: (257, _BANDS)."""

    def mel(hertz):
        return 1127 * np.log1p(hertz / 700)

    edges = np.linspace(mel(125.0), mel(7500.0), _BANDS + 2)
    bins = mel(np.linspace(0, RATE / 2, _POINTS // 2 + 1))[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    bank = np.maximum(np.minimum(rising, falling), 0)
    bank[0] = 0
    return bank


def mfcc(samples: np.ndarray) -> np.ndarray:
    """float32 (n, 26): mel-frequency cepstral coefficients 1 to 12 of the 20 log-mel bands of
    data/sound.py, the window's loudness in place of coefficient 0, and how fast each rises."""
    # By SciPy: librosa.feature compiles for a quarter of a minute where it is first used.
    from scipy.fft import dct

    levels, _ = voice_windows(samples)
    values = dct(levels[:, :BANDS], norm="ortho")[:, 1:COEFFICIENTS]
    values = np.column_stack([values, levels[:, LOUDNESS]])
    return _every_hop(np.column_stack([values, _rise(values)]), samples)


def prosody(samples: np.ndarray) -> np.ndarray:
    """float32 (n, 5): pitch in octaves above the voice's mean, 0 where nothing is voiced; whether
    it is; loudness (log of the root mean square), and how fast it rises; the share of the samples
    within 10 ms at which the sign changes."""
    levels, voiced = voice_windows(samples)
    pitch, loudness = levels[:, PITCH], levels[:, LOUDNESS]
    pitch = np.where(voiced, pitch - pitch[voiced].sum() / max(voiced.sum(), 1), 0)
    changes = np.diff(samples < 0, prepend=samples[:1] < 0)
    around = np.pad(changes, (HOP // 2, HOP))[: len(levels) * HOP].reshape(-1, HOP)
    crossings = around.mean(axis=1)
    values = np.column_stack([pitch, voiced, loudness, _rise(loudness), crossings])
    return _every_hop(values, samples)


def _rise(values: np.ndarray) -> np.ndarray:
    """Slope over 9 windows, per window, of each column."""
    from scipy.signal import savgol_filter

    return savgol_filter(values, 9, 1, deriv=1, axis=0, mode="nearest")


def _every_hop(values: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """Without windows whose middle lies behind the last sample."""
    return values[: -(-len(samples) // HOP)].astype(np.float32)


def at_rows(values: np.ndarray, times: np.ndarray, seconds: float) -> np.ndarray:
    """Values every 20 ms (n, D) as those of rows at `times` (rows,): float32 (rows, D + 1).

    The means of those within REACH, and 1; zeros at times that are not before `seconds`.
    """
    sums = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, 0, np.float64)])
    centre = times * RATE / HOP
    first = np.ceil(centre - REACH * RATE / HOP).astype(int).clip(0, len(values) - 1)
    stop = np.floor(centre + REACH * RATE / HOP).astype(int).clip(0, len(values) - 1) + 1
    means = (sums[stop] - sums[first]) / (stop - first)[:, None]
    heard = times < seconds
    return np.column_stack([means * heard[:, None], heard]).astype(np.float32)


def states_at(
    parts: Iterable[np.ndarray], times: np.ndarray, *, rate: float, seconds: float
) -> np.ndarray | None:
    """An encoder's states, `rate` a second from time 0 on, as those of rows at `times` (rows,),
    which rise: float32 (rows, D + 1). parts: the states, float32 (n, D) one behind the other.

    The state within whose time a row lies, behind the last one that one, and 1; zeros at times that
    are not before `seconds`. None of no states.
    """
    places, done, values = np.maximum(times * rate, 0).astype(int), 0, None
    for part in parts:
        if values is None:
            values = np.zeros((len(times), part.shape[1] + 1), np.float32)
        first, stop = np.searchsorted(places, (done, done + len(part)))
        values[first:stop, :-1] = part[places[first:stop] - done]
        done, last = done + len(part), part[-1]
    if values is None:
        return None
    values[np.searchsorted(places, done) :, :-1] = last
    values[:, -1] = 1
    values *= (times < seconds)[:, None]
    return values


FEATURES = {"mfcc": (mfcc, 2 * COEFFICIENTS), "prosody": (prosody, 5)}
HEARD = ("sound", *FEATURES)  # modalities that are made from recordings
Compute = Callable[[np.ndarray, np.ndarray], np.ndarray]


def make_features(name: str, *, whole: bool) -> tuple[Compute, dict[str, Any]]:
    """Of a modality of HEARD: (samples, times) -> values (rows, width), the last number of a row 1,
    or 0 where there is no sound; and what a store says of it.

    whole: with what tells one recording from another; without, MFCC and prosody are less their mean
    over the recording.
    """
    if name == "sound":
        settings = {"encoder": "log_mel_2", "width": width(whole=whole)}
        return functools.partial(sound_features, whole=whole), settings
    compute, size = FEATURES[name]

    def at_times(samples: np.ndarray, times: np.ndarray) -> np.ndarray:
        values = compute(samples)
        values = values if whole else values - values.mean(axis=0)
        return at_rows(values, times, len(samples) / RATE)

    return at_times, {"encoder": f"{name}_1", "width": size + 1}
