"""Gap filling and filters against SciPy; the search against scoring by hand."""

import numpy as np
import pytest
from scipy import ndimage, stats
from scipy.interpolate import interp1d
from sklearn.metrics import f1_score

from abaw_jax.errors import InputError
from abaw_jax.evaluation import smoothing
from abaw_jax.evaluation.predictions import Prediction
from abaw_jax.evaluation.smoothing import Smoothing, fill_gaps, search_smoothing, smooth_prediction
from abaw_jax.tracks import EXPR


def probabilities(seed, n):
    return np.random.default_rng(seed).dirichlet(np.ones(8), n)


def renormalised(values, weights, offset):
    """A correlation whose weights beyond the ends are dropped: by definition, slowly."""
    out = np.empty(values.shape)
    for i in range(len(values)):
        at = np.arange(len(weights)) + i - offset
        inside = (at >= 0) & (at < len(values))
        w = weights[inside]
        out[i] = w @ values[at[inside]] / w.sum()
    return out


# --- gaps


@pytest.mark.parametrize("seed", range(3))
def test_rules_agree_with_scipy(seed):
    rng = np.random.default_rng(seed)
    frames = np.sort(rng.choice(np.arange(4, 90), 30, replace=False))
    values = probabilities(seed, 30)
    timeline = np.arange(1, 101)
    for rule, kind in (("linear", "linear"), ("hold", "previous"), ("nearest", "nearest")):
        want = interp1d(
            frames, values, kind, axis=0, bounds_error=False, fill_value=(values[0], values[-1])
        )
        np.testing.assert_allclose(
            fill_gaps(frames, values, 100, rule), want(timeline), rtol=0, atol=1e-12
        )


def test_known_frames_stay_and_the_ends_hold():
    frames, values = np.array([3, 5]), np.array([[0.0, 1.0], [1.0, 0.0]])
    for rule in smoothing.GAP_RULES:
        filled = fill_gaps(frames, values, 7, rule)
        np.testing.assert_array_equal(filled[[2, 4]], values)
        np.testing.assert_array_equal(filled[[0, 1]], values[[0, 0]])
        np.testing.assert_array_equal(filled[[5, 6]], values[[1, 1]])
    assert fill_gaps(frames, values, 7, "linear")[3].tolist() == [0.5, 0.5]
    assert fill_gaps(frames, values, 7, "nearest")[3].tolist() == [0, 1]  # the earlier of equals
    assert fill_gaps(frames, values, 7, "hold")[3].tolist() == [0, 1]


def test_frames_beyond_the_rows_take_part():
    frames, values = np.array([1, 9]), np.array([[0.0], [8.0]], np.float32)
    filled = fill_gaps(frames, values, 5, "linear")
    assert filled.dtype == np.float32 and filled[:, 0].tolist() == [0, 1, 2, 3, 4]


def test_gaps_refuse_what_cannot_be_filled():
    with pytest.raises(InputError, match="linear, nearest, hold"):
        fill_gaps(np.array([1]), np.ones((1, 2)), 3, "cubic")
    with pytest.raises(InputError, match="no frame is known"):
        fill_gaps(np.zeros(0, int), np.ones((0, 2)), 3, "linear")


# --- filters


@pytest.mark.parametrize("width", [1, 2, 5, 40, 101])
def test_box_agrees_with_scipy_inside_and_renormalises_at_the_ends(width):
    values = probabilities(0, 300)
    got = smoothing.box(values, width)
    want = ndimage.uniform_filter1d(values, width, axis=0)
    inside = slice(width // 2, 300 - width // 2)
    np.testing.assert_allclose(got[inside], want[inside], rtol=0, atol=1e-12)
    want = renormalised(values, np.ones(width), width // 2)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("sigma", [0.5, 1, 3.3, 20, 200])
def test_gaussian_agrees_with_scipy_inside_and_renormalises_at_the_ends(sigma):
    values = probabilities(1, 300)
    got = smoothing.gaussian(values, sigma)
    radius = int(4 * sigma + 0.5)
    if 2 * radius < 300:
        want = ndimage.gaussian_filter1d(values, sigma, axis=0)
        inside = slice(radius, 300 - radius)
        np.testing.assert_allclose(got[inside], want[inside], rtol=0, atol=1e-12)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    np.testing.assert_allclose(got, renormalised(values, weights, radius), rtol=0, atol=1e-12)


@pytest.mark.parametrize("width", [1, 3, 25, 101])
def test_median_agrees_with_scipy_inside(width):
    values = probabilities(2, 300)
    want = ndimage.median_filter(values, size=(width, 1))
    inside = slice(width // 2, 300 - width // 2)
    got = smoothing.median(values, width)
    np.testing.assert_array_equal(got[inside], want[inside])
    np.testing.assert_array_equal(got[0], np.median(values[: width // 2 + 1], axis=0))


@pytest.mark.parametrize("width", [4, 7, 500])
def test_median_of_even_and_overlong_windows(width):
    values = probabilities(3, 60)
    got = smoothing.median(values, width)
    for i in range(60):
        window = values[max(0, i - width // 2) : i + (width - 1) // 2 + 1]
        np.testing.assert_allclose(got[i], np.median(window, axis=0), rtol=0, atol=1e-15)


@pytest.mark.parametrize("width", [1, 5, 40])
def test_majority_is_the_mode(width):
    values = probabilities(4, 200)
    votes = np.argmax(values, axis=1)
    got = smoothing.majority(values, width)
    np.testing.assert_allclose(got.sum(1), 1, rtol=0, atol=1e-12)
    for i in range(200):
        window = votes[max(0, i - width // 2) : i + (width - 1) // 2 + 1]
        assert np.argmax(got[i]) == stats.mode(window).mode


@pytest.mark.parametrize(
    "kind, width", [("box", 9), ("gaussian", 4), ("median", 9), ("majority", 9)]
)
def test_filters_keep_constants_ranges_short_videos_and_dtype(kind, width):
    one = smoothing.smooth_values(np.eye(8, dtype=np.float32)[:1], Smoothing(kind, width))
    assert one.dtype == np.float32 and one.tolist() == np.eye(8)[:1].tolist()
    constant = np.tile(np.eye(8)[3], (40, 1))
    got = smoothing.smooth_values(constant, Smoothing(kind, width))
    np.testing.assert_allclose(got, constant, rtol=0, atol=1e-12)
    got = smoothing.smooth_values(probabilities(5, 100), Smoothing(kind, width))
    assert got.min() >= 0 and got.max() <= 1
    # The same backwards: no filter of odd width leans to one side.
    values = probabilities(6, 100)
    there = smoothing.smooth_values(values, Smoothing(kind, width))
    back = smoothing.smooth_values(values[::-1], Smoothing(kind, width))[::-1]
    np.testing.assert_allclose(there, back, rtol=0, atol=1e-12)


def test_gaps_are_filled_before_the_filter():
    prediction = Prediction(np.array([1, 2, 9]), np.array([[1.0], [1.0], [0.0]]))
    got = smooth_prediction(prediction, 9, Smoothing("box", 3, "hold"))
    want = renormalised(np.array([1.0] * 8 + [0.0])[:, None], np.ones(3), 1)
    np.testing.assert_allclose(got.values, want, rtol=0, atol=1e-12)
    assert got.frames.tolist() == list(range(1, 10)) and got.frames.dtype == np.int32


def test_frames_after_the_last_row_reach_into_the_filter_only():
    values = probabilities(7, 50)
    prediction = Prediction(np.arange(1, 51), values)
    got = smooth_prediction(prediction, 20, Smoothing("box", 11))
    np.testing.assert_allclose(got.values, smoothing.box(values, 11)[:20], rtol=0, atol=1e-12)
    # A stray frame number does not make a timeline of its length.
    far = Prediction(np.append(np.arange(1, 51), 2**31 - 1), np.append(values, values[:1], axis=0))
    assert smooth_prediction(far, 50, Smoothing("gaussian", 3)).values.shape == (50, 8)


@pytest.mark.parametrize(
    "arguments",
    [("mean", 3), ("box", 0), ("box", 2.5), ("gaussian", 0), ("none", 3), ("median", -1)],
)
def test_smoothing_refuses_what_it_is_not(arguments):
    with pytest.raises(InputError, match=r"expected"):
        Smoothing(*arguments)
    with pytest.raises(InputError, match=r"linear, nearest, hold"):
        Smoothing("box", 3, "spline")


# --- search


def validation(seed=0, videos=4):
    """Labels in long segments, and noisy predictions of them with gaps."""
    rng = np.random.default_rng(seed)
    labels, predictions = {}, {}
    for i in range(videos):
        rows = np.repeat(rng.integers(0, 8, 12), 40)
        values = rng.dirichlet(np.ones(8), len(rows)) + 0.25 * np.eye(8)[rows]
        values /= values.sum(1, keepdims=True)
        frames = np.sort(rng.choice(np.arange(1, len(rows)), 400, replace=False))
        marked = np.where(rng.random(len(rows)) < 0.1, -1, rows)
        labels[f"v{i}"] = marked[:, None].astype(np.int32)
        predictions[f"v{i}"] = Prediction(frames, values[frames - 1].astype(np.float32))
    return predictions, labels


def test_search_tries_all_scores_all_videos_together_and_returns_the_best():
    predictions, labels = validation()
    candidates = (
        Smoothing(),
        Smoothing("box", 15),
        Smoothing("gaussian", 5),
        Smoothing("box", 201),
    )
    found = search_smoothing(predictions, labels, EXPR, candidates)
    assert [row["kind"] for row in found.table] == ["none", "box", "gaussian", "box"]
    for candidate, row in zip(candidates, found.table, strict=True):
        truth, said = [], []
        for video, rows in labels.items():
            smooth = smooth_prediction(predictions[video], len(rows), candidate)
            keep = rows[:, 0] >= 0
            truth.append(rows[keep, 0])
            said.append(smooth.values.argmax(1)[keep])
        want = f1_score(np.concatenate(truth), np.concatenate(said), average="macro")
        assert row["macro_f1"] == pytest.approx(want, abs=1e-12)
    scores = [row["macro_f1"] for row in found.table]
    assert found.score == max(scores) > scores[0] + 0.1
    assert found.best == candidates[int(np.argmax(scores))]


def test_search_does_not_depend_on_the_order_of_videos_and_prefers_the_first_of_equals():
    predictions, labels = validation(1)
    forward = search_smoothing(predictions, labels, EXPR)
    backward = search_smoothing(predictions, dict(reversed(labels.items())), EXPR)
    assert forward == backward
    assert len(forward.table) == len(smoothing.smoothing_grid())
    same = (Smoothing(), Smoothing("box", 1), Smoothing("median", 1))
    assert search_smoothing(predictions, labels, EXPR, same).best == same[0]


def test_search_refuses_a_missing_video():
    predictions, labels = validation()
    del predictions["v2"]
    with pytest.raises(InputError, match=r"v2 \(1 of 4"):
        search_smoothing(predictions, labels, EXPR)
    with pytest.raises(InputError, match="needs one candidate"):
        search_smoothing(predictions, labels, EXPR, ())


def test_grid_names_unknown_kinds():
    assert {c.kind for c in smoothing.smoothing_grid(["box"])} == {"none", "box"}
    chosen = smoothing.smoothing_grid(["box", "median"], "hold", (3, 4))
    assert [(c.kind, c.width) for c in chosen[1:]] == [
        ("box", 3), ("box", 4), ("median", 3), ("median", 4),
    ]  # fmt: skip
    assert {c.gaps for c in chosen} == {"hold"}
    with pytest.raises(InputError, match="smoothing box of width 2.5; expected 1, 2, 3"):
        smoothing.smoothing_grid(["box"], chosen=(2.5,))
    with pytest.raises(InputError, match="'mean'"):
        smoothing.smoothing_grid(["mean"])
