"""Features of sound for each annotation row: mel bands, loudness and pitch of the voice.

Windows of 64 ms every 20 ms. Level and spectrum are log-mel bands; pitch is the first high peak of
the autocorrelation between 65 and 400 Hz, and its height says how voiced a window is. A row takes
the means over the voiced windows around it, and how loud the others are: breath, laughter, sighs;
both relative to the whole recording's, so that neither the person's voice nor the microphone
counts. If wanted, it takes those of the recording itself, too.
"""

import functools

import numpy as np

from abaw_jax.data.media import RATE

WINDOW, HOP, POINTS = 1024, 320, 2048  # samples; points of the transform
BANDS = 20
PITCHES = (65.0, 400.0)  # Hz
VOICED = 0.4  # least height of the peak, as a share of the energy
LOUD = 1e-4  # least root of the mean square of a voiced window, of full scale
PERIOD = 0.85  # a peak of this share of the highest is the period: later ones are its multiples
CONTEXTS = (0.15, 0.6)  # seconds to either side of a row
LOUDNESS, PITCH = BANDS, BANDS + 1  # their places among the levels
LEVELS = BANDS + 2  # the bands, loudness, pitch
_BLOCK = 2048  # windows at a time: the transform of a long recording would fill the memory


def width(*, whole: bool) -> int:
    """Numbers a row: of each context the levels, the share of voiced windows and the loudness of
    the others; of the recording the levels, their deviation and that share; and whether the row has
    sound."""
    return len(CONTEXTS) * (LEVELS + 2) + whole * (2 * LEVELS + 1) + 1


def sound_features(samples: np.ndarray, times: np.ndarray, *, whole: bool) -> np.ndarray:
    """Samples int16 (n,) at 16 kHz, times (rows,) in seconds -> float32 (rows, width).

    whole: with what is of the recording, the same in each row. Of rows whose time lies behind the
    last sample all else is 0.
    """
    levels, voiced = voice_windows(samples)
    if not voiced.any():
        voiced = np.ones_like(voiced)
    mean, deviation = levels[voiced].mean(axis=0), levels[voiced].std(axis=0)
    other = ~voiced
    breath = levels[:, LOUDNESS] - levels[other, LOUDNESS].sum() / max(other.sum(), 1)
    sums = np.zeros((len(levels) + 1, LEVELS + 3))
    sums[1:] = np.cumsum(
        np.column_stack([(levels - mean) * voiced[:, None], voiced, breath * other, other]), axis=0
    )
    share = voiced.mean()
    heard = times < len(samples) / RATE
    parts = []
    for reach in CONTEXTS:
        first = np.round((times - reach) * RATE / HOP).astype(int).clip(0, len(levels))
        stop = np.round((times + reach) * RATE / HOP).astype(int).clip(0, len(levels) - 1) + 1
        stop = np.maximum(first, stop)
        around = sums[stop] - sums[first]
        count, others = around[:, LEVELS], around[:, -1]
        # One window more that says nothing: where little is voiced little is known.
        parts.append(around[:, :LEVELS] / (count + 1)[:, None])
        parts.append(count / np.maximum(stop - first, 1) - share)
        parts.append(around[:, -2] / (others + 1))
    around = np.column_stack(parts) * heard[:, None]
    own = np.concatenate([mean, deviation, [share]] if whole else [[]])
    own = np.tile(own, (len(times), 1))
    return np.column_stack([around, own, heard]).astype(np.float32)


def voice_windows(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the window around every HOP-th sample: (levels (m, LEVELS): log-mel bands less their mean,
    loudness, pitch in octaves above 1 Hz; voiced bool (m,))."""
    signal = np.pad(samples.astype(np.float32) / 32768, WINDOW // 2)
    if len(signal) < WINDOW:
        signal = np.pad(signal, (0, WINDOW - len(signal)))
    framed = np.lib.stride_tricks.sliding_window_view(signal, WINDOW)[::HOP]
    parts = [_block(framed[i : i + _BLOCK]) for i in range(0, len(framed), _BLOCK)]
    bands, rms, height, pitch = (np.concatenate(a) for a in zip(*parts, strict=True))
    voiced = (height > VOICED) & (rms > LOUD)
    loudness = np.log(rms + LOUD)
    # Level is in the loudness: bands tell the shape of the spectrum.
    shape = bands - bands.mean(axis=1, keepdims=True)
    return np.column_stack([shape, loudness, pitch]).astype(np.float64), voiced


def _block(framed: np.ndarray) -> tuple[np.ndarray, ...]:
    """Of windows (m, WINDOW): log bands (m, BANDS), root mean square, peak's height, pitch (m,)."""
    spectrum = np.abs(np.fft.rfft(framed * _taper(), POINTS)) ** 2
    bands = np.log(spectrum @ _mel() + 1e-6)
    rms = np.sqrt(np.mean(framed**2, axis=1))
    lags = np.fft.irfft(spectrum)[:, :WINDOW]
    low, high = (int(RATE / pitch) for pitch in reversed(PITCHES))
    # The taper's own autocorrelation makes far peaks lower.
    scaled = lags[:, low : high + 1] / (lags[:, :1] + 1e-9) / _taper_lags()[low : high + 1]
    height = scaled.max(axis=1, keepdims=True)
    rises = np.diff(scaled, axis=1, prepend=np.inf, append=-np.inf) >= 0
    peaks = rises[:, :-1] & ~rises[:, 1:] & (scaled >= PERIOD * height)
    at = np.where(peaks.any(axis=1), peaks.argmax(axis=1), scaled.argmax(axis=1))
    return bands, rms, height[:, 0], np.log2(RATE / (at + low))


@functools.cache
def _taper() -> np.ndarray:
    return np.hanning(WINDOW).astype(np.float32)


@functools.cache
def _taper_lags() -> np.ndarray:
    """Autocorrelation of the taper, 1 at lag 0: (WINDOW,)."""
    lags = np.fft.irfft(np.abs(np.fft.rfft(_taper(), POINTS)) ** 2)[:WINDOW]
    return np.maximum(lags / lags[0], 0.1)


@functools.cache
def _mel() -> np.ndarray:
    """Mel filters (POINTS // 2 + 1, BANDS)."""
    from librosa.filters import mel

    return mel(sr=RATE, n_fft=POINTS, n_mels=BANDS, fmin=50, fmax=7600).T
