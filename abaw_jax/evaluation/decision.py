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

from abaw_jax.errors import InputError
from abaw_jax.evaluation.matching import Matching, fit_matching
from abaw_jax.evaluation.predictions import Prediction
from abaw_jax.evaluation.smoothing import (
    Smoothing,
    choose_smoothing,
    smooth_prediction,
    smooth_videos,
    video_statistics,
)
from abaw_jax.evaluation.thresholds import (
    count_levels,
    reachable_f1,
    search_thresholds,
    with_thresholds,
)
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

    @staticmethod
    def load(record: Mapping[str, Any], track: Track, source: str) -> "Decision":
        """From `record`'s values. Raises InputError, naming `source`, where they are not such."""

        def numbers(named: Mapping[str, float]) -> tuple[float, ...]:
            return tuple(float(named[name]) for name in track.classes)

        try:
            matched, limits = record.get("matching"), record.get("thresholds")
            return Decision(
                Smoothing(**record["smoothing"]),
                None if matched is None else Matching(**{k: numbers(matched[k]) for k in matched}),
                None if limits is None else numbers(limits),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{source}: holds no decision on {track.name} ({type(error).__name__} {error}); "
                "run the stage ensemble again"
            ) from error


@dataclasses.dataclass(frozen=True, eq=False)
class Tuned:
    """A decision and what it is worth.

    decision: chosen on all videos. table: every smoothing that was tried and what it was compared
    by, under the score's name (`Search.table`; where thresholds are searched, the F1 that they can
    reach, beside the score at the track's own). scores: step -> score of the steps up to it, on
    the frames they were chosen on: 'plain' (gaps filled alone), 'smoothed', 'matched' and
    'thresholds' where there are such. summary: the last one's figures. cross_validated: figures of
    frames out of fold; None without folds.
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
        return _Search(found, labels, track, candidates, training_labels, thresholds, folds or {})

    whole = search(predictions)
    chosen = whole.choose()
    parts = []
    for fold in sorted(set((folds or {}).values())):
        mine = whole if without is None else search(without(fold))
        of_fold = [video for video, f in folds.items() if f == fold]
        parts.append(mine.count(mine.choose(fold), of_fold))
    steps = _steps(Decision(candidates[0]), chosen)
    return Tuned(
        chosen,
        whole.table(),
        {step: track.summary(whole.count(found, labels)).score for step, found in steps.items()},
        track.summary(whole.count(chosen, labels)),
        track.summary(sum(parts)) if parts else None,
    )


class _Search:
    """The choice on one set of predictions; arguments as in `tune_decision`."""

    def __init__(self, predictions, labels, track, candidates, training_labels, thresholds, folds):
        self._predictions, self._labels, self._track = predictions, labels, track
        self._candidates, self._folds = candidates, folds
        self._training_labels, self._thresholds = training_labels, thresholds
        self._smoothed: dict[Smoothing, dict[str, Prediction]] = {}
        # Of each candidate: statistics by video; F1 within reach of thresholds, by `without`.
        self._statistics: list[dict[str, np.ndarray]] = []
        self._reach: list[dict[int | None, float]] = []
        for values in smooth_videos(predictions, labels, candidates):
            self._statistics.append(video_statistics(values, labels, track))
            if thresholds:
                self._reach.append(self._reachable(values))

    def _videos(self, without: int | None) -> list[str]:
        """All, or those of the other folds."""
        if without is None:
            return list(self._labels)
        return [video for video, fold in self._folds.items() if fold != without]

    def _reachable(self, values: Mapping[str, np.ndarray]) -> dict[int | None, float]:
        """What thresholds reach on all videos (None), and on all without each fold."""
        counts = {}
        for fold in {self._folds.get(video) for video in values}:
            videos = [video for video in values if self._folds.get(video) == fold]
            rows = np.concatenate([self._labels[video] for video in videos])
            valid = self._track.valid(rows)
            found = np.concatenate([values[video] for video in videos])
            counts[fold] = count_levels(found[valid], rows[valid])
        reach = {None: reachable_f1(sum(counts.values()))}
        counts.pop(None, None)
        for fold, mine in counts.items():
            reach[fold] = reachable_f1(sum(counts.values()) - mine)
        return reach

    def _smooth(self, smoothing: Smoothing) -> dict[str, Prediction]:
        if smoothing not in self._smoothed:
            self._smoothed[smoothing] = {
                video: smooth_prediction(self._predictions[video], len(rows), smoothing)
                for video, rows in self._labels.items()
            }
        return self._smoothed[smoothing]

    def _choose_smoothing(self, without: int | None) -> Smoothing:
        if self._thresholds:  # of equals the first
            return self._candidates[int(np.argmax([reach[without] for reach in self._reach]))]
        videos = self._videos(without)
        return choose_smoothing(self._candidates, self._statistics, self._track, videos).best

    def choose(self, without: int | None = None) -> Decision:
        """The decision that serves all videos best, or those that are not of a fold."""
        best = self._choose_smoothing(without)
        if self._training_labels is None and not self._thresholds:
            return Decision(best)
        videos = self._videos(without)
        values = np.concatenate([self._smooth(best)[video].values for video in videos])
        rows = np.concatenate([self._labels[video] for video in videos])
        return _fit(best, values, rows, self._track, self._training_labels, self._thresholds)

    def table(self) -> tuple[dict[str, Any], ...]:
        """As in `Tuned`."""
        table = choose_smoothing(self._candidates, self._statistics, self._track).table
        name = self._track.score_name
        if not self._thresholds:
            return table
        default = f"{name} at {self._track.thresholds:g}"
        return tuple(
            {**dataclasses.asdict(candidate), name: reach[None], default: row[name]}
            for candidate, reach, row in zip(self._candidates, self._reach, table, strict=True)
        )

    def count(self, decision: Decision, videos: Iterable[str]) -> np.ndarray:
        """Statistics of these videos, decided so."""
        if decision == Decision(decision.smoothing):
            statistics = self._statistics[self._candidates.index(decision.smoothing)]
            return sum(statistics[video] for video in videos)
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


def _steps(plain: Decision, decision: Decision) -> dict[str, Decision]:
    """The decision up to each step."""
    steps = {"plain": plain, "smoothed": Decision(decision.smoothing)}
    if decision.matching is not None:
        steps["matched"] = dataclasses.replace(decision, thresholds=None)
    if decision.thresholds is not None:
        steps["thresholds"] = decision
    return steps
