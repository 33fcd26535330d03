"""Predictions over time: filling gaps, smoothing, and the search for the best filter.

A filter runs over the continuous timeline 1 .. rows of one video: gaps are filled first. At the
ends a window is cut to the frames that exist and its weights are renormalised, so no value is
invented beyond the video. Shapes: T frames, K outputs.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from abaw_jax.errors import InputError
from abaw_jax.evaluation.predictions import Prediction
from abaw_jax.tracks.track import Track

GAP_RULES = ("linear", "nearest", "hold")


def fill_gaps(frames: np.ndarray, values: np.ndarray, rows: int, rule: str) -> np.ndarray:
    """Values for every frame 1 .. rows: (rows, K), of the dtype of `values`.

    frames (n,) ascending, 1-based, may reach beyond `rows`; values (n, K). rule: 'linear'
    interpolates between the neighbours, 'nearest' takes the nearest frame (the earlier of two),
    'hold' the last one before. Before the first and after the last known frame, that one holds.
    Raises InputError for another rule, or where no frame is known.
    """
    if rule not in GAP_RULES:
        raise InputError(f"gap rule {rule!r}; expected one of {', '.join(GAP_RULES)}")
    if len(frames) == 0:
        raise InputError(f"no frame is known, so that none of {rows} can be filled in")
    timeline = np.arange(1, rows + 1)
    if rule == "linear":
        columns = [np.interp(timeline, frames, column) for column in values.T]
        return np.stack(columns, axis=1).astype(values.dtype)
    before = np.clip(np.searchsorted(frames, timeline, side="right") - 1, 0, None)
    if rule == "hold":
        return values[before]
    after = np.minimum(before + 1, len(frames) - 1)
    nearer = np.abs(frames[after] - timeline) < np.abs(frames[before] - timeline)
    return values[np.where(nearer, after, before)]


def _window(length: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """First and one-past-last index of the window of each frame, cut at the ends.

    An odd window is centred; an even one reaches one frame further back, as in scipy.ndimage.
    """
    centre = np.arange(length)
    first = np.maximum(centre - width // 2, 0)
    last = np.minimum(centre + (width - 1) // 2 + 1, length)
    return first, last


def box(values: np.ndarray, width: float) -> np.ndarray:
    """Mean over `width` frames (T, K) -> (T, K), float64. O(T) for any width."""
    first, last = _window(len(values), int(width))
    sums = np.zeros((len(values) + 1, values.shape[1]))
    np.cumsum(values, axis=0, dtype=np.float64, out=sums[1:])
    return (sums[last] - sums[first]) / (last - first)[:, None]


def gaussian(values: np.ndarray, width: float) -> np.ndarray:
    """Gaussian mean of sigma `width` frames, cut at 4 sigma: (T, K) -> (T, K), float64."""
    radius = min(int(4 * width + 0.5), len(values) - 1)
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / width) ** 2)
    # By FFT: wide kernels (sigma 50 spans 400 frames) then cost what narrow ones do. A column of
    # ones rides along: filtered, it is the sum of the weights that fell inside the video.
    stacked = np.concatenate([values, np.ones((len(values), 1))], axis=1, dtype=np.float64)
    size = 1 << (len(values) + 2 * radius - 1).bit_length()
    spectrum = np.fft.rfft(stacked, size, axis=0) * np.fft.rfft(kernel, size)[:, None]
    sums = np.fft.irfft(spectrum, size, axis=0)[radius : radius + len(values)]
    smooth = sums[:, :-1] / sums[:, -1:]
    # A mean lies within what it is a mean of; the transform's rounding (1e-16) may not.
    return np.clip(smooth, values.min(axis=0), values.max(axis=0))


def median(values: np.ndarray, width: float) -> np.ndarray:
    """Median over `width` frames of each column by itself: (T, K) -> (T, K), float64.

    Rows of probabilities do not sum to 1 afterwards.
    """
    width = int(width)
    first, last = _window(len(values), width)
    smooth = np.empty(values.shape, np.float64)
    middle = sorted({(width - 1) // 2, width // 2})
    inner = np.flatnonzero(last - first == width)
    if len(inner):
        windows = np.lib.stride_tricks.sliding_window_view(values, width, axis=0)
        chunk = max(1, 4_000_000 // (width * values.shape[1]))  # bounds memory to some 32 MB
        for start in range(0, len(windows), chunk):
            # np.median does the same ten times slower.
            ranked = np.partition(windows[start : start + chunk], middle, axis=-1)[..., middle]
            at = inner[0] + start
            smooth[at : at + len(ranked)] = ranked.mean(axis=-1, dtype=np.float64)
    for i in np.flatnonzero(last - first < width):
        smooth[i] = np.median(values[first[i] : last[i]], axis=0)
    return smooth


def majority(values: np.ndarray, width: float) -> np.ndarray:
    """Votes of `width` frames, each for its most probable class: shares (T, K), float64.

    The most probable class of the result is the mode; of equals the first, in the track's order.
    For tracks of one class per frame.
    """
    votes = np.eye(values.shape[1])[np.argmax(values, axis=1)]
    return box(votes, width)


FILTERS: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "box": box,
    "gaussian": gaussian,
    "median": median,
    "majority": majority,
}


@dataclasses.dataclass(frozen=True)
class Smoothing:
    """One way to smooth: stored beside the scores it gave, and enough to repeat them.

    kind: 'none', 'box', 'gaussian', 'median' or 'majority'. width: frames in the window; of a
    Gaussian its sigma, in frames; 0 for 'none'. gaps: rule of `fill_gaps`.
    """

    kind: str = "none"
    width: float = 0
    gaps: str = "linear"

    def __post_init__(self):
        if self.kind != "none" and self.kind not in FILTERS:
            raise InputError(f"smoothing {self.kind!r}; expected none, {', '.join(FILTERS)}")
        if self.gaps not in GAP_RULES:
            raise InputError(f"gap rule {self.gaps!r}; expected one of {', '.join(GAP_RULES)}")
        if self.kind == "gaussian":
            good, expected = 0 < self.width < np.inf, "a sigma above 0"
        elif self.kind == "none":
            good, expected = self.width == 0, "0"
        else:
            good, expected = (
                self.width >= 1 and self.width == int(self.width),
                "1, 2, 3, ... frames",
            )
        if not good:
            raise InputError(f"smoothing {self.kind} of width {self.width}; expected {expected}")

    def __str__(self) -> str:
        return "none" if self.kind == "none" else f"{self.kind} {self.width:g}"


def smooth_values(values: np.ndarray, smoothing: Smoothing) -> np.ndarray:
    """One video's gap-free values (T, K) -> (T, K), of the same dtype."""
    if smoothing.kind == "none" or len(values) == 0:
        return values
    return FILTERS[smoothing.kind](values, smoothing.width).astype(values.dtype)


def smooth_prediction(prediction: Prediction, rows: int, smoothing: Smoothing) -> Prediction:
    """Fill the gaps of one video, then smooth: a prediction of every frame 1 .. rows.

    Raises InputError where no frame is known.
    """
    # Frames beyond `rows` are real: as far as the filter reaches they take part, then they go.
    last = int(prediction.frames[-1]) if len(prediction.frames) else 0
    length = min(max(rows, last), rows + int(np.ceil(5 * smoothing.width)))
    filled = fill_gaps(prediction.frames, prediction.values, length, smoothing.gaps)
    values = smooth_values(filled, smoothing)[:rows]
    return Prediction(np.arange(1, rows + 1, dtype=np.int32), values)


def smoothing_grid(
    kinds: Iterable[str] = ("box", "gaussian", "median", "majority"),
    gaps: str = "linear",
    chosen: Iterable[float] = (),
) -> tuple[Smoothing, ...]:
    """Candidates for `search_smoothing`: none, then each kind at widths of about 0.1 to 10 s, or at
    those that are chosen."""
    widths = {
        "box": (5, 11, 25, 51, 75, 101, 151, 201, 301),
        "gaussian": (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96),
        "median": (5, 11, 25, 51, 101),
        "majority": (5, 11, 25, 40, 75, 101, 151, 201, 301),
    }
    kinds, chosen = tuple(kinds), tuple(chosen)
    for kind in kinds:
        if kind not in widths:
            raise InputError(f"smoothing {kind!r}; expected one of {', '.join(widths)}")
    return (
        Smoothing(gaps=gaps),
        *(Smoothing(kind, width, gaps) for kind in kinds for width in chosen or widths[kind]),
    )


@dataclasses.dataclass(frozen=True)
class Search:
    """best: the candidate with the highest score. table: every candidate, in the order tried, as a
    mapping with kind, width, gaps and each of the summary's metrics."""

    best: Smoothing
    score: float
    table: tuple[dict[str, Any], ...]


def search_smoothing(
    predictions: Mapping[str, Prediction],
    labels: Mapping[str, np.ndarray],
    track: Track,
    candidates: Iterable[Smoothing] | None = None,
) -> Search:
    """Score every candidate on all valid rows of all videos together; of equals the first wins.

    labels: video -> (rows, W), row i of frame i + 1; a row marked invalid does not count (mark
    those without a crop so, to leave them out). Every video of `labels` needs a prediction.
    Tune on validation only. Raises InputError for a missing video or one without a known frame.
    """
    candidates = tuple(smoothing_grid() if candidates is None else candidates)
    smoothed = smooth_videos(predictions, labels, candidates)
    return choose_smoothing(
        candidates, [video_statistics(values, labels, track) for values in smoothed], track
    )


def smooth_videos(
    predictions: Mapping[str, Prediction],
    labels: Mapping[str, np.ndarray],
    candidates: Sequence[Smoothing],
) -> Iterator[dict[str, np.ndarray]]:
    """By one candidate after another, under a progress bar, the values (rows, K) of each labelled
    video; as `search_smoothing`."""
    if not candidates or not labels:
        raise InputError("the search for a smoothing needs one candidate and one video at least")
    absent = sorted(set(labels) - set(predictions))
    if absent:
        raise InputError(
            f"no prediction of {absent[0]} ({len(absent)} of {len(labels)} labelled videos lack "
            "one); predict the whole split before smoothing"
        )
    alone = len(candidates) == 1  # nothing is searched
    for candidate in tqdm(candidates, desc="smoothing", unit="filters", leave=False, disable=alone):
        yield {
            video: smooth_prediction(predictions[video], len(rows), candidate).values
            for video, rows in labels.items()
        }


def video_statistics(
    values: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray], track: Track
) -> dict[str, np.ndarray]:
    """The track's statistics of each video's values, as they are decoded by default."""
    return {
        video: track.evaluate(track.decode(found), labels[video]) for video, found in values.items()
    }


def choose_smoothing(
    candidates: Sequence[Smoothing],
    statistics: Sequence[Mapping[str, np.ndarray]],
    track: Track,
    videos: Iterable[str] | None = None,
) -> Search:
    """The best candidate over all videos, or over `videos` alone; `video_statistics` of each."""
    videos = list(statistics[0] if videos is None else videos)
    table, best, highest = [], candidates[0], -np.inf
    for candidate, of_video in zip(candidates, statistics, strict=True):
        summary = track.summary(sum(of_video[video] for video in videos))
        table.append({**dataclasses.asdict(candidate), **summary.metrics})
        if summary.score > highest:
            best, highest = candidate, summary.score
    return Search(best, highest, tuple(table))
