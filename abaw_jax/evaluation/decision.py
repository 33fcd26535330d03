"""What is done to predictions before they count, chosen on validation: smoothing, then matching or
thresholds where the track and the config ask for them.

Two scores go with it, as with combinations of members (`ensemble.py`): of the decision chosen on
all videos, on the same; and *cross-validated*, where the whole of it is chosen anew for each fold
of videos on the others. The first is what a submission is made with, the second what to expect.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from abaw_jax.evaluation.matching import Matching, fit_matching
from abaw_jax.evaluation.predictions import Prediction
from abaw_jax.evaluation.smoothing import (
    Smoothing,
    choose_smoothing,
    smooth_prediction,
    smoothing_statistics,
)
from abaw_jax.evaluation.thresholds import search_thresholds, with_thresholds
from abaw_jax.tracks.track import Summary, Track


@dataclasses.dataclass(frozen=True)
class Decision:
    """Smoothing; matching and thresholds (one for each class) where there are any."""

    smoothing: Smoothing
    matching: Matching | None = None
    thresholds: tuple[float, ...] | None = None

    def apply(self, prediction: Prediction, rows: int, track: Track) -> Prediction:
        """One video's final values: of every frame 1 .. rows, smoothed and matched."""
        return self.match(smooth_prediction(prediction, rows, self.smoothing), track)

    def match(self, smooth: Prediction, track: Track) -> Prediction:
        """The last step of `apply`."""
        if self.matching is None:
            return smooth
        values = self.matching(smooth.values, track.label_range)
        return Prediction(smooth.frames, values)

    def record(self, track: Track) -> dict[str, Any]:
        """As JSON values by field, without those that are None; numbers of classes by name."""

        def named(values: Sequence[float]) -> dict[str, float]:
            return dict(zip(track.classes, values, strict=True))

        found: dict[str, Any] = {"smoothing": dataclasses.asdict(self.smoothing)}
        if self.matching is not None:
            found["matching"] = {k: named(v) for k, v in dataclasses.asdict(self.matching).items()}
        if self.thresholds is not None:
            found["thresholds"] = named(self.thresholds)
        return found


@dataclasses.dataclass(frozen=True, eq=False)
class Tuned:
    """A decision and what it is worth.

    decision: chosen on all videos. table: every smoothing that was tried (`Search.table`). scores:
    step -> score of the steps up to it, on the frames they were chosen on: 'plain' (gaps filled
    alone), 'smoothed', 'matched' and 'thresholds' where there are such. summary: the last one's
    figures. cross_validated: figures of frames out of fold; None without folds.
    """

    decision: Decision
    table: tuple[dict[str, Any], ...]
    scores: Mapping[str, float]
    summary: Summary
    cross_validated: Summary | None


def tune_decision(
    predictions: Mapping[str, Prediction],
    labels: Mapping[str, np.ndarray],
    track: Track,
    candidates: Sequence[Smoothing],
    *,
    training_labels: np.ndarray | None = None,
    thresholds: bool = False,
    folds: Mapping[str, int] | None = None,
    without: Callable[[int], Mapping[str, Prediction]] | None = None,
) -> Tuned:
    """Choose a decision on all labelled rows of all videos.

    labels: video -> (rows, W), row i of frame i + 1. candidates: the first is the plain one.
    training_labels: (m, W), the distribution that predictions are matched to; None leaves them.
    thresholds: whether each class gets its own. folds: video -> 0 .. F - 1 (`make_folds`), for the
    cross-validated score. without: fold -> predictions of all videos by what was found without it,
    for predictions that were themselves tuned on these labels; None for others, which are the same
    for every fold. Raises InputError as `search_smoothing` does.
    """

    def search(found: Mapping[str, Prediction]) -> _Search:
        return _Search(found, labels, track, tuple(candidates), training_labels, thresholds)

    whole = search(predictions)
    chosen = whole.choose(labels)
    table = choose_smoothing(candidates, whole.statistics, track)
    scores = {"plain": table.table[0][track.score_name], "smoothed": table.score}
    for step, decision in _steps(chosen).items():
        scores[step] = track.summary(whole.count(decision, labels)).score
    parts = []
    for fold in sorted(set((folds or {}).values())):
        mine = whole if without is None else search(without(fold))
        decision = mine.choose([video for video, f in folds.items() if f != fold])
        parts.append(mine.count(decision, [video for video, f in folds.items() if f == fold]))
    return Tuned(
        chosen,
        table.table,
        scores,
        track.summary(whole.count(chosen, labels)),
        track.summary(sum(parts)) if parts else None,
    )


class _Search:
    """The choice on one set of predictions; arguments as in `tune_decision`.

    statistics: of each candidate, those of each video.
    """

    def __init__(self, predictions, labels, track, candidates, training_labels, thresholds):
        self.statistics = smoothing_statistics(predictions, labels, track, candidates)
        self._predictions, self._labels, self._track = predictions, labels, track
        self._candidates = candidates
        self._training_labels, self._thresholds = training_labels, thresholds
        self._smoothed: dict[Smoothing, dict[str, Prediction]] = {}

    def _smooth(self, smoothing: Smoothing) -> dict[str, Prediction]:
        if smoothing not in self._smoothed:
            self._smoothed[smoothing] = {
                video: smooth_prediction(self._predictions[video], len(rows), smoothing)
                for video, rows in self._labels.items()
            }
        return self._smoothed[smoothing]

    def choose(self, videos: Iterable[str]) -> Decision:
        """The decision that serves these videos best."""
        videos = list(videos)
        best = choose_smoothing(self._candidates, self.statistics, self._track, videos).best
        if self._training_labels is None and not self._thresholds:
            return Decision(best)
        values = np.concatenate([self._smooth(best)[video].values for video in videos])
        rows = np.concatenate([self._labels[video] for video in videos])
        return _fit(best, values, rows, self._track, self._training_labels, self._thresholds)

    def count(self, decision: Decision, videos: Iterable[str]) -> np.ndarray:
        """Statistics of these videos, decided so."""
        track = with_thresholds(self._track, decision.thresholds)
        smooth = self._smooth(decision.smoothing)
        return sum(
            track.evaluate(
                track.decode(decision.match(smooth[v], self._track).values), self._labels[v]
            )
            for v in videos
        )


def _fit(
    smoothing: Smoothing,
    values: np.ndarray,
    rows: np.ndarray,
    track: Track,
    training_labels: np.ndarray | None,
    thresholds: bool,
) -> Decision:
    """What follows the smoothing, from smoothed values (n, K) and their label rows (n, W)."""
    valid, matching, found = track.valid(rows), None, None
    values, rows = values[valid], rows[valid]
    if training_labels is not None:
        matching = fit_matching(values, training_labels[track.valid(training_labels)])
        values = matching(values, track.label_range)
    if thresholds:
        found = tuple(search_thresholds(values, rows, track.thresholds).tolist())
    return Decision(smoothing, matching, found)


def _steps(decision: Decision) -> dict[str, Decision]:
    """The decision up to each step after smoothing."""
    steps = {}
    if decision.matching is not None:
        steps["matched"] = dataclasses.replace(decision, thresholds=None)
    if decision.thresholds is not None:
        steps["thresholds"] = decision
    return steps
