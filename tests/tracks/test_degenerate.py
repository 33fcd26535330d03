"""Every track's score where little is left to score, as docs/metrics.md states it."""

import warnings

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import f1_score

from abaw_jax.tracks import AU, CE, EMI, EXPR, TRACKS, VA

N = 60


def draw(track, rng, n=N):
    """Valid rows (n, W)."""
    low, high = track.label_range
    if track.label_type == "int32":
        return rng.integers(low, high, (n, track.label_width), endpoint=True).astype(np.int32)
    return rng.uniform(low, high, (n, track.label_width)).astype(np.float32)


def constant(track, n=N):
    """The same row n times: the first class, all units on, or the upper bound."""
    value = 0 if track.label_width == 1 else 1
    return np.full((n, track.label_width), value, track.label_type)


def narrow(track, rows):
    """The lower half of the classes alone, units mostly off, numbers of few values."""
    if track.label_type == "float32":
        return np.round(rows).astype(np.float32)
    return rows * (rows <= track.label_range[1] // 2)


def scored(track, predicted, labels):
    """The score by scikit-learn, SciPy or the formula itself, 0 / 0 as 0."""
    if track in (EXPR, CE):
        classes = range(track.outputs)
        return f1_score(
            labels[:, 0], predicted[:, 0], labels=classes, average="macro", zero_division=0
        )
    if track is AU:
        return f1_score(labels, predicted, average="macro", zero_division=0)
    columns = zip(predicted.T.astype(np.float64), labels.T.astype(np.float64), strict=True)
    return np.mean([(_ccc if track is VA else _pearson)(x, y) for x, y in columns])


def _ccc(x, y):
    below = x.var() + y.var() + (x.mean() - y.mean()) ** 2
    # What is constant varies by rounding alone.
    varied = len(set(x)) > 1 and len(set(y)) > 1
    return 2 * np.mean((x - x.mean()) * (y - y.mean())) / below if varied else 0.0


def _pearson(x, y):
    if len(x) < 2:
        return 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.ConstantInputWarning)
        return np.nan_to_num(stats.pearsonr(x, y).statistic, nan=0.0)


CASES = {
    "random": lambda track, rng: (draw(track, rng), draw(track, rng)),
    "classes absent from labels": lambda track, rng: (
        draw(track, rng),
        narrow(track, draw(track, rng)),
    ),
    "classes absent from predictions": lambda track, rng: (
        narrow(track, draw(track, rng)),
        draw(track, rng),
    ),
    "classes absent from both": lambda track, rng: (narrow(track, draw(track, rng)),) * 2,
    "constant predictions": lambda track, rng: (constant(track), draw(track, rng)),
    "constant labels": lambda track, rng: (draw(track, rng), constant(track)),
    "one class alone": lambda track, rng: (constant(track), constant(track)),
    "one row": lambda track, rng: (draw(track, rng, 1), draw(track, rng, 1)),
    "one row, right": lambda track, rng: (constant(track, 1), constant(track, 1)),
    "two rows": lambda track, rng: (draw(track, rng, 2), draw(track, rng, 2)),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("track", TRACKS.values(), ids=TRACKS)
def test_scores_agree_with_other_libraries(track, case):
    for seed in range(3):
        predicted, labels = CASES[case](track, np.random.default_rng(seed))
        summary = track.summary(track.evaluate(predicted, labels))
        assert summary.score == pytest.approx(scored(track, predicted, labels), abs=1e-9)
        assert np.isfinite(list(summary.metrics.values())).all()
        for row in summary.per_class:
            assert np.isfinite([value for key, value in row.items() if key != "name"]).all()
        # Invalid rows change nothing, wherever they stand and whatever is predicted of them.
        invalid = np.full_like(labels[:1], track.invalid)
        more = np.concatenate([invalid, labels]), np.concatenate([predicted[-1:], predicted])
        assert track.summary(track.evaluate(more[1], more[0])).score == summary.score


STATED = {  # nothing valid; one row or one class, all right; constant and wrong
    "va": (0, 0, 0),
    "expr": (0, 1 / 8, 0),
    "au": (0, 1, 0),
    "ce": (0, 1 / 7, 0),
    "emi": (0, 0, 0),
}


@pytest.mark.parametrize("track", TRACKS.values(), ids=TRACKS)
def test_what_the_page_states(track):
    right = constant(track, 4)
    wrong = np.full_like(right, track.label_range[0] if track.label_width > 1 else 1)
    nothing = np.full_like(right, track.invalid)
    found = [(right, nothing), (right, right), (right, wrong)]
    scores = [track.summary(track.evaluate(p, rows)).score for p, rows in found]
    assert scores == pytest.approx(STATED[track.key], abs=1e-12)
    assert scores[1] == track.summary(track.evaluate(right[:1], right[:1])).score
    # The state "on" is what counts: units that are rightly never on score 0.
    if track is AU:
        off = np.zeros_like(right)
        assert track.summary(track.evaluate(off, off)).score == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("track", [VA, EMI])
def test_numbers_that_are_not_finite_have_no_score(track, bad):
    predicted = np.zeros((3, track.label_width), np.float32)
    predicted[1, 0] = bad
    with pytest.raises(ValueError, match="beyond -1 .. 1"):
        track.evaluate(predicted, np.zeros_like(predicted))


def test_a_class_that_there_is_not_has_no_score():
    for track in (EXPR, CE, AU):
        labels = np.zeros((2, track.label_width), np.int32)
        with pytest.raises(ValueError):
            track.evaluate(np.full_like(labels, track.label_range[1] + 1), labels)
