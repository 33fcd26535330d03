"""Published text encoders with their tokenizer, as `text` takes them; what is refused."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file
from small_sources import GIVEN, SIZES, small_source

import abaw_jax
from abaw_jax import convert as command
from abaw_jax.data.tokens import load_tokenizer
from abaw_jax.errors import InputError
from abaw_jax.interop.archive import load_model, save_model
from abaw_jax.interop.convert import convert
from abaw_jax.interop.inputs import take_tokens
from abaw_jax.interop.publish import publish
from abaw_jax.interop.tensors import save_tensors
from abaw_jax.stages.text import open_text_encoder
from tests.golden import bert_inputs

ROBERTA = {"model_type": "roberta", "pad_token_id": 1}
WEIGHTS = "model.safetensors"


@pytest.fixture
def hub(tmp_path):
    """A folder as transformers writes it."""
    save_tensors(tmp_path / "hub" / WEIGHTS, small_source("bert", "transformers_bert"))
    (tmp_path / "hub/config.json").write_text(json.dumps(GIVEN["bert"]))
    bert_inputs.write_pieces(tmp_path / "hub")
    return tmp_path / "hub"


def refused(hub, **given):
    folder = hub.parent / "model"
    with pytest.raises(InputError) as caught:
        convert(hub, folder, **given)
    assert "\n" not in str(caught.value) and not folder.exists()
    return str(caught.value)


def test_a_folder_of_a_hub_becomes_the_encoder_of_text(tmp_path, hub, capsys):
    """Of the command, and with the states that the modality has; padding changes nothing."""
    folder = tmp_path / "model"
    assert command.main(["convert", str(hub), f"--to={folder}"]) == 0
    assert "tokenizer: vocab.txt\n" in capsys.readouterr().out
    assert (folder / "vocab.txt").read_bytes() == (hub / "vocab.txt").read_bytes()
    encoder = open_text_encoder(folder)
    ids = encoder.tokenizer.cut(["stop", "it"]).ids
    wrapped = [encoder.tokenizer.wrap(ids, length) for length in (4, 7)]
    found = [abaw_jax.load(folder)({"ids": i[None], "mask": m[None]}) for i, m in wrapped]
    np.testing.assert_allclose(found[0]["states"][0, 1:3], encoder.states(ids), atol=1e-5)
    assert found[0]["features"].shape == found[0]["pooled"].shape == (1, 8)
    np.testing.assert_allclose(found[1]["features"], found[0]["features"], atol=1e-5)


def test_what_is_written_for_transformers_is_read_again(tmp_path, hub):
    convert(hub, tmp_path / "model", **ROBERTA)
    publish(tmp_path / "model", tmp_path / "out", "transformers")
    assert "Takes tokens." in (tmp_path / "out/README.md").read_text()
    again = convert(tmp_path / "out", tmp_path / "again")
    assert again["model"] == load_model(tmp_path / "model")[1]["model"]
    assert again["model"]["first_position"] == 2 and again["source"]["tokenizer"] == ["vocab.txt"]
    assert (tmp_path / "again" / WEIGHTS).read_bytes() == (
        tmp_path / "model" / WEIGHTS
    ).read_bytes()


def test_an_encoder_that_was_trained_here(tmp_path):
    """Its config.json says no more than what it is."""
    config = {"kind": "converted", "architecture": "bert", "model": SIZES["bert"]}
    convert_from = tmp_path / "a.safetensors"
    save_tensors(convert_from, small_source("bert", "transformers"))
    convert(convert_from, tmp_path / "model", **GIVEN["bert"])
    save_model(tmp_path / "own", load_model(tmp_path / "model")[0], config)
    assert abaw_jax.load(tmp_path / "own").classes == ()
    publish(tmp_path / "own", tmp_path / "out", "transformers")
    found, expected = load_file(tmp_path / "out" / WEIGHTS), load_file(convert_from)
    assert found.keys() == expected.keys()
    assert all(found[name].tobytes() == array.tobytes() for name, array in expected.items())


def test_no_tokenizer_is_said_in_a_line(tmp_path, hub, capsys):
    """One that is not whole is none; what the folder held stays."""
    (hub / "vocab.txt").rename(hub / "merges.txt")
    folder = tmp_path / "model"
    assert command.main(["convert", str(hub), f"--to={folder}"]) == 0
    assert f"tokenizer: none beside {hub}; copy its files to" in capsys.readouterr().out
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json", WEIGHTS, "source.safetensors",
    ]  # fmt: skip
    bert_inputs.write_pieces(folder)
    convert(hub, folder)
    assert load_tokenizer(folder).size == 25
    (hub / "merges.txt").rename(hub / "vocab.txt")
    (folder / "special_tokens_map.json").write_text("{}")  # of another tokenizer
    convert(hub, folder)
    assert not (folder / "special_tokens_map.json").exists()


def test_what_does_not_belong_together(hub):
    message = refused(hub, vocab_size=26)
    assert "word_embeddings.weight (25, 8), expected (26, 8)" in message
    assert "bert.embeddings.LayerNorm.weight (8,), expected (16,)" in refused(hub, hidden_size=16)
    assert "no such model can be made" in refused(hub, num_attention_heads=3)
    assert "model_type 'gpt2'; expected 'bert' or 'roberta'" in refused(hub, model_type="gpt2")
    assert "a bert, which takes tokens; leave --image_size" in refused(hub, image_size=224)
    pieces = (hub / "vocab.txt").read_text(encoding="utf-8")
    (hub / "vocab.txt").write_text(pieces + "more\n", encoding="utf-8")
    assert "the tokenizer has 26 tokens, the weights have embeddings of 25" in refused(hub)
    (hub / "vocab.txt").write_text("stop\n")
    assert "vocab.txt: has no [CLS], [SEP], [PAD], [UNK]" in refused(hub)


@pytest.mark.parametrize(
    ("inputs", "named"),
    [
        (np.zeros((1, 2), int), "tokens: expected {'ids'"),
        ({"ids": np.zeros((1, 2), int)}, "tokens: expected {'ids'"),
        ({"ids": np.zeros(2, int), "mask": np.ones(2, bool)}, "ids int64 (2,), mask bool (2,)"),
        ({"ids": np.zeros((1, 2)), "mask": np.ones((1, 2), bool)}, "ids float64"),
        ({"ids": np.zeros((1, 15), int), "mask": np.ones((1, 15), bool)}, "15 a text; expected 1"),
        ({"ids": np.full((1, 2), 25), "mask": np.ones((1, 2), bool)}, "ids from 25 to 25"),
    ],
)
def test_tokens_that_the_encoder_does_not_take(inputs, named):
    with pytest.raises(InputError) as caught:
        take_tokens(inputs, SIZES["bert"])
    assert named in str(caught.value)
