"""Scores from sufficient statistics that add up: exact under any batching, order and merging.

A split is scored over all its valid rows concatenated, so the statistics of its parts are summed
first and the figures are computed once, from the sum. All statistics are integers, those of real
numbers too, so that sums lose no digit. NumPy only.

Where a figure is 0 / 0 it is 0, never NaN: every figure of no rows; the F1 of a class that neither
occurs nor is predicted (it stays in the mean); Pearson's r where predictions or labels are
constant, as over a single row; the CCC where both are constant and equal.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Int, Int64


def confusion_matrix(
    predicted: np.ndarray, labels: np.ndarray, classes: int
) -> Int64[np.ndarray, "{classes} {classes}"]:
    """Counts: [true, predicted]. Both (n,), integers 0 .. classes - 1.

    Matrices of parts add up to the matrix of the whole. Raises ValueError for anything else: drop
    invalid rows first.
    """
    predicted, labels = np.asarray(predicted), np.asarray(labels)
    if predicted.shape != labels.shape or labels.ndim != 1:
        raise ValueError(f"shapes {predicted.shape} and {labels.shape}; expected (n,) for both")
    for name, values in (("predicted", predicted), ("labels", labels)):
        if values.size and not np.issubdtype(values.dtype, np.integer):
            raise ValueError(f"{name} are {values.dtype}; expected integers")
        if values.size and not (values.min() >= 0 and values.max() < classes):
            raise ValueError(f"{name} outside 0 .. {classes - 1}")
    pairs = labels.astype(np.int64) * classes + predicted.astype(np.int64)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, 0 where the whole is 0."""
    return np.divide(part, whole, out=np.zeros(len(part), np.float64), where=whole > 0)


def precision_recall_f1(
    confusion: Int[np.ndarray, "C C"],
) -> tuple[Float64[np.ndarray, " C"], Float64[np.ndarray, " C"], Float64[np.ndarray, " C"]]:
    """Of each class. 0 where the denominator is 0: a class that never occurs and is never predicted
    has an F1 of 0."""
    hits = np.diagonal(confusion)
    predicted, support = confusion.sum(axis=0), confusion.sum(axis=1)
    f1 = _ratio(2 * hits, predicted + support)
    return _ratio(hits, predicted), _ratio(hits, support), f1


def macro_f1(confusion: Int[np.ndarray, "C C"]) -> float:
    """Mean F1 over *all* classes of the matrix, absent ones included as 0.

    This is the EXPR score of ABAW-6; 0 for an empty matrix.
    """
    return float(precision_recall_f1(confusion)[2].mean())


def accuracy(confusion: Int[np.ndarray, "C C"]) -> float:
    """Share of rows predicted right; 0 where there are no rows."""
    return float(np.trace(confusion) / max(int(confusion.sum()), 1))


def classification_summary(confusion: Int[np.ndarray, "C C"]) -> dict[str, float]:
    """Figures of the whole: macro_f1, accuracy, macro_precision, macro_recall."""
    precision, recall, f1 = precision_recall_f1(confusion)
    return {
        "macro_f1": float(f1.mean()),
        "accuracy": accuracy(confusion),
        "macro_precision": float(precision.mean()),
        "macro_recall": float(recall.mean()),
    }


def class_table(
    confusion: Int[np.ndarray, "C C"], classes: Sequence[str]
) -> tuple[dict[str, Any], ...]:
    """One row per class, in order: name, precision, recall, f1, support, predicted (counts)."""
    precision, recall, f1 = precision_recall_f1(confusion)
    return tuple(
        {
            "name": name,
            "precision": float(precision[i]),
            "recall": float(recall[i]),
            "f1": float(f1[i]),
            "support": int(confusion[i].sum()),
            "predicted": int(confusion[:, i].sum()),
        }
        for i, name in enumerate(classes)
    )


def binary_counts(
    predicted: Int[np.ndarray, "n K"], labels: Int[np.ndarray, "n K"]
) -> Int64[np.ndarray, "K 2 2"]:
    """Counts of each of K units that are on (1) or off (0): [unit, true, predicted].

    Counts of parts add up to those of the whole. Raises ValueError for anything but 0 and 1.
    """
    for name, values in (("predicted", predicted), ("labels", labels)):
        if values.size and not (values.min() >= 0 and values.max() <= 1):
            raise ValueError(f"{name} hold other numbers than 0 and 1")
    both, on, said = (
        np.einsum("nk->k", values, dtype=np.int64)  # twice as fast as values.sum(axis=0)
        for values in (labels & predicted, labels, predicted)
    )
    neither = len(labels) - on - said + both
    return np.stack([neither, said - both, on - both, both], axis=1).reshape(-1, 2, 2)


def binary_precision_recall_f1(
    counts: Int[np.ndarray, "K 2 2"],
) -> tuple[Float64[np.ndarray, " K"], Float64[np.ndarray, " K"], Float64[np.ndarray, " K"]]:
    """Of the state "on" of each unit; 0 where the denominator is 0."""
    hits = counts[:, 1, 1]
    predicted, support = counts[:, :, 1].sum(axis=1), counts[:, 1, :].sum(axis=1)
    f1 = _ratio(2 * hits, predicted + support)
    return _ratio(hits, predicted), _ratio(hits, support), f1


def binary_summary(counts: Int[np.ndarray, "K 2 2"]) -> dict[str, float]:
    """Means over the units: mean_f1 (the AU score of ABAW-6), accuracy, precision and recall."""
    precision, recall, f1 = binary_precision_recall_f1(counts)
    right = np.trace(counts, axis1=1, axis2=2)
    return {
        "mean_f1": float(f1.mean()),
        "accuracy": float(_ratio(right, counts.sum(axis=(1, 2))).mean()),
        "mean_precision": float(precision.mean()),
        "mean_recall": float(recall.mean()),
    }


def binary_table(
    counts: Int[np.ndarray, "K 2 2"], units: Sequence[str]
) -> tuple[dict[str, Any], ...]:
    """One row per unit: name, precision, recall, f1; support and predicted count the state "on"."""
    precision, recall, f1 = binary_precision_recall_f1(counts)
    return tuple(
        {
            "name": name,
            "precision": float(precision[i]),
            "recall": float(recall[i]),
            "f1": float(f1[i]),
            "support": int(counts[i, 1].sum()),
            "predicted": int(counts[i, :, 1].sum()),
        }
        for i, name in enumerate(units)
    )


DIGITS, BITS = 4, 15  # a number is taken as a multiple of 2**-60: four digits of 15 bits
_CHUNK = 1 << 11  # rows at a time: what is read twice stays in the cache; sums are below 2**53


def moment_sums(
    predicted: Float[np.ndarray, "n K"], labels: Float[np.ndarray, "n K"]
) -> Int64[np.ndarray, "K 9 9"]:
    """Exact sums of K columns of numbers in [-1, 1], of their squares and products.

    Each number is rounded to a multiple of 2^-60, which leaves every float32 of 2^-37 and above as
    it is, and written in DIGITS digits of BITS bits. [k] sums over the rows, for all pairs, the
    products of (1, digits of the prediction, digits of the label): integers, which matrix products
    in float64 sum without rounding. So those of parts add up to those of the whole in any order,
    for up to 2^32 rows, and `_moments` puts them together in integers of any size.
    Raises ValueError for numbers beyond [-1, 1], NaN among them.
    """
    for name, values in (("predicted", predicted), ("labels", labels)):
        if values.size and not (values.min() >= -1 and values.max() <= 1):  # not for NaN
            raise ValueError(f"{name} hold numbers beyond -1 .. 1")
    columns, size = labels.shape[1], 1 + 2 * DIGITS
    sums = np.zeros((columns, size, size), np.int64)
    table = np.ones((size, columns, min(len(labels), _CHUNK)))
    for start in range(0, len(labels), _CHUNK):
        x, y = predicted[start : start + _CHUNK].T, labels[start : start + _CHUNK].T
        part = table[..., : y.shape[1]]
        _digits(x, part[1 : 1 + DIGITS])
        _digits(y, part[1 + DIGITS :])
        part = part.swapaxes(0, 1)
        sums += (part @ part.swapaxes(1, 2)).astype(np.int64)
    return sums


def _digits(values: np.ndarray, out: np.ndarray) -> None:
    """Numbers (...) -> digits float64 (DIGITS, ...), lowest first; the highest has the sign."""
    whole = np.rint(values.astype(np.float64) * 2.0 ** (BITS * DIGITS)).astype(np.int64)
    for digit in out[:-1]:
        np.bitwise_and(whole, (1 << BITS) - 1, out=digit)
        whole >>= BITS
    out[-1] = whole


def _moments(sums: np.ndarray) -> tuple[int, int, int, int, int, int]:
    """n, n mean(x), n mean(y), n^2 var(x), n^2 var(y), n^2 cov(x, y) of one column (9, 9).

    x predicted, y labels. All exact: means in units of 2^-60, the rest in units of 2^-120.
    """
    places = np.zeros((3, 1 + 2 * DIGITS), object)
    places[0, 0] = 1
    places[1, 1 : 1 + DIGITS] = places[2, 1 + DIGITS :] = [1 << BITS * j for j in range(DIGITS)]
    (n, x, y), (_, xx, xy), (_, _, yy) = (places @ sums.astype(object) @ places.T).tolist()
    return n, x, y, n * xx - x * x, n * yy - y * y, n * xy - x * y


def _divide(part: int, whole: int) -> float:
    """part / whole of integers of any size, correctly rounded; 0 where the whole is 0."""
    return part / whole if whole else 0.0


def ccc(sums: Int[np.ndarray, "K 9 9"]) -> Float64[np.ndarray, " K"]:
    """Concordance of each column (Lin 1989) from `moment_sums`, with population statistics.

    2 cov(x, y) / (var x + var y + (mean x - mean y)^2); 0 where either is constant, and so for a
    single row.
    """
    return np.array([_ccc(*_moments(column)) for column in sums], np.float64)


def _ccc(n: int, x: int, y: int, var_x: int, var_y: int, cov: int) -> float:
    return _divide(2 * cov, var_x + var_y + (x - y) ** 2)


def pearson(sums: Int[np.ndarray, "K 9 9"]) -> Float64[np.ndarray, " K"]:
    """Pearson's r of each column from `moment_sums`; 0 where either is constant."""
    return np.array([_pearson(*_moments(column)) for column in sums], np.float64)


def _pearson(n: int, x: int, y: int, var_x: int, var_y: int, cov: int) -> float:
    # The square is the quotient of two integers, so that |r| cannot exceed 1.
    return math.copysign(math.sqrt(_divide(cov * cov, var_x * var_y)), cov)


def value_table(sums: Int[np.ndarray, "K 9 9"], names: Sequence[str]) -> tuple[dict[str, Any], ...]:
    """One row per column: name, ccc, pearson, rmse, mean and std of labels and of predictions."""
    unit = 1 << BITS * DIGITS
    rows = []
    for name, moments in zip(names, map(_moments, sums), strict=True):
        n, x, y, var_x, var_y, cov = moments
        square = _divide(var_x + var_y - 2 * cov + (x - y) ** 2, (n * unit) ** 2)
        row = {"name": name, "ccc": _ccc(*moments), "pearson": _pearson(*moments)}
        row["rmse"] = math.sqrt(square)
        for what, total, spread in (("label", y, var_y), ("predicted", x, var_x)):
            row[f"{what}_mean"] = _divide(total, n * unit)
            row[f"{what}_std"] = math.sqrt(_divide(spread, (n * unit) ** 2))
        rows.append(row)
    return tuple(rows)


def value_summary(table: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Means over the rows of `value_table`: mean_ccc (the VA score of ABAW-6), mean_pearson
    (EMI's), mean_rmse."""
    means = {key: float(np.mean([row[key] for row in table])) for key in ("ccc", "pearson", "rmse")}
    return {f"mean_{key}": mean for key, mean in means.items()}
