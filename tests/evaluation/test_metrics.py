"""Metrics against scikit-learn, and their invariance to batching, order and merging."""

import numpy as np
import pytest
from sklearn import metrics as sk

from abaw_jax.evaluation import metrics

NAMES = [f"c{i}" for i in range(8)]


def draw(seed, n=2000, classes=8):
    rng = np.random.default_rng(seed)
    share = rng.dirichlet(np.ones(classes))
    labels = rng.choice(classes, size=n, p=share)
    predicted = np.where(rng.random(n) < 0.6, labels, rng.integers(0, classes, n))
    return predicted, labels


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_scikit_learn(seed):
    predicted, labels = draw(seed)
    confusion = metrics.confusion_matrix(predicted, labels, 8)
    np.testing.assert_array_equal(confusion, sk.confusion_matrix(labels, predicted))
    want = sk.precision_recall_fscore_support(labels, predicted, labels=range(8), zero_division=0.0)
    table = metrics.class_table(confusion, NAMES)
    for key, figures in zip(("precision", "recall", "f1", "support"), want, strict=True):
        np.testing.assert_allclose([row[key] for row in table], figures, rtol=0, atol=1e-12)
    summary = metrics.classification_summary(confusion)
    for key, figures in zip(("macro_precision", "macro_recall", "macro_f1"), want, strict=False):
        assert summary[key] == pytest.approx(np.mean(figures), abs=1e-12)
    assert summary["accuracy"] == pytest.approx(sk.accuracy_score(labels, predicted), abs=1e-12)
    assert metrics.macro_f1(confusion) == summary["macro_f1"]
    assert [row["predicted"] for row in table] == np.bincount(predicted, minlength=8).tolist()


def test_absent_class_counts_as_zero_in_the_mean():
    labels = np.array([0, 1, 2, 0, 1, 2])
    confusion = metrics.confusion_matrix(labels, labels, 8)
    assert metrics.macro_f1(confusion) == 3 / 8
    assert metrics.accuracy(confusion) == 1
    # Predicted but never true, and true but never predicted, are 0 too.
    confusion = metrics.confusion_matrix(np.array([0, 5]), np.array([0, 4]), 8)
    assert metrics.macro_f1(confusion) == 1 / 8


def test_empty_matrix_scores_zero_without_warning():
    confusion = metrics.confusion_matrix(np.zeros(0, int), np.zeros(0, int), 8)
    assert set(metrics.classification_summary(confusion).values()) == {0.0}
    assert confusion.shape == (8, 8) and confusion.sum() == 0


@pytest.mark.parametrize("seed", range(5))
def test_exact_under_any_batching_order_and_merging(seed):
    predicted, labels = draw(seed)
    whole = metrics.confusion_matrix(predicted, labels, 8)
    rng = np.random.default_rng(100 + seed)
    order = rng.permutation(len(labels))
    cuts = np.sort(rng.integers(0, len(labels), rng.integers(1, 40)))
    parts = [metrics.confusion_matrix(predicted[i], labels[i], 8) for i in np.split(order, cuts)]
    rng.shuffle(parts)
    np.testing.assert_array_equal(sum(parts), whole)
    tree = [sum(parts[: len(parts) // 2], np.zeros((8, 8), int)), sum(parts[len(parts) // 2 :])]
    assert metrics.classification_summary(sum(tree)) == metrics.classification_summary(whole)


@pytest.mark.parametrize(
    "predicted, labels",
    [([0, -1], [0, 0]), ([0, 0], [0, 8]), ([0.0, 1.0], [0, 1]), ([0], [0, 1]), ([[0]], [[0]])],
)
def test_refuses_what_is_no_class(predicted, labels):
    with pytest.raises(ValueError):
        metrics.confusion_matrix(np.array(predicted), np.array(labels), 8)
