"""What is done to predictions is chosen as it says, and its second score is out of fold."""

import json

import numpy as np
import pytest

from abaw_jax.errors import InputError
from abaw_jax.evaluation.decision import Decision, tune_decision
from abaw_jax.evaluation.folds import make_folds
from abaw_jax.evaluation.matching import Matching, fit_matching
from abaw_jax.evaluation.predictions import Prediction
from abaw_jax.evaluation.smoothing import Smoothing, search_smoothing, smooth_prediction
from abaw_jax.evaluation.thresholds import search_thresholds
from abaw_jax.tracks import AU, EXPR, VA

CANDIDATES = (Smoothing(), Smoothing("box", 5), Smoothing("gaussian", 2.0))
ROWS = 60


def make_predictions(values):
    frames = np.arange(1, ROWS + 1, dtype=np.int32)
    return {video: Prediction(frames, v.astype(np.float32)) for video, v in values.items()}


@pytest.fixture
def units():
    """(predictions, labels) of AU: the second half of the units is 0.4 too low."""
    rng = np.random.default_rng(0)
    labels, values = {}, {}
    for v in range(8):
        on = np.repeat(rng.random((ROWS // 5, 12)) < 0.4, 5, axis=0)
        labels[f"v{v}"] = np.where(rng.random((ROWS, 1)) < 0.1, -1, on).astype(np.int32)
        level = 0.3 + 0.4 * on + 0.15 * rng.normal(size=on.shape)
        values[f"v{v}"] = np.clip(level - 0.25 * (np.arange(12) > 5), 0, 1)
    return make_predictions(values), labels


@pytest.fixture
def numbers():
    """(predictions, labels) of VA: half as wide as the labels, and shifted."""
    rng = np.random.default_rng(1)
    labels, values = {}, {}
    for v in range(8):
        path = np.cumsum(0.1 * rng.normal(size=(ROWS, 2)), axis=0).clip(-1, 1)
        labels[f"v{v}"] = path.astype(np.float32)
        labels[f"v{v}"][rng.random(ROWS) < 0.1, v % 2] = -5
        values[f"v{v}"] = 0.4 * path + 0.2 + 0.05 * rng.normal(size=path.shape)
    return make_predictions(values), labels


def folds_of(labels, track=AU, folds=4):
    return make_folds({v: int(track.valid(rows).sum()) for v, rows in labels.items()}, folds)


def score(predictions, labels, track, decision):
    """By hand."""
    parts = []
    for video, rows in labels.items():
        values = decision.apply(predictions[video], len(rows), track).values
        limits = () if decision.thresholds is None else (decision.thresholds,)
        parts.append(track.evaluate(track.decode(values, *limits), rows))
    return track.summary(sum(parts)).score


def test_smoothing_is_that_of_the_search(units):
    predictions, labels = units
    tuned = tune_decision(predictions, labels, AU, CANDIDATES)
    search = search_smoothing(predictions, labels, AU, CANDIDATES)
    assert tuned.decision == Decision(search.best)
    assert tuned.table == search.table
    assert tuned.scores == {"plain": search.table[0]["mean_f1"], "smoothed": search.score}
    assert tuned.summary.score == search.score and tuned.cross_validated is None


def test_thresholds_of_the_smoothed_values(units):
    predictions, labels = units
    tuned = tune_decision(
        predictions, labels, AU, CANDIDATES, thresholds=True, folds=folds_of(labels)
    )
    best = tuned.decision.smoothing
    smooth = [smooth_prediction(predictions[v], ROWS, best).values for v in labels]
    rows = np.concatenate(list(labels.values()))
    keep = AU.valid(rows)
    expected = search_thresholds(np.concatenate(smooth)[keep], rows[keep], 0.5)
    assert tuned.decision.thresholds == tuple(expected)
    assert max(tuned.decision.thresholds[6:]) < min(tuned.decision.thresholds[:6])
    assert list(tuned.scores) == ["plain", "smoothed", "thresholds"]
    assert tuned.scores["thresholds"] == tuned.summary.score
    assert tuned.summary.score == score(predictions, labels, AU, tuned.decision)
    assert tuned.scores["smoothed"] + 0.1 < tuned.cross_validated.score
    assert tuned.cross_validated.score < tuned.summary.score


def test_smoothings_are_compared_at_the_thresholds_that_suit_each(units):
    """Units that are on reach 0.5 by noise alone: smoothed, none does."""
    predictions, labels = units
    low = {v: np.clip(p.values[:, :6].repeat(2, 1) - 0.3, 0, 1) for v, p in predictions.items()}
    predictions, folds = make_predictions(low), folds_of(labels)
    labels = {v: rows[:, :6].repeat(2, 1) for v, rows in labels.items()}
    search = search_smoothing(predictions, labels, AU, CANDIDATES)
    tuned = tune_decision(predictions, labels, AU, CANDIDATES, thresholds=True, folds=folds)
    one_each = [
        tune_decision(predictions, labels, AU, [c], thresholds=True, folds=folds)
        for c in CANDIDATES
    ]
    assert search.best == CANDIDATES[0] != tuned.decision.smoothing
    assert tuned.summary.score == max(one.summary.score for one in one_each)
    assert tuned.scores["smoothed"] < tuned.scores["plain"] < one_each[0].summary.score
    assert tuned.cross_validated.score > one_each[0].cross_validated.score + 0.05
    for row, tried, one in zip(tuned.table, search.table, one_each, strict=True):
        assert row["mean_f1"] == pytest.approx(one.summary.score, abs=0.005)
        assert row["mean_f1 at 0.5"] == tried["mean_f1"]


def test_a_fold_is_decided_by_what_the_others_choose(units):
    predictions, labels = units
    folds = folds_of(labels)
    tuned = tune_decision(predictions, labels, AU, CANDIDATES, thresholds=True, folds=folds)
    parts = []
    for fold in range(4):
        others = {v: rows for v, rows in labels.items() if folds[v] != fold}
        chosen = tune_decision(predictions, others, AU, CANDIDATES, thresholds=True).decision
        for video in labels.keys() - others.keys():
            values = chosen.apply(predictions[video], ROWS, AU).values
            parts.append(AU.evaluate(AU.decode(values, chosen.thresholds), labels[video]))
    assert tuned.cross_validated.score == AU.summary(sum(parts)).score


def test_what_is_fitted_to_chance_is_lost_out_of_fold():
    """Units and values are drawn by lot: what thresholds gain is mostly of these frames alone."""
    rng = np.random.default_rng(3)
    labels = {f"v{v}": (rng.random((ROWS, 12)) < 0.05).astype(np.int32) for v in range(8)}
    predictions = make_predictions({v: rng.random((ROWS, 12)) for v in labels})
    tuned = tune_decision(
        predictions, labels, AU, CANDIDATES[:1], thresholds=True, folds=folds_of(labels)
    )
    assert tuned.summary.score > tuned.scores["plain"] + 0.04
    assert tuned.cross_validated.score < tuned.summary.score - 0.02


def test_matching_gives_the_training_labels_mean_and_deviation(numbers):
    predictions, labels = numbers
    rng = np.random.default_rng(2)
    training = rng.uniform(-0.3, 0.5, (200, 2)).astype(np.float32)
    training[::7, 0] = -5  # such rows do not count
    tuned = tune_decision(predictions, labels, VA, CANDIDATES[:1], training_labels=training)
    rows = np.concatenate(list(labels.values()))
    values = np.concatenate([p.values for p in predictions.values()])[VA.valid(rows)]
    matched = values * tuned.decision.matching.scale + np.array(tuned.decision.matching.shift)
    valid = training[VA.valid(training)]
    np.testing.assert_allclose(matched.mean(0), valid.mean(0), atol=1e-6)
    np.testing.assert_allclose(matched.std(0), valid.std(0), atol=1e-6)


def test_matching_helps_narrow_predictions(numbers):
    predictions, labels = numbers
    training = np.concatenate(list(labels.values()))
    folds = folds_of(labels, VA)
    tuned = tune_decision(
        predictions, labels, VA, CANDIDATES, training_labels=training, folds=folds
    )
    assert list(tuned.scores) == ["plain", "smoothed", "matched"]
    assert tuned.scores["smoothed"] + 0.1 < tuned.scores["matched"] == tuned.summary.score
    assert tuned.scores["smoothed"] + 0.1 < tuned.cross_validated.score
    assert tuned.summary.score == score(predictions, labels, VA, tuned.decision)


def test_matched_values_stay_within_bounds_and_type():
    values = np.array([[-0.9, 0.5], [0.9, 0.5]], np.float32)
    matching = Matching((2.0, 1.0), (0.0, -0.25))
    found = matching(values, VA.label_range)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.array([[-1, 0.25], [1, 0.25]], np.float32))


def test_a_constant_output_is_shifted_alone():
    values, labels = np.full((5, 1), 0.3), np.array([[-0.5], [0.7]])
    matching = fit_matching(values, labels)
    assert matching.scale == (1.0,)
    np.testing.assert_allclose(matching(values, (-1, 1)), 0.1)


def test_records_name_the_classes():
    decision = Decision(Smoothing("box", 5), thresholds=(0.25,) * 12)
    assert decision.record(AU) == {
        "smoothing": {"kind": "box", "width": 5, "gaps": "linear"},
        "thresholds": dict.fromkeys(AU.classes, 0.25),
    }
    decision = Decision(Smoothing(), Matching((2.0, 1.5), (0.0, 0.1)))
    assert decision.record(VA)["matching"] == {
        "scale": {"valence": 2.0, "arousal": 1.5},
        "shift": {"valence": 0.0, "arousal": 0.1},
    }
    assert list(Decision(Smoothing()).record(EXPR)) == ["smoothing"]


def test_a_record_is_read_as_it_was_written():
    for track, decision in (
        (AU, Decision(Smoothing("box", 5), thresholds=tuple(np.arange(12) / 12))),
        (VA, Decision(Smoothing(gaps="hold"), Matching((2.0, 1.5), (0.0, 0.1)))),
        (EXPR, Decision(Smoothing("majority", 25))),
    ):
        record = json.loads(json.dumps(decision.record(track)))
        assert Decision.load(record, track, "x") == decision
        for damaged in ({**record, "smoothing": {"kind": "bx"}}, {**record, "thresholds": {}}, []):
            with pytest.raises(InputError, match=f"^x: holds no decision on {track.name}"):
                Decision.load(damaged, track, "x")


def test_each_fold_is_judged_by_predictions_found_without_it(units):
    """Of predictions that differ by fold, each fold's decision is chosen and scored on its own."""
    predictions, labels = units
    folds = folds_of(labels)

    def without(fold):
        wave = 0.1 * (fold + 1) * np.sin(np.arange(ROWS))[:, None]
        return make_predictions({v: p.values + wave for v, p in predictions.items()})

    tuned = tune_decision(
        predictions, labels, AU, CANDIDATES, thresholds=True, folds=folds, without=without
    )
    parts = []
    for fold in range(4):
        others = {v: rows for v, rows in labels.items() if folds[v] != fold}
        mine = {v: rows for v, rows in labels.items() if folds[v] == fold}
        chosen = tune_decision(without(fold), others, AU, CANDIDATES, thresholds=True).decision
        for video, rows in mine.items():
            values = chosen.apply(without(fold)[video], ROWS, AU).values
            parts.append(AU.evaluate(AU.decode(values, chosen.thresholds), rows))
    assert tuned.cross_validated.score == AU.summary(sum(parts)).score
    plain = tune_decision(predictions, labels, AU, CANDIDATES, thresholds=True, folds=folds)
    assert plain.summary.score == tuned.summary.score
    assert plain.cross_validated.score != tuned.cross_validated.score
