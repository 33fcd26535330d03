"""Models for others: with the names, types and files that their libraries read."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file
from small_models import small_model
from small_sources import GIVEN, small_source

import abaw_jax
from abaw_jax import export as command
from abaw_jax.errors import InputError
from abaw_jax.interop.archive import load_model, save_model
from abaw_jax.interop.convert import convert
from abaw_jax.interop.export import load_program
from abaw_jax.interop.publish import publish
from abaw_jax.interop.tensors import save_tensors
from abaw_jax.models.layers import sincos_2d

IMAGES = np.random.default_rng(1).integers(0, 256, (2, 16, 16, 3), np.uint8)


@pytest.fixture
def model(tmp_path):
    """A converted classifier, stored in half precision."""
    save_tensors(tmp_path / "vit.safetensors", small_source("vit", "timm", np.float16))
    convert(tmp_path / "vit.safetensors", tmp_path / "model", **GIVEN["vit"], licence="mit")
    return tmp_path / "model"


def test_source_has_the_bytes_that_were_read(tmp_path, model):
    assert publish(model, tmp_path / "out")["form"] == "timm"
    found, source = load_file(tmp_path / "out/model.safetensors"), small_source("vit", "timm")
    assert found.keys() == source.keys()
    for name, array in source.items():
        assert found[name].tobytes() == array.astype(np.float16).tobytes()
    card = (tmp_path / "out/README.md").read_text()
    assert card.startswith("---\nlicense: mit\n---\n") and "a, b, c" in card


@pytest.mark.parametrize("form", ["timm", "mae", "transformers"])
def test_what_is_written_is_read_without_a_flag(tmp_path, model, form):
    """Class names, pixels, heads, eps and licence stand beside the weights."""
    publish(model, tmp_path / "out", form)
    convert(tmp_path / "out", tmp_path / "again")
    first, again = load_model(model), load_model(tmp_path / "again")
    assert first[1]["model"] == again[1]["model"] and first[1]["image"] == again[1]["image"]
    assert again[1]["classes"] == ["a", "b", "c"] and again[1]["source"]["licence"] == "mit"
    assert (model / "model.safetensors").read_bytes() == (
        tmp_path / "again/model.safetensors"
    ).read_bytes()


def test_a_classifier_that_was_trained_here(tmp_path):
    _, variables, config = small_model("frames")
    save_model(tmp_path / "frames", variables, config)
    with pytest.raises(InputError, match="was not converted, and has no source; give --format"):
        publish(tmp_path / "frames", tmp_path / "out")
    with pytest.raises(InputError, match="no norm of the mean of tokens"):
        publish(tmp_path / "frames", tmp_path / "out", "transformers")
    assert not (tmp_path / "out").exists()
    publish(tmp_path / "frames", tmp_path / "out", "timm")
    tensors = load_file(tmp_path / "out/model.safetensors")
    np.testing.assert_array_equal(tensors["pos_embed"], sincos_2d(2, 16)[None])
    kernel = variables["params"]["head"]["kernel"]
    np.testing.assert_array_equal(tensors["head.weight"], kernel.T)
    convert(tmp_path / "out", tmp_path / "again")
    assert load_model(tmp_path / "again")[1]["model"]["positions"] == "sincos"
    found, expected = (abaw_jax.load(tmp_path / name)(IMAGES) for name in ("again", "frames"))
    np.testing.assert_allclose(found["probabilities"], expected["probabilities"], atol=1e-6)


def test_an_autoencoder_that_was_trained_here(tmp_path):
    source = small_source("mae", "timm")
    save_tensors(tmp_path / "mae.safetensors", source)
    convert(tmp_path / "mae.safetensors", tmp_path / "mae", **GIVEN["mae"])
    variables, description = load_model(tmp_path / "mae")
    table = variables["params"]["encoder"].pop("pos_embed")
    assert np.abs(table - sincos_2d(4, 16)).max() > 0.1  # drawn at random: kept as it was
    sizes = description["model"]
    encoder = {key: sizes[key] for key in ("patch_size", "width", "depth", "heads")}
    decoder = {key: sizes[key] for key in sizes if key.startswith("decoder")}
    config = {"kind": "mae", "image": description["image"], "encoder": encoder, "pretrain": decoder}
    save_model(tmp_path / "trained", variables, config)
    publish(tmp_path / "trained", tmp_path / "out", "mae")
    tensors = load_file(tmp_path / "out/model.safetensors")
    assert tensors.keys() == source.keys()
    for name in source.keys() - {"pos_embed"}:
        np.testing.assert_array_equal(tensors[name], source[name])
    assert abaw_jax.load(tmp_path / "trained")(IMAGES)["features"].shape == (2, 16)


def test_archive_and_program(tmp_path, model, capsys):
    assert command.main(["export", str(model), f"--to={tmp_path}/out", "--format=stablehlo"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("README.md, config.json, model.safetensors, model.stablehlo")
    assert [line.split()[0] for line in lines[1:]] == ["jax", "stablehlo"]
    assert "max difference 0.0e+00" in lines[1] and lines[2].endswith("images/s")
    found, expected = load_program(tmp_path / "out")(IMAGES), abaw_jax.load(model)(IMAGES)
    assert found.keys() == expected.keys()
    np.testing.assert_allclose(found["logits"], expected["logits"], atol=1e-5)
    publish(model, tmp_path / "archive", "archive")
    assert (tmp_path / "archive/config.json").read_bytes() == (model / "config.json").read_bytes()


def test_what_is_refused(tmp_path, model, capsys):
    with pytest.raises(InputError, match="is not empty; name a new folder"):
        publish(model, model, "timm")
    with pytest.raises(InputError, match="no tensor names of 'torch'; known are timm, transf"):
        publish(model, tmp_path / "out", "torch")
    _, variables, config = small_model("sequence")
    save_model(tmp_path / "sequence", variables, config)
    with pytest.raises(InputError, match="kind 'sequence_model', for which other libraries have"):
        publish(tmp_path / "sequence", tmp_path / "out", "timm")
    assert not (tmp_path / "out").exists()
    assert command.main(["export", "--json"]) == 2
    assert command.main(["export", str(model)]) == 2
    assert "--to is missing" in capsys.readouterr().err
    assert command.main(["export", str(model), f"--to={tmp_path}/new", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["form"] == "timm"
