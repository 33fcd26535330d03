"""What combinations of members are worth, on frames they were tuned on and on others.

Two scores go with each (`combination.py`): *tuned*, of a combination fitted on all labelled frames
and scored on the same; and *cross-validated*, where each fold of videos is scored by a combination
fitted on the others, all folds counted together. Methods that look at no label have one score,
which is both. Where classes get thresholds of their own, these are part of the combination, and of
its scores.

Shapes: V videos, N rows of all frames, L labelled rows, K outputs, W label numbers.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from tqdm import tqdm

from abaw_jax.errors import InputError
from abaw_jax.evaluation.align import Aligned, labelled_rows
from abaw_jax.evaluation.combination import METHODS, TUNED, Combination, apply
from abaw_jax.evaluation.confidence import Comparison, VideoStatistics, compare
from abaw_jax.evaluation.folds import group_names
from abaw_jax.evaluation.stacking import make_stacking
from abaw_jax.evaluation.thresholds import centre_values, search_thresholds
from abaw_jax.evaluation.weights import ROUNDS, Weighting
from abaw_jax.tracks.track import Summary, Track


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
    """A combination and what it is worth.

    combination: fitted on all labelled frames. values: float32 (N, K) of every row by it. without:
    of each fold, the combination fitted on the others. tuned: figures of the first on the frames it
    was fitted on. cross_validated: figures of frames out of fold. folds: the score of each fold by
    itself, out of fold. out_of_fold: (L, W), the label rows predicted of the labelled rows then.
    """

    combination: Combination
    values: np.ndarray
    without: tuple[Combination, ...]
    tuned: Summary
    cross_validated: Summary
    folds: tuple[float, ...]
    out_of_fold: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Labelled:
    """The rows that count. index: int64 (L,) into the aligned rows. labels: (L, W). videos: int64
    (L,), video numbers. last_rows: as `labelled_rows`."""

    index: np.ndarray
    labels: np.ndarray
    videos: np.ndarray
    last_rows: int

    def frames(self, aligned: Aligned) -> dict[str, int]:
        """Labelled video -> its labelled frames."""
        counts = np.bincount(self.videos, minlength=len(aligned.videos))
        return {v: int(n) for v, n in zip(aligned.videos, counts, strict=True) if n}


def label_rows(
    aligned: Aligned, labels: Mapping[str, np.ndarray], track: Track, source: str = "predictions"
) -> Labelled:
    """The labelled rows of the aligned ones; labels: video -> (rows, W), row i of frame i + 1.

    Raises InputError as `labelled_rows` does, and for a member with no labelled frame.
    """
    frames = {v: aligned.frames[aligned.rows(i)] for i, v in enumerate(aligned.videos)}
    found, last_rows = labelled_rows(frames, labels, track, source)
    numbers = {video: i for i, video in enumerate(aligned.videos)}
    index = [at + aligned.first[numbers[video]] for video, (at, _) in found.items()]
    videos = [np.full(len(at), numbers[video]) for video, (at, _) in found.items()]
    index = np.concatenate(index)
    for m, name in enumerate(aligned.members):
        if not aligned.present[m, index].any():
            raise InputError(f"member {name}: has no labelled frame; predict the labelled split")
    rows = np.concatenate([rows for _, rows in found.values()])
    return Labelled(index, rows, np.concatenate(videos), last_rows)


def score_members(aligned: Aligned, labelled: Labelled, track: Track) -> dict[str, dict[str, Any]]:
    """Member -> its 'score' on the labelled 'frames' that it has itself."""
    found = {}
    for m, name in enumerate(aligned.members):
        here = aligned.present[m, labelled.index]
        predicted = track.decode(aligned.values[m, labelled.index[here]])
        summary = track.summary(track.statistics(predicted, labelled.labels[here]))
        found[name] = {"score": summary.score, "frames": int(here.sum())}
    return found


def evaluate_ensemble(
    aligned: Aligned,
    labelled: Labelled,
    track: Track,
    method: str,
    folds: Mapping[str, int],
    *,
    scenes: Mapping[str, str] | None = None,
    probabilities: Mapping[str, Mapping[str, float]] | None = None,
    thresholds: bool = False,
    progress: bool | None = None,
) -> Result:
    """Fit one method on all labelled rows, and out of fold, and score both.

    folds: labelled video -> 0 .. F - 1 (`make_folds`, `given_folds`). scenes, probabilities: as
    `Combination` and `apply`. thresholds: whether each class gets its own, chosen on the rows that
    the combination is fitted on. progress: whether a bar is shown; None shows it on a terminal.
    Raises InputError for an unknown method, for thresholds of a track that has none, and as
    `apply`, `Weighting.choose` and `Stacking.choose` do.
    """
    if method not in METHODS:
        raise InputError(f"method {method!r}; expected one of {', '.join(METHODS)}")
    if thresholds and track.thresholds is None:
        raise InputError(f"{track.name} is not decided by thresholds; leave them out")
    for video in labelled.frames(aligned):
        if video not in folds:
            raise InputError(f"video {video} has no fold; name one for each labelled video")
    of_video = np.array([folds.get(video, -1) for video in aligned.videos])
    fold = of_video[labelled.videos]
    count = int(fold.max()) + 1
    if method in TUNED:
        fits = _fit(aligned, labelled, track, method, fold, progress)
    else:
        fits = [Combination(method, aligned.members, scenes=dict(scenes or {}))] * (count + 1)
        values = apply(fits[-1], aligned, track, probabilities)
    parts, out_of_fold = [], np.zeros_like(labelled.labels)
    for f, found in enumerate(fits):  # the last is of all rows
        if method in TUNED:
            values = apply(found, aligned, track)
        scored = values
        if thresholds:
            rows = np.flatnonzero(fold != f)
            at = labelled.index[rows]
            limits = search_thresholds(values[at], labelled.labels[rows], track.thresholds)
            fits[f] = dataclasses.replace(found, thresholds=tuple(limits.tolist()))
            scored = centre_values(values, limits, track.thresholds)
        rows = np.flatnonzero(fold == f) if f < count else np.arange(len(fold))
        predicted = track.decode(scored[labelled.index[rows]])
        parts.append(track.statistics(predicted, labelled.labels[rows]))
        if f < count:
            out_of_fold[rows] = predicted
    tuned = parts.pop()
    return Result(
        fits.pop(),
        scored,
        tuple(fits),
        track.summary(tuned),
        track.summary(sum(parts)),
        tuple(track.summary(part).score for part in parts),
        out_of_fold,
    )


def compare_with_best(
    result: Result,
    aligned: Aligned,
    labelled: Labelled,
    track: Track,
    persons: Mapping[str, str] | None = None,
) -> tuple[str, Comparison]:
    """The member that scores highest by itself, and the combination's predictions out of fold (a)
    against its own (b), recordings drawn whole, and with `persons` (video -> person) persons.

    Where the member lacks a frame, the mean of the others stands for it. The member was picked
    on these frames, which favours it. Raises InputError for a single recording.
    """
    scores = score_members(aligned, labelled, track)
    best = max(scores, key=lambda name: scores[name]["score"])
    values = aligned.values[aligned.members.index(best), labelled.index]
    found = [
        _video_statistics(rows, aligned, labelled, track)
        for rows in (result.out_of_fold, track.decode(values))
    ]
    return best, compare(*found, track, groups=group_names(found[0].videos, persons))


def _video_statistics(
    predicted: np.ndarray, aligned: Aligned, labelled: Labelled, track: Track
) -> VideoStatistics:
    """Of predicted label rows (L, W)."""
    numbers, frames = np.unique(labelled.videos, return_counts=True)
    parts = [
        track.statistics(predicted[labelled.videos == v], labelled.labels[labelled.videos == v])
        for v in numbers
    ]
    return VideoStatistics(tuple(aligned.videos[v] for v in numbers), np.stack(parts), frames)


def _fit(aligned, labelled, track, method, fold, progress) -> list[Combination]:
    """Of each fold the combination fitted on the others; last the one fitted on all rows."""
    values, labels = aligned.values[:, labelled.index], labelled.labels
    held_out = [*((f,) for f in range(int(fold.max()) + 1)), ()]
    disable = None if progress is None else not progress
    with tqdm(desc=method, disable=disable, leave=False) as bar:
        if method == "weights":
            fitted = Weighting(values, labels, fold, track, bar)
            bar.reset(2 * ROUNDS * fitted.searches())
        else:
            fitted = make_stacking(values, labels, fold, track)
            bar.reset(len(held_out))
        found = []
        for folds in held_out:
            coefficients, chosen = fitted.fit(folds)
            matching = fitted.match(coefficients, chosen, folds) if method == "weights" else None
            settings = dataclasses.asdict(chosen)
            found.append(Combination(method, aligned.members, coefficients, settings, matching))
            if method == "stacking":
                bar.update()
        return found
