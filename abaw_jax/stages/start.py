"""Public weights with which fine-tuning starts, in place of the run's own pre-training.

`finetune.start` names the folder of a converted ViT or masked autoencoder (`abaw_jax.convert`).
Its encoder must be the one that the config describes: sizes, positions, pixels.
"""

import pathlib
from typing import Any

from abaw_jax.errors import InputError
from abaw_jax.files import read_json
from abaw_jax.interop.architectures import ARCHITECTURES, make_shapes
from abaw_jax.interop.archive import WEIGHTS, check_variables, load_model
from abaw_jax.interop.convert import describe

ENCODER = ("patch_size", "width", "depth", "heads", "positions", "epsilon")
IMAGE = ("size", "normalise", "mean", "std")


def start_folder(config: Any) -> pathlib.Path:
    """The folder that `finetune.start` names. Raises InputError where it holds no model."""
    folder = pathlib.Path(config.finetune.start)
    if not (folder / WEIGHTS).is_file():
        raise InputError(
            f"config.finetune.start: {folder} holds no {WEIGHTS}; name a folder that "
            "`python -m abaw_jax.convert` has written"
        )
    return folder


def check_start(config: Any) -> None:
    """Raise InputError for weights that cannot be the encoder's first ones."""
    if not config.finetune.get("start"):
        return
    if config.finetune.encoder:
        raise InputError("config.finetune: start and encoder; expected one of the two")
    folder = start_folder(config)
    description = describe(read_json(folder / "config.json"), folder)
    if description["architecture"] not in ("vit", "mae"):
        raise InputError(
            f"config.finetune.start: {folder} holds a {description['architecture']}; expected a "
            "ViT or a masked autoencoder"
        )
    wanted = {f"encoder.{key}": config.encoder[key] for key in ENCODER}
    wanted |= {f"image.{key}": config.image[key] for key in IMAGE}
    found = {f"encoder.{key}": description["model"][key] for key in ENCODER}
    found |= {f"image.{key}": description["image"][key] for key in IMAGE}
    differing = [
        f"config.{key} is {asked}, its own {found[key]}"
        for key, asked in wanted.items()
        if (list(asked) if isinstance(asked, tuple) else asked) != found[key]
    ]
    if differing:
        raise InputError(
            f"config.finetune.start: {folder} does not fit: {'; '.join(differing)}; set what "
            "differs as it has it, or convert it anew"
        )


def load_start(config: Any) -> dict[str, Any]:
    """Parameters of a frame classifier that the weights have: `encoder`, and `fc_norm` where it
    is of the feature that `finetune.pooling` asks for."""
    folder = start_folder(config)
    variables, found = load_model(folder)
    description = describe(found, folder)
    architecture, sizes = ARCHITECTURES[description["architecture"]], description["model"]
    check_variables(variables, make_shapes(architecture, sizes), folder)
    same = sizes.get("pooling") == config.finetune.pooling
    names = ("encoder", "fc_norm") if same else ("encoder",)
    return {name: variables["params"][name] for name in names}
