"""Converted ViTs and autoencoders compute what the libraries compute that their weights are of.

The golden file is written by tests/golden/make_golden_vit.py.
"""

import json
import zlib
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

import abaw_jax
from abaw_jax.interop.architectures import ARCHITECTURES
from abaw_jax.interop.archive import load_model
from abaw_jax.interop.convert import convert, load_tensors
from abaw_jax.interop.positions import resize_positions
from abaw_jax.models.layers import sincos_2d

# Of transformers' config.json, which the golden file has none of.
GIVEN = {"normalise": "half", "heads": 2, "decoder_heads": 2}
CLASSES = ["no", "perhaps", "yes"]


@pytest.fixture(scope="module")
def golden():
    path = Path(__file__).parents[1] / "golden" / "public_vit.npz"
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def drawn(name, shape):
    """As tests/golden/make_golden_vit.py draws it."""
    numbers = np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape)
    scale, centre = (0.3, 0.0) if len(shape) > 1 or name.endswith("bias") else (0.1, 0.8)
    return (centre + scale * numbers).astype(np.float32)


def case_tensors(golden, case):
    shapes = json.loads(str(golden["shapes"]))[case]
    tensors = {name: drawn(name, shape) for name, shape in shapes.items()}
    if case == "mae":
        for name in ("vit.embeddings.position_embeddings", "decoder.decoder_pos_embed"):
            tensors[name] = sincos_2d(4, tensors[name].shape[-1])[None]
    return tensors


def converted(tmp_path, golden, case, **options):
    """The folder of a golden case's weights."""
    save_file(case_tensors(golden, case), tmp_path / "source.safetensors")
    epsilon = 1e-6 if case.startswith("timm") else 1e-12
    given = {**GIVEN, "epsilon": epsilon, **options}
    convert(tmp_path / "source.safetensors", tmp_path / "model", **given)
    return tmp_path / "model"


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("case", ["timm", "timm_mean", "transformers", "modules"])
def test_classifiers(tmp_path, golden, case):
    model = abaw_jax.load(converted(tmp_path, golden, case, classes=CLASSES))
    found = model(golden["images"])
    close(found["logits"], golden[f"{case}/logits"])
    if case.startswith("timm"):
        close(found["features"], golden[f"{case}/features"])
    exponents = np.exp(golden[f"{case}/logits"])
    close(found["probabilities"], exponents / exponents.sum(1, keepdims=True))
    assert model.classes == tuple(CLASSES) and model.image_size == 16


@pytest.mark.parametrize(("pooling", "name"), [("cls", "features"), ("norm_mean", "norm_mean")])
def test_features_without_a_classifier(tmp_path, golden, pooling, name):
    model = abaw_jax.load(converted(tmp_path, golden, "bare", pooling=pooling))
    found = model(golden["images"])
    assert found.keys() == {"features"} and model.classes == ()
    close(found["features"], golden[f"bare/{name}"])


def test_autoencoder(tmp_path, golden):
    folder = converted(tmp_path, golden, "mae")
    variables, description = load_model(folder)
    assert description["model"]["positions"] == "sincos"
    module = ARCHITECTURES["mae"].module(description["model"])
    pixels = (golden["images"] / np.float32(255) - 0.5) / np.float32(0.5)
    prediction, mask = jax.jit(module.apply)(variables, pixels, golden["noise"])
    np.testing.assert_array_equal(mask, golden["mae/mask"])
    close(prediction, golden["mae/prediction"])
    features = abaw_jax.load(folder)(golden["images"])["features"]
    assert features.shape == (2, 16) and np.isfinite(features).all()


@pytest.mark.parametrize("form", ARCHITECTURES["mae"].forms)
def test_autoencoders_of_all_names_are_one(tmp_path, golden, form):
    """What is written with one library's names is read as the same arrays."""
    folder = converted(tmp_path, golden, "mae")
    save_file(load_tensors(folder, form), tmp_path / "other.safetensors")
    description = convert(
        tmp_path / "other.safetensors", tmp_path / "other", **GIVEN, epsilon=1e-12
    )
    assert description["source"]["form"] == form
    assert (tmp_path / "other/model.safetensors").read_bytes() == (
        folder / "model.safetensors"
    ).read_bytes()
    assert description["model"] == load_model(folder)[1]["model"]


@pytest.mark.parametrize("grid", [2, 5])
def test_positions_for_another_grid(golden, grid):
    """As torch.nn.functional.interpolate has them, which the public codes call."""
    table = golden["table"][0].transpose(1, 2, 0).reshape(1, 9, 4)
    first = np.full((1, 1, 4), 7, np.float32)
    found = resize_positions(np.concatenate([first, table], axis=1), grid)
    np.testing.assert_array_equal(found[:, :1], first)
    expected = golden[f"positions_{grid}/table"][0].transpose(1, 2, 0).reshape(1, -1, 4)
    close(found[:, 1:], expected)


def test_a_model_for_larger_images(tmp_path, golden):
    folder = converted(tmp_path, golden, "timm", classes=CLASSES, image_size=20)
    variables, description = load_model(folder)
    source = case_tensors(golden, "timm")["pos_embed"]
    np.testing.assert_array_equal(
        variables["params"]["encoder"]["pos_embed"], resize_positions(source, 5)
    )
    assert description["source"]["resized"] == 16 and description["image"]["size"] == 20
    found = abaw_jax.load(folder)(np.zeros((1, 20, 20, 3), np.uint8))
    assert found["logits"].shape == (1, 3)
    assert load_tensors(folder)["pos_embed"].shape == (1, 26, 16)
