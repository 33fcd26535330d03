"""A model for others: tensors with another library's names, the archive, or a program.

Each folder holds model.safetensors, config.json and README.md, the model card. With a library's
names config.json is that library's; otherwise it is this package's.
"""

import json
import pathlib
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from abaw_jax.data.tokens import copy_tokenizer
from abaw_jax.errors import InputError
from abaw_jax.files import atomic_write, read_json, write_json
from abaw_jax.interop.architectures import ARCHITECTURES
from abaw_jax.interop.archive import WEIGHTS, load_model, save_model
from abaw_jax.interop.convert import ASIDE, KIND, describe, load_tensors
from abaw_jax.interop.export import (
    MAKERS,
    example_inputs,
    load_program,
    make_prediction,
    make_task,
    save_program,
)
from abaw_jax.interop.load import load, make_function
from abaw_jax.interop.onnx import PROGRAM, load_onnx, make_onnx
from abaw_jax.interop.tensors import read_source, save_tensors

# Files of this package's own.
OWN = ("archive", "stablehlo", "onnx")
# Another word for a form.
ALIASES = {"mae": "timm"}
EXAMPLES = 8  # of the parity check
# Of the largest output; ONNX Runtime sums in other orders, and convolves by other algorithms.
TOLERANCES = {"jax": 0.0, "stablehlo": 1e-5, "onnxruntime": 1e-4}


def publish(model: pathlib.Path, folder: pathlib.Path, form: str = "source") -> dict[str, Any]:
    """Write the model of a folder to another in a form: one of `OWN`, "source" (as it came), or a
    key of its architecture's forms; a record of what was written.

    Raises InputError where the model has no such form, or the folder holds anything.
    """
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"--to={folder}: is not empty; name a new folder")
    config = read_json(model / "config.json")
    if form in OWN:
        return _publish_own(model, folder, config, form)
    description = describe(config, model)
    if form == "source" and not description["source"].get("files"):
        raise InputError(
            f"{model}: was not converted, and has no source; give --format, one of "
            f"{', '.join(ARCHITECTURES[description['architecture']].forms)}"
        )
    name = description["source"]["form"] if form == "source" else ALIASES.get(form, form)
    tensors = load_tensors(model, None if form == "source" else name)
    architecture = ARCHITECTURES[description["architecture"]]
    known = architecture.forms[name]
    if architecture.inputs == "tokens":
        copy_tokenizer(model, folder)
    save_tensors(folder / WEIGHTS, tensors)
    with atomic_write(folder / "README.md", "w") as file:
        file.write(_card(description, config))
    for file, content in known.files(description).items():
        write_json(folder / file, content)
    return {"form": name, "tensors": len(tensors), "files": _files(folder)}


def _publish_own(
    model: pathlib.Path, folder: pathlib.Path, config: dict[str, Any], form: str
) -> dict[str, Any]:
    variables, _ = load_model(model)
    own = load(model)  # refuses weights of another architecture
    description, takes = None, "image"
    if config.get("kind") in MAKERS:
        function = make_prediction(make_task(config, model / "config.json")[0])
        make_inputs = partial(example_inputs, config)
    else:
        description = describe(config, model)
        architecture, function = make_function(description)
        takes, make_inputs = architecture.inputs, partial(_images, own.image_size)
    if form != "archive" and takes != "image":
        raise InputError(f"{model}: programs are written of models of images alone; take archive")
    record: dict[str, Any] = {"form": form}
    if form == "onnx":
        onnx = make_onnx(function, variables, make_inputs, model)
        inputs = make_inputs(onnx.examples or EXAMPLES)
        record["parity"] = _parity(
            {"jax": own, "onnxruntime": load_onnx(onnx.program)}, inputs, model
        )
        record["examples"] = onnx.examples
        with atomic_write(folder / PROGRAM) as file:
            file.write(onnx.program)
    if takes == "tokens":
        copy_tokenizer(model, folder)
    with atomic_write(folder / "README.md", "w") as file:
        file.write(_card(description, config))
    if (model / ASIDE).is_file():
        save_tensors(folder / ASIDE, read_source(model / ASIDE).tensors)
    save_model(folder, variables, config)
    if form == "stablehlo":
        save_program(folder, function, variables, make_inputs)
        programs = {"stablehlo": load_program(folder)}
        record["parity"] = _parity({"jax": own, **programs}, make_inputs(EXAMPLES), folder)
    return {**record, "files": _files(folder)}


def _images(side: int, count: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((count, side, side, 3), jnp.uint8)


def _parity(
    functions: dict[str, Callable[[Any], dict[str, np.ndarray]]],
    shapes: Any,
    folder: pathlib.Path,
) -> list[dict[str, Any]]:
    """Of the model, which comes first, and of its program: greatest difference on random inputs of
    these shapes, examples a second."""
    rng = np.random.default_rng(0)
    inputs = jax.tree.map(partial(_draw, rng), shapes)
    count = len(jax.tree.leaves(inputs)[0])
    unit = "examples" if isinstance(shapes, Mapping) and "image" not in shapes else "images"
    expected, rows = None, []
    for name, function in functions.items():
        found = function(inputs)
        expected = expected or found
        start = time.perf_counter()
        function(inputs)
        seconds = time.perf_counter() - start
        difference = max(float(np.abs(found[key] - expected[key]).max()) for key in expected)
        largest = max(1, *(np.abs(values).max() for values in expected.values()))
        if not difference <= TOLERANCES[name] * largest:
            raise RuntimeError(f"{folder}: {name} differs from the model by {difference:.3g}")
        rows.append(
            {"backend": name, "difference": difference, f"{unit}_per_second": count / seconds}
        )
    return rows


def _draw(rng: np.random.Generator, shape: jax.ShapeDtypeStruct) -> np.ndarray:
    """Bytes, numbers around 0, or what is mostly True."""
    if shape.dtype == np.uint8:
        return rng.integers(0, 256, shape.shape, np.uint8)
    if shape.dtype == np.bool_:
        return rng.random(shape.shape) < 0.9
    return rng.standard_normal(shape.shape, shape.dtype)


def _card(description: dict[str, Any] | None, config: dict[str, Any]) -> str:
    """The model card, of what is known."""
    source = (description or {}).get("source", {})
    files = "; ".join(
        f"{file['name']}, SHA-256 {file['sha256']}" for file in source.get("files", ())
    )
    what = f"{description['architecture']} {json.dumps(description['model'])}" if description else (
        f"{config['kind']} of track {config.get('track')}"
    )  # fmt: skip
    converted = config.get("kind") == KIND
    licence = source.get("licence", "unknown")
    head = "" if licence == "unknown" else f"---\nlicense: {licence}\n---\n"
    return f"""{head}# {description["architecture"] if description else config["kind"]}

- Architecture: {what}.
- Outputs, in their order: {", ".join(config.get("classes") or ()) or "features alone"}.
- {_inputs(description, config)}.
- Weights: {f"converted from {files}" if converted else "trained with abaw_jax"}.
- Weights' licence: {licence}{"; whoever publishes them states it here" * (licence == "unknown")}.
"""


def _inputs(description: dict[str, Any] | None, config: dict[str, Any]) -> str:
    takes = ARCHITECTURES[description["architecture"]].inputs if description else "image"
    return (
        f"Pixels: {json.dumps(config.get('image', {}))}" if takes == "image" else f"Takes {takes}"
    )


def _files(folder: pathlib.Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
