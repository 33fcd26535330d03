"""Another library's tensors as our variables and back, by rules that hold in both directions.

A rule gives the name of a tensor there, the path of the array here, and the layout that takes one
into the other. Names may hold places for numbers, as in

    Rule("blocks.{i}.attn.qkv.weight", "params/blocks_{i}/attn/qkv/kernel", "dense")

Several tensors that are one array here stand in a tuple; they are joined along their first axis.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from abaw_jax.errors import InputError

Shape = tuple[int, ...]


class Rule(NamedTuple):
    """theirs: a tensor's name or several; ours: an array's path; layout: a key of `LAYOUTS`."""

    theirs: str | tuple[str, ...]
    ours: str
    layout: str = "same"


class Layout(NamedTuple):
    """ours: (their array, our shape) -> our array. theirs: our array -> their array."""

    ours: Callable[[np.ndarray, Shape], np.ndarray]
    theirs: Callable[[np.ndarray], np.ndarray]


def _patches(kernel: np.ndarray) -> np.ndarray:
    """(P, D), pixels by (row, column, channel), -> (D, 3, p, p)."""
    side = round((len(kernel) / 3) ** 0.5)
    return kernel.reshape(side, side, 3, -1).transpose(3, 2, 0, 1)


# The torch side is named first: Linear (out, in), Conv2d (out, in, height, width), Conv1d (out, in,
# width). A grouped convolution's `in` is that of a group, on both sides.
LAYOUTS = {
    "same": Layout(lambda a, shape: a, lambda a: a),
    # One axis there, several here: biases of projections to heads.
    "flat": Layout(lambda a, shape: a.reshape(shape), lambda a: a.reshape(-1)),
    # The first axis here is that of the inputs; of the next, all but the last.
    "dense": Layout(
        lambda a, shape: a.T.reshape(shape), lambda a: a.reshape(a.shape[0], -1).T
    ),
    "dense_heads": Layout(
        lambda a, shape: a.T.reshape(shape), lambda a: a.reshape(-1, a.shape[-1]).T
    ),
    "conv": Layout(lambda a, shape: a.transpose(2, 3, 1, 0), lambda a: a.transpose(3, 2, 0, 1)),
    "conv1d": Layout(lambda a, shape: a.transpose(2, 1, 0), lambda a: a.transpose(2, 1, 0)),
    "patches": Layout(
        lambda a, shape: a.transpose(2, 3, 1, 0).reshape(shape), _patches
    ),
}  # fmt: skip


def read_tensors(
    tensors: Mapping[str, np.ndarray],
    rules: Sequence[Rule],
    shapes: Mapping[str, Shape],
    source: str,
    ignored: Sequence[str] = (),
) -> dict[str, np.ndarray]:
    """Our arrays by path, of the given shapes, from tensors of `source`, a file's name.

    Types stay as they are. ignored: patterns of names that may be there and hold no weights, such
    as r".*num_batches_tracked". Raises InputError that lists all names that are missing, too many,
    or of another shape, and ValueError for a path that no rule makes.
    """
    found, missing, misshapen, used = {}, [], [], set()
    for path, shape in shapes.items():
        rule, numbers = _rule_of(path, rules)
        names, layout = (
            [name.format(**numbers) for name in _several(rule.theirs)],
            LAYOUTS[rule.layout],
        )
        used.update(names)
        if absent := [name for name in names if name not in tensors]:
            missing += absent
            continue
        # Of zeros that take no memory.
        expected = layout.theirs(np.broadcast_to(np.zeros((), np.int8), shape)).shape
        part = (expected[0] // len(names), *expected[1:]) if len(names) > 1 else expected
        odd = [name for name in names if tensors[name].shape != part]
        misshapen += [f"{name} {tensors[name].shape}, expected {part}" for name in odd]
        if not odd:
            parts = [tensors[name] for name in names]
            whole = np.concatenate(parts) if len(parts) > 1 else parts[0]
            found[path] = np.ascontiguousarray(layout.ours(whole, shape)).reshape(shape)
    surplus = [name for name in tensors if name not in used]
    surplus = [name for name in surplus if not any(re.fullmatch(p, name) for p in ignored)]
    faults = {"missing": missing, "too many": surplus, "of another shape": misshapen}
    if any(faults.values()):
        lists = "; ".join(f"{what}: {', '.join(names)}" for what, names in faults.items() if names)
        raise InputError(f"{source}: its tensors are not those of this architecture: {lists}")
    return found


def write_tensors(arrays: Mapping[str, np.ndarray], rules: Sequence[Rule]) -> dict[str, np.ndarray]:
    """Their tensors by name from our arrays by path; ValueError for a path that no rule makes."""
    tensors = {}
    for path, array in arrays.items():
        rule, numbers = _rule_of(path, rules)
        names = [name.format(**numbers) for name in _several(rule.theirs)]
        whole = LAYOUTS[rule.layout].theirs(np.asarray(array))
        parts = np.split(whole, len(names)) if len(names) > 1 else [whole]
        tensors |= {n: np.asarray(p, order="C") for n, p in zip(names, parts, strict=True)}
    return tensors


def _several(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names


def _rule_of(path: str, rules: Sequence[Rule]) -> tuple[Rule, dict[str, str]]:
    """The first rule that makes a path, and the numbers in it by the names of their places."""
    for rule in rules:
        if found := re.fullmatch(_pattern(rule.ours), path):
            return rule, found.groupdict()
    raise ValueError(f"no rule makes {path}")


def _pattern(template: str) -> str:
    """The regular expression of a template: each {place} a number."""
    return re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>\\d+)", re.escape(template))
