"""Every loss against its formula in NumPy, its gradient against finite differences in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from abaw_jax.training import losses
from abaw_jax.training.partition import make_mesh
from abaw_jax.training.step import put_batch

RANDOM = np.random.default_rng(0)
SHAPE = (3, 5, 4)
LOGITS = RANDOM.normal(size=SHAPE) * 2
VALUES = RANDOM.uniform(-0.9, 0.9, SHAPE)
PROBABILITIES = RANDOM.uniform(0.05, 0.95, SHAPE)
CLASS = RANDOM.integers(0, 4, SHAPE[:2])
UNITS = RANDOM.integers(0, 2, SHAPE)
TARGETS = RANDOM.uniform(-1, 1, SHAPE)
VALID = RANDOM.random(SHAPE[:2]) < 0.7
WEIGHTS, POSITIVE = np.array([1.0, 0.5, 2.0, 3.0]), np.array([4.0, 1.0, 0.25, 2.0])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    return np.exp(x) / np.exp(x).sum(-1, keepdims=True)


def cross_entropy(x, weights, smoothing):
    target = (1 - smoothing) * np.eye(4)[CLASS] + smoothing / 4
    return -(weights * target * np.log(softmax(x))).sum(-1)


def focal(x, weights, gamma, alpha):
    p = np.take_along_axis(softmax(x), CLASS[..., None], -1)[..., 0]
    return -alpha * weights[CLASS] * (1 - p) ** gamma * np.log(p)


def binary_cross_entropy(x, weights, positive, smoothing=0.0):
    p, t = sigmoid(x), (1 - smoothing) * UNITS + smoothing / 2
    return (-weights * (positive * t * np.log(p) + (1 - t) * np.log(1 - p))).mean(-1)


def binary_focal(x, weights, gamma, alpha):
    p = np.where(UNITS, sigmoid(x), 1 - sigmoid(x))
    balance = np.where(UNITS, alpha, 1 - alpha)
    return (-weights * balance * (1 - p) ** gamma * np.log(p)).mean(-1)


def asymmetric(x, weights, gamma_positive, gamma_negative, margin):
    p = sigmoid(x)
    shifted = np.maximum(p - margin, 0)
    positive = (1 - p) ** gamma_positive * np.log(p)
    negative = shifted**gamma_negative * np.log(1 - shifted)
    return (-weights * np.where(UNITS, positive, negative)).mean(-1)


def column_ccc(x, y):
    cov = ((x - x.mean(0)) * (y - y.mean(0))).mean(0)
    return 2 * cov / (x.var(0) + y.var(0) + (x.mean(0) - y.mean(0)) ** 2)


def ccc(x):
    """Over all valid rows."""
    return VALID.sum() * (1 - column_ccc(x[VALID], TARGETS[VALID]).mean())


def sequence_ccc(x):
    """Of each sequence by itself."""
    return np.array([
        m.sum() * (1 - column_ccc(a[m], b[m]).mean())
        for a, b, m in zip(x, TARGETS, VALID, strict=True)
    ])  # fmt: skip


def pearson(x):
    r = [np.corrcoef(x[VALID][:, k], TARGETS[VALID][:, k])[0, 1] for k in range(4)]
    return VALID.sum() * (1 - np.mean(r))


def soft_f1(p):
    p, t = p[VALID], UNITS[VALID]
    return VALID.sum() * (1 - (2 * (p * t).sum(0) / (p + t).sum(0)).mean())


def first(function):
    """The first of two results."""
    return lambda *args, **options: function(*args, **options)[0]


# name -> (function of the package, of x alone; the same in NumPy; x)
CASES = {
    "cross_entropy": (
        lambda x: losses.cross_entropy(x, CLASS, WEIGHTS, 0.1),
        lambda x: cross_entropy(x, WEIGHTS, 0.1),
        LOGITS,
    ),
    "focal": (
        lambda x: losses.focal(x, CLASS, WEIGHTS, gamma=1.5, alpha=0.25),
        lambda x: focal(x, WEIGHTS, 1.5, 0.25),
        LOGITS,
    ),
    "element weight": (
        lambda x: losses.binary_cross_entropy(x, UNITS, class_weights=WEIGHTS),
        lambda x: binary_cross_entropy(x, WEIGHTS, 1.0),
        LOGITS,
    ),
    "positive weight": (
        lambda x: losses.binary_cross_entropy(x, UNITS, positive_weights=POSITIVE),
        lambda x: binary_cross_entropy(x, 1.0, POSITIVE),
        LOGITS,
    ),
    "both weights": (
        lambda x: losses.binary_cross_entropy(x, UNITS, WEIGHTS, POSITIVE, 0.2),
        lambda x: binary_cross_entropy(x, WEIGHTS, POSITIVE, 0.2),
        LOGITS,
    ),
    "binary focal": (
        lambda x: losses.binary_focal(x, UNITS, WEIGHTS),
        lambda x: binary_focal(x, WEIGHTS, 2.0, 0.25),
        LOGITS,
    ),
    "asymmetric": (
        lambda x: losses.asymmetric(x, UNITS, WEIGHTS, 1.0, 3.0, 0.1),
        lambda x: asymmetric(x, WEIGHTS, 1.0, 3.0, 0.1),
        LOGITS,
    ),
    "asymmetric by default": (
        lambda x: losses.asymmetric(x, UNITS),
        lambda x: asymmetric(x, 1.0, 0.0, 4.0, 0.05),
        LOGITS,
    ),
    "squared error": (
        lambda x: losses.squared_error(x, TARGETS),
        lambda x: ((x - TARGETS) ** 2).mean(-1),
        VALUES,
    ),
    "ccc": (first(lambda x: losses.ccc_loss(x, TARGETS, VALID)), ccc, VALUES),
    "ccc of sequences": (
        first(lambda x: losses.ccc_loss(x, TARGETS, VALID, per_sequence=True)),
        sequence_ccc,
        VALUES,
    ),
    "pearson": (
        first(functools.partial(losses.pearson_loss, targets=TARGETS, valid=VALID)),
        pearson,
        VALUES,
    ),
    "soft f1": (
        first(lambda x: losses.soft_f1_loss(x, UNITS, VALID)),
        soft_f1,
        PROBABILITIES,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_values_follow_the_formula(name):
    found, expected, x = CASES[name]
    loss = found(jnp.asarray(x, jnp.float32))
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, expected(x), rtol=3e-5)


@pytest.mark.parametrize("name", CASES)
def test_gradients_follow_finite_differences(name):
    found, expected, x = CASES[name]
    mix = np.random.default_rng(1).normal(size=np.shape(expected(x)))  # tells rows apart
    gradient = jax.grad(lambda v: (found(v) * mix).sum())(jnp.asarray(x, jnp.float32))
    step, differences = 1e-5, np.zeros(SHAPE)
    for at in np.ndindex(SHAPE):
        moved = np.zeros(SHAPE)
        moved[at] = step
        change = expected(x + moved) - expected(x - moved)
        differences[at] = (change * mix).sum() / (2 * step)
    scale = np.abs(differences).max()
    assert scale > 1e-3
    np.testing.assert_allclose(gradient, differences, rtol=1e-3, atol=2e-5 * scale)


TOGETHER = {
    "ccc": (losses.ccc_loss, TARGETS),
    "ccc of sequences": (functools.partial(losses.ccc_loss, per_sequence=True), TARGETS),
    "pearson": (losses.pearson_loss, TARGETS),
    "soft f1": (losses.soft_f1_loss, UNITS),
}


@pytest.mark.parametrize("name", TOGETHER)
def test_masked_rows_change_nothing_whatever_they_hold(name):
    loss, targets = TOGETHER[name]
    x = np.abs(VALUES).astype(np.float32)
    spoiled, marks = x.copy(), targets.astype(np.float32)
    spoiled[~VALID], marks[~VALID] = np.nan, -5
    for part, other in zip(loss(x, targets, VALID), loss(spoiled, marks, VALID), strict=True):
        np.testing.assert_array_equal(part, other)
    gradient = jax.grad(lambda v: loss(v, marks, VALID)[0].sum())(spoiled)
    assert (gradient[~VALID] == 0).all() and np.isfinite(gradient).all()
    assert (np.abs(gradient[VALID]).max(0) > 0).all()


@pytest.mark.parametrize("name", TOGETHER)
def test_nothing_valid_weighs_nothing(name):
    loss, targets = TOGETHER[name]
    nothing = np.zeros(SHAPE[:2], bool)
    (value, weight), pull = jax.vjp(lambda v: loss(v, targets, nothing), VALUES.astype(np.float32))
    assert (value == 0).all() and (weight == 0).all()
    assert (pull((jnp.ones_like(value), jnp.zeros_like(weight)))[0] == 0).all()


@pytest.mark.parametrize("name", TOGETHER)
@pytest.mark.parametrize("constant", [0.0, 0.5, 1.0])
def test_constant_predictions_have_a_finite_gradient(name, constant):
    loss, targets = TOGETHER[name]
    x = np.full(SHAPE, constant, np.float32)
    for labels in (targets, np.full(SHAPE, 1), np.full(SHAPE, 0)):
        labels = labels.astype(np.float32)
        value, gradient = jax.value_and_grad(lambda v, y=labels: loss(v, y, VALID)[0].sum())(x)
        assert np.isfinite(value) and np.isfinite(gradient).all()
    if name != "soft f1":
        value, weight = loss(x, targets, VALID)
        np.testing.assert_allclose(value, weight, rtol=1e-5)  # no agreement at all
        gradient = jax.grad(lambda v: loss(v, targets, VALID)[0].sum())(x)
        assert (np.abs(gradient[VALID]) > 0).any()  # and a way out


def test_one_row_agrees_with_nothing():
    one = np.zeros(SHAPE[:2], bool)
    one[1, 2] = True
    for loss in (losses.ccc_loss, losses.pearson_loss):
        value, weight = loss(VALUES, TARGETS, one)
        assert (float(value), float(weight)) == (pytest.approx(1), 1)


def test_sequences_weigh_by_their_rows():
    value, weight = losses.ccc_loss(VALUES, TARGETS, VALID, per_sequence=True)
    assert value.shape == weight.shape == (3,)
    np.testing.assert_array_equal(weight, VALID.sum(1))
    whole = losses.ccc_loss(VALUES, TARGETS, VALID)
    assert whole[0].shape == () and float(whole[1]) == VALID.sum()


@pytest.mark.parametrize("name", TOGETHER)
def test_rows_are_judged_together_across_devices(name):
    loss, _ = TOGETHER[name]
    rng = np.random.default_rng(3)
    batch = {
        "values": rng.uniform(0, 1, (16, 5, 2)).astype(np.float32),
        "targets": rng.integers(0, 2, (16, 5, 2)).astype(np.float32),
        "valid": rng.random((16, 5)) < 0.7,
    }

    @jax.jit
    def run(batch):
        return jax.value_and_grad(lambda x: loss(x, batch["targets"], batch["valid"])[0].sum())(
            batch["values"]
        )

    mesh = make_mesh()
    assert mesh.size == 8
    with jax.set_mesh(mesh):
        divided = run(put_batch(batch, mesh))
    for one, eight in zip(run(batch), divided, strict=True):
        np.testing.assert_allclose(one, eight, rtol=1e-5, atol=1e-6)


EXTREME = np.array([[-1e4, -200.0, -90.0, -20.0], [20.0, 90.0, 200.0, 1e4]], np.float32)


@pytest.mark.parametrize("on", [0, 1])
@pytest.mark.parametrize(
    "loss",
    [
        losses.binary_cross_entropy,
        losses.binary_focal,
        losses.asymmetric,
        functools.partial(losses.asymmetric, margin=0.0, gamma_negative=1.0),
        functools.partial(losses.asymmetric, margin=0.0, gamma_negative=0.0),
        functools.partial(losses.binary_focal, gamma=0.0),
    ],
)
def test_extreme_logits_of_units(loss, on):
    targets = np.full(EXTREME.shape, on)
    value, gradient = jax.value_and_grad(lambda x: loss(x, targets).sum())(EXTREME)
    assert np.isfinite(value) and np.isfinite(gradient).all()
    wrong = loss(EXTREME[1 - on][None], targets[:1])  # all four logits on the wrong side
    assert wrong > 1 and loss(EXTREME[on][None], targets[:1]) < 1e-6


def test_extreme_logits_of_classes():
    labels = np.array([0, 3])
    for logits in (EXTREME, -EXTREME, EXTREME[:, ::-1]):
        value, gradient = jax.value_and_grad(lambda x: losses.focal(x, labels).sum())(logits)
        assert np.isfinite(value) and np.isfinite(gradient).all()


def test_focal_without_gamma_is_cross_entropy():
    x = LOGITS.astype(np.float32)
    np.testing.assert_allclose(
        losses.focal(x, CLASS, WEIGHTS, gamma=0.0),
        losses.cross_entropy(x, CLASS, WEIGHTS),
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        losses.binary_focal(x, UNITS, gamma=0.0, alpha=0.5),
        losses.binary_cross_entropy(x, UNITS) / 2,
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        losses.asymmetric(x, UNITS, gamma_positive=0, gamma_negative=0, margin=0),
        losses.binary_cross_entropy(x, UNITS),
        rtol=1e-5,
    )
