"""Stacking: a ridge regression of the labels on all members' outputs, pulled towards their mean.

Every sum over frames that the regression needs adds up (`Moments`), so they are formed once for
each fold, and any number of folds, penalties and weightings is then fitted without another look at
the frames. The penalty lies on the distance from the plain average, not from zero: a large one
gives the average back, plus a free constant per output.

Shapes: M members, L labelled rows, K outputs, P = M * K + 1 coefficients (the last is constant).
"""

import dataclasses
import itertools
from collections.abc import Collection

import numpy as np

from abaw_jax.errors import InputError
from abaw_jax.tracks.track import Track

PENALTIES = (100.0, 10.0, 1.0, 0.1, 0.01, 0.001)
BALANCES = (0.0, 0.5, 1.0)
CHUNK = 16384  # rows whose products are formed at once


@dataclasses.dataclass(frozen=True)
class Ridge:
    """What is chosen out of fold.

    penalty: of the squared distance from the average, in units of the inputs' mean variance times
    the rows. balance: 0 .. 1. Of classes: rows of label 1 and rows of label 0 are weighted by
    (their inverse share) ** balance, for each class on its own. Of numbers: the fit's spread is
    scaled by (the labels' spread / its own) ** balance.
    """

    penalty: float
    balance: float


# The most careful first, as of equals the first is taken.
GRID = tuple(itertools.starmap(Ridge, itertools.product(PENALTIES, BALANCES)))


def is_choice(track: Track) -> bool:
    """Whether a row is one of K classes, its values a distribution over them."""
    return track.label_type == "int32" and track.label_width < track.outputs


def as_values(numbers: np.ndarray, track: Track) -> np.ndarray:
    """Any finite numbers (n, K) as values of the track that decode to what they did: float32.

    One class of several: shifted to be no less than 0, if they are, and divided by their sum.
    Otherwise cut to the range of probabilities or of labels.
    """
    if not is_choice(track):
        low, high = (0, 1) if track.label_type == "int32" else track.label_range
        return np.clip(numbers, low, high).astype(np.float32)
    shifted = numbers - np.minimum(numbers.min(axis=1, keepdims=True), 0)
    total = shifted.sum(axis=1, keepdims=True)
    even = np.full_like(shifted, 1 / track.outputs)
    return np.divide(shifted, total, out=even, where=total > 0).astype(np.float32)


def inputs(values: np.ndarray) -> np.ndarray:
    """Members' values (M, L, K) as rows of the regression: float32 (L, P)."""
    members, rows, outputs = values.shape
    found = np.ones((rows, members * outputs + 1), np.float32)
    for m in range(members):
        found[:, m * outputs : (m + 1) * outputs] = values[m]
    return found


@dataclasses.dataclass(frozen=True, eq=False)
class Moments:
    """Sums over the rows of each of F folds, float64; targets t are the labels as values (L, K).

    gram: (F, P, P), sum of x x'. positive: (F, K, P, P), the same over rows whose target k is 1;
    of numbers None. product: (F, P, K), sum of x t. square: (F, K), sum of t t.
    """

    gram: np.ndarray
    positive: np.ndarray | None
    product: np.ndarray
    square: np.ndarray


def gather(x: np.ndarray, targets: np.ndarray, fold: np.ndarray, track: Track) -> Moments:
    """Moments of rows x (L, P) with targets (L, K), fold by fold: fold int (L,), 0 .. F - 1."""
    folds, size, outputs = int(fold.max()) + 1, x.shape[1], targets.shape[1]
    gram = np.zeros((folds, size, size))
    positive = None
    if track.label_type == "int32":
        positive = np.zeros((folds, outputs, size, size))
    product, square = np.zeros((folds, size, outputs)), np.zeros((folds, outputs))
    for f in range(folds):
        mine = np.flatnonzero(fold == f)
        for start in range(0, len(mine), CHUNK):
            rows = mine[start : start + CHUNK]
            part, t = x[rows].astype(np.float64), targets[rows].astype(np.float64)
            gram[f] += part.T @ part
            product[f] += part.T @ t
            square[f] += (t * t).sum(axis=0)
            for k in range(outputs if positive is not None else 0):
                chosen = part[t[:, k] == 1]
                positive[f, k] += chosen.T @ chosen
    return Moments(gram, positive, product, square)


def solve(moments: Moments, folds: Collection[int], ridge: Ridge) -> np.ndarray:
    """Coefficients (P, K) fitted on the rows of these folds.

    For each output: w = w0 + (G + D)^-1 (b - G w0), with G and b the weighted gram and product, w0
    the average of the members, and D the penalty on all but the constant.
    """
    folds = sorted(folds)
    gram, product = moments.gram[folds].sum(axis=0), moments.product[folds].sum(axis=0)
    square = moments.square[folds].sum(axis=0)
    size, outputs = product.shape
    rows, members = gram[-1, -1], (size - 1) // outputs
    found = np.zeros((size, outputs))
    for k in range(outputs):
        g, b = gram, product[:, k]
        if moments.positive is not None:
            ones = moments.positive[folds, k].sum(axis=0)
            count = ones[-1, -1]
            # A class that never or always occurs here leaves nothing to balance.
            weigh = 0 < count < rows
            heavy = (rows / (2 * count)) ** ridge.balance if weigh else 1.0
            light = (rows / (2 * (rows - count))) ** ridge.balance if weigh else 1.0
            g, b = light * gram + (heavy - light) * ones, heavy * b
        mean = g[:-1, -1] / g[-1, -1]
        variance = np.diagonal(g)[:-1] / g[-1, -1] - mean**2
        # The floor keeps members that say the same everywhere from a singular matrix.
        weight = ridge.penalty * g[-1, -1] * max(float(variance.mean()), 1e-12)
        start = np.zeros(size)
        start[k:-1:outputs] = 1 / members
        diagonal = np.append(np.full(size - 1, weight), 0.0)
        w = start + np.linalg.solve(g + np.diag(diagonal), b - g @ start)
        if moments.positive is None:
            w = _spread(w, gram, product[-1, k], square[k], ridge.balance)
        found[:, k] = w
    return found


def _spread(
    w: np.ndarray, gram: np.ndarray, total: float, square: float, balance: float
) -> np.ndarray:
    """Scale a fit about its mean so that its standard deviation nears the labels'.

    CCC asks for equal spreads; a regression's is smaller by the correlation.
    """
    rows = gram[-1, -1]
    mean = gram[-1] @ w / rows
    variance = w @ gram @ w / rows - mean**2
    wanted = square / rows - (total / rows) ** 2
    if variance <= 1e-12 or wanted <= 0:
        return w
    scale = (wanted / variance) ** (balance / 2)
    scaled = scale * w
    scaled[-1] += (1 - scale) * mean
    return scaled


def predict(x: np.ndarray, coefficients: np.ndarray, track: Track) -> np.ndarray:
    """Values float32 (L, K) of rows x (L, P)."""
    return as_values(x @ coefficients.astype(np.float32), track)


@dataclasses.dataclass(frozen=True, eq=False)
class Stacking:
    """Everything a choice of ridge out of fold needs. labels: (L, W), all valid."""

    track: Track
    x: np.ndarray
    labels: np.ndarray
    fold: np.ndarray
    moments: Moments

    def choose(self, held_out: Collection[int] = ()) -> Ridge:
        """The ridge that scores best when each fold in turn is predicted from the others.

        held_out: folds that take no part at all, because they are scored later. Raises InputError
        where fewer than two folds remain.
        """
        folds = [f for f in range(len(self.moments.gram)) if f not in held_out]
        if len(folds) < 2:
            raise InputError(
                f"stacking with {len(self.moments.gram)} folds leaves {len(folds)} to choose its "
                "penalty on; give 3 folds at least"
            )
        sums: list = [0] * len(GRID)
        for f in folds:
            rows = np.flatnonzero(self.fold == f)
            x, labels = self.x[rows], self.labels[rows]
            others = [other for other in folds if other != f]
            for i, ridge in enumerate(GRID):
                values = predict(x, solve(self.moments, others, ridge), self.track)
                sums[i] = sums[i] + self.track.statistics(self.track.decode(values), labels)
        scores = [self.track.summary(total).score for total in sums]
        return GRID[int(np.argmax(scores))]

    def fit(self, held_out: Collection[int] = ()) -> tuple[np.ndarray, Ridge]:
        """Coefficients (P, K) from all folds but those held out, with the ridge chosen there."""
        ridge = self.choose(held_out)
        folds = [f for f in range(len(self.moments.gram)) if f not in held_out]
        return solve(self.moments, folds, ridge), ridge


def make_stacking(
    values: np.ndarray, labels: np.ndarray, fold: np.ndarray, track: Track
) -> Stacking:
    """From members' values (M, L, K), valid labels (L, W) and each row's fold (L,)."""
    x = inputs(values)
    return Stacking(track, x, labels, fold, gather(x, track.encode(labels), fold, track))
