"""Tensors by name out of the files in which other libraries publish weights, and into one.

Read are a .safetensors file, several with their index (model.safetensors.index.json), a file of
torch.save, and a folder that holds one of these under its usual name. Nothing that a file names is
run: torch.load is called with weights_only=True, and a pickle that names anything but what tensors
are made of is refused before.
"""

import argparse
import hashlib
import json
import pathlib
import pickletools
import re
import zipfile
from collections.abc import Iterator, Mapping
from typing import IO, Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from abaw_jax.errors import InputError
from abaw_jax.files import atomic_write, read_json

INDEX = ".safetensors.index.json"
# What a folder holds, in the order in which it is looked for.
USUAL = ("model.safetensors", f"model{INDEX}", "pytorch_model.bin")
TORCH = (".pth", ".pt", ".bin", ".ckpt", ".tar")
# Under these a training run's checkpoint holds its model's tensors; the first that is there.
NESTED = ("model", "state_dict", "model_state_dict", "net")
BFLOAT16 = np.dtype(jnp.bfloat16)
_TYPES = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": BFLOAT16,
    "I64": np.int64, "U64": np.uint64, "I32": np.int32, "U32": np.uint32, "I16": np.int16,
    "U16": np.uint16, "I8": np.int8, "U8": np.uint8, "BOOL": np.bool_,
}  # fmt: skip
# Modules whose names a file of tensors may hold; what torch itself refuses of them it says.
_HARMLESS = re.compile(r"(torch[\w.]*|numpy[\w.]*|collections|argparse|_codecs)\.\w+")
_HARMFUL = re.compile(r"torch\.(hub|load|jit|serialization|utils|package)\b.*|numpy\.(load|save).*")


class Source(NamedTuple):
    """tensors: by name. files: {'name', 'sha256'} of each. about: what lies beside them says
    (`read_about`). prefix: what stood before every name, as of a model in parallel on devices."""

    path: pathlib.Path
    tensors: dict[str, np.ndarray]
    files: list[dict[str, str]]
    about: dict[str, Any]
    prefix: str


def read_source(path: str | pathlib.Path) -> Source:
    """All tensors of a file, of its parts, or of a folder. Raises InputError, in one line."""
    file = _find(pathlib.Path(path))
    parts = [file]
    if file.name.endswith(INDEX):
        tensors, parts = _read_shards(file)
    elif file.suffix == ".safetensors":
        tensors = _read_safetensors(file)
    elif file.suffix in TORCH:
        tensors = _read_torch(file)
    else:
        raise InputError(
            f"{file}: neither .safetensors nor {', '.join(TORCH)}; name a file of weights"
        )
    if not tensors:
        raise InputError(f"{file}: holds no tensor; name a file of weights")
    prefix = "module." if all(name.startswith("module.") for name in tensors) else ""
    tensors = {name.removeprefix(prefix): array for name, array in tensors.items()}
    files = [{"name": part.name, "sha256": file_hash(part)} for part in parts]
    return Source(file, tensors, files, read_about(file.parent), prefix)


def save_tensors(path: pathlib.Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Write a .safetensors file that torch's libraries take: they ask for this metadata."""
    arrays = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    with atomic_write(path) as file:
        file.write(safetensors.numpy.save(arrays, metadata={"format": "pt"}))


def file_hash(path: pathlib.Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_about(folder: pathlib.Path) -> dict[str, Any]:
    """What model hubs keep beside weights: config.json, with `preprocessor` from
    preprocessor_config.json and `license` from the head of README.md where these are there."""
    about = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    beside, card = folder / "preprocessor_config.json", folder / "README.md"
    if beside.is_file():
        about["preprocessor"] = read_json(beside)
    if card.is_file():
        head = card.read_text(encoding="utf-8", errors="replace").split("\n---", 1)[0]
        if head.startswith("---") and (found := re.search(r"(?m)^license: *(\S.*)$", head)):
            about.setdefault("license", found[1].strip())
    return about


def _find(path: pathlib.Path) -> pathlib.Path:
    if not path.is_dir():
        if not path.is_file():
            raise InputError(f"{path}: is no file; name one of weights, or its folder")
        return path
    for name in USUAL:
        if (path / name).is_file():
            return path / name
    raise InputError(f"{path}: holds none of {', '.join(USUAL)}; name the file of weights")


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        found = safetensors.deserialize(path.read_bytes())
        return {
            name: np.frombuffer(part["data"], _TYPES[part["dtype"]]).reshape(part["shape"])
            for name, part in found
        }
    except KeyError as error:
        raise InputError(f"{path}: tensors of type {error}, of which none is known here") from error
    except (OSError, safetensors.SafetensorError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: cannot be read ({reason}); copy the file again") from error


def _read_shards(index: pathlib.Path) -> tuple[dict[str, np.ndarray], list[pathlib.Path]]:
    """Tensors of all files that an index names, which must hold what it says."""
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(p, str) for p in places.values()):
        raise InputError(f"{index}: has no weight_map of tensors' names to files")
    tensors: dict[str, np.ndarray] = {}
    names = sorted(set(places.values()))
    for name in names:
        if pathlib.PurePath(name).name != name:
            raise InputError(f"{index}: names the file {name!r}; expected one beside it")
        if not (index.parent / name).is_file():
            raise InputError(f"{index}: {name} is not beside it; copy all {len(names)} files")
        tensors |= _read_safetensors(index.parent / name)
    odd = sorted(places.keys() ^ tensors.keys())
    if odd:
        raise InputError(
            f"{index}: its files and the names in it differ by {', '.join(odd[:5])}"
            f"{f' and {len(odd) - 5} more' if len(odd) > 5 else ''}; copy all again"
        )
    return tensors, [index, *(index.parent / name for name in names)]


def _read_torch(path: pathlib.Path) -> dict[str, np.ndarray]:
    _refuse_code(path)
    try:
        import torch
    except ImportError as error:
        raise InputError(
            f"{path}: files of torch.save are read by torch, which is not installed; "
            "pip install torch, or save the tensors as .safetensors"
        ) from error
    try:
        # The arguments that MAE's own checkpoints hold: a bag of plain values.
        with torch.serialization.safe_globals([argparse.Namespace]):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damage and refusal have no one type
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: torch does not read it as weights ({reason})") from error
    for key in NESTED:
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
            break
    if not isinstance(loaded, dict):
        raise InputError(f"{path}: holds a {type(loaded).__name__}; expected tensors by name")
    odd = [str(name) for name, value in loaded.items() if not isinstance(value, torch.Tensor)]
    if odd:
        raise InputError(
            f"{path}: {', '.join(odd[:5])} are no tensors; expected tensors by name, alone or "
            f"under {', '.join(NESTED)}"
        )
    return {str(name): _numpy(value, torch) for name, value in loaded.items()}


def _numpy(tensor: Any, torch: Any) -> np.ndarray:
    tensor = tensor.detach().contiguous()
    if tensor.dtype == torch.bfloat16:  # NumPy has none of its own
        return tensor.view(torch.int16).numpy().view(BFLOAT16)
    return tensor.numpy()


def _refuse_code(path: pathlib.Path) -> None:
    """Raise InputError for a pickle that names what tensors are not made of.

    Only its opcodes are read. A name put together on the stack may escape: torch's own unpickler,
    which comes after, knows no such name either.
    """
    try:
        for name in _named(path):
            if not _HARMLESS.fullmatch(name) or _HARMFUL.fullmatch(name):
                shown = name[:100].encode("unicode_escape").decode()
                raise InputError(
                    f"{path}: names {shown}, which could run code: not read; have whoever made it "
                    "save the tensors alone (model.state_dict()), best as .safetensors"
                )
    except InputError:
        raise
    except Exception as error:  # damage shows as whatever comes first
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(
            f"{path}: is no file of torch.save ({reason}); copy the file again"
        ) from error


def _named(path: pathlib.Path) -> Iterator[str]:
    """module.name of all that the pickles of a file name."""
    if not zipfile.is_zipfile(path):
        with open(path, "rb") as file:
            # torch.save before 1.6: three small pickles, the object, the keys of its storages.
            for _ in range(5):
                yield from _globals(file)
        return
    with zipfile.ZipFile(path) as archive:
        pickles = [name for name in archive.namelist() if name.endswith(".pkl")]
        if not pickles:
            raise ValueError("a zip file without data.pkl")
        for part in pickles:
            yield from _globals(archive.read(part))


def _globals(data: bytes | IO[bytes]) -> Iterator[str]:
    strings = []
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name in ("GLOBAL", "INST"):
            yield str(argument).replace(" ", ".", 1)
        elif opcode.name == "STACK_GLOBAL":
            yield ".".join(strings[-2:])
        elif isinstance(argument, str):
            strings.append(argument)


def read_classes(about: Mapping[str, Any]) -> list[str] | None:
    """Class names that a config.json gives, in order; None where it gives none, or placeholders."""
    labels = about.get("id2label")
    if isinstance(labels, dict):
        try:
            names = [str(labels[key]) for key in sorted(labels, key=int)]
        except ValueError:
            return None
        return None if all(re.fullmatch(r"LABEL_\d+", name) for name in names) else names
    names = about.get("label_names") or about.get("pretrained_cfg", {}).get("label_names")
    return [str(name) for name in names] if names else None


def read_image(about: Mapping[str, Any]) -> dict[str, Any]:
    """{'mean', 'std', 'size'} of pixels as the files beside the weights have them; what they say
    of it alone."""
    given = about.get("preprocessor") or {}
    timm = about.get("pretrained_cfg") or {}
    size = given.get("size") or timm.get("input_size") or about.get("image_size")
    if isinstance(size, dict):
        size = size.get("height") or size.get("shortest_edge")
    elif isinstance(size, list):
        size = size[-1]
    found = {
        "mean": given.get("image_mean") or timm.get("mean"),
        "std": given.get("image_std") or timm.get("std"),
        "size": size,
    }
    return {key: value for key, value in found.items() if value}


def read_licence(about: Mapping[str, Any]) -> str | None:
    """The licence that the files beside the weights name."""
    found = about.get("license") or about.get("pretrained_cfg", {}).get("license")
    return json.dumps(found) if isinstance(found, list | dict) else found
