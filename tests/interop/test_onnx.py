"""Models as ONNX: what is said without its packages, and with them (extra `onnx`, `-m onnx`) that
ONNX Runtime gives what JAX gives."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import CONFIGS, small_inputs, small_model

from abaw_jax import export as command
from abaw_jax.errors import InputError
from abaw_jax.interop import onnx, publish
from abaw_jax.interop.archive import save_model
from abaw_jax.interop.export import example_inputs, make_prediction
from abaw_jax.models import ddamfn, efficientnet, mobilefacenet, mobilevit
from abaw_jax.models.convolution import find_form, use_form

ENCODERS = {
    "efficientnet": efficientnet.EfficientNet(
        0.25, stages=(efficientnet.Stage(1, 3, 1, 1, 32), efficientnet.Stage(2, 5, 2, 6, 64))
    ),
    # Of maps of 5 x 5, which are resized.
    "mobilevit": mobilevit.MobileViT(
        32, (mobilevit.Stage(1, 2, 8), mobilevit.Stage(1, 2, 16, 8, 1))
    ),
    "mobilefacenet": mobilefacenet.MobileFaceNet(stages=(mobilefacenet.Stage(16, 16, 1, 16),)),
    "ddamfn": ddamfn.DDAMFN(
        16, stages=(ddamfn.Stage(ddamfn.Mixed(16, (8, 8)), 1, ddamfn.Mixed(16, (8, 8, 8))),)
    ),
}
with_packages = [
    pytest.mark.onnx,
    # Of the packages themselves.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def onnx_test(function):
    for mark in with_packages:
        function = mark(function)
    return function


def read_nodes(made):
    import onnx as package

    return list(package.load_from_string(made.program).graph.node)


@pytest.fixture
def packages():
    for name in onnx.PACKAGES:
        pytest.importorskip(name)


def test_without_its_packages_one_line_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(onnx, "find_spec", lambda name: None if name != "onnx" else name)
    _, variables, config = small_model("frames")
    save_model(tmp_path / "model", variables, config)
    out = tmp_path / "out"
    assert command.main(["export", str(tmp_path / "model"), f"--to={out}", "--format=onnx"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "ONNX needs jax2onnx, onnxruntime" in line and "--no-deps jax2onnx" in line
    assert not out.exists()


def test_the_form_of_what_is_traced_within():
    assert find_form() == "shifted"
    with use_form("grouped"):
        assert find_form() == "grouped" and find_form("shifted") == "shifted"
    assert find_form() == "shifted"


@onnx_test
@pytest.mark.parametrize("name", CONFIGS)
def test_every_kind_of_model_for_any_number_of_examples(packages, name):
    task, variables, config = small_model(name)
    function = make_prediction(task)
    made = onnx.make_onnx(function, variables, lambda b: example_inputs(config, b), name)
    assert made.examples is None
    predict = onnx.load_onnx(made.program)
    for count in (1, 5):
        inputs = small_inputs(name, count)
        found, expected = predict(inputs), function(variables, inputs)
        assert found.keys() == expected.keys()
        for key, values in expected.items():
            np.testing.assert_allclose(found[key], values, atol=1e-5, rtol=0)


@onnx_test
@pytest.mark.parametrize("name", ENCODERS)
def test_every_convolutional_encoder(packages, name):
    encoder, rng = ENCODERS[name], np.random.default_rng(0)
    images = rng.standard_normal((3, 20, 20, 3), np.float32)
    shapes = jax.eval_shape(encoder.init, jax.random.key(0), images)
    variables = jax.tree.map(lambda s: rng.uniform(0.01, 0.3, s.shape).astype(s.dtype), shapes)

    def function(variables, images):
        return {"features": encoder.apply(variables, images)}

    def make_inputs(count):
        return jax.ShapeDtypeStruct((count, 20, 20, 3), np.float32)

    made = onnx.make_onnx(function, variables, make_inputs, name)
    assert made.examples is None
    predict = onnx.load_onnx(made.program)
    expected = np.asarray(function(variables, images)["features"])
    for count in (1, 3):
        found = predict(images[:count])["features"]
        np.testing.assert_allclose(found, expected[:count], atol=1e-5 * np.abs(expected).max())
    # The one operation, not the shifted form's products, nor several for a PReLU or a mean.
    nodes = read_nodes(made)
    operations = {node.op_type for node in nodes}
    if name in ("mobilefacenet", "ddamfn"):
        assert "PRelu" in operations and "Where" not in operations
    if name == "efficientnet":
        assert "ReduceMean" in operations and "ReduceSum" not in operations
    convolutions = [
        attribute.i
        for node in nodes
        if node.op_type == "Conv"
        for attribute in node.attribute
        if attribute.name == "group"
    ]
    assert max(convolutions) > 1


PRELUS = {
    "a prelu": (True, lambda x, slope: jnp.where(x >= 0, x, slope * x)),
    "another bound": (False, lambda x, slope: jnp.where(x >= 1, x, slope * x)),
    "another product": (False, lambda x, slope: jnp.where(x >= 0, x, slope * x[:, ::-1])),
    "the other way": (False, lambda x, slope: jnp.where(x >= 0, slope * x, x)),
    "of two uses": (True, lambda x, slope: jnp.where(x >= 0, x, slope * x) + (slope * x)),
}


@onnx_test
@pytest.mark.parametrize("name", PRELUS)
def test_a_prelu_and_nothing_else_is_joined(packages, name):
    joined, compute = PRELUS[name]
    slope = np.array([0.5, -1.0, 2.0], np.float32)

    def make_inputs(count):
        return jax.ShapeDtypeStruct((count, 3), np.float32)

    made = onnx.make_onnx(
        lambda s, x: {"out": compute(x, s["slope"])}, {"slope": slope}, make_inputs, name
    )
    assert ("PRelu" in {node.op_type for node in read_nodes(made)}) == joined
    x = np.array([[-2, 0, 2], [3, -3, 0.5]], np.float32)
    np.testing.assert_allclose(onnx.load_onnx(made.program)(x)["out"], compute(x, slope), rtol=1e-6)


@onnx_test
def test_the_command_prints_how_near_and_how_fast(packages, tmp_path, capsys):
    _, variables, config = small_model("sequence")
    save_model(tmp_path / "model", variables, config)
    arguments = ["export", str(tmp_path / "model"), f"--to={tmp_path}/out", "--format=onnx"]
    assert command.main([*arguments, "--json"]) == 0
    files, *rows, record = capsys.readouterr().out.splitlines()
    assert files.endswith("README.md, config.json, model.onnx, model.safetensors")
    assert [row.split()[0] for row in rows] == ["jax", "onnxruntime"]
    assert all(row.endswith(" examples/s") for row in rows)
    first, second = json.loads(record)["parity"]
    assert first["difference"] == 0 < second["difference"] < 1e-5
    assert str(tmp_path).encode() not in (tmp_path / "out/model.onnx").read_bytes()


@onnx_test
def test_of_a_file_that_differs_nothing_is_written(packages, tmp_path, monkeypatch):
    _, variables, config = small_model("sequence")
    save_model(tmp_path / "model", variables, config)
    monkeypatch.setitem(publish.TOLERANCES, "onnxruntime", 0.0)
    with pytest.raises(RuntimeError, match="onnxruntime differs from the model by"):
        publish.publish(tmp_path / "model", tmp_path / "out", "onnx")
    assert not (tmp_path / "out").exists()


@onnx_test
def test_what_cannot_be_written_for_any_number_or_at_all(packages):
    def make_inputs(count):
        return jax.ShapeDtypeStruct((count, 3), np.float32)

    def counts(variables, inputs):
        return {"sum": inputs * int(inputs.shape[0])}

    made = onnx.make_onnx(counts, {}, make_inputs, "counts")
    assert made.examples == 1
    np.testing.assert_allclose(
        onnx.load_onnx(made.program)(np.ones((1, 3), np.float32))["sum"], np.ones((1, 3))
    )

    def decomposes(variables, inputs):
        return {"values": jax.numpy.linalg.eigvals(inputs[:, None] * inputs[..., None]).real}

    with pytest.raises(InputError, match="decomposes: cannot be written as ONNX .*stablehlo"):
        onnx.make_onnx(decomposes, {}, make_inputs, "decomposes")
