"""A saved model as a function of arrays."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from abaw_jax.errors import InputError
from abaw_jax.files import read_json
from abaw_jax.interop.architectures import ARCHITECTURES, make_shapes
from abaw_jax.interop.archive import check_variables, load_model
from abaw_jax.interop.convert import KIND, describe
from abaw_jax.interop.export import ENCODER, MAKERS, OF_IMAGES, load_predict
from abaw_jax.interop.forms import Architecture
from abaw_jax.interop.inputs import TAKE
from abaw_jax.tasks.task import normalise_by_channel, normalise_by_image

# Outputs of a classifier that are numbers from -1 to 1 and no classes.
AFFECT = ("valence", "arousal")
# What load_predict's models of single frames and every converted encoder of images take.
IMAGES = "image"


@dataclasses.dataclass(frozen=True)
class Model:
    """A model: call it with arrays, one example or more along the first axis.

    classes: names of the columns of `logits` and `probabilities`, in order.
    image_size: side in pixels of the images that it takes; None of one that sees none.
    config: its config.json.
    """

    classes: tuple[str, ...]
    image_size: int | None
    config: Mapping[str, Any]
    predict: Callable[[Any], dict[str, np.ndarray]]

    def __call__(self, inputs: Any) -> dict[str, np.ndarray]:
        """images uint8 (B, S, S, 3) RGB, or what else the model takes -> arrays by name.

        `features` (B, D); of a classifier `logits` (B, C) and `probabilities` of its classes (B,
        C), and if it tells them `valence` and `arousal` (B,); of encoders of text and sound what
        `interop/inputs.py` says. Raises InputError for images of another size, shape or type:
        nothing is resized here, as how it is done matters.
        """
        if self.image_size is not None and not isinstance(inputs, Mapping):
            inputs, size = np.asarray(inputs), self.image_size
            if inputs.dtype != np.uint8 or inputs.ndim != 4 or inputs.shape[1:] != (size, size, 3):
                raise InputError(
                    f"images: {inputs.dtype} {inputs.shape}; expected uint8 (any number, {size}, "
                    f"{size}, 3), red first: resize them before, as the model's training did"
                )
        return self.predict(inputs)


def load(folder: str | pathlib.Path) -> Model:
    """The model of a folder that `convert`, a stage of a recipe or its export has written.

    Models over sequences take a mapping of arrays, as `export.example_inputs` says. Raises
    InputError for a folder that holds none, or a damaged one.
    """
    folder = pathlib.Path(folder)
    config = read_json(folder / "config.json")
    classes = tuple(config.get("classes", ()))
    if config.get("kind") not in (*MAKERS, ENCODER):
        return _load_architecture(folder)
    predict = load_predict(folder)
    if config["kind"] not in OF_IMAGES:
        return Model(classes, None, config, predict)
    return Model(
        classes,
        config["image"]["size"],
        config,
        lambda images: predict(images if isinstance(images, Mapping) else {IMAGES: images}),
    )


def _load_architecture(folder: pathlib.Path) -> Model:
    variables, config = load_model(folder)
    if config.get("kind") not in (KIND, "mae"):
        raise InputError(
            f"{folder}: a model of kind {config.get('kind')!r}, which this version does not know; "
            "convert or export it again"
        )
    description = describe(config, folder)
    architecture, function = make_function(description)
    check_variables(variables, make_shapes(architecture, description["model"]), folder)
    variables = jax.tree.map(jnp.asarray, variables)
    function = jax.jit(function)

    def predict(inputs):
        if take := TAKE.get(architecture.inputs):
            inputs = take(inputs, description["model"])
        return jax.device_get(function(variables, jax.tree.map(jnp.asarray, inputs)))

    return Model(
        tuple(description["classes"]),
        description["image"]["size"] if architecture.inputs == "image" else None,
        config,
        predict,
    )


def make_function(
    description: Mapping[str, Any],
) -> tuple[Architecture, Callable[[Any, Any], dict[str, jax.Array]]]:
    """(architecture, (variables, inputs) -> outputs as `Model` has them), of a description."""
    architecture = ARCHITECTURES[description["architecture"]]
    module: nn.Module = architecture.module(description["model"])
    classes = description["classes"]
    image = description.get("image", {})

    def function(variables, inputs):
        if architecture.inputs == "image":
            if image["normalise"] == "image":
                inputs = normalise_by_image(inputs)
            else:
                inputs = normalise_by_channel(image["mean"], image["std"])(inputs)
        outputs = architecture.apply(module, variables, inputs)
        return name_outputs(outputs, classes)

    return architecture, function


def name_outputs(outputs: dict[str, jax.Array], classes: Any) -> dict[str, jax.Array]:
    """Logits of named outputs (B, C) as probabilities of those that are classes, in their order,
    and valence and arousal (B,) from -1 to 1; without names no logits."""
    outputs = dict(outputs)
    logits = outputs.pop("logits", None)
    if logits is None or not classes:
        return outputs
    numbers = [name for name in AFFECT if name in classes]
    columns = np.array([i for i, name in enumerate(classes) if name not in numbers], int)
    outputs |= {name: jnp.clip(logits[:, classes.index(name)], -1, 1) for name in numbers}
    if len(columns):
        outputs["probabilities"] = jax.nn.softmax(logits[:, columns], axis=-1)
    return {"logits": logits, **outputs}
