"""The device mesh, and how each parameter lies on it: one ordered table."""

import re
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from abaw_jax.errors import InputError
from abaw_jax.training.state import map_named, named_leaves

AXES = ("data", "fsdp", "tensor")
BATCH = P(("data", "fsdp"))

# Path of a parameter -> where its dimensions lie. `fsdp` splits the larger side of a kernel, but of
# those that may take features as they come, of any width, the other; `tensor` heads and the hidden
# side of an MLP; what is small is repeated on every device.
RULES = (
    (r"(.*/)?(bias|scale|negative_slope|cls_token|mask_token|pos_embed)", P()),
    (r"(.*/)?fuse/local/kernel", P()),
    (r"(.*/)?attn/qkv/kernel", P("fsdp", None, "tensor", None)),
    (r"(.*/)?attn/proj/kernel", P("tensor", None, "fsdp")),
    (r"(.*/)?mlp/fc1/kernel", P("fsdp", "tensor")),
    (r"(.*/)?mlp/fc2/kernel", P("tensor", "fsdp")),
    (
        r"(.*/)?(patch_embed|decoder_pred|fuse/(whole|composite|key)|join/fc\d+|residual|project)"
        r"/kernel",
        P(None, "fsdp"),
    ),
    (r"(.*/)?encoder_[^/]+/layers_\d+/input/kernel", P(None, None, None, "fsdp")),
    # Used anew at each time: where it is split, each time would wait for the others.
    (r"(.*/)?encoder_[^/]+/layers_\d+/kernel", P()),
    (r"(.*/)?tcn/layers_\d+/conv[12]/kernel", P(None, None, "fsdp")),
    # The convolutional encoders, which are small.
    (r"(.*/)?encoder/(.*/)?(conv(_\d+)?|reduce|expand(_rows|_columns)?|widen|embed)/kernel", P()),
    (r"(.*/)?(decoder_embed|head(_[a-z\d]+)?(/fc[12])?)/kernel", P("fsdp", None)),
)


def make_mesh(shape: Sequence[int] = (-1, 1, 1), devices: Sequence[Any] | None = None) -> Mesh:
    """Mesh with axes (data, fsdp, tensor); one size may be -1, "whatever is left".

    devices: all of them by default. Raises InputError where the sizes do not fit their number.
    """
    devices = jax.devices() if devices is None else list(devices)
    shape = list(shape)
    known = 1
    for size in shape:
        known *= size if size > 0 else 1
    if len(shape) != len(AXES) or shape.count(-1) > 1 or any(s < 1 and s != -1 for s in shape):
        raise InputError(
            f"mesh: {tuple(shape)}; expected three sizes ({', '.join(AXES)}), at most one being -1"
        )
    shape = [len(devices) // known if size == -1 else size for size in shape]
    if shape[0] * shape[1] * shape[2] != len(devices):
        raise InputError(
            f"mesh: {' x '.join(map(str, shape))} does not make up the {len(devices)} devices; "
            f"give {', '.join(AXES)} sizes with that product"
        )
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


def param_specs(params: Any, rules: Sequence[tuple[str, P]] = RULES, mesh: Mesh | None = None):
    """The tree of PartitionSpecs of a parameter tree (arrays or shapes).

    Each path must be matched, as a whole, by exactly one rule; with a mesh every split dimension
    must be a multiple of its axis. Raises InputError naming all the parameters that fail.
    """
    found = {path: [s for p, s in rules if re.fullmatch(p, path)] for path in named_leaves(params)}
    wrong = [f"{path} ({len(specs)} rules)" for path, specs in found.items() if len(specs) != 1]
    if wrong:
        raise InputError(
            f"sharding: {len(wrong)} parameters do not match exactly one rule: {', '.join(wrong)}; "
            "mend RULES in training/partition.py"
        )
    if mesh is not None:
        _check_divisible(
            named_leaves(params), {path: specs[0] for path, specs in found.items()}, mesh
        )
    return map_named(lambda path, _: found[path][0], params)


def _check_divisible(leaves: dict, specs: dict, mesh: Mesh) -> None:
    wrong = []
    for path, leaf in leaves.items():
        if len(specs[path]) > leaf.ndim:
            wrong.append(f"{path} of shape {leaf.shape} has fewer dimensions than {specs[path]}")
        for size, axis in zip(leaf.shape, specs[path], strict=False):
            if axis is not None and size % mesh.shape[axis]:
                wrong.append(f"{path} of shape {leaf.shape}: {size} over {axis}={mesh.shape[axis]}")
    if wrong:
        raise InputError(
            f"sharding: {'; '.join(wrong)}; choose mesh sizes that divide, or repeat the parameter "
            "on every device by a rule of its own"
        )


def state_shardings(state: Any, mesh: Mesh, rules: Sequence[tuple[str, P]] = RULES) -> Any:
    """The tree of NamedShardings of a TrainState (arrays or shapes).

    What mirrors a parameter (moments, EMA) lies as that parameter does; it is recognised by its
    path, which ends in the parameter's, and its shape. Everything else is on every device.
    """
    specs = named_leaves(param_specs(state.params, rules, mesh))
    shapes = {path: leaf.shape for path, leaf in named_leaves(state.params).items()}

    def sharding(path, leaf):
        parts = path.split("/")
        # From the longest ending to the shortest, so that 'a/head/kernel' is not 'head/kernel'.
        endings = ("/".join(parts[i:]) for i in range(1, len(parts)))
        name = next((end for end in endings if shapes.get(end) == leaf.shape), None)
        mirrors = name is not None and not path.startswith("model_state/")
        return NamedSharding(mesh, specs[name] if mirrors else P())

    return map_named(sharding, state)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Examples are divided over data and fsdp; every other axis is whole."""
    return NamedSharding(mesh, BATCH)


def check_batch(batch_size: int, mesh: Mesh, accumulate: int = 1) -> None:
    """Raises InputError unless the global batch divides over the devices and micro-batches."""
    shards = mesh.shape["data"] * mesh.shape["fsdp"]
    if batch_size % (shards * accumulate):
        raise InputError(
            f"batch: {batch_size} examples cannot be divided over {shards} devices (data x fsdp) "
            f"in {accumulate} micro-batches; give a batch that is a multiple of "
            f"{shards * accumulate}"
        )
