"""A model for others: tensors with another library's names, the archive, or a program.

Each folder holds model.safetensors, config.json and README.md, the model card. With a library's
names config.json is that library's; otherwise it is this package's.
"""

import json
import pathlib
import time
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
from abaw_jax.interop.export import MAKERS, load_program, save_export, save_program
from abaw_jax.interop.load import load, make_function
from abaw_jax.interop.tensors import read_source, save_tensors

# Files of this package's own.
OWN = ("archive", "stablehlo")
# Another word for a form.
ALIASES = {"mae": "timm"}
IMAGES = 8  # of the parity check
TOLERANCE = 1e-5  # of the largest output


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
    program = form == "stablehlo"
    if config.get("kind") in MAKERS:
        save_export(folder, variables, config, _card(None, config), stablehlo=program)
        return {"form": form, "files": _files(folder)}
    description = describe(config, model)
    architecture, function = make_function(description)
    load(model)  # refuses weights of another architecture
    if program and architecture.inputs != "image":
        raise InputError(f"{model}: programs are written of models of images alone; take archive")
    if architecture.inputs == "tokens":
        copy_tokenizer(model, folder)
    with atomic_write(folder / "README.md", "w") as file:
        file.write(_card(description, config))
    if (model / ASIDE).is_file():
        save_tensors(folder / ASIDE, read_source(model / ASIDE).tensors)
    save_model(folder, variables, config)
    if not program:
        return {"form": form, "files": _files(folder)}
    side = description["image"]["size"]

    def make_inputs(batch):
        return jax.ShapeDtypeStruct((batch, side, side, 3), jnp.uint8)

    save_program(folder, function, variables, make_inputs)
    return {"form": form, "files": _files(folder), "parity": _parity(model, folder, side)}


def _parity(model: pathlib.Path, folder: pathlib.Path, side: int) -> list[dict[str, Any]]:
    """Of the model and of its program: greatest difference on random images, images a second."""
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, side, side, 3), np.uint8)
    functions = {"jax": load(model), "stablehlo": load_program(folder)}
    expected, rows = functions["jax"](images), []
    for name, function in functions.items():
        found = function(images)
        start = time.perf_counter()
        function(images)
        seconds = time.perf_counter() - start
        difference = max(float(np.abs(found[key] - expected[key]).max()) for key in expected)
        if not difference <= TOLERANCE * max(1, *(np.abs(a).max() for a in expected.values())):
            raise RuntimeError(f"{folder}: {name} differs from the model by {difference:.3g}")
        rows.append(
            {"backend": name, "difference": difference, "images_per_second": IMAGES / seconds}
        )
    return rows


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
