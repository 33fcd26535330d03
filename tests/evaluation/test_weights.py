"""The search for weights: on the simplex, never worse than what it starts from, near the best."""

import itertools

import numpy as np
import pytest
from toy_tracks import KINDS, NUMBERS, SWITCHES, rows_of

from abaw_jax.errors import InputError
from abaw_jax.evaluation import weights as module
from abaw_jax.evaluation.weights import Trust, Weighting, combine, with_share
from abaw_jax.tracks import EMI


def score(track, values, labels, weights):
    """As the search judges weights."""
    combined = combine(values, weights)
    predicted = module.decode(combined, module.match(combined, labels, track), track)
    return track.summary(track.statistics(predicted, labels)).score


def search_weights(*args, **options):
    """Weights of each class its own."""
    return module.search_weights(*args, **options)[1]


def test_combine_is_a_weighted_sum():
    rng = np.random.default_rng(0)
    values = rng.random((3, 50, 4), dtype=np.float32)
    weights = rng.dirichlet(np.ones(3), 4).T
    want = np.einsum("mnk,mk->nk", values, weights)
    np.testing.assert_allclose(combine(values, weights), want, rtol=1e-5)


@pytest.mark.parametrize("share", module.SHARES)
def test_with_share_stays_on_the_simplex(share):
    weights = np.array([[0.2, 1.0], [0.3, 0.0], [0.5, 0.0]])
    found = with_share(weights, 0, share)
    np.testing.assert_allclose(found.sum(axis=0), 1, rtol=1e-12)
    np.testing.assert_array_equal(found[0], share)
    np.testing.assert_allclose(found[1:, 0], np.array([0.375, 0.625]) * (1 - share), rtol=1e-12)
    np.testing.assert_allclose(found[1:, 1], (1 - share) / 2, rtol=1e-12)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("seed", range(2))
def test_never_below_the_average_or_a_member_and_on_the_simplex(name, seed):
    track = KINDS[name]
    values, labels = rows_of(track, (0.5, 1.0, 3.0, 3.0), seed)
    found = search_weights(values, labels, track)
    assert found.shape == (4, track.outputs) and (found >= 0).all()
    np.testing.assert_allclose(found.sum(axis=0), 1, rtol=1e-9)
    even = np.full_like(found, 0.25)
    alone = [np.repeat(row[:, None], track.outputs, axis=1) for row in np.eye(4)]
    best = max(score(track, values, labels, w) for w in (even, *alone))
    assert score(track, values, labels, found) >= best
    np.testing.assert_array_equal(found, search_weights(values, labels, track))


@pytest.mark.parametrize("name", ["NUMBERS", "SWITCHES"])
def test_near_the_best_of_a_full_grid(name):
    """These tracks score each class by itself, so that a grid over the simplex is feasible."""
    track = {"NUMBERS": NUMBERS, "SWITCHES": SWITCHES}[name]
    values, labels = rows_of(track, (0.5, 0.7, 1.0), videos=10)
    found = score(track, values, labels, search_weights(values, labels, track))
    grid = [
        np.array([a, b, 20 - a - b]) / 20
        for a, b in itertools.product(range(21), repeat=2)
        if a + b <= 20
    ]
    even = np.full((3, track.outputs), 1 / 3)
    best = []
    for k in range(track.outputs):
        trials = []
        for point in grid:
            trial = even.copy()
            trial[:, k] = point
            trials.append(score(track, values, labels, trial))
        best.append(max(trials) - score(track, values, labels, even))
    start = score(track, values, labels, even)
    highest = start + sum(best)
    assert start < found <= highest + 0.01
    assert found - start > 0.8 * (highest - start)


def test_useless_members_get_little_and_good_ones_differ_by_class():
    values, labels = rows_of(NUMBERS, (0.2, 0.2, 5.0), videos=10)
    rng = np.random.default_rng(1)
    # The first knows valence alone, the second arousal alone.
    values[0, :, 1] = rng.uniform(-1, 1, len(labels))
    values[1, :, 0] = rng.uniform(-1, 1, len(labels))
    found = search_weights(values, labels, NUMBERS)
    assert found[0, 0] > 0.7 and found[1, 1] > 0.7 and (found[2] <= 0.1).all()


@pytest.mark.parametrize("name", KINDS)
def test_counting_only_what_changed_gives_the_same_scores(name):
    track = KINDS[name]
    values, labels = rows_of(track, (0.5, 1.0, 2.0))
    ascent = module._Ascent(values, labels, track, None)
    rng = np.random.default_rng(0)
    base = rng.dirichlet(np.ones(3), track.outputs).T
    ascent.score(base)
    for size in (0.0, 0.01, 0.1, 1.0):
        other = (1 - size) * base + size * rng.dirichlet(np.ones(3), track.outputs).T
        predicted = ascent._decode(combine(values, other))
        assert ascent._score(predicted) == pytest.approx(
            score(track, values, labels, other), abs=1e-12
        )


def test_on_thinned_rows_it_finds_nearly_the_same():
    values, labels = rows_of(SWITCHES, (0.5, 0.8, 3.0), videos=40)
    whole = score(SWITCHES, values, labels, search_weights(values, labels, SWITCHES))
    thin = score(SWITCHES, values, labels, search_weights(values, labels, SWITCHES, rows=400))
    average = score(SWITCHES, values, labels, np.full((3, 3), 1 / 3))
    assert average < thin <= whole + 0.01 and thin > whole - 0.02


def test_trust_is_what_serves_best_out_of_fold():
    """The choice and the weights by their definitions, one fold held out."""
    values, labels = rows_of(NUMBERS, (0.3, 0.9, 3.0), videos=8)
    fold = np.arange(len(labels)) * 4 // len(labels)
    weighting = Weighting(values, labels, fold, NUMBERS)
    found, trust = weighting.fit((1,))
    sums = dict.fromkeys(module.trusts(NUMBERS), 0)
    assert {choice.spread for choice in sums} == {0, 1} and len(sums) == 18
    for mine in (0, 2, 3):
        rest = np.isin(fold, [f for f in (0, 2, 3) if f != mine])
        both = module.search_weights(values[:, rest], labels[rest], NUMBERS)
        for choice in sums:
            weights = choice.trust * both[choice.per_class] + (1 - choice.trust) / 3
            seen = combine(values[:, rest], weights)
            scale = labels[rest].std(axis=0) / seen.std(axis=0) if choice.spread else 1
            combined = combine(values[:, fold == mine], weights)
            predicted = NUMBERS.decode(scale * combined + (1 - scale) * seen.mean(axis=0))
            sums[choice] = sums[choice] + NUMBERS.statistics(predicted, labels[fold == mine])
    assert trust == max(sums, key=lambda choice: NUMBERS.summary(sums[choice]).score)
    assert trust.trust > 0
    both = module.search_weights(values[:, fold != 1], labels[fold != 1], NUMBERS)
    want = trust.trust * both[trust.per_class] + (1 - trust.trust) / 3
    np.testing.assert_allclose(found, want, rtol=1e-12)


def test_sums_of_numbers_get_the_spread_of_the_labels():
    """Members that keep near their mean, as those that are unsure do."""
    values, labels = rows_of(NUMBERS, (0.4, 0.4, 0.4), videos=20)
    values = values * np.float32(0.4)
    fold = np.arange(len(labels)) * 4 // len(labels)
    weighting = Weighting(values, labels, fold, NUMBERS)
    weights, trust = weighting.fit()
    assert trust.spread
    combined, matching = combine(values, weights), weighting.match(weights, trust)
    matched = module.decode(combined, matching, NUMBERS)
    scale, shift = np.array(matching.scale), np.array(matching.shift)
    np.testing.assert_allclose(scale * combined.std(axis=0), labels.std(axis=0), rtol=1e-4)
    np.testing.assert_allclose(scale * combined.mean(0) + shift, combined.mean(0), atol=1e-6)
    assert not np.allclose(scale, 1, atol=0.02)

    def of(predicted):
        return NUMBERS.summary(NUMBERS.statistics(predicted, labels)).score

    assert of(matched) > of(NUMBERS.decode(combined))
    held_out = weighting.match(weights, trust, (0,))
    again = module.match(combined[fold != 0], labels[fold != 0], NUMBERS)
    assert held_out == again != matching
    assert weighting.match(weights, Trust(0, 1.0)) is None
    assert module.match(*rows_of(SWITCHES, (0.4,), videos=2), SWITCHES) is None
    # To the correlation, which judges EMI, no spread is better than another.
    assert module.match(combined, labels, EMI) is None
    assert not any(choice.spread for choice in module.trusts(EMI))


def test_a_spread_that_does_not_serve_is_left():
    """Wide members that lie far off: the CCC of these is better than with the labels' spread."""
    values, labels = rows_of(NUMBERS, (0.1, 0.1), videos=20)
    labels = labels * 0.2
    values = values * 0.4 + 0.4
    weighting = Weighting(values, labels, np.arange(len(labels)) * 4 // len(labels), NUMBERS)
    weights, trust = weighting.fit()
    assert trust.spread == 0

    def of(combined):
        return NUMBERS.summary(NUMBERS.statistics(NUMBERS.decode(combined), labels)).score

    combined = combine(values, weights)
    matching = module.match(combined, labels, NUMBERS)
    assert of(combined) > of(matching(combined, NUMBERS.label_range))


def test_members_alike_are_averaged_and_searches_are_shared(monkeypatch):
    values, labels = rows_of(SWITCHES, (1.0, 1.0, 1.0), videos=6)
    # Copies of one member: whatever weights are found, they bring nothing.
    values[:] = values[0]
    counted, real = [], module.search_weights

    def search(*arguments, **options):
        counted.append(arguments)
        return real(*arguments, **options)

    monkeypatch.setattr(module, "search_weights", search)
    weighting = Weighting(values, labels, np.arange(len(labels)) * 5 // len(labels), SWITCHES)
    for held_out in ((), *((f,) for f in range(5))):
        found, trust = weighting.fit(held_out)
        assert trust == Trust(0, 0.0)
        np.testing.assert_allclose(found, 1 / 3)
    # Of all rows, without each of 5 folds and without each of 10 pairs. Those of no trust at all
    # need no search, but were looked at.
    assert len(counted) == weighting.searches() == 1 + 5 + 10
    with pytest.raises(InputError, match="weights with 2 folds leave 1 to choose"):
        Weighting(values, labels, np.arange(len(labels)) % 2, SWITCHES).fit((0,))
