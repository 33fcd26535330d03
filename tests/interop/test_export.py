"""Exported folders: what they predict, and how they are refused where they are not whole."""

import copy
import json
import os
import pathlib

import jax
import numpy as np
import pytest
import safetensors.numpy
from small_models import CONFIGS, small_inputs, small_model

import abaw_jax
from abaw_jax.errors import InputError
from abaw_jax.interop.archive import load_model
from abaw_jax.interop.export import load_predict, load_program, make_task, save_export


@pytest.fixture(scope="module", params=CONFIGS)
def exported(request, tmp_path_factory):
    """(name, folder, task, variables); the folder is only looked at."""
    task, variables, config = small_model(request.param)
    folder = tmp_path_factory.mktemp("export") / request.param
    save_export(folder, variables, config, "# A model\n")
    return request.param, folder, task, variables


@pytest.fixture
def frames(tmp_path):
    """An exported frame classifier that a test may damage; no program."""
    _, variables, config = small_model("frames")
    save_export(tmp_path / "frames", variables, config, "# A model\n", stablehlo=False)
    return tmp_path / "frames"


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("load", [load_predict, load_program])
def test_predicts_as_the_model_did(exported, load, count):
    name, folder, task, variables = exported
    inputs = small_inputs(name, count)
    state = {k: v for k, v in variables.items() if k != "params"}
    expected = jax.device_get(jax.jit(task.predict)(variables["params"], state, inputs))
    found = load(folder)(inputs)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert isinstance(found[key], np.ndarray)
        np.testing.assert_allclose(found[key], value, atol=1e-6, rtol=0)
    if name == "frames":  # the answer is no constant, so that agreeing means something
        assert np.ptp(load(folder)(small_inputs(name, 5))["probabilities"], axis=0).max() > 1e-3


def test_files(exported):
    _, folder, _, variables = exported
    names = {"README.md", "config.json", "model.safetensors", "model.stablehlo"}
    assert {path.name for path in folder.iterdir()} == names
    found, config = load_model(folder)
    jax.tree.map(np.testing.assert_array_equal, found, variables)
    assert config == json.loads((folder / "config.json").read_text())
    for path in folder.iterdir():  # pickles of every protocol from 2 up begin so
        assert not path.read_bytes().startswith(b"\x80")
        assert b"numpy.core" not in path.read_bytes() and b"cpickle" not in path.read_bytes()


def test_the_program_names_no_place_of_this_machine(exported, tmp_path):
    """And is the same whoever writes it."""
    name, folder, _, variables = exported
    program = (folder / "model.stablehlo").read_bytes()
    for package in (abaw_jax, jax):
        assert os.fsencode(pathlib.Path(package.__file__).parents[1]) not in program
    assert b".py" not in program
    limit = jax.config.jax_traceback_in_locations_limit
    save_export(tmp_path, variables, CONFIGS[name], "")
    assert (tmp_path / "model.stablehlo").read_bytes() == program
    assert jax.config.jax_traceback_in_locations_limit == limit != 0


def refused(folder, load=load_predict):
    """The message with which a folder is refused."""
    with pytest.raises(InputError) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
    return str(caught.value)


def test_weights_of_another_architecture(frames, tmp_path):
    config = copy.deepcopy(CONFIGS["frames"])
    config["encoder"]["width"] = 32
    (frames / "config.json").write_text(json.dumps(config))
    message = refused(frames)
    assert "another architecture" in message and "(16,), expected (32,)" in message
    _, variables, _ = small_model("frames")
    with pytest.raises(InputError, match="another architecture"):
        save_export(tmp_path / "new", variables, config, "")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[: len(content) // 2],
        lambda content: b"\xff" * 8 + content[8:],
        lambda content: content.replace(b'"F32"', b'"X32"', 1),
        lambda content: b"PK\x03\x04" + content,
    ],
    ids=["empty", "cut", "header length", "type", "zip"],
)
def test_damaged_weights(frames, damage):
    path = frames / "model.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    assert "model.safetensors: cannot be read" in refused(frames)


def test_absent_files(frames):
    assert "model.stablehlo: cannot be read" in refused(frames, load_program)
    (frames / "model.safetensors").unlink()
    assert "model.safetensors: cannot be read" in refused(frames)
    (frames / "config.json").unlink()
    assert "config.json: cannot be read" in refused(frames)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"kind": None}, "kind 'None'"),
        ({"kind": ["vit"]}, "expected one of frame_classifier, sequence_model"),
        ({"track": "FER"}, "track 'FER'"),
        ({"track": "VA"}, "this version has ('valence', 'arousal')"),
        ({"classes": ["Neutral", "Happy"]}, "Happy"),
        ({"image": None}, "no frame_classifier can be made of it"),
        ({"encoder": {"width": 16}}, "no frame_classifier can be made of it"),
        (
            {"image": {"size": 15, "normalise": "channel", "mean": [0.5] * 3, "std": [0.5] * 3}},
            "15",
        ),
    ],
)
def test_foreign_configs(frames, change, named):
    config = {**CONFIGS["frames"], **change}
    (frames / "config.json").write_text(json.dumps(config))
    assert named in refused(frames)


def test_config_of_another_library(frames):
    (frames / "config.json").write_text('{"architectures": ["ViTModel"], "hidden_size": 768}')
    assert "expected one of frame_classifier" in refused(frames)


def test_weights_of_another_library(exported, tmp_path):
    _, folder, _, _ = exported
    for name in ("config.json", "model.stablehlo"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    weights = {"blocks.0.attn.qkv.weight": np.zeros((48, 16), np.float32)}
    (tmp_path / "model.safetensors").write_bytes(safetensors.numpy.save(weights))
    for load in (load_predict, load_program):
        assert "weights of another architecture: lacks " in refused(tmp_path, load)


@pytest.mark.parametrize("content", [b"", b"not a program", None], ids=["empty", "text", "cut"])
def test_damaged_program(exported, tmp_path, content):
    _, folder, _, _ = exported
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    program = tmp_path / "model.stablehlo"
    whole = program.read_bytes()
    program.write_bytes(whole[: len(whole) // 2] if content is None else content)
    assert "is no program" in refused(tmp_path, load_program)


def test_every_kind_has_shapes():
    for name, config in CONFIGS.items():
        _, shapes = make_task(config, name)
        assert ("batch_stats" in shapes) == (name not in ("frames", "clips"))
