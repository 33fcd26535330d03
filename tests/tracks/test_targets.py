"""What is learnt in place of CE: labels, losses, and how CE is read from it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from abaw_jax.errors import InputError
from abaw_jax.evaluation.compound import add
from abaw_jax.tasks.task import make_loss
from abaw_jax.tracks import CE, EXPR, VA
from abaw_jax.tracks.affectnet import AFFECTNET, read_expressions
from abaw_jax.tracks.targets import (
    BASIC,
    COMPOUNDS,
    PARTS,
    find_target,
    pair_rows,
    read_basic,
    read_compounds,
    read_singles,
)


def draw_logits(width, scale=3.0):
    return np.random.default_rng(width).normal(0, scale, (50, width)).astype(np.float32)


def test_compounds_are_read_as_the_seven_of_the_eleven_renormalised():
    logits = draw_logits(11)
    probabilities = np.asarray(jax.nn.softmax(logits))
    seven = probabilities[:, [COMPOUNDS.classes.index(name) for name in CE.classes]]
    found = np.asarray(read_compounds(logits))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, seven / seven.sum(axis=1, keepdims=True), rtol=1e-5)
    # Sure of a class that CE does not have: the seven still sum to 1.
    sure = np.where(np.arange(11) == 9, 300.0, logits)
    np.testing.assert_allclose(np.asarray(read_compounds(sure)).sum(axis=1), 1, rtol=1e-6)


def test_basic_emotions_are_read_as_sums_of_two():
    logits = draw_logits(6)
    on = 1 / (1 + np.exp(-logits.astype(np.float64)))
    sums = np.stack(
        [sum(on[:, BASIC.classes.index(part)] for part in PARTS[name]) for name in CE.classes], 1
    )
    found = np.asarray(read_basic(logits))
    np.testing.assert_allclose(found, sums / sums.sum(axis=1, keepdims=True), rtol=1e-5)
    unlikely = np.asarray(read_basic(np.full((1, 6), -500, np.float32)))
    np.testing.assert_allclose(unlikely, 1 / 7, rtol=1e-6)


def test_single_emotions_are_read_as_the_zero_shot_rule_has_it():
    logits = draw_logits(8)
    scores = add(np.asarray(jax.nn.softmax(logits)))
    found = np.asarray(read_singles(logits))
    np.testing.assert_allclose(found, scores / scores.sum(axis=1, keepdims=True), rtol=1e-5)


@pytest.mark.parametrize("name", ["compounds", "basic"])
def test_a_target_learnt_well_decodes_to_the_class(name):
    target = find_target(CE, name)
    labels = np.arange(7, dtype=np.int32)[:, None]
    rows = labels if name == "compounds" else pair_rows(labels)
    logits = 8 * target.track.encode(rows) - 4
    np.testing.assert_array_equal(CE.decode(np.asarray(target.read(logits))), labels)


def test_pairs_have_two_emotions_and_come_late():
    rows = pair_rows(np.array([*range(11), -1], np.int32)[:, None])
    assert rows.dtype == np.int32 and (rows[:11].sum(axis=1) == 2).all()
    assert len(np.unique(rows[:11], axis=0)) == 11 and (rows[11] == -1).all()
    assert BASIC.valid(rows).tolist() == [True] * 11 + [False]
    assert set(BASIC.classes) < set(EXPR.classes)
    singles = np.eye(6, dtype=np.int32)
    neutral = np.zeros((1, 6), np.int32)
    late = find_target(CE, "basic").late(np.concatenate([rows[:11], singles, neutral]))
    assert late.tolist() == [True] * 11 + [False] * 7


def test_losses_are_those_of_eleven_classes_and_of_six_units():
    labels = np.arange(11, dtype=np.int32)[:, None]
    logits, valid = draw_logits(11)[:11], np.ones(11, bool)
    losses, weights = make_loss(COMPOUNDS)(logits, labels, valid)
    expected = -np.log(np.asarray(jax.nn.softmax(logits))[np.arange(11), np.arange(11)])
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert (weights == 1).all()
    logits, rows = draw_logits(6)[:11], pair_rows(labels)
    losses, _ = make_loss(BASIC)(logits, rows, valid)
    on = 1 / (1 + np.exp(-logits.astype(np.float64)))
    expected = -np.where(rows == 1, np.log(on), np.log(1 - on)).mean(axis=1)
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    grads = jax.grad(
        lambda x: make_loss(BASIC)(x, jnp.full((1, 6), -1), jnp.zeros(1, bool))[0].sum()
    )
    assert (np.asarray(grads(logits[:1])) == 0).all()


def test_a_target_that_there_is_not_is_named():
    assert find_target(CE, "") is None and find_target(EXPR, None) is None
    with pytest.raises(InputError, match="target 'basics': CE has no such; expected one of comp"):
        find_target(CE, "basics")
    with pytest.raises(InputError, match="VA has no such; expected one of ''"):
        find_target(VA, "basic")


def test_expressions_are_read_from_affectnets_by_name():
    """Each of the seven that both have; Contempt gives nothing to Other, nor takes of the rest."""
    assert find_target(EXPR, "affectnet").track is AFFECTNET
    logits = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
    values = np.asarray(read_expressions(jnp.asarray(logits)))
    chances = np.exp(logits[:, :7]) / np.exp(logits[:, :7]).sum(1, keepdims=True)
    for i, name in enumerate(EXPR.classes):
        own = 0 if name == "Other" else chances[:, AFFECTNET.classes.index(name)]
        np.testing.assert_allclose(values[:, i], own, atol=1e-6)
