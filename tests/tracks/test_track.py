"""EXPR's facts and functions."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import f1_score

from abaw_jax.errors import InputError
from abaw_jax.tracks import EXPR, TRACKS


def test_facts():
    assert list(TRACKS) == ["va", "expr", "au", "ce", "emi"]
    assert EXPR.header == (
        "image_location,Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other"
    )
    assert (EXPR.outputs, EXPR.label_width, EXPR.label_range, EXPR.invalid) == (8, 1, (0, 7), -1)


@pytest.mark.parametrize("xp", [np, jnp])
def test_valid_in_numpy_and_jax(xp):
    labels = xp.array([[[0], [-1]], [[7], [3]]])
    np.testing.assert_array_equal(EXPR.valid(labels), [[True, False], [True, True]])


def test_encode_and_decode_are_inverse():
    rows = np.arange(8, dtype=np.int32)[:, None]
    values = EXPR.encode(rows)
    assert values.shape == (8, 8) and values.dtype == np.float32
    np.testing.assert_array_equal(EXPR.decode(values), rows)
    assert EXPR.decode(values).dtype == np.int32
    assert EXPR.decode(np.array([[0.1, 0.4, 0.4, 0.1, 0, 0, 0, 0]])).tolist() == [[1]]
    assert EXPR.format_row(rows[5]) == "5"


def test_activation_is_softmax_in_float32():
    logits = np.random.default_rng(0).normal(size=(2, 3, 8)) * 5
    got = EXPR.activation(jnp.asarray(logits, jnp.bfloat16))
    assert got.dtype == jnp.float32 and got.shape == (2, 3, 8)
    logits = np.asarray(jnp.asarray(logits, jnp.bfloat16), np.float64)
    want = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_loss_is_cross_entropy_and_nothing_for_invalid_rows():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(2, 5, 8)).astype(np.float32)
    labels = rng.integers(0, 8, (2, 5, 1)).astype(np.int32)
    labels[0, 2] = -1
    weights = np.linspace(1, 3, 8)
    loss, valid = EXPR.find_loss().function, jnp.asarray(labels[..., 0] >= 0)
    got, weight = loss(jnp.asarray(logits), jnp.asarray(labels), valid, class_weights=weights)
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    want = -np.take_along_axis(logs, np.maximum(labels, 0), -1)[..., 0]
    want *= weights[np.maximum(labels[..., 0], 0)]
    want[0, 2] = 0
    assert got.shape == (2, 5) and got.dtype == jnp.float32
    np.testing.assert_allclose(got, want, rtol=1e-5)
    np.testing.assert_allclose(weight, np.where(valid, weights[labels[..., 0]], 0))
    gradient = jax.grad(lambda x: loss(x, labels, valid)[0].sum())(jnp.asarray(logits))
    assert np.isfinite(gradient).all() and (gradient[0, 2] == 0).all()
    assert (np.abs(gradient[0, 1]) > 0).all()


def test_evaluate_leaves_invalid_rows_out_and_adds_up():
    rng = np.random.default_rng(2)
    labels = rng.integers(-1, 8, (500, 1)).astype(np.int32)
    predicted = rng.integers(0, 8, (500, 1)).astype(np.int32)
    whole = EXPR.evaluate(predicted, labels)
    parts = [EXPR.evaluate(predicted[i::7], labels[i::7]) for i in range(7)]
    np.testing.assert_array_equal(sum(parts), whole)
    keep = labels[:, 0] >= 0
    summary = EXPR.summary(whole)
    want = f1_score(labels[keep, 0], predicted[keep, 0], average="macro")
    assert summary.score == summary.metrics["macro_f1"] == pytest.approx(want, abs=1e-12)
    assert [row["name"] for row in summary.per_class] == list(EXPR.classes)
    assert summary.confusion.sum() == keep.sum()


def test_evaluate_refuses_other_shapes():
    with pytest.raises(InputError, match=r"\(3, 8\) against labels of shape \(3, 1\)"):
        EXPR.evaluate(np.ones((3, 8)), np.ones((3, 1), int))
    with pytest.raises(InputError, match="expected"):
        EXPR.evaluate(np.ones((3, 1), int), np.ones(3, int))


def test_other_classes_and_other_orders_are_refused():
    EXPR.check_classes(list(EXPR.classes), "file")
    with pytest.raises(InputError, match="file: classes a,b; EXPR has Neutral.*predict for this"):
        EXPR.check_classes(["a", "b"], "file")
    found, expected = ",".join(sorted(EXPR.classes)), ",".join(EXPR.classes)
    with pytest.raises(InputError) as error:
        EXPR.check_classes(sorted(EXPR.classes), "file")
    assert str(error.value) == (
        f"file: classes {found}; EXPR has {expected}, each once and in this order: write names and "
        "columns in this order"
    )


def test_importing_a_track_imports_no_jax():
    code = "import sys, abaw_jax.tracks.annotations; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
