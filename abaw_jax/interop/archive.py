"""A model as two files anyone can read: `model.safetensors` and `config.json`."""

import hashlib
import pathlib
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy
from flax import traverse_util

from abaw_jax.errors import InputError
from abaw_jax.files import atomic_write, read_json, write_json

WEIGHTS = "model.safetensors"


def save_model(folder: pathlib.Path, variables: dict[str, Any], config: dict[str, Any]) -> None:
    """Write `variables` ({'params': tree, 'batch_stats': tree, ...}) and `config`, config last.

    Arrays keep their types; their names are paths such as `params/encoder/blocks_0/norm1/scale`.
    """
    arrays = {
        name: np.asarray(value, order="C")  # ascontiguousarray gives scalars an axis
        for name, value in traverse_util.flatten_dict(jax.device_get(variables), sep="/").items()
    }
    with atomic_write(folder / WEIGHTS) as file:
        file.write(safetensors.numpy.save(arrays))
    write_json(folder / "config.json", config)


def load_model(folder: pathlib.Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(variables as nested dicts of NumPy arrays, config). Raises InputError for damaged files."""
    config = read_json(folder / "config.json")
    path = folder / WEIGHTS
    try:
        arrays = safetensors.numpy.load_file(path)
        return traverse_util.unflatten_dict(arrays, sep="/"), config
    # Names that clash ("a" and "a/b") are an IndexError, types that NumPy lacks a KeyError.
    except (OSError, safetensors.SafetensorError, IndexError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: cannot be read ({reason}); make the model again") from error


def check_variables(found: Any, expected: Any, source: str | pathlib.Path) -> None:
    """Raise InputError naming what differs if `found` has not `expected`'s names and shapes."""
    have = {k: np.shape(v) for k, v in traverse_util.flatten_dict(found, sep="/").items()}
    want = {k: np.shape(v) for k, v in traverse_util.flatten_dict(expected, sep="/").items()}
    if have == want:
        return
    faults = [f"lacks {k}" for k in sorted(want.keys() - have.keys())]
    faults += [f"has {k} too many" for k in sorted(have.keys() - want.keys())]
    faults += [
        f"{k} is {have[k]}, expected {want[k]}"
        for k in sorted(want.keys() & have.keys())
        if have[k] != want[k]
    ]
    more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
    raise InputError(
        f"{source}: weights of another architecture: {'; '.join(faults[:3])}{more}; "
        "use the config they were made with"
    )


def content_hash(folder: pathlib.Path) -> str:
    """Hash of a saved model's weights: names the encoder of a feature store."""
    try:
        with open(folder / WEIGHTS, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as error:
        raise InputError(f"{folder / WEIGHTS}: cannot be read ({error.strerror})") from error
