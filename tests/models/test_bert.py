"""BERT and RoBERTa: parity with transformers, parameters at true size, what cannot be."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

from abaw_jax.interop.keymap import read_tensors
from abaw_jax.interop.keys import bert as keys
from abaw_jax.models.bert import SIZES, BertEncoder
from tests.golden import bert_inputs
from tests.models.small_bert import drawn, shapes_of, small

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
FAMILIES = ("bert", "roberta")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_hidden_state_is_that_of_transformers(family):
    with np.load(GOLDEN / f"{family}_small.npz") as golden:
        expected = dict(golden)
    model = small(family, pooler=True)
    shapes = shapes_of(model)
    tensors = drawn(shapes, keys.rules())
    assert set(tensors) == set(expected["names"].tolist())
    arrays = read_tensors(tensors, keys.rules(), shapes, "a", keys.IGNORED)
    ids, mask, types = bert_inputs.tokens(family)
    states, pooled = jax.jit(model.apply)(unflatten_dict(arrays, sep="/"), ids, mask, types)
    np.testing.assert_allclose(states, expected["states"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(pooled, expected["pooled"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_published_base_model_has_as_many_parameters(family):
    shapes = shapes_of(BertEncoder(**SIZES[f"{family}_base"], pooler=True))
    with np.load(GOLDEN / f"{family}_small.npz") as golden:
        assert sum(map(np.prod, shapes.values())) == golden["parameters"]
        assert golden["parameters"] == {"bert": 109_482_240, "roberta": 124_645_632}[family]


@pytest.mark.parametrize("size", SIZES)
def test_every_size_has_a_head_width_and_places_for_128_tokens(size):
    model = BertEncoder(**{"vocabulary": 10, **SIZES[size]})
    states, pooled = jax.eval_shape(
        lambda: model.init_with_output(
            jax.random.key(0), jnp.zeros((1, 128), jnp.int32), jnp.ones((1, 128), bool)
        )[0]
    )
    assert pooled is None and len(states) == model.depth + 1
    assert states[-1].shape == (1, 128, model.width) and model.width % model.heads == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_changes_no_token(family):
    """A text alone has the states that it has beside a longer one."""
    model, (ids, mask, _) = small(family), bert_inputs.tokens(family)
    variables = model.init(jax.random.key(0), ids, mask)
    together, _ = model.apply(variables, ids, mask)
    count = bert_inputs.LENGTHS[2]
    alone, _ = model.apply(variables, ids[2:, :count], mask[2:, :count])
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one[0], other[2, :count], rtol=0, atol=1e-5)


def test_training_drops_and_more_tokens_than_places_are_refused():
    model, (ids, mask, _) = small("roberta", dropout=0.5), bert_inputs.tokens("roberta")
    variables = model.init(jax.random.key(0), ids, mask)
    still, _ = model.apply(variables, ids, mask)
    moved, _ = model.apply(variables, ids, mask, train=True, rngs={"dropout": jax.random.key(1)})
    assert all((one != other).any() for one, other in zip(still, moved, strict=True))
    with pytest.raises(ValueError, match="13 tokens; expected at most 12"):
        model.apply(variables, np.zeros((1, 13), np.int64), np.ones((1, 13), bool))
