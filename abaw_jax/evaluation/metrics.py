"""Scores from sufficient statistics that add up: exact under any batching, order and merging.

A split is scored over all its valid rows concatenated, so the statistics of its parts are summed
first and the figures are computed once, from the sum. NumPy only.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64, Int, Int64


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
