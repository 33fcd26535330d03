"""Thresholds reach the best F1 there is, the same way every time."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from abaw_jax.evaluation.thresholds import (
    centre_values,
    count_levels,
    reachable_f1,
    search_thresholds,
    with_thresholds,
)
from abaw_jax.tracks import AU, EXPR


def search(values, labels, default=0.5):
    """Of one class."""
    values, labels = np.array(values, np.float32)[:, None], np.array(labels)[:, None]
    return search_thresholds(values, labels, default)[0]


def best_f1(values, labels):
    """By trying every cut, with scikit-learn's F1."""
    cuts = [*np.unique(values), np.inf]
    return max(f1_score(labels, values >= cut, zero_division=0) for cut in cuts)


@pytest.mark.parametrize("digits", [1, 2, 7])  # few digits: many equal values
def test_no_cut_is_better(digits):
    rng = np.random.default_rng(digits)
    labels = (rng.random((100, 12)) < rng.random(12)).astype(np.int32)
    values = (0.3 * labels + 0.7 * rng.random((100, 12))).round(digits).astype(np.float32)
    found = search_thresholds(values, labels, 0.5)
    assert found.shape == (12,) and ((found > 0) & (found <= 1)).all()
    decided = AU.decode(values, found)
    for k in range(12):
        reached = f1_score(labels[:, k], decided[:, k])
        assert reached == pytest.approx(best_f1(values[:, k], labels[:, k]), abs=1e-12)


def test_counted_levels_tell_what_thresholds_reach():
    """Of values that half precision holds; of others by no more than cuts between close ones."""
    rng = np.random.default_rng(4)
    labels = (rng.random((300, 12)) < rng.random(12)).astype(np.int32)
    values = (0.3 * labels + 0.7 * rng.random((300, 12))).astype(np.float16).astype(np.float32)
    values[:3, 0] = [0, -0.0, 1]
    values[:, 1] *= 1e-3  # a rare unit: all values are low
    values[:, 1] = values[:, 1].astype(np.float16)
    found = AU.decode(values, search_thresholds(values, labels, 0.5))
    expected = AU.summary(AU.evaluate(found, labels)).score
    parts = [count_levels(values[at], labels[at]) for at in (slice(100), slice(100, None))]
    assert reachable_f1(sum(parts)) == pytest.approx(expected, abs=1e-12)
    close = np.clip(values * (1 + 2e-4), 0, 1)
    assert reachable_f1(count_levels(close, labels)) == pytest.approx(expected, abs=0.01)
    labels[:, 0] = 0
    assert reachable_f1(count_levels(values[:, :1], labels[:, :1])) == 0


def test_the_order_of_rows_changes_nothing():
    rng = np.random.default_rng(0)
    values, labels = rng.random((200, 12)).astype(np.float32), rng.integers(0, 2, (200, 12))
    order = rng.permutation(200)
    found = search_thresholds(values, labels, 0.5)
    np.testing.assert_array_equal(found, search_thresholds(values[order], labels[order], 0.5))


def test_a_threshold_lies_between_the_values_it_parts():
    assert search([0.25, 0.125, 0.375, 0.875], [0, 0, 1, 1]) == 0.3125
    # Neighbours in float32: their middle is still between them where rows are decided.
    low = np.float32(0.25)
    high = np.nextafter(low, np.float32(1))
    found = search([low, high], [0, 1])
    decided = AU.decode(np.repeat([[low], [high]], 12, axis=1), (found,) * 12)
    assert decided.tolist() == [[0] * 12, [1] * 12]


def test_all_rows_on_is_a_cut_too():
    assert search([0.125, 0.25, 0.375], [1, 1, 1]) == 0.125


def test_the_default_stays_where_nothing_is_better():
    assert search([0.1, 0.2, 0.7, 0.9], [0, 0, 1, 1]) == 0.5  # as good as any
    assert search([0.1, 0.9], [0, 0]) == 0.5  # the class never occurs
    assert search_thresholds(np.zeros((0, 2), np.float32), np.zeros((0, 2), int), 0.4).tolist() == [
        0.4,
        0.4,
    ]


def test_of_equal_cuts_the_nearest_to_the_default_then_the_lower():
    # F1 is 2/3 with the last row alone, and with the last four: 0.9375 and 0.3125.
    values, labels = [0.25, 0.375, 0.5, 0.875, 1.0], [0, 1, 0, 0, 1]
    assert best_f1(np.array(values), np.array(labels)) == pytest.approx(2 / 3)
    assert search(values, labels, default=0.75) == 0.9375
    assert search(values, labels, default=0.5625) == 0.3125
    assert search(values, labels, default=0.625) == 0.3125  # both are as near


def test_a_track_with_thresholds_decides_by_them_everywhere():
    values = np.full((1, 12), 0.3, np.float32)
    limits = [0.2] * 6 + [0.4] * 6
    track = with_thresholds(AU, limits)
    assert track.decode(values).tolist() == [[1] * 6 + [0] * 6]
    assert track.thresholds == tuple(limits)
    assert AU.decode(values).tolist() == [[0] * 12]
    assert with_thresholds(EXPR, None) is EXPR


def test_centred_values_are_decided_as_before_and_keep_their_order():
    rng = np.random.default_rng(0)
    values = rng.random((500, 4)).astype(np.float32)
    limits = np.array([0.1, 0.9, float(values[:, 2].min()), 1.5])
    # Two that differ in the last bit, on both sides of a threshold between them.
    values[:2, 0] = np.float32(0.3), np.nextafter(np.float32(0.3), np.float32(1))
    limits[0] = values[:2, 0].astype(np.float64).mean()
    moved = centre_values(values, limits, 0.5)
    np.testing.assert_array_equal(moved >= 0.5, values >= limits)
    assert moved.dtype == np.float32 and (moved >= 0).all() and (moved <= 1).all()
    for k in range(4):
        order = np.argsort(values[:, k], kind="stable")
        assert (np.diff(moved[order, k]) >= 0).all()
    np.testing.assert_allclose(centre_values(values, [0.5] * 4, 0.5), values, atol=1e-7)
