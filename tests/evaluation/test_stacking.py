"""Stacking against scikit-learn's ridge, and its choice of penalty against fitting again."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge as SkRidge
from toy_tracks import KINDS, NUMBERS, SWITCHES, rows_of

from abaw_jax.evaluation import stacking
from abaw_jax.evaluation.stacking import GRID, Ridge, as_values, make_stacking, solve
from abaw_jax.tracks import EXPR


def by_hand(values, labels, track, ridge):
    """scikit-learn, on what is left to explain by the average; class by class."""
    x = np.concatenate(list(values.astype(np.float64)), axis=1)
    targets, average = track.encode(labels).astype(np.float64), values.mean(axis=0)
    columns = []
    for k, t in enumerate(targets.T):
        weight = np.ones(len(t))
        if track.label_type == "int32" and 0 < t.sum() < len(t):
            share = np.where(t == 1, t.mean(), 1 - t.mean())
            weight = (1 / (2 * share)) ** ridge.balance
        mean = np.average(x, axis=0, weights=weight)
        variance = np.average((x - mean) ** 2, axis=0, weights=weight).mean()
        model = SkRidge(alpha=ridge.penalty * weight.sum() * variance)
        model.fit(x, t - average[:, k], sample_weight=weight)
        fitted = model.predict(x) + average[:, k]
        if track.label_type != "int32":
            fitted = (
                fitted.mean() + (fitted - fitted.mean()) * (t.std() / fitted.std()) ** ridge.balance
            )
        columns.append(fitted)
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("ridge", [Ridge(1.0, 0.0), Ridge(0.01, 0.5), Ridge(0.1, 1.0)])
def test_agrees_with_scikit_learn(name, ridge):
    track = KINDS[name]
    values, labels = rows_of(track, (0.5, 0.8, 1.5))
    fold = np.arange(len(labels)) % 3
    made = make_stacking(values, labels, fold, track)
    for folds in ((0, 1, 2), (0, 2)):
        rows = np.isin(fold, folds)
        found = made.x[rows].astype(np.float64) @ solve(made.moments, folds, ridge)
        want = by_hand(values[:, rows], labels[rows], track, ridge)
        np.testing.assert_allclose(found, want, atol=1e-6)


@pytest.mark.parametrize("name", KINDS)
def test_a_heavy_penalty_gives_the_average_back(name):
    track = KINDS[name]
    values, labels = rows_of(track, (0.5, 0.8, 1.5))
    made = make_stacking(values, labels, np.zeros(len(labels), int), track)
    found = made.x @ solve(made.moments, [0], Ridge(1e9, 0.0))
    shift = found - values.mean(axis=0)
    np.testing.assert_allclose(shift, np.broadcast_to(shift[0], shift.shape), atol=1e-5)


def test_the_ridge_is_chosen_out_of_fold_and_without_what_is_held_out():
    values, labels = rows_of(SWITCHES, (0.5, 0.8, 1.5, 1.5))
    fold = np.repeat(np.arange(6), 60) % 4
    made = make_stacking(values, labels, fold, SWITCHES)
    for held_out in ((), (1,)):
        folds = [f for f in range(4) if f not in held_out]
        scores = []
        for ridge in GRID:
            parts = []
            for f in folds:
                rest = np.isin(fold, [g for g in folds if g != f])
                one = make_stacking(
                    values[:, rest], labels[rest], np.zeros(rest.sum(), int), SWITCHES
                )
                fitted = made.x[fold == f] @ solve(one.moments, [0], ridge)
                predicted = SWITCHES.decode(np.clip(fitted, 0, 1))
                parts.append(SWITCHES.statistics(predicted, labels[fold == f]))
            scores.append(SWITCHES.summary(sum(parts)).score)
        assert made.choose(held_out) == GRID[int(np.argmax(scores))]
    # What is held out may say anything.
    turned = np.where((fold == 1)[:, None], 1 - labels, labels)
    other = make_stacking(values, turned, fold, SWITCHES)
    np.testing.assert_allclose(made.fit((1,))[0], other.fit((1,))[0], atol=1e-9)


def test_members_that_say_the_same_and_classes_that_never_occur():
    values, labels = rows_of(EXPR, (1.0, 1.0))
    labels = np.where(labels == 3, 2, labels)
    values = np.concatenate([values, values[:1], np.full_like(values[:1], 0.125)])
    fold = np.repeat(np.arange(3), len(labels) // 3)
    found, _ = make_stacking(values, labels, fold, EXPR).fit()
    assert np.isfinite(found).all()
    constant = np.zeros_like(values[:2])
    found, _ = make_stacking(constant, labels, fold, EXPR).fit()
    assert np.isfinite(found).all()
    flat = np.zeros((len(values[0]), 2), np.float32)
    found, _ = make_stacking(values[:, :, :2], flat, fold, NUMBERS).fit()
    assert np.isfinite(found).all()


def test_products_in_chunks_are_those_of_the_whole(monkeypatch):
    values, labels = rows_of(SWITCHES, (0.5, 0.8))
    fold = np.arange(len(labels)) % 2
    whole = make_stacking(values, labels, fold, SWITCHES).moments
    monkeypatch.setattr(stacking, "CHUNK", 7)
    parts = make_stacking(values, labels, fold, SWITCHES).moments
    for name in ("gram", "positive", "product", "square"):
        np.testing.assert_allclose(getattr(whole, name), getattr(parts, name), rtol=1e-12)


def test_any_numbers_become_values_that_decode_alike():
    numbers = np.random.default_rng(0).normal(size=(500, 8)) * 2
    found = as_values(numbers, EXPR)
    np.testing.assert_array_equal(EXPR.decode(found), EXPR.decode(numbers))
    assert found.min() >= 0
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(as_values(np.zeros((1, 8)), EXPR), 1 / 8)
    np.testing.assert_allclose(as_values(np.full((1, 8), -3.0), EXPR), 1 / 8)
    switches = as_values(numbers[:, :3], SWITCHES)
    np.testing.assert_array_equal(SWITCHES.decode(switches), SWITCHES.decode(numbers[:, :3]))
    assert (switches.min(), switches.max()) == (0, 1)
    assert as_values(np.array([[-3.0, 0.25]]), NUMBERS).tolist() == [[-1, 0.25]]
