"""Names of BERT's and RoBERTa's tensors, as published files have them."""

import numpy as np
import pytest

from abaw_jax.errors import InputError
from abaw_jax.interop.keymap import read_tensors, write_tensors
from abaw_jax.interop.keys import bert as keys
from tests.golden import bert_inputs
from tests.models.small_bert import drawn, shapes_of, small


@pytest.mark.parametrize("prefix", ["", "bert.", "roberta."])
@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("pooler", [False, True])
def test_there_and_back_is_the_same(prefix, old, pooler):
    shapes = shapes_of(small("bert", pooler=pooler))
    rules = keys.rules(prefix, old=old)
    tensors = drawn(shapes, rules)
    assert any(name.endswith("LayerNorm.gamma") for name in tensors) == old
    more = {
        f"{prefix}embeddings.position_ids": np.arange(12)[None],
        "cls.predictions.bias": np.zeros(50, np.float32),
        "lm_head.dense.weight": np.zeros((2, 2), np.float32),
    }
    back = write_tensors(
        read_tensors(tensors | more, rules, shapes, "a.safetensors", keys.IGNORED), rules
    )
    assert back.keys() == tensors.keys()
    assert all(back[name].tobytes() == tensor.tobytes() for name, tensor in tensors.items())


def test_other_tensors_are_named():
    shapes = shapes_of(small("bert"))
    tensors = drawn(shapes, keys.rules())
    del tensors["encoder.layer.2.output.dense.weight"]
    tensors["encoder.layer.3.output.dense.weight"] = np.zeros(1, np.float32)
    tensors["embeddings.word_embeddings.weight"] = np.zeros((7, 24), np.float32)
    with pytest.raises(InputError) as caught:
        read_tensors(tensors, keys.rules(), shapes, "a", keys.IGNORED)
    for part in (
        "missing: encoder.layer.2.output.dense.weight",
        "too many: encoder.layer.3.output.dense.weight",
        "embeddings.word_embeddings.weight (7, 24), expected (50, 24)",
    ):
        assert part in str(caught.value)


def test_the_architecture_is_read_from_their_config():
    fields = keys.read_architecture(bert_inputs.size("roberta"), "config.json")
    assert fields == dict(
        vocabulary=47, width=24, depth=3, heads=4, mlp_width=40, positions=14, types=1,
        epsilon=1e-5, first_position=2,
    )  # fmt: skip
    old = bert_inputs.size("bert")
    del old["layer_norm_eps"], old["pad_token_id"]
    assert keys.read_architecture(old, "config.json")["epsilon"] == 1e-12
    for names, pooler in (((), False), (("bert.pooler.dense.weight",), True)):
        found = keys.sizes(dict.fromkeys(names, (24, 24)), "", old, "config.json")
        assert found == keys.read_architecture(old, "config.json") | {"pooler": pooler}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gpt2"}, "config.json: model_type 'gpt2'; expected 'bert' or 'roberta'"),
        ({"hidden_act": "relu"}, "config.json: hidden_act 'relu'; expected 'gelu'"),
        ({"position_embedding_type": "relative_key"}, "expected 'absolute'"),
        ({"hidden_size": None}, "config.json: lacks hidden_size; name the model's config.json"),
    ],
)
def test_another_network_is_refused(changes, message):
    config = {k: v for k, v in (bert_inputs.size("bert") | changes).items() if v is not None}
    with pytest.raises(InputError, match=message):
        keys.read_architecture(config, "config.json")
