"""Trained models out of the package: an archive of arrays and JSON, and a portable program.

An exported folder holds

    model.safetensors   the weights
    config.json         everything else a prediction needs: architecture, class names (of further
                        heads too, by track, in `also`), crop geometry, pixel normalisation,
                        smoothing
    model.stablehlo     the prediction as a `jax.export` program of (weights, inputs), for CPU, GPU
                        and TPU, any number of examples at a time. JAX keeps such programs readable
                        for six months only; the two files above are the archive
    README.md           the model card
"""

import contextlib
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from abaw_jax.data.views import FACE
from abaw_jax.errors import InputError
from abaw_jax.files import atomic_write
from abaw_jax.interop.archive import check_variables, load_model, save_model
from abaw_jax.models.convolution import use_form
from abaw_jax.stages.parts import (
    CLIP_MODELS,
    make_encoder_task,
    make_finetune_task,
    make_second_task,
    make_sequence_task,
)
from abaw_jax.tasks.task import Task
from abaw_jax.tracks import TRACKS
from abaw_jax.tracks.targets import find_target

PROGRAM = "model.stablehlo"
PLATFORMS = ("cpu", "cuda", "tpu")
MAKERS = {
    "frame_classifier": make_finetune_task,
    "sequence_model": make_sequence_task,
    "two_branches": make_second_task,
}
ENCODER = "frame_encoder"  # a kind too: an encoder of images without a head, of no track
OF_IMAGES = ("frame_classifier", ENCODER)  # kinds that see single images
Predict = Callable[[dict[str, Any]], dict[str, np.ndarray]]


def make_task(config: dict[str, Any], source: object) -> tuple[Task, dict[str, Any]]:
    """The task of a `config.json`, and its variables as shapes.

    Raises InputError, naming `source`, for a config that no model of this package can be made of.
    """
    kind, track = str(config.get("kind")), str(config.get("track")).lower()
    if kind == ENCODER:
        return _build(kind, make_encoder_task, config, source)
    if kind not in MAKERS or track not in TRACKS:
        raise InputError(
            f"{source}: kind {kind!r} of track {config.get('track')!r}; expected one of "
            f"{', '.join(MAKERS)} of {', '.join(TRACKS)}: name a folder that was exported here"
        )
    if config.get("classes") != list(TRACKS[track].classes):
        raise InputError(
            f"{source}: classes {config.get('classes')}; this version has {TRACKS[track].classes}"
        )
    for key, classes in config.get("also", {}).items():
        if key not in TRACKS or classes != list(TRACKS[key].classes):
            raise InputError(
                f"{source}: track {key!r} with classes {classes}; this version has no such"
            )
    target = find_target(TRACKS[track], config.get("finetune", {}).get("target"))
    if target and config.get("outputs") != list(target.track.classes):
        raise InputError(
            f"{source}: outputs {config.get('outputs')}; this version has {target.track.classes}"
        )
    return _build(kind, lambda sections: MAKERS[kind](sections, TRACKS[track]), config, source)


def _build(
    kind: str, make: Callable[[Any], Task], config: dict[str, Any], source: object
) -> tuple[Task, dict[str, Any]]:
    """What `make_task` gives, by a function of the config."""
    try:
        task = make(ml_collections.FrozenConfigDict(config))
        params, state = jax.eval_shape(task.init, jax.random.key(0), example_inputs(config, 1))
    except Exception as error:  # absent keys and impossible values have no one type
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{source}: no {kind} can be made of it ({reason}); export the model again"
        ) from error
    return task, {"params": params, **state}


def example_inputs(config: dict[str, Any], batch: Any) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of what a model is given: `batch` images, or windows with their mask: of crops, of
    features, or both; or clips as `data.clips.make_clip_reader` has them."""
    if config["kind"] in OF_IMAGES:
        size = config["image"]["size"]
        return {"image": jax.ShapeDtypeStruct((batch, size, size, 3), jnp.uint8)}
    window, width = (batch, config["sequence"]["length"]), config["features"]["width"]
    if config["sequence"].get("model") in CLIP_MODELS:
        return {
            name: jax.ShapeDtypeStruct((batch, *shape), jnp.float32)
            for name, shape in _clip_shapes(config["features"], window[1]).items()
        }
    inputs = {"mask": jax.ShapeDtypeStruct(window, jnp.bool_)}
    if config["sequence"].get("pixels"):
        size = config["image"]["size"]
        inputs["image"] = jax.ShapeDtypeStruct((*window, size, size, 3), jnp.uint8)
        inputs["seen"] = jax.ShapeDtypeStruct(window, jnp.bool_)
    if width or "image" not in inputs:
        inputs["features"] = jax.ShapeDtypeStruct((*window, width), jnp.float32)
    return inputs


def _clip_shapes(features: Any, length: int) -> dict[str, tuple[int, int]]:
    """Shape of one clip's features by their names, from what a model was told of them."""
    parts = features.get("modalities", {FACE: features})
    own = {name: part for name, part in parts.items() if "steps" in part}
    shapes = {f"features/{name}": (part["steps"], part["width"]) for name, part in own.items()}
    if others := [part["width"] for name, part in parts.items() if name not in own]:
        shapes["features"] = length, sum(others) + 1
    return shapes


def save_export(
    folder: pathlib.Path,
    variables: dict[str, Any],
    config: dict[str, Any],
    card: str,
    *,
    stablehlo: bool = True,
) -> None:
    """Write all files of an exported model: card, weights, `config.json`, and the program last."""
    task, expected = make_task(config, folder / "config.json")
    check_variables(variables, expected, folder)
    with atomic_write(folder / "README.md", "w") as file:
        file.write(card)
    save_model(folder, variables, config)
    if not stablehlo:
        return
    save_program(folder, make_prediction(task), variables, lambda b: example_inputs(config, b))


def save_program(
    folder: pathlib.Path,
    function: Callable[[Any, Any], Any],
    variables: dict[str, Any],
    make_inputs: Callable[[Any], Any],
) -> None:
    """Write (variables, inputs) -> outputs as a program.

    make_inputs: number of examples -> shapes of the inputs; the program takes any number.
    """
    (batch,) = jax.export.symbolic_shape("b")
    with _no_source_places(), use_form("grouped"):  # which all backends know
        program = jax.export.export(jax.jit(function), platforms=PLATFORMS)(
            jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype), variables),
            make_inputs(batch),
        )
    with atomic_write(folder / PROGRAM) as file:
        file.write(program.serialize())


@contextlib.contextmanager
def _no_source_places() -> Iterator[None]:
    """Lower without the files and lines that operations come from: they name this machine's
    folders, and make another program of each checkout and caller."""
    limit = jax.config.jax_traceback_in_locations_limit
    jax.config.update("jax_traceback_in_locations_limit", 0)
    try:
        yield
    finally:
        jax.config.update("jax_traceback_in_locations_limit", limit)


def load_predict(folder: pathlib.Path) -> Predict:
    """The prediction of an exported folder, built from its weights and config by this package.

    Takes what `example_inputs` describes as NumPy arrays and returns NumPy arrays.
    """
    variables, config = load_model(folder)
    task, expected = make_task(config, folder / "config.json")
    check_variables(variables, expected, folder)
    return _numpy_predict(jax.jit(make_prediction(task)), variables)


def load_program(folder: pathlib.Path) -> Predict:
    """The same prediction from the program on disk: needs JAX but none of this package's models."""
    variables, _ = load_model(folder)
    path = folder / PROGRAM
    try:
        program = jax.export.deserialize(bytearray(path.read_bytes()))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); export it again") from error
    except Exception as error:  # FlatBuffers checks nothing: damage shows as whatever comes first
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{path}: is no program ({reason}); export it again") from error
    (expected, _), _ = jax.tree.unflatten(program.in_tree, program.in_avals)
    check_variables(variables, expected, folder)
    return _numpy_predict(program.call, variables)


def make_prediction(task: Task) -> Callable[..., dict[str, jax.Array]]:
    """(variables, inputs as `example_inputs` has them) -> arrays by name."""

    def prediction(variables, inputs):
        state = {k: v for k, v in variables.items() if k != "params"}
        return task.predict(variables["params"], state, inputs)

    return prediction


def _numpy_predict(function: Callable, variables: Any) -> Predict:
    variables = jax.tree.map(jnp.asarray, variables)

    def predict(inputs):
        return jax.device_get(function(variables, jax.tree.map(jnp.asarray, inputs)))

    return predict
