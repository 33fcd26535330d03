"""The search for weights: one point of the simplex over members for each class.

Coordinate ascent on the track's own score: first weights shared by all classes, then class by
class. Each step sets one member's share to one of a few values and scales the others. It runs on
evenly spaced rows, as neighbouring frames say nearly the same; what it proposes is compared with
the plain average and with each member alone on all rows, so that as it judges it never does worse
than these. Nothing is drawn at random.

Of numbers that the CCC judges the spread counts, and a sum of members that differ spreads less than
they do: the search gives each sum the spread of the labels, about its own mean. (Their mean as
well, from few recordings, did worse out of fold.) Whether that serves the weights found is decided
with the trust below.

Few recordings carry few weights: what the search finds is pulled towards the plain average, as far
as serves best where each fold of recordings in turn is scored by weights found on the others.

Shapes: M members, L labelled rows, K outputs, W numbers in a label row.
"""

import dataclasses
from collections.abc import Collection

import numpy as np
from tqdm import tqdm

from abaw_jax.errors import InputError
from abaw_jax.evaluation.matching import Matching, fit_matching
from abaw_jax.tracks.track import Track

SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
ROWS = 20_000  # that take part in the ascent
SPREAD_COUNTS = ("mean_ccc",)  # names of scores for which the spread of numbers counts
ROUNDS = 3  # over all members (and classes) at most; a round without gain is the last
GAIN = 5e-4  # of score that a step must bring: less is noise
TRUSTS = (0.25, 0.5, 0.75, 1.0)
INNER = 5  # parts of the other folds that the trust is chosen on, at most


def combine(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted sum over members: values (M, L, K), weights (M, K) -> float32 (L, K)."""
    found = np.zeros(values.shape[1:], np.float32)
    for member, share in zip(values, weights.astype(np.float32), strict=True):
        found += member * share
    return found


def match(combined: np.ndarray, labels: np.ndarray, track: Track) -> Matching | None:
    """What gives combined numbers (L, K) the spread of their labels; None where none counts."""
    if track.score_name not in SPREAD_COUNTS:
        return None
    found, mean = fit_matching(combined, labels), combined.mean(axis=0, dtype=np.float64)
    shift = (1 - np.array(found.scale)) * mean
    return Matching(found.scale, tuple(shift.tolist()))


def decode(combined: np.ndarray, matching: Matching | None, track: Track) -> np.ndarray:
    """The label rows (L, W) that combined values (L, K), matched, stand for."""
    return track.decode(combined if matching is None else matching(combined, track.label_range))


def with_share(weights: np.ndarray, member: int, share: float) -> np.ndarray:
    """Weights (M, ...) with one member's set to `share` and the others scaled to sum to the rest,
    in equal parts where they were 0."""
    others = np.delete(weights, member, axis=0)
    total = others.sum(axis=0)
    even = np.full_like(others, 1 / len(others))
    scaled = np.divide(others, total, out=even, where=total > 0) * (1 - share)
    return np.insert(scaled, member, share, axis=0)


def search_weights(
    values: np.ndarray,
    labels: np.ndarray,
    track: Track,
    *,
    rows: int = ROWS,
    progress: tqdm | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Weights float64 (M, K), each column on the simplex, for the best score of these rows: shared
    by all classes, and of each class its own.

    values: float32 (M, L, K). labels: (L, W), all valid. rows: how many take part in the ascent.
    progress: a bar that takes 2 * ROUNDS steps from each search.
    """
    members, count, outputs = values.shape
    thin = np.unique(np.linspace(0, count - 1, min(rows, count)).round().astype(np.int64))
    ascent = _Ascent(values[:, thin], labels[thin], track, progress)
    even = np.full((members, outputs), 1 / members)
    starts = [even, *(np.repeat(alone, outputs, axis=1) for alone in np.eye(members)[:, :, None])]
    best = max(starts, key=ascent.score)
    shared = ascent.climb(best, [slice(None)])
    own = ascent.climb(shared, [slice(k, k + 1) for k in range(outputs)])

    def score(weights: np.ndarray) -> float:
        combined = combine(values, weights)
        predicted = decode(combined, match(combined, labels, track), track)
        return track.summary(track.statistics(predicted, labels)).score

    shared = max((even, best, shared), key=score)
    return shared, max((shared, own), key=score)


@dataclasses.dataclass(frozen=True)
class Trust:
    """How far the weights that a search finds are followed, chosen out of fold.

    per_class: 1 for weights of each class, 0 for weights shared by all. trust: 0 .. 1, their part
    beside the plain average's. spread: 1 where the sum is given the labels' spread.
    """

    per_class: int
    trust: float
    spread: int = 0


def trusts(track: Track) -> tuple[Trust, ...]:
    """All there is to choose from, the most careful first, as of equals the first is taken."""
    plain = (Trust(0, 0.0), *(Trust(own, trust) for trust in TRUSTS for own in (0, 1)))
    spreads = (0, 1) if track.score_name in SPREAD_COUNTS else (0,)
    return tuple(dataclasses.replace(t, spread=spread) for t in plain for spread in spreads)


@dataclasses.dataclass(eq=False)
class Weighting:
    """Weights found on some folds of rows, their trust on the same. values: float32 (M, L, K).
    labels: (L, W), all valid. fold: int (L,), 0 .. F - 1. progress: as `search_weights`."""

    values: np.ndarray
    labels: np.ndarray
    fold: np.ndarray
    track: Track
    progress: tqdm | None = None

    def __post_init__(self):
        self._found: dict[frozenset[int], tuple[np.ndarray, np.ndarray]] = {}

    def searches(self) -> int:
        """How many searches `fit` needs for all folds, and for each held out, together."""
        folds = range(int(self.fold.max()) + 1)
        needed = {frozenset(): None}
        for held_out in ((), *((f,) for f in folds)):
            parts = self._parts(held_out)
            needed |= dict.fromkeys(frozenset({*held_out, *part}) for part in parts)
            needed[frozenset(held_out)] = None
        return len(needed)

    def fit(self, held_out: Collection[int] = ()) -> tuple[np.ndarray, Trust]:
        """Weights (M, K) from all folds but those held out, with the trust chosen there."""
        trust = self.choose(held_out)
        return self._weights(held_out, trust), trust

    def match(
        self, weights: np.ndarray, trust: Trust, held_out: Collection[int] = ()
    ) -> Matching | None:
        """As the function of that name, on all folds but those held out; None without `spread`."""
        if not trust.spread:
            return None
        rows = ~np.isin(self.fold, list(held_out))
        return match(combine(self.values[:, rows], weights), self.labels[rows], self.track)

    def choose(self, held_out: Collection[int] = ()) -> Trust:
        """The trust that scores best when each part of the folds is predicted from the others.

        Raises InputError where fewer than two folds remain.
        """
        parts = self._parts(held_out)
        if len(parts) < 2:
            raise InputError(
                f"weights with {int(self.fold.max()) + 1} folds leave {len(parts)} to choose their "
                "trust on; give 3 folds at least"
            )
        grid = trusts(self.track)
        sums: list = [0] * len(grid)
        for part in parts:
            rows = np.isin(self.fold, part)
            values, labels = self.values[:, rows], self.labels[rows]
            for i, trust in enumerate(grid):
                weights = self._weights({*held_out, *part}, trust)
                matching = self.match(weights, trust, {*held_out, *part})
                found = decode(combine(values, weights), matching, self.track)
                sums[i] = sums[i] + self.track.statistics(found, labels)
        return grid[int(np.argmax([self.track.summary(total).score for total in sums]))]

    def _parts(self, held_out: Collection[int]) -> list[list[int]]:
        """The folds that are not held out, in INNER parts at most."""
        folds = [f for f in range(int(self.fold.max()) + 1) if f not in held_out]
        return [folds[i::INNER] for i in range(min(INNER, len(folds)))]

    def _weights(self, held_out: Collection[int], trust: Trust) -> np.ndarray:
        key = frozenset(held_out)
        if key not in self._found:
            rows = ~np.isin(self.fold, list(key))
            self._found[key] = search_weights(
                self.values[:, rows], self.labels[rows], self.track, progress=self.progress
            )
        found = self._found[key][trust.per_class]
        return trust.trust * found + (1 - trust.trust) / len(found)


class _Ascent:
    """Rows laid out so that changing the weights of a few classes costs little.

    Statistics add up: of a trial, only the rows whose predicted label differs from the present
    choice's are counted anew.
    """

    def __init__(self, values, labels, track, progress):
        # Class by class, as a step changes the weights of one class.
        self._columns = np.ascontiguousarray(values.transpose(2, 0, 1))
        self._labels, self._track, self._progress = labels, track, progress

    def _combine(self, weights: np.ndarray, classes: slice) -> np.ndarray:
        """(L, number of these classes)."""
        part = weights.astype(np.float32).T[classes, None]
        return (part @ self._columns[classes])[:, 0].T

    def _start(self, weights: np.ndarray) -> tuple[np.ndarray, float]:
        """Take these weights as the present choice: their combined values (L, K) and score."""
        combined = np.ascontiguousarray(self._combine(weights, slice(None)))
        self._keep(self._decode(combined))
        return combined, self._track.summary(self._statistics).score

    def _decode(self, combined: np.ndarray) -> np.ndarray:
        return decode(combined, match(combined, self._labels, self._track), self._track)

    def _keep(self, predicted: np.ndarray) -> None:
        self._predicted = predicted
        self._statistics = self._track.statistics(predicted, self._labels)

    def _score(self, predicted: np.ndarray) -> float:
        """Of all rows, by what differs from the present choice."""
        track, count = self._track, self._track.statistics
        differs = np.flatnonzero(predicted != self._predicted) // predicted.shape[1]
        rows = differs[np.diff(differs, prepend=-1) > 0]  # each once; they ascend
        if 2 * len(rows) > len(predicted):
            return track.summary(count(predicted, self._labels)).score
        labels = self._labels[rows]
        gone, come = count(self._predicted[rows], labels), count(predicted[rows], labels)
        return track.summary(self._statistics - gone + come).score

    def score(self, weights: np.ndarray) -> float:
        """Of the thinned rows."""
        return self._start(weights)[1]

    def climb(self, weights: np.ndarray, blocks: list[slice]) -> np.ndarray:
        """Steps over the members within each block of classes, until a round brings nothing."""
        combined, best = self._start(weights)
        for done in range(ROUNDS):
            before = best
            for block in blocks:
                for member in range(len(weights)):
                    weights, best = self._step(weights, best, combined, block, member)
            if self._progress is not None:
                self._progress.update(1 if best > before else ROUNDS - done)
            if best == before:
                break
        return weights

    def _step(self, weights, best, combined, block, member):
        """The best share of one member in one block; `combined` is kept up to date."""
        chosen, column, kept = weights, combined[:, block].copy(), None
        for share in SHARES:
            if (weights[member, block] == share).all():
                continue
            trial = weights.copy()
            trial[:, block] = with_share(weights[:, block], member, share)
            combined[:, block] = self._combine(trial, block)
            predicted = self._decode(combined)
            found = self._score(predicted)
            if found >= best + GAIN:
                chosen, best, kept = trial, found, predicted
                column = combined[:, block].copy()
        combined[:, block] = column
        if kept is not None:
            self._keep(kept)
        return chosen, best
