"""Public weights in, and out again with the same bytes; what cannot be read, in one line."""

import collections
import io
import json
import os
import pickle
import subprocess
import sys
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from safetensors.numpy import save_file
from small_models import small_model
from small_sources import GIVEN, SIZES, small_source

import abaw_jax
from abaw_jax import convert as command
from abaw_jax.errors import InputError
from abaw_jax.interop.architectures import ARCHITECTURES
from abaw_jax.interop.archive import load_model, save_model
from abaw_jax.interop.convert import convert, load_tensors
from abaw_jax.interop.tensors import file_hash, read_about, read_image, save_tensors

FORMS = [(key, form) for key, known in ARCHITECTURES.items() for form in known.forms]


@pytest.fixture
def source(tmp_path):
    """A classifier's file by timm's names."""
    save_file(small_source("vit", "timm"), tmp_path / "vit.safetensors")
    return tmp_path / "vit.safetensors"


def refused(source, folder, **options):
    """The message of a conversion that is refused and leaves nothing."""
    before = sorted(folder.parent.rglob("*"))
    with pytest.raises(InputError) as caught:
        convert(source, folder, **{**GIVEN["vit"], **options})
    assert "\n" not in str(caught.value)
    assert sorted(folder.parent.rglob("*")) == before
    return str(caught.value)


def same(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape, name
        assert found[name].tobytes() == array.tobytes(), name


def test_every_architecture_has_a_small_source():
    assert SIZES.keys() == GIVEN.keys() == ARCHITECTURES.keys()


@pytest.mark.parametrize(("key", "form"), FORMS)
def test_what_was_converted_comes_back_byte_for_byte(tmp_path, key, form):
    """Of every architecture by all its names: shorter types and what holds no weights too."""
    tensors = small_source(key, form)
    first = next(name for name in tensors if name.endswith("bias"))
    tensors[first] = tensors[first].astype(jnp.bfloat16)
    tensors = {f"module.{name}": array for name, array in tensors.items()}
    if key == "mae":  # a fixed table that rounding has moved a little
        name = next(name for name in tensors if name.endswith("decoder_pos_embed"))
        tensors[name] = tensors[name] + np.float32(1e-7)
    save_tensors(tmp_path / "source.safetensors", tensors)
    description = convert(tmp_path / "source.safetensors", tmp_path / "model", **GIVEN[key])
    assert (description["architecture"], description["source"]["form"]) == (key, form)
    same(load_tensors(tmp_path / "model"), tensors)
    arrays = safetensors.numpy.load_file(tmp_path / "model/model.safetensors")
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.float32)}


def test_what_is_recorded(source, tmp_path):
    convert(source, tmp_path / "model", **GIVEN["vit"], licence="CC BY-NC 4.0")
    _, config = load_model(tmp_path / "model")
    assert config["source"] == {
        "files": [{"name": "vit.safetensors", "sha256": file_hash(source)}],
        "licence": "CC BY-NC 4.0", "form": "timm", "prefix": "", "type": "float32",
    }  # fmt: skip
    assert config["classes"] == ["a", "b", "c"] and config["model"] == SIZES["vit"]
    assert config["image"] == {
        "size": 16, "normalise": "channel", "mean": [0.5] * 3, "std": [0.5] * 3,
    }  # fmt: skip
    assert not (tmp_path / "model/source.safetensors").exists()


def test_what_model_hubs_keep_beside_weights(tmp_path):
    """A folder as transformers writes it needs no flag; half precision is remembered."""
    tensors = small_source("vit", "transformers", np.float16)
    hub = tmp_path / "hub"
    hub.mkdir()
    save_file(tensors, hub / "model.safetensors")
    config = {
        "model_type": "vit", "num_attention_heads": 4, "layer_norm_eps": 1e-12,
        "id2label": {"10": "late", "0": "Neutral", "1": "Anger"},
    }  # fmt: skip
    pixels = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "size": 16}
    (hub / "config.json").write_text(json.dumps(config))
    (hub / "preprocessor_config.json").write_text(json.dumps(pixels))
    (hub / "README.md").write_text("---\ntags:\n- face\nlicense: apache-2.0\n---\n# ViT\n")
    found = convert(hub, tmp_path / "model")
    assert found["model"]["heads"] == 4 and found["model"]["epsilon"] == 1e-12
    assert found["classes"] == ["Neutral", "Anger", "late"]
    assert found["image"]["mean"] == [0.1, 0.2, 0.3] and found["image"]["std"] == [0.4, 0.5, 0.6]
    assert found["source"]["licence"] == "apache-2.0" and found["source"]["type"] == "float16"
    same(load_tensors(tmp_path / "model"), tensors)


def test_pixels_as_timm_and_transformers_say_them(tmp_path):
    timm = {"pretrained_cfg": {"mean": [1, 2, 3], "std": [4, 5, 6], "input_size": [3, 260, 260]}}
    assert read_image(timm) == {"mean": [1, 2, 3], "std": [4, 5, 6], "size": 260}
    assert read_image({"preprocessor": {"size": {"height": 224, "width": 224}}}) == {"size": 224}
    assert read_about(tmp_path) == {} and read_image({}) == {}


def test_weights_in_several_files(tmp_path):
    tensors = small_source("vit", "timm")
    names = sorted(tensors)
    places = {name: f"part-{i % 2}.safetensors" for i, name in enumerate(names)}
    for part in set(places.values()):
        save_file({n: tensors[n] for n in names if places[n] == part}, tmp_path / part)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    found = convert(tmp_path, tmp_path / "model", **GIVEN["vit"])
    assert [file["name"] for file in found["source"]["files"]] == [
        "model.safetensors.index.json", "part-0.safetensors", "part-1.safetensors",
    ]  # fmt: skip
    same(load_tensors(tmp_path / "model"), tensors)
    out = tmp_path / "other"
    index.write_text(json.dumps({"weight_map": {**places, "more": "part-0.safetensors"}}))
    assert "its files and the names in it differ by more" in refused(index, out)
    (tmp_path / "part-1.safetensors").unlink()
    assert "part-1.safetensors is not beside it; copy all 2 files" in refused(index, out)
    index.write_text(json.dumps({"weight_map": {"a": "../part-0.safetensors"}}))
    assert "expected one beside it" in refused(index, out)
    index.write_text("{}")
    assert "has no weight_map" in refused(index, out)


def test_heads_are_left_out_where_asked(tmp_path, source):
    found = convert(source, tmp_path / "model", heads=2, normalise="half", drop_head=True)
    assert found["classes"] == [] and found["model"]["outputs"] == 0
    assert not {"head.weight", "head.bias"} & load_tensors(tmp_path / "model").keys()
    tensors = small_source("mae", "timm")
    save_file(tensors, tmp_path / "mae.safetensors")
    found = convert(
        tmp_path / "mae.safetensors", tmp_path / "encoder", heads=2, normalise="face_mae",
        drop_head=True, pooling="norm_mean",
    )  # fmt: skip
    assert found["architecture"] == "vit" and found["model"]["pooling"] == "norm_mean"
    kept = {n: a for n, a in tensors.items() if not n.startswith(("decoder", "mask_token"))}
    same(load_tensors(tmp_path / "encoder"), kept)


def test_class_names_are_asked_for(tmp_path, source):
    out = tmp_path / "model"
    message = refused(source, out, classes=[])
    assert "a classifier of 3 outputs whose names are not said; give --classes" in message
    assert "affectnet8" in message and "--drop_head" in message
    assert "of 3 outputs, and 8 class names" in refused(source, out, classes=["affectnet8"])
    assert "some of them twice" in refused(source, out, classes=["a", "b", "a"])
    assert "has no classifier, and --classes names 3" in refused(source, out, drop_head=True)
    (tmp_path / "config.json").write_text('{"id2label": {"0": "LABEL_0", "1": "x", "2": "y"}}')
    assert convert(source, out, heads=2, normalise="half")["classes"] == ["LABEL_0", "x", "y"]
    placeholders = {"id2label": {str(i): f"LABEL_{i}" for i in range(3)}}
    (tmp_path / "config.json").write_text(json.dumps(placeholders))
    assert "whose names are not said" in refused(source, out, classes=[])


def test_known_orders_of_classes_and_numbers_beside_them(tmp_path):
    tensors = small_source("vit", "timm")
    tensors["head.weight"] = np.random.default_rng(0).normal(size=(10, 16)).astype(np.float32)
    tensors["head.bias"] = np.array([0] * 8 + [5, -0.25], np.float32)
    tensors["head.weight"][8:] = 0
    save_file(tensors, tmp_path / "vit.safetensors")
    convert(
        tmp_path / "vit.safetensors", tmp_path / "model", heads=2, normalise="half",
        classes=["affectnet8", "valence", "arousal"],
    )  # fmt: skip
    model = abaw_jax.load(tmp_path / "model")
    assert model.classes[:2] == ("Neutral", "Happiness") and model.classes[-2:] == (
        "valence", "arousal",
    )  # fmt: skip
    found = model(np.full((2, 16, 16, 3), 9, np.uint8))
    assert found["logits"].shape == (2, 10) and found["probabilities"].shape == (2, 8)
    np.testing.assert_allclose(found["probabilities"].sum(1), 1, rtol=1e-6)
    np.testing.assert_array_equal(found["valence"], [1, 1])  # of 5: kept within the scale
    np.testing.assert_array_equal(found["arousal"], [-0.25, -0.25])


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"normalise": None}, "how its pixels are normalised is not said; give --normalise"),
        ({"normalise": "rgb"}, "--normalise=rgb: expected one of"),
        ({"heads": None}, "no number of heads for a width of 16"),
        ({"heads": 3}, "3 heads for a width of 16"),
        ({"pooling": "mean"}, "its norm is of single tokens: cls or norm_mean"),
        ({"image_size": 17}, "--image_size=17: no multiple of the patches' 4 pixels"),
        ({"kind": "vitt"}, "did you mean 'vit'?"),
        ({"kind": "mae"}, "tensors of no architecture that is known"),
    ],
)  # fmt: skip
def test_what_tensors_do_not_show_is_asked_for(tmp_path, source, options, named):
    assert named in refused(source, tmp_path / "model", **options)


def test_eps_is_asked_for_where_a_library_has_several(tmp_path):
    save_file(small_source("vit", "transformers"), tmp_path / "a.safetensors")
    message = refused(tmp_path / "a.safetensors", tmp_path / "model", epsilon=None)
    assert "no layer_norm_eps, which tensors do not show" in message


def test_every_odd_tensor_is_named_at_once(tmp_path):
    tensors = small_source("vit", "timm")
    del tensors["blocks.1.norm2.bias"], tensors["norm.weight"]
    tensors["head.bias"], tensors["steps"] = np.zeros(4, np.float32), np.zeros(1, np.float32)
    save_file(tensors, tmp_path / "a.safetensors")
    assert refused(tmp_path / "a.safetensors", tmp_path / "model").endswith(
        "missing: blocks.1.norm2.bias, norm.weight; too many: steps; of another shape: head.bias "
        "(4,), expected (3,)"
    )


@pytest.mark.parametrize(
    ("name", "shape", "named"),
    [
        ("pos_embed", (1, 16, 16), "pos_embed is (1, 16, 16); expected (1, 1 + a square, 16)"),
        ("pos_embed", (1, 17, 8), "pos_embed is (1, 17, 8); expected (1, 1 + a square, 16)"),
        ("patch_embed.proj.weight", (16, 1, 4, 4), "expected (width, 3, patch, patch)"),
        ("patch_embed.proj.weight", None, "lacks patch_embed.proj.weight"),
        ("blocks.1.attn.qkv.weight", (24, 8), "of another shape: blocks.1.attn.qkv.weight"),
    ],
)
def test_weights_of_another_width(tmp_path, name, shape, named):
    tensors = small_source("vit", "timm")
    if shape:
        tensors[name] = np.zeros(shape, np.float32)
    else:
        del tensors[name]
    save_file(tensors, tmp_path / "a.safetensors")
    assert named in refused(tmp_path / "a.safetensors", tmp_path / "model")


def test_types_that_float32_does_not_hold(tmp_path):
    tensors = small_source("vit", "timm")
    tensors["norm.weight"] = tensors["norm.weight"].astype(np.float64)
    save_file(tensors, tmp_path / "a.safetensors")
    message = refused(tmp_path / "a.safetensors", tmp_path / "model")
    assert "float32 does not hold: norm.weight float64; expected float32, float16, bf" in message


def test_a_decoder_with_positions_of_its_own(tmp_path):
    tensors = small_source("mae", "timm")
    tensors["decoder_pos_embed"] = tensors["decoder_pos_embed"] + 1
    save_file(tensors, tmp_path / "a.safetensors")
    message = refused(tmp_path / "a.safetensors", tmp_path / "model", classes=[], **GIVEN["mae"])
    assert "decoder_pos_embed is not the table of sines and cosines" in message


@pytest.mark.parametrize(
    "damage",
    [lambda b: b"", lambda b: b[: len(b) // 2], lambda b: b"\xff" * 8 + b[8:],
     lambda b: b.replace(b'"F32"', b'"X32"', 1)],
    ids=["empty", "cut", "header", "type"],
)  # fmt: skip
def test_damaged_safetensors(tmp_path, source, damage):
    source.write_bytes(damage(source.read_bytes()))
    assert "vit.safetensors: cannot be read" in refused(source, tmp_path / "model")


def torch_file(path, value, name="archive/data.pkl"):
    """A zip file as torch.save lays it out, of one pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, pickle.dumps(value, 2))
        archive.writestr("archive/version", "3\n")
    return path


class Runs:
    """A pickle of it calls os.system."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("protocol", [0, 2, 4, None])
def test_a_file_that_would_run_code_is_refused(tmp_path, protocol):
    """In the zip layout, and as the bare pickle of torch before 1.6."""
    trap, path = tmp_path / "trapped", tmp_path / "weights.pth"
    value = {"model": collections.OrderedDict(weight=Runs(f"touch {trap}"))}
    if protocol is None:
        torch_file(path, value)
    else:
        path.write_bytes(pickle.dumps(value, protocol))
    message = refused(path, tmp_path / "model")
    assert "weights.pth: names posix.system, which could run code: not read" in message
    assert "model.state_dict()" in message and not trap.exists()


def test_torch_files_without_torch(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # as if it were not installed
    path = torch_file(tmp_path / "weights.pth", collections.OrderedDict())
    assert "torch, which is not installed; pip install torch" in refused(path, tmp_path / "model")


def test_files_that_are_none_of_weights(tmp_path):
    out = tmp_path / "model"
    assert "is no file; name one of weights" in refused(tmp_path / "none.pth", out)
    assert "holds none of model.safetensors" in refused(tmp_path, out)
    (tmp_path / "a.onnx").write_bytes(b"")
    assert "neither .safetensors nor .pth" in refused(tmp_path / "a.onnx", out)
    save_file({}, tmp_path / "a.safetensors")
    assert "holds no tensor" in refused(tmp_path / "a.safetensors", out)
    for name, content in {"a.pth": b"text", "b.pth": b"PK\x03\x04"}.items():
        (tmp_path / name).write_bytes(content)
        assert "is no file of torch.save" in refused(tmp_path / name, out)
    buffer = io.BytesIO()
    zipfile.ZipFile(buffer, "w").close()
    (tmp_path / "c.pth").write_bytes(buffer.getvalue())
    assert "a zip file without data.pkl" in refused(tmp_path / "c.pth", out)
    save_file({"fc.weight": np.zeros((2, 2), np.float32)}, tmp_path / "a.safetensors")
    message = refused(tmp_path / "a.safetensors", out)
    assert "tensors of no architecture that is known (fc.weight, ...); expected one of" in message


def test_no_other_model_is_overwritten(tmp_path, source):
    out = tmp_path / "model"
    _, variables, config = small_model("frames")
    save_model(out, variables, config)
    assert "holds a model that was not converted" in refused(source, out)
    for _ in range(2):  # one that was may be
        convert(source, tmp_path / "again", **GIVEN["vit"])


def test_images_that_the_model_does_not_take(tmp_path, source):
    convert(source, tmp_path / "model", **GIVEN["vit"])
    model = abaw_jax.load(tmp_path / "model")
    for images in (np.zeros((1, 8, 8, 3), np.uint8), np.zeros((16, 16, 3), np.uint8),
                   np.zeros((1, 16, 16, 3), np.float32)):  # fmt: skip
        with pytest.raises(InputError, match=r"expected uint8 \(any number, 16, 16, 3\)"):
            model(images)


def test_models_of_a_recipe_are_loaded_too(tmp_path):
    _, variables, config = small_model("frames")
    save_model(tmp_path / "frames", variables, config)
    model = abaw_jax.load(tmp_path / "frames")
    found = model(np.zeros((2, 16, 16, 3), np.uint8))
    assert found["probabilities"].shape == (2, 8) and model.classes[0] == "Neutral"
    with pytest.raises(InputError, match="expected uint8"):
        model(np.zeros((2, 8, 8, 3), np.uint8))
    save_model(tmp_path / "odd", variables, {"kind": "odd"})
    with pytest.raises(InputError, match="kind 'odd', which this version does not know"):
        abaw_jax.load(tmp_path / "odd")


def test_command(tmp_path, source, capsys):
    out = tmp_path / "model"
    arguments = ["convert", str(source), f"--to={out}", "--heads=2", "--normalise=half", "--json"]
    assert command.main([*arguments, "--classes=a,b,c"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "outputs: a, b, c" and lines[2] == "licence: unknown"
    assert json.loads(lines[-1])["architecture"] == "vit"
    assert command.main(arguments) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: ") and errors.count("\n") == 1
    assert command.main(["convert", "--to=x"]) == 2
    assert command.main(["convert", str(source)]) == 2
    assert "--to is missing" in capsys.readouterr().err


def test_importing_the_package_and_the_command_imports_no_jax():
    """`import abaw_jax` and `--help` stay fast."""
    code = "import sys, abaw_jax.convert, abaw_jax.export; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
