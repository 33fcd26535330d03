"""Public weights as a model of this package, and a model as tensors with public names.

A converted folder holds `model.safetensors` and `config.json` as every model here
(`interop/archive.py`); config.json is a description (`interop/architectures.py`), of which `source`
says

    files     name and sha256 of each file that was read
    licence   as the user or the files beside the weights name it; "unknown" where neither does
    form      how the tensors were named; a key of the architecture's forms
    prefix    what stood before every name
    type      what most weights were stored in, and in `types` those that were not: arrays here are
              float32, which holds all numbers of the shorter types
    resized   the image size that the table of positions was of, where another was asked for
    tokenizer of a text encoder the files of its tokenizer, which lay beside it and are copied

and source.safetensors the tensors that are no weights of the model: counters, indices, tables that
the model computes. With them what is exported has the source's bytes.
"""

import collections
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flax import traverse_util

from abaw_jax.data.tokens import check_vocabulary, copy_tokenizer, find_tokenizer, load_tokenizer
from abaw_jax.errors import InputError
from abaw_jax.files import read_json
from abaw_jax.interop.architectures import ARCHITECTURES, is_ignored, make_shapes, recognise
from abaw_jax.interop.archive import load_model, save_model
from abaw_jax.interop.conventions import CLASSES, NORMALISED
from abaw_jax.interop.forms import Architecture, Arrays, Form, Sizes
from abaw_jax.interop.keymap import read_tensors, write_tensors
from abaw_jax.interop.tensors import (
    BFLOAT16,
    Source,
    read_classes,
    read_image,
    read_licence,
    read_source,
    save_tensors,
)
from abaw_jax.models.families import FAMILIES, VIT

ASIDE = "source.safetensors"
KIND = "converted"
# By how much tables of numbers up to 1 may differ that are to be the same.
ROUNDING = {"float32": 1e-5, "float16": 1e-3, "bfloat16": 8e-3}
# What becomes float32 without loss.
SHORT = {str(np.dtype(kind)): np.dtype(kind) for kind in (np.float32, np.float16, BFLOAT16)}


def convert(
    source: str | pathlib.Path,
    folder: str | pathlib.Path,
    *,
    kind: str | None = None,
    drop_head: bool = False,
    image_size: int | None = None,
    classes: Sequence[str] = (),
    normalise: str | None = None,
    licence: str | None = None,
    **given: Any,
) -> dict[str, Any]:
    """Write what `source` holds as a model to `folder`; its description.

    kind: a key of `ARCHITECTURES`, where it is not to be found from the tensors. drop_head: leave
    the classifier out, and of an autoencoder the decoder. classes: names of the outputs; a key of
    `CLASSES` stands for its names. normalise: a key of `NORMALISED`. given: sizes that tensors do
    not show, such as heads. Raises InputError for what cannot be read or is not known.
    """
    folder = pathlib.Path(folder)
    _check_folder(folder)
    read = read_source(source)
    variables, description, aside = make_model(
        read, kind, drop_head, image_size, classes, normalise, licence, given
    )
    if ARCHITECTURES[description["architecture"]].inputs == "tokens":
        description["source"]["tokenizer"] = _check_tokenizer(read.path, description["model"])
        copy_tokenizer(read.path.parent, folder)
    if aside:
        save_tensors(folder / ASIDE, aside)
    else:
        (folder / ASIDE).unlink(missing_ok=True)
    save_model(folder, variables, description)
    return description


def make_model(
    read: Source,
    kind: str | None,
    drop_head: bool,
    image_size: int | None,
    classes: Sequence[str],
    normalise: str | None,
    licence: str | None,
    given: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, Any], dict[str, np.ndarray]]:
    """(variables, description, tensors to be kept beside them); all else as `convert`."""
    name, tensors = str(read.path), read.tensors
    about = {**read.about, **{key: value for key, value in given.items() if value is not None}}
    if drop_head:
        tensors = _without_head(tensors, name)
    key, form_name = recognise(list(tensors), kind, name)
    architecture = ARCHITECTURES[key]
    form = architecture.forms[form_name]
    if architecture.inputs != "image" and (image_size or normalise):
        raise InputError(
            f"{name}: a {key}, which takes {architecture.inputs}; leave --image_size and "
            "--normalise out, which are of images"
        )
    shapes = {tensor: array.shape for tensor, array in tensors.items()}
    sizes = architecture.sizes(shapes, form_name, about, name)
    if architecture.inputs == "image" and architecture.resize is None:
        sizes["image_size"] = image_size or read_image(about).get("size") or sizes["image_size"]
    names = _class_names(classes, about, sizes.get("outputs", 0), name)
    types = _weight_types(tensors, form, name)
    arrays, sizes, fixed = _read(architecture, form, sizes, tensors, name)
    description = {
        "kind": KIND,
        "architecture": key,
        "model": sizes,
        "classes": names,
        "source": {
            "files": read.files,
            "licence": licence or read_licence(about) or "unknown",
            "form": form_name,
            "prefix": read.prefix,
            **_summary(types),
        },
    }
    aside = {n: a for n, a in tensors.items() if n in fixed or is_ignored(form, n)}
    _check_back(arrays, description, aside, tensors)
    if image_size and image_size != sizes["image_size"]:
        description["source"]["resized"] = sizes["image_size"]
        arrays, description["model"] = architecture.resize(arrays, sizes, image_size)
        aside = {n: a for n, a in aside.items() if n not in fixed}
    if architecture.inputs == "image":
        description["image"] = _pixels(architecture, description["model"], about, normalise, name)
    return traverse_util.unflatten_dict(arrays, sep="/"), description, aside


def load_tensors(folder: pathlib.Path, form: str | None = None) -> dict[str, np.ndarray]:
    """The model of a folder as tensors with public names.

    form: a key of its architecture's forms; by default that of the source, and then with the
    source's types and whatever was kept beside the weights; of a model that was trained here, its
    architecture's first. Raises InputError for a folder of which no tensors can be made.
    """
    variables, config = load_model(folder)
    description = describe(config, folder)
    source = description["source"]
    known = ARCHITECTURES[description["architecture"]].forms
    arrays = traverse_util.flatten_dict(variables, sep="/")
    if form is not None and form not in known:
        raise InputError(
            f"{folder}: a model of kind {description['architecture']!r} has no tensor names of "
            f"{form!r}; known are {', '.join(known)}, and see --help"
        )
    if form not in (None, source.get("form")):
        return to_tensors(arrays, {**description, "source": {"form": form}})
    beside = folder / ASIDE
    aside = read_source(beside).tensors if source.get("files") and beside.is_file() else {}
    return to_tensors(arrays, description, aside)


def to_tensors(
    arrays: Arrays, description: Mapping[str, Any], aside: Mapping[str, np.ndarray] | None = None
) -> dict[str, np.ndarray]:
    """Arrays by path as tensors in the form, the types and behind the prefix of `source`."""
    architecture, source = ARCHITECTURES[description["architecture"]], description["source"]
    sizes = description["model"]
    rules = architecture.forms[source["form"]].rules(sizes)
    tensors = write_tensors({**architecture.fixed(sizes), **arrays}, rules)
    usual, others = source.get("type", "float32"), source.get("types", {})
    tensors = {n: a.astype(SHORT[others.get(n, usual)], copy=False) for n, a in tensors.items()}
    tensors |= aside or {}
    return {f"{source.get('prefix', '')}{name}": array for name, array in tensors.items()}


def describe(config: Mapping[str, Any], folder: object) -> dict[str, Any]:
    """The description of a model by its config.json; of encoders that were trained here too.

    Raises InputError, naming `folder`, for a model of which there are no public names.
    """
    kind = config.get("kind")
    if kind == KIND and config.get("architecture") in ARCHITECTURES:
        form = next(iter(ARCHITECTURES[config["architecture"]].forms))
        return {"classes": [], "source": {"form": form}, **config}
    further = config.get("also") or config.get("outputs")
    if kind not in ("frame_classifier", "mae") or further:
        raise InputError(
            f"{folder}: a model of kind {kind!r}{' with several heads' if further else ''}, for "
            "which other libraries have no names; expected converted weights, a frame classifier "
            "or a masked autoencoder"
        )
    architecture, sizes = _describe_encoder(config, folder)
    if kind == "mae":
        keys = ("decoder_width", "decoder_depth", "decoder_heads")
        architecture, sizes = "mae", sizes | {key: config["pretrain"][key] for key in keys}
    else:
        sizes |= {"outputs": len(config["classes"])}
        sizes |= {"pooling": config["finetune"]["pooling"]} if architecture == "vit" else {}
    return {
        "kind": KIND,
        "architecture": architecture,
        "model": sizes,
        "classes": list(config.get("classes", [])),
        "image": dict(config["image"]),
        "source": {"form": next(iter(ARCHITECTURES[architecture].forms))},
    }


def _describe_encoder(config: Mapping[str, Any], folder: object) -> tuple[str, Sizes]:
    """(key of `ARCHITECTURES`, sizes) of the encoder of a model that was trained here."""
    encoder, image = config["encoder"], {"image_size": config["image"]["size"]}
    if (name := encoder.get("family", VIT)) == VIT:
        sizes = {key: encoder[key] for key in ("patch_size", "width", "depth", "heads")}
        return "vit", sizes | image | {
            "mlp_ratio": 4.0,
            "positions": encoder.get("positions", "sincos"),
            "epsilon": encoder.get("epsilon", 1e-6),
        }  # fmt: skip
    public = FAMILIES[name].public if name in FAMILIES else None
    if public is None:
        raise InputError(f"{folder}: of family {name!r}, for which other libraries have no names")
    return public[0], {"size": public[1], **image}


def _check_folder(folder: pathlib.Path) -> None:
    """Raise InputError where another model would be overwritten."""
    if not (folder / "config.json").exists():
        return
    if read_json(folder / "config.json").get("kind") != KIND:
        raise InputError(f"--to={folder}: holds a model that was not converted; name another")


def _check_tokenizer(source: pathlib.Path, sizes: Sizes) -> list[str]:
    """Its files beside the weights; InputError for one that cannot be read or is not theirs."""
    names = find_tokenizer(source.parent)
    if names:
        check_vocabulary(load_tokenizer(source.parent), sizes["vocabulary"], source)
    return names


def _without_head(tensors: dict[str, np.ndarray], source: str) -> dict[str, np.ndarray]:
    key, _ = recognise(list(tensors), None, source)
    head = ARCHITECTURES[key].head
    return {name: array for name, array in tensors.items() if not re.fullmatch(head, name)}


def _class_names(
    given: Sequence[str], about: Mapping[str, Any], outputs: int, source: str
) -> list[str]:
    """Names of the outputs in their order, or InputError: they are never guessed."""
    names = [name for text in given for name in CLASSES.get(text, (text,))]
    if names and not outputs:
        raise InputError(f"{source}: has no classifier, and --classes names {len(names)} classes")
    if not outputs:
        return []
    names = names or read_classes(about) or []
    if not names:
        raise InputError(
            f"{source}: a classifier of {outputs} outputs whose names are not said; give --classes "
            f"with as many in their order (known orders: {', '.join(CLASSES)}), or --drop_head"
        )
    if len(names) != outputs or len(set(names)) != outputs:
        raise InputError(
            f"{source}: a classifier of {outputs} outputs, and {len(names)} class names"
            f"{'' if len(names) != outputs else ', some of them twice'}: {', '.join(names)[:200]}"
        )
    return names


def _weight_types(tensors: Mapping[str, np.ndarray], form: Form, source: str) -> dict[str, str]:
    types = {n: str(a.dtype) for n, a in tensors.items() if not is_ignored(form, n)}
    odd = [f"{name} {kind}" for name, kind in types.items() if kind not in SHORT]
    if odd:
        raise InputError(
            f"{source}: weights that float32 does not hold: {', '.join(odd)}; expected "
            f"{', '.join(SHORT)}"
        )
    return types


def _summary(types: Mapping[str, str]) -> dict[str, Any]:
    usual = collections.Counter(types.values()).most_common(1)[0][0]
    others = {name: kind for name, kind in types.items() if kind != usual}
    return {"type": usual, **({"types": others} if others else {})}


def _read(
    architecture: Architecture, form: Form, sizes: Sizes, tensors: Arrays, source: str
) -> tuple[Arrays, Sizes, list[str]]:
    """(arrays by path, sizes, names of the tensors that hold tables which the module computes)."""
    wide = {
        name: array if is_ignored(form, name) else array.astype(np.float32, copy=False)
        for name, array in tensors.items()
    }
    computed = {**sizes, "positions": "sincos"} if sizes.get("positions") == "learned" else sizes
    fixed = architecture.fixed(computed)
    try:
        expected = traverse_util.flatten_dict(make_shapes(architecture, computed), sep="/")
    except Exception as error:  # impossible values have no one type
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{source}: no such model can be made ({reason}); give the config.json that came with "
            "the weights"
        ) from error
    shapes = {path: array.shape for path, array in (expected | fixed).items()}
    arrays = read_tensors(wide, form.rules(computed), shapes, source, form.ignored)
    same = set()
    for path, table in fixed.items():
        (name,) = write_tensors({path: table}, form.rules(computed))
        if np.allclose(arrays[path], table, atol=ROUNDING[str(tensors[name].dtype)]):
            same.add(path)
    if "params/encoder/pos_embed" not in same:
        computed = sizes
    rules = form.rules(computed)
    if odd := {path: arrays[path] for path in architecture.fixed(computed).keys() - same}:
        raise InputError(
            f"{source}: {', '.join(write_tensors(odd, rules))} is not the table of sines and "
            "cosines that MAE has fixed; leave the decoder out with --drop_head"
        )
    names = write_tensors({path: arrays[path] for path in same}, rules)
    return {p: a for p, a in arrays.items() if p not in same}, computed, list(names)


def _check_back(
    arrays: Arrays,
    description: Mapping[str, Any],
    aside: Mapping[str, np.ndarray],
    tensors: Mapping[str, np.ndarray],
) -> None:
    """A conversion that cannot be undone is a fault of the tables."""
    bare = {**description, "source": {**description["source"], "prefix": ""}}
    back = to_tensors(arrays, bare, aside)
    odd = [
        name
        for name in back.keys() | tensors.keys()
        if name not in back
        or name not in tensors
        or back[name].dtype != tensors[name].dtype
        or back[name].shape != tensors[name].shape
        or back[name].tobytes() != tensors[name].tobytes()
    ]
    if odd:
        raise RuntimeError(f"tensors that do not come back as they were: {sorted(odd)}")


def _pixels(
    architecture: Architecture,
    sizes: Sizes,
    about: Mapping[str, Any],
    normalise: str | None,
    source: str,
) -> dict[str, Any]:
    """The section `image` of the description, or InputError: a normalisation is not guessed."""
    found, name = read_image(about), normalise or architecture.normalise
    if normalise or ("mean" not in found and name):
        if name not in NORMALISED:
            raise InputError(f"--normalise={name}: expected one of {', '.join(NORMALISED)}")
        found["mean"], found["std"] = NORMALISED[name]
    if len(found.get("mean", ())) != 3 or len(found.get("std", ())) != 3:
        raise InputError(
            f"{source}: how its pixels are normalised is not said; give --normalise, one of "
            f"{', '.join(NORMALISED)}"
        )
    return {
        "size": sizes["image_size"],
        "normalise": "channel",
        "mean": [float(value) for value in found["mean"]],
        "std": [float(value) for value in found["std"]],
    }
