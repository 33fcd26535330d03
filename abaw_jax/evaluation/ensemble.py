"""Several members' predictions made one, and what that is worth on frames it was not tuned on.

    average    the mean of the members
    weights    weights searched for the best score, pulled towards the average; numbers are given
               the labels' spread where that serves (`weights.py`)
    rank       the mean of ranks, put back on the members' mean distribution
    stacking   a ridge regression, its penalty chosen out of fold (`stacking.py`)
    vote       each member's decision counts; equal counts are settled by the average
    scenes     members weighted by how likely the video belongs to their scene

Two scores go with each: *tuned*, of a combination fitted on all labelled frames and scored on the
same; and *cross-validated*, where each fold of videos is scored by a combination fitted on the
others, all folds counted together. Methods that look at no label have one score, which is both.
Where classes get thresholds of their own, these are part of the combination, and of its scores.

Shapes: M members, V videos, N rows of all frames, L labelled rows, K outputs, W label numbers.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from tqdm import tqdm

from abaw_jax.errors import InputError
from abaw_jax.evaluation.align import Aligned, fill_absent, labelled_rows
from abaw_jax.evaluation.confidence import Comparison, VideoStatistics, compare
from abaw_jax.evaluation.folds import group_names
from abaw_jax.evaluation.matching import Matching
from abaw_jax.evaluation.scenes import scene_weights
from abaw_jax.evaluation.stacking import as_values, inputs, make_stacking, predict
from abaw_jax.evaluation.thresholds import centre_values, search_thresholds
from abaw_jax.evaluation.weights import ROUNDS, Weighting, combine
from abaw_jax.tracks.track import Summary, Track

METHODS = ("average", "weights", "rank", "stacking", "vote", "scenes")
TUNED = ("weights", "stacking")
_MATCHING = tuple(field.name for field in dataclasses.fields(Matching))


def _floats(numbers) -> tuple[float, ...]:
    return tuple(float(number) for number in numbers)


@dataclasses.dataclass(frozen=True, eq=False)
class Combination:
    """One way to make members one, complete: it can be stored and used on other videos.

    method: one of METHODS. members: their names, sorted. coefficients: of 'weights' (M, K), of
    'stacking' (M * K + 1, K), float64; None for the others. settings: of weights those of `Trust`,
    of stacking those of `Ridge`. matching: of weights of numbers, what follows the sum, if
    anything. scenes: member -> its scene, for 'scenes'; a member without one fits every video.
    thresholds: (K,), of classes that are on or off; combined values are moved so that the track's
    own threshold decides (`centre_values`).
    """

    method: str
    members: tuple[str, ...]
    coefficients: np.ndarray | None = None
    settings: Mapping[str, float] = dataclasses.field(default_factory=dict)
    matching: Matching | None = None
    scenes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    thresholds: tuple[float, ...] | None = None

    def record(self, track: Track) -> dict[str, Any]:
        """As JSON values, with the classes that the coefficients' columns stand for."""
        rows = None if self.coefficients is None else self.coefficients.tolist()
        return {
            "track": track.name,
            "method": self.method,
            "members": list(self.members),
            "classes": list(track.classes),
            "coefficients": rows,
            "settings": dict(self.settings),
            "matching": None if self.matching is None else dataclasses.asdict(self.matching),
            "scenes": dict(self.scenes),
            "thresholds": None if self.thresholds is None else list(self.thresholds),
        }

    @staticmethod
    def load(record: Mapping[str, Any], track: Track, source: str) -> "Combination":
        """From `record`'s values. Raises InputError, naming `source`, where they are not such, or
        are of another track."""
        try:
            classes = tuple(record["classes"])
            rows, limits = record["coefficients"], record.get("thresholds")
            matched = record.get("matching")
            loaded = Combination(
                record["method"],
                tuple(record["members"]),
                None if rows is None else np.array(rows, np.float64),
                dict(record["settings"]),
                None if matched is None else Matching(*(_floats(matched[k]) for k in _MATCHING)),
                dict(record["scenes"]),
                None if limits is None else _floats(limits),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{source}: is no stored ensemble ({type(error).__name__} {error}); name the "
                "ensemble.json of one"
            ) from error
        if classes != track.classes or record.get("track") != track.name:
            raise InputError(
                f"{source}: combines {','.join(map(str, classes))}; {track.name} has "
                f"{','.join(track.classes)}"
            )
        members, outputs = len(loaded.members), track.outputs
        shapes = {"weights": (members, outputs), "stacking": (members * outputs + 1, outputs)}
        shape = None if rows is None else loaded.coefficients.shape
        if loaded.method not in METHODS or shape != shapes.get(loaded.method):
            raise InputError(
                f"{source}: method {loaded.method!r} with coefficients of shape {shape}; expected "
                f"{shapes.get(loaded.method)} for {members} members of {outputs} classes"
            )
        moved = loaded.matching
        if moved is not None and not len(moved.scale) == len(moved.shift) == outputs:
            raise InputError(
                f"{source}: matching has {len(moved.scale)} scales and {len(moved.shift)} shifts; "
                f"expected {outputs} of each for {track.name}"
            )
        if limits is not None and (track.thresholds is None or len(limits) != outputs):
            raise InputError(
                f"{source}: {len(limits)} thresholds; expected "
                f"{'none' if track.thresholds is None else outputs} for {track.name}"
            )
        return loaded


def apply(
    combination: Combination,
    aligned: Aligned,
    track: Track,
    probabilities: Mapping[str, Mapping[str, float]] | None = None,
) -> np.ndarray:
    """Combined values of every row: float32 (N, K).

    probabilities: video -> scene -> probability, for 'scenes'. Raises InputError if the members are
    not those the combination was made for, for a vote on numbers, and as `scene_weights` does.
    """
    values = _combined(combination, aligned, track, probabilities)
    if combination.thresholds is None:
        return values
    return centre_values(values, combination.thresholds, track.thresholds)


def _combined(combination, aligned, track, probabilities) -> np.ndarray:
    """`apply` before the thresholds."""
    if aligned.members != combination.members:
        raise InputError(
            f"members {', '.join(aligned.members)}; the ensemble was made of "
            f"{', '.join(combination.members)}: give the same names"
        )
    method = combination.method
    if method == "weights":
        combined = combine(aligned.values, combination.coefficients)
        if combination.matching is not None:
            combined = combination.matching(combined, track.label_range)
        return as_values(combined, track)
    if method == "stacking":
        return predict(inputs(aligned.values), combination.coefficients, track)
    if method == "rank":
        return as_values(_rank_average(aligned), track)
    if method == "vote":
        return as_values(_vote(aligned, track), track)
    if method == "scenes":
        return as_values(_by_scene(aligned, combination.scenes, probabilities or {}), track)
    return as_values(aligned.values.mean(axis=0, dtype=np.float64), track)


def _rank_average(aligned: Aligned) -> np.ndarray:
    """Mean over members of each row's rank within the member's column, mapped onto the mean of the
    members' sorted columns: (N, K). Any monotone change of one member's scale that keeps the mean
    distribution changes nothing; uses no label, and all rows given."""
    members, rows, outputs = aligned.values.shape
    grid = (np.arange(rows) + 0.5) / rows
    found = np.empty((rows, outputs))
    for k in range(outputs):
        ranks, mean = np.zeros((members, rows, 1)), np.zeros(rows)
        for m in range(members):
            here = aligned.present[m]
            column = aligned.values[m, here, k]
            places, shares = np.sort(column), (np.arange(len(column)) + 0.5) / len(column)
            ranks[m, here, 0] = _mid_ranks(column, places)
            mean += np.interp(grid, shares, places) / members
        fill_absent(ranks, aligned.present)
        # Rounded, so that what is equal but for the order of a sum stays equal.
        joint = ranks.mean(axis=0)[:, 0].round(12)
        found[:, k] = np.interp(_mid_ranks(joint, np.sort(joint)), grid, mean)
    return found


def _mid_ranks(column: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Rank of each number (n,) among the sorted ones, 0 .. 1, equal numbers in their middle."""
    below = np.searchsorted(places, column, side="left")
    up_to = np.searchsorted(places, column, side="right")
    return (below + up_to) / (2 * len(places))


def _vote(aligned: Aligned, track: Track) -> np.ndarray:
    """Shares of votes: (N, K). The average is one more voter, who divides its vote: too little to
    turn a majority, enough to settle a draw."""
    if track.label_type != "int32":
        raise InputError(f"{track.name} predicts numbers, on which nobody can vote; take average")
    votes = np.stack([track.encode(track.decode(member)) for member in aligned.values])
    fill_absent(votes, aligned.present)
    members = len(votes)
    average = aligned.values.mean(axis=0, dtype=np.float64)
    return (votes.sum(axis=0, dtype=np.float64) + average) / (members + 1)


def _by_scene(aligned: Aligned, scenes, probabilities) -> np.ndarray:
    """Mean over the members present, weighted by their scene's probability: (N, K)."""
    weights = scene_weights(aligned.videos, aligned.members, scenes, probabilities)
    weights = weights[:, aligned.row_videos()] * aligned.present
    total = weights.sum(axis=0)
    # Where nobody present fits, all who are present count alike.
    weights = np.where(total > 0, weights, aligned.present)
    values = np.einsum("mn,mnk->nk", weights, aligned.values)
    return values / weights.sum(axis=0)[:, None]


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
