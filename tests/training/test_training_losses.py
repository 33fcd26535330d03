import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.metrics import log_loss

from abaw_jax.training.losses import class_weight_of, cross_entropy

RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(size=(6, 4)).astype(np.float32) * 3
LABELS = np.array([0, 3, 1, 1, 2, 0])


def test_cross_entropy_is_that_of_scikit_learn():
    probabilities = np.exp(log_softmax(LOGITS.astype(np.float64), axis=1))
    expected = log_loss(LABELS, probabilities / probabilities.sum(1, keepdims=True))
    assert cross_entropy(LOGITS, LABELS).mean() == pytest.approx(expected, rel=1e-6)


def test_weights_and_smoothing_follow_the_formula():
    weights, smoothing = np.array([1.0, 2.0, 0.5, 3.0]), 0.1
    logs = log_softmax(LOGITS.astype(np.float64), axis=1)
    expected = [
        -(1 - smoothing) * weights[y] * row[y] - smoothing / 4 * (weights * row).sum()
        for row, y in zip(logs, LABELS, strict=True)
    ]
    found = cross_entropy(LOGITS, LABELS, weights, smoothing)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_soft_label_is_the_mean_of_its_parts():
    one_hot = np.eye(4, dtype=np.float32)
    soft = 0.3 * one_hot[LABELS] + 0.7 * one_hot[LABELS[::-1]]
    expected = 0.3 * cross_entropy(LOGITS, LABELS) + 0.7 * cross_entropy(LOGITS, LABELS[::-1])
    np.testing.assert_allclose(cross_entropy(LOGITS, soft), expected, rtol=1e-5)


def test_half_precision_logits_are_computed_in_single():
    found = cross_entropy(jnp.asarray(LOGITS, jnp.bfloat16), LABELS)
    assert found.dtype == jnp.float32
    exact = cross_entropy(np.asarray(jnp.asarray(LOGITS, jnp.bfloat16), np.float32), LABELS)
    np.testing.assert_array_equal(found, exact)


def test_extreme_logits_give_finite_loss_and_gradient():
    logits = jnp.array([[1e4, -1e4, 0.0, 0.0]])
    value, gradient = jax.value_and_grad(lambda x: cross_entropy(x, np.array([1])).sum())(logits)
    assert value == pytest.approx(2e4)
    assert np.isfinite(gradient).all()


def test_class_weight_of():
    np.testing.assert_array_equal(class_weight_of(LABELS, None), np.ones(6))
    np.testing.assert_array_equal(class_weight_of(LABELS, [1, 2, 3, 4]), [1, 4, 2, 2, 3, 1])
