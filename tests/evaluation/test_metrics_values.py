"""CCC, Pearson's r and binary F1 against scikit-learn, SciPy and exact fractions."""

import fractions

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from abaw_jax.evaluation import metrics

TOLERANCE = 1e-9
RANDOM = np.random.default_rng(0)


def direct(x, y):
    """Lin's formula and Pearson's, in exact fractions."""
    x, y = ([fractions.Fraction(float(v)) for v in values] for values in (x, y))
    n, mean_x, mean_y = len(x), sum(x) / len(x), sum(y) / len(y)
    var_x, var_y = (
        sum((v - m) ** 2 for v in values) / n for values, m in ((x, mean_x), (y, mean_y))
    )
    cov = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / n
    ccc = 2 * cov / (var_x + var_y + (mean_x - mean_y) ** 2)
    return float(ccc), np.sign(float(cov)) * float(cov**2 / (var_x * var_y)) ** 0.5


def cases():
    """(predicted, labels) float32 (n, 1), n large to small, easy to adversarial."""
    n = 1500
    y = RANDOM.uniform(-1, 1, n)
    noise = RANDOM.normal(size=n)
    yield "plain", np.clip(y + 0.5 * noise, -1, 1), y
    yield "bounds", np.sign(noise), np.sign(y + noise)
    yield "anti-correlated", -y, y
    yield "nearly equal", np.clip(y + 1e-6 * noise, -1, 1), y
    # A mean a million times the deviation: sums of squares in float64 lose 12 of 16 digits.
    yield "nearly constant", 0.9 + 1e-6 * noise, y
    yield "both nearly constant", 0.75 + 2e-7 * (noise > 0), 0.75 + 1e-7 * np.sign(noise + y)
    yield "tiny", 1e-6 * noise, 1e-6 * (y + noise)
    yield "mostly zero", np.where(y > 0.98, 0.3, 0.0), np.where(y > 0.97, 0.5, 0.0)
    yield "two rows", np.array([0.1, 0.3]), np.array([-0.5, -0.25])


CASES = {name: [v.astype(np.float32)[:, None] for v in values] for name, *values in cases()}


@pytest.mark.parametrize("name", CASES)
def test_ccc_and_pearson_agree_with_exact_formulas(name):
    x, y = CASES[name]
    sums = metrics.moment_sums(x, y)
    ccc, r = direct(x[:, 0], y[:, 0])
    assert metrics.ccc(sums)[0] == pytest.approx(ccc, abs=TOLERANCE)
    assert metrics.pearson(sums)[0] == pytest.approx(r, abs=TOLERANCE)
    scipy = stats.pearsonr(*(v[:, 0].astype(np.float64) for v in (x, y))).statistic
    assert metrics.pearson(sums)[0] == pytest.approx(scipy, abs=TOLERANCE)


@pytest.mark.parametrize("name", CASES)
def test_table_agrees_with_numpy_and_scikit_learn(name):
    x, y = (v.astype(np.float64) for v in CASES[name])
    (row,) = metrics.value_table(metrics.moment_sums(x, y), ["valence"])
    assert row["name"] == "valence"
    want = {
        "rmse": np.sqrt(sk.mean_squared_error(y, x)),
        "label_mean": y.mean(),
        "label_std": y.std(),
        "predicted_mean": x.mean(),
        "predicted_std": x.std(),
    }
    for key, figure in want.items():
        assert row[key] == pytest.approx(figure, abs=TOLERANCE, rel=1e-6), key


def test_columns_are_independent_and_averaged():
    x, y = (np.concatenate([CASES[n][i] for n in ("plain", "tiny")], axis=1) for i in (0, 1))
    sums = metrics.moment_sums(x, y)
    for k in range(2):
        np.testing.assert_array_equal(sums[k], metrics.moment_sums(x[:, [k]], y[:, [k]])[0])
    table = metrics.value_table(sums, "ab")
    summary = metrics.value_summary(table)
    assert summary["mean_ccc"] == metrics.ccc(sums).mean()
    assert summary["mean_pearson"] == metrics.pearson(sums).mean()
    assert summary["mean_rmse"] == np.mean([row["rmse"] for row in table])


@pytest.mark.parametrize("seed", range(3))
def test_any_division_into_parts_gives_the_same_integers(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    x, y = (rng.uniform(-1, 1, (3000, 2)).astype(np.float32) for _ in range(2))
    whole = metrics.moment_sums(x, y)
    order, cuts = rng.permutation(3000), np.sort(rng.integers(0, 3000, 20))
    parts = [metrics.moment_sums(x[i], y[i]) for i in np.split(order, cuts)]
    rng.shuffle(parts)
    np.testing.assert_array_equal(sum(parts), whole)
    monkeypatch.setattr(metrics, "_CHUNK", 37)
    np.testing.assert_array_equal(metrics.moment_sums(x, y), whole)


def test_digits_keep_every_number_that_counts():
    values = np.array([1, -1, 0, 0.1, -0.1, 2.0**-37, -(2.0**-60), 1 - 2.0**-24], np.float32)
    digits = np.empty((metrics.DIGITS, len(values)))
    metrics._digits(values, digits)
    places = 2.0 ** (metrics.BITS * (np.arange(metrics.DIGITS) - metrics.DIGITS))
    np.testing.assert_array_equal(places @ digits, values.astype(np.float64))
    assert np.abs(digits).max() <= 2**metrics.BITS


def test_many_rows_at_the_bounds_stay_exact():
    n = 200_000
    sums = metrics.moment_sums(*(np.full((n, 1), v, np.float32) for v in (-1, 1)))
    n_found, x, y, var_x, var_y, cov = metrics._moments(sums[0])
    assert (n_found, x, y) == (n, -n << 60, n << 60)
    assert (var_x, var_y, cov) == (0, 0, 0)


CONSTANT, VARIED = (
    np.full((9, 1), 0.3, np.float32),
    np.linspace(-1, 1, 9, dtype=np.float32)[:, None],
)


@pytest.mark.parametrize(
    "x, y",
    [
        (CONSTANT, VARIED),
        (VARIED, CONSTANT),
        (CONSTANT, CONSTANT),
        (CONSTANT, -CONSTANT),
        (VARIED[:1], VARIED[:1]),
        (VARIED[:1], VARIED[1:2]),
        (VARIED[:0], VARIED[:0]),
    ],
)
def test_ccc_and_pearson_without_variance_are_zero(x, y):
    sums = metrics.moment_sums(x, y)
    assert metrics.ccc(sums).tolist() == metrics.pearson(sums).tolist() == [0]
    assert np.isfinite([v for v in metrics.value_table(sums, ["v"])[0].values() if v != "v"]).all()


def test_perfect_predictions_score_one():
    assert metrics.ccc(metrics.moment_sums(VARIED, VARIED)) == 1
    assert metrics.pearson(metrics.moment_sums(VARIED / 3, -VARIED)) == pytest.approx(-1)


@pytest.mark.parametrize("x, y", [(1.5, 0.0), (0.0, -5.0), (np.nan, 0.0), (0.0, np.inf)])
def test_what_cannot_be_summed_is_refused(x, y):
    with pytest.raises(ValueError):
        metrics.moment_sums(np.array([[x]]), np.array([[y]]))


def draw_units(seed, n=700, units=12):
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, units)) < rng.uniform(0, 0.5, units)).astype(np.int32)
    predicted = np.where(rng.random((n, units)) < 0.8, labels, 1 - labels).astype(np.int32)
    labels[:, 3], predicted[:, 4], labels[:, 5], predicted[:, 5] = 0, 0, 0, 0
    labels[:, 6] = 1
    return predicted, labels


@pytest.mark.parametrize("seed", range(4))
def test_binary_figures_agree_with_scikit_learn(seed):
    predicted, labels = draw_units(seed)
    counts = metrics.binary_counts(predicted, labels)
    np.testing.assert_array_equal(counts, sk.multilabel_confusion_matrix(labels, predicted))
    names = [f"AU{i}" for i in range(12)]
    table = metrics.binary_table(counts, names)
    want = sk.precision_recall_fscore_support(labels, predicted, average=None, zero_division=0.0)
    for key, figures in zip(("precision", "recall", "f1", "support"), want, strict=True):
        np.testing.assert_allclose([r[key] for r in table], figures, rtol=0, atol=TOLERANCE)
    assert [r["name"] for r in table] == names
    assert [r["predicted"] for r in table] == predicted.sum(0).tolist()
    assert table[5]["f1"] == table[3]["f1"] == table[4]["f1"] == 0
    summary = metrics.binary_summary(counts)
    means = [np.mean(figures) for figures in want[:3]]
    found = [summary[f"mean_{key}"] for key in ("precision", "recall", "f1")]
    np.testing.assert_allclose(found, means, rtol=0, atol=TOLERANCE)
    assert summary["accuracy"] == pytest.approx((predicted == labels).mean(), abs=TOLERANCE)
    parts = [metrics.binary_counts(predicted[i::7], labels[i::7]) for i in range(7)]
    np.testing.assert_array_equal(sum(parts), counts)


def test_binary_figures_of_no_rows_are_zero():
    counts = metrics.binary_counts(np.zeros((0, 12), int), np.zeros((0, 12), int))
    assert counts.shape == (12, 2, 2) and set(metrics.binary_summary(counts).values()) == {0.0}


@pytest.mark.parametrize("bad", [-1, 2])
def test_other_states_than_on_and_off_are_refused(bad):
    with pytest.raises(ValueError, match="labels hold other numbers"):
        metrics.binary_counts(np.array([[0, 1]]), np.array([[1, bad]]))
