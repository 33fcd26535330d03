"""Public weights: those with which fine-tuning starts, in place of the run's own pre-training, or
which are taken as the encoder.

`finetune.start` names the folder of a converted encoder (`abaw_jax.convert`): a ViT, a masked
autoencoder, a convolutional one. It must be the one that the config describes: family, sizes,
positions, pixels. Another run, or its finetune/model, does as well, whatever it has learnt.

`finetune.encoder` may name such a folder too: then the encoder is taken as it is. If its outputs
are by name those of a track, or AffectNet's, it is a frame classifier of that track, and of VA with
them; else it has no head.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from abaw_jax.errors import InputError
from abaw_jax.files import read_json
from abaw_jax.interop.architectures import ARCHITECTURES, make_shapes
from abaw_jax.interop.archive import WEIGHTS, check_variables, load_model
from abaw_jax.interop.convert import describe
from abaw_jax.interop.export import ENCODER, make_task
from abaw_jax.models.families import FAMILIES, VIT
from abaw_jax.recipe import Context
from abaw_jax.tracks import TRACKS, VA
from abaw_jax.tracks.affectnet import AFFECTNET
from abaw_jax.tracks.expr import EXPR
from abaw_jax.tracks.track import Track

# What a given encoder must have as the config says: others' features are of other pixels or widths.
FITTING = {
    "image": ("size", "normalise", "mean", "std"),
    "encoder": ("patch_size", "width", "depth", "heads", "positions", "epsilon"),  # of a ViT
    "finetune": ("pooling",),  # of one that is taken as it is
}
CLASSIFIER = "frame_classifier"  # the kind of model that the stage finetune makes


def given_folder(config: Any, key: str) -> pathlib.Path:
    """The model that `finetune.<key>`, start or encoder, names by its own folder or its run's.

    Raises InputError where neither is there.
    """
    named = pathlib.Path(config.finetune[key])
    places = (named, named / "finetune" / "model")
    found = [folder for folder in places if (folder / WEIGHTS).is_file()]
    if not found:
        raise InputError(
            f"config.finetune.{key}: {named} holds neither {WEIGHTS} nor finetune/model; name "
            "the folder of a run whose stage finetune is finished, or one that `python -m "
            "abaw_jax.convert` has written"
        )
    return found[0]


def check_start(config: Any) -> None:
    """Raise InputError for weights that cannot be the encoder's first ones."""
    if not config.finetune.get("start"):
        return
    if config.finetune.encoder:
        raise InputError("config.finetune: start and encoder; expected one of the two")
    folder = given_folder(config, "start")
    check_fit(config, "start", folder, read_json(folder / "config.json"))


def check_fit(config: Any, key: str, folder: pathlib.Path, found: Mapping[str, Any]) -> None:
    """Raise InputError, naming `finetune.<key>`, where a model is not of the config's encoder.

    found: its config.json.
    """
    own, asked = _describe_fit(found, folder), config.encoder.family
    if own["encoder"].get("family") != asked:
        raise InputError(
            f"config.finetune.{key}: {folder} holds "
            f"{own['encoder'].get('family') or found.get('kind')}; expected {asked}, as "
            "config.encoder.family says"
        )
    differing = [
        f"config.{part}.{name} is {value}, its own {own[part].get(name)}"
        for part, names in FITTING.items()
        if not (part == "encoder" and asked != VIT) and not (part == "finetune" and key == "start")
        for name in names
        if (value := _plain(config[part][name])) != own[part].get(name)
    ]
    if differing:
        raise InputError(
            f"config.finetune.{key}: {folder} does not fit: {'; '.join(differing)}; set what "
            "differs as it has it, or name another"
        )


def _plain(value: Any) -> Any:
    """As JSON has it."""
    return list(value) if isinstance(value, tuple) else value


def _describe_fit(found: Mapping[str, Any], folder: pathlib.Path) -> dict[str, Mapping[str, Any]]:
    """What the sections of FITTING say of a model's encoder; of one that sees no images little."""
    if found.get("kind") == CLASSIFIER:
        before = {"family": VIT, "positions": "sincos", "epsilon": 1e-6}  # there were others
        own = {part: found.get(part, {}) for part in FITTING}
        return own | {"encoder": before | own["encoder"]}
    description = describe(found, folder)
    architecture, sizes = description["architecture"], description["model"]
    public = {family.public: name for name, family in FAMILIES.items() if family.public}
    family = public.get((architecture, sizes.get("size")), architecture)
    of_vit = architecture in ("vit", "mae")
    return {
        "image": description.get("image", {}),
        "encoder": {"family": VIT, **sizes} if of_vit else {"family": family},
        "finetune": {"pooling": pooling_of(description)},
    }


def find_tracks(classes: Sequence[str]) -> list[Track]:
    """The tracks that a classifier's outputs are of by their names, in any order: one, or one with
    VA; [] where they are of none. AFFECTNET stands for what EXPR is read from."""
    numbers = [name for name in classes if name in VA.classes]
    names = set(classes) - set(numbers)
    known = [AFFECTNET, *(track for track in TRACKS.values() if not track.per_clip)]
    found = [track for track in known if set(track.classes) == names]
    found += [VA] if len(numbers) == VA.outputs else []
    return found if sum(track.outputs for track in found) == len(classes) else []


def pooling_of(description: Mapping[str, Any]) -> str:
    """How the feature of a converted encoder is made, as `models.heads.pool_tokens` has it."""
    pooled = "norm_mean" if description["architecture"] == "mae" else "none"
    return description["model"].get("pooling", pooled)


def take_public(context: Context, folder: pathlib.Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(variables, config.json) of a converted encoder as the stage `finetune` keeps what it makes.

    With the head of `find_tracks`, its columns in the tracks' order, or without any.
    """
    variables, found = load_model(folder)
    description = describe(found, folder)
    architecture = ARCHITECTURES[description["architecture"]]
    check_variables(variables, make_shapes(architecture, description["model"]), folder)
    params, classes = dict(variables["params"]), list(description["classes"])
    if description["architecture"] == "mae":
        params = {"encoder": params["encoder"], "fc_norm": params["norm"]}
    head, tracks = params.pop("head", None), find_tracks(classes)
    for i, track in enumerate(tracks):
        columns = [classes.index(name) for name in track.classes]
        part = {name: np.take(array, columns, axis=-1) for name, array in head.items()}
        params[f"head_{track.key}" if i else "head"] = part
    section = {"pooling": pooling_of(description), "dropout": 0.0, "mixup": 0.0, "cutmix": 0.0}
    source = description["source"]
    sums = [file["sha256"] for file in source.get("files", [])]
    config = {"kind": ENCODER, "source": {"licence": source.get("licence"), "sha256": sums}}
    if tracks:
        config |= _describe_tracks(tracks)
        section |= {"target": AFFECTNET.key} if tracks[0] is AFFECTNET else {}
        section |= {"output": "linear"} if tracks[0] is VA else {}
        section["also"] = {track.key: {"output": "linear"} for track in tracks[1:]}
    config |= {**context.section("image", "encoder"), "finetune": section}
    return {**variables, "params": params}, config


def _describe_tracks(tracks: Sequence[Track]) -> dict[str, Any]:
    """What the config.json of a frame classifier says of its tracks."""
    first, *further = tracks
    track = EXPR if first is AFFECTNET else first
    found = {"kind": CLASSIFIER, "track": track.name, "classes": list(track.classes)}
    found |= {} if first is track else {"outputs": list(first.classes)}
    found |= {"also": {other.key: list(other.classes) for other in further}} if further else {}
    return found


def load_start(config: Any) -> dict[str, Any]:
    """What a frame classifier takes of the weights: {'params': `encoder`, and `fc_norm` where it
    is of the feature that `finetune.pooling` asks for, 'batch_stats': `encoder` if it has any}."""
    folder = given_folder(config, "start")
    variables, found = load_model(folder)
    if found.get("kind") == CLASSIFIER:
        shapes, pooling = make_task(found, folder)[1], found["finetune"]["pooling"]
    else:
        description = describe(found, folder)
        architecture, sizes = ARCHITECTURES[description["architecture"]], description["model"]
        shapes, pooling = make_shapes(architecture, sizes), sizes.get("pooling")
    check_variables(variables, shapes, folder)
    names = ("encoder", "fc_norm") if pooling == config.finetune.pooling else ("encoder",)
    return {
        collection: {name: tree[name] for name in names if name in tree}
        for collection, tree in variables.items()
    }
