"""Several members' predictions made one: what is stored of a way to do it, and the values it gives.

    average    the mean of the members
    weights    weights searched for the best score, pulled towards the average; numbers are given
               the labels' spread where that serves (`weights.py`)
    rank       the mean of ranks, put back on the members' mean distribution
    stacking   a ridge regression, its penalty chosen out of fold (`stacking.py`)
    vote       each member's decision counts; equal counts are settled by the average
    scenes     members weighted by how likely the video belongs to their scene

Shapes: M members, N rows of all frames, K outputs.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from abaw_jax.errors import InputError
from abaw_jax.evaluation.align import Aligned, fill_absent
from abaw_jax.evaluation.matching import Matching
from abaw_jax.evaluation.scenes import scene_weights
from abaw_jax.evaluation.stacking import as_values, inputs, predict
from abaw_jax.evaluation.thresholds import centre_values
from abaw_jax.evaluation.weights import combine
from abaw_jax.tracks.track import Track

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
