"""Checkpoints behind four functions: open, save, restore, load_params. Orbax is used here only.

A checkpoint is one folder named by its step, which is also the position in the data. It holds the
weights (params, model_state, ema), the optimiser (step, opt_state), and JSON metadata with the
shape, type and checksum of every array. Only states whose every number was seen to be finite are
saved, and what is read back must have the checksums that were saved.
"""

import contextlib
import dataclasses
import gc
import logging
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax.traverse_util import unflatten_dict
from jax.experimental import multihost_utils
from orbax.checkpoint.checkpoint_managers import preservation_policy

from abaw_jax.errors import InputError
from abaw_jax.training.state import TrainState, map_named, named_leaves

logger = logging.getLogger(__name__)
ITEMS = ("weights", "optimizer")
OPTIMIZER = ("step", "opt_state")


class NotFinite(InputError):
    """A number that must be finite is NaN or infinite."""


@dataclasses.dataclass
class _Keep(preservation_policy.PreservationPolicy):
    """Which checkpoints stay: the newest and the best, of equals the first, as the loop counts.

    Orbax's own rule keeps the last of equals, and forgets scores when a run is resumed.
    """

    keep: int
    best: str | None
    keep_best: int
    scores: dict[int, float] = dataclasses.field(default_factory=dict)

    def read(self, manager: ocp.CheckpointManager) -> None:
        """Take over the scores of the checkpoints that are there."""
        for step in manager.all_steps() if self.best else ():
            # A damaged one has no score; `restore` is the place to report it.
            with contextlib.suppress(Exception):
                self.scores[step] = _metadata(manager, step)["metrics"][self.best]

    def should_preserve(self, checkpoints, *, context) -> list[bool]:
        """One answer a checkpoint; they come in the order of their steps."""
        for info in checkpoints:
            if self.best and info.metrics:
                self.scores[info.step] = info.metrics[self.best]
        steps = [info.step for info in checkpoints]
        scored = [step for step in steps if step in self.scores]
        best = sorted(scored, key=lambda step: (-self.scores[step], step))[: self.keep_best]
        stay = {*steps[-self.keep :], *best}
        return [step in stay for step in steps]


def open_checkpoints(
    directory: str | os.PathLike, *, keep: int = 2, best: str | None = None, keep_best: int = 1
) -> ocp.CheckpointManager:
    """Open (or make) a folder of checkpoints; close it with `.close()` or use it in `with`.

    Of those written, the newest `keep` and, where `best` names an evaluation metric, the
    `keep_best` highest in it stay. What a killed process left unfinished is removed.
    """
    directory = pathlib.Path(directory).absolute()
    policy = _Keep(keep, best, keep_best)
    options = ocp.CheckpointManagerOptions(preservation_policy=policy, cleanup_tmp_directories=True)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        manager = ocp.CheckpointManager(directory, options=options)
        policy.read(manager)
        return manager
    except OSError as error:
        raise InputError(
            f"{directory}: cannot hold checkpoints ({error.strerror}); name another folder"
        ) from error


def save(
    manager: ocp.CheckpointManager,
    state: TrainState,
    metadata: dict[str, Any],
    metrics: dict[str, float] | None = None,
) -> None:
    """Save `state` under its step; returns once the arrays are copied, writing goes on behind.

    metadata: JSON values. metrics: those of the evaluation at this step, if there was one. Waits
    for the state and raises NotFinite, saving nothing, if any number in it is not finite.
    """
    step = int(jax.device_get(state.step))
    leaves = named_leaves(state)
    inspected = _inspect_all(leaves)
    broken = [path for path, (_, finite) in inspected.items() if not finite]
    if broken:
        raise NotFinite(
            f"step {step}: {broken[0]} and {len(broken) - 1} other arrays of the state are not "
            "finite"
        )
    arrays = {
        path: [list(leaf.shape), str(leaf.dtype), int(inspected[path][0])]
        for path, leaf in leaves.items()
    }
    trees = _items(leaves)
    try:
        manager.save(
            step,
            args=ocp.args.Composite(
                **{item: ocp.args.StandardSave(trees[item]) for item in ITEMS},
                metadata=ocp.args.JsonSave(
                    {**metadata, "step": step, "metrics": metrics, "arrays": arrays}
                ),
            ),
            metrics=metrics,
            force=True,
        )
    except OSError as error:
        raise _unwritable(manager, error) from error


def wait(manager: ocp.CheckpointManager) -> None:
    """Return when all that was saved is whole on disk. Raises InputError if it cannot be."""
    try:
        manager.wait_until_finished()
    except OSError as error:
        raise _unwritable(manager, error) from error


def restore(
    manager: ocp.CheckpointManager, abstract: TrainState
) -> tuple[TrainState, dict[str, Any]] | None:
    """The newest whole checkpoint as (state, metadata), laid out as `abstract` says; None if none.

    Any mesh will do, whatever mesh it was saved from. A damaged checkpoint is renamed to
    `<step>.damaged` with a warning that names it, and the one before is taken. Raises InputError
    where all are damaged, or naming the arrays that differ from those of `abstract`.
    """
    steps = sorted(manager.all_steps(), reverse=True)
    for step in steps:
        path = pathlib.Path(manager.directory) / str(step)
        with _first_failure_only() as settle:
            try:
                return _restore_step(manager, step, abstract)
            except InputError:
                raise
            # Damage has no one type: TensorStore, JSON, files and Orbax each raise their own.
            except Exception as error:
                reason = _one_line(error)
            settle()
        logger.warning(
            "%s: checkpoint is damaged (%s); it is set aside as %s.damaged and the one before is "
            "taken",
            path,
            reason,
            path.name,
        )
        _set_aside(manager, path)
    if steps:
        raise InputError(
            f"{manager.directory}: all {len(steps)} checkpoints are damaged; remove the folder to "
            "train from the start"
        )
    return None


def load_params(
    directory: str | os.PathLike, step: int | None = None
) -> tuple[Any, Any, dict[str, Any]]:
    """(params, model_state, metadata) of one checkpoint as NumPy arrays; EMA params if it has them.

    step: None takes the best one where the run kept track of a best, else the newest. No model is
    needed. Raises InputError where there is no such checkpoint or it is damaged.
    """
    directory = pathlib.Path(directory).absolute()
    if not directory.is_dir():
        raise InputError(f"{directory}: no such folder of checkpoints; train first")
    options = ocp.CheckpointManagerOptions(create=False)
    with ocp.CheckpointManager(directory, options=options) as manager:
        steps = manager.all_steps()
        if not steps or (step is not None and step not in steps):
            raise InputError(
                f"{directory}: holds checkpoints of steps {sorted(steps)}, not "
                f"{'any' if step is None else step}; train first or name one of them"
            )
        reason = None
        with _first_failure_only() as settle:
            try:
                if step is None:
                    newest = max(steps)
                    best = _metadata(manager, newest).get("best")
                    step = best["step"] if best else newest
                metadata = _metadata(manager, step)
                tree = _restore_weights(manager, step, metadata["arrays"])
            # As in `restore`: damage has no one type.
            except Exception as error:
                reason = _one_line(error)
            if reason is not None:
                settle()
    if reason is not None:
        raise InputError(
            f"{directory}/{max(steps) if step is None else step}: checkpoint cannot be read "
            f"({reason}); name another step or train again"
        )
    return tree.get("ema", tree["params"]), tree.get("model_state", {}), metadata


def _items(leaves: dict[str, Any]) -> dict[str, Any]:
    """Named leaves -> the two saved trees, of plain dicts whatever the optimiser's types are."""
    optimizer = {p: leaf for p, leaf in leaves.items() if p.split("/")[0] in OPTIMIZER}
    weights = {p: leaf for p, leaf in leaves.items() if p not in optimizer}
    return {
        "weights": unflatten_dict(weights, sep="/"),
        "optimizer": unflatten_dict(optimizer, sep="/"),
    }


def _metadata(manager: ocp.CheckpointManager, step: int) -> dict[str, Any]:
    args = ocp.args.Composite(metadata=ocp.args.JsonRestore())
    return manager.restore(step, args=args)["metadata"]


def _restore_step(manager, step: int, abstract: TrainState) -> tuple[TrainState, dict[str, Any]]:
    metadata = _metadata(manager, step)
    wanted = named_leaves(abstract)
    _check_same(pathlib.Path(manager.directory) / str(step), metadata["arrays"], wanted)
    trees = _items(wanted)
    args = {item: ocp.args.StandardRestore(trees[item]) for item in ITEMS}
    restored = manager.restore(step, args=ocp.args.Composite(**args))
    leaves = {p: leaf for item in ITEMS for p, leaf in named_leaves(restored[item]).items()}
    _check_sums(leaves, metadata["arrays"])
    return map_named(lambda path, _: leaves[path], abstract), metadata


def _restore_weights(manager, step: int, arrays: dict[str, Any]) -> dict[str, Any]:
    # Orbax wants an example of what to return; a broadcast one takes no memory.
    blank = {
        path: np.broadcast_to(np.zeros((), jnp.dtype(dtype)), shape)
        for path, (shape, dtype, _) in arrays.items()
        if path.split("/")[0] not in OPTIMIZER
    }
    args = ocp.args.StandardRestore(_items(blank)["weights"])
    tree = manager.restore(step, args=ocp.args.Composite(weights=args))["weights"]
    _check_sums(named_leaves(tree), arrays)
    return tree


@contextlib.contextmanager
def _first_failure_only() -> Iterator[Callable[[], None]]:
    """Keeps a damaged checkpoint to one message; call what is yielded after a failure.

    Orbax reads all arrays side by side and raises the first failure. The other reads fail or come
    too late, and Python would print a page about each of them when it collects them.
    """

    def settle():
        time.sleep(0.5)  # for the reads under way, which nothing waits for any more
        gc.collect()

    hook, log = sys.unraisablehook, logging.getLogger("asyncio")
    disabled = log.disabled
    sys.unraisablehook, log.disabled = lambda unraisable: None, True
    try:
        yield settle
    finally:
        sys.unraisablehook, log.disabled = hook, disabled


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _check_same(path: pathlib.Path, saved: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raises InputError naming the arrays that one side lacks or has in another shape or type."""
    have = {name: f"{dtype}{tuple(shape)}" for name, (shape, dtype, _) in saved.items()}
    want = {name: f"{leaf.dtype}{tuple(leaf.shape)}" for name, leaf in wanted.items()}
    differ = [
        f"{name} is {have.get(name, 'absent')}, expected {want.get(name, 'none')}"
        for name in sorted(have.keys() | want.keys())
        if have.get(name) != want.get(name)
    ]
    if differ:
        more = f" and {len(differ) - 8} more" if len(differ) > 8 else ""
        raise InputError(
            f"{path}: checkpoint of another model or optimiser: {'; '.join(differ[:8])}{more}; "
            "give the configuration it was made with, or another workdir"
        )


def _check_sums(leaves: dict[str, Any], saved: dict[str, Any]) -> None:
    """Raises ValueError where a restored array is not, bit for bit, what was saved."""
    found = _inspect_all(leaves)
    wrong = [path for path, (checksum, _) in found.items() if int(checksum) != saved[path][2]]
    if wrong:
        raise ValueError(f"checksum of {', '.join(wrong[:3])} differs")


def _inspect_all(leaves: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """`_inspect` of each leaf, fetched one by one.

    Not all at once: XLA's CPU client runs at most 32 programs a device, holds a thread for each
    that must wait, and so hangs for want of threads when the waiting ones do all-reduces.
    """
    return {path: jax.device_get(_inspect(leaf)) for path, leaf in leaves.items()}


@jax.jit
def _inspect(leaf: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(checksum uint32, finite bool) of one array.

    The checksum is the sum, modulo 2**32, of each element's bits times an odd number made of its
    index. It finds any single changed element, costs one pass on the device, and being an integer
    sum it does not depend on how the array is laid out over devices.
    """
    bits = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[leaf.dtype.itemsize]
    words = jax.lax.bitcast_convert_type(leaf, bits) if leaf.dtype != bool else leaf
    index = jnp.zeros((), jnp.uint32)
    for axis, size in enumerate(leaf.shape):
        index = index * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, leaf.shape, axis)
    checksum = (words.astype(jnp.uint32) * (2 * index + 1)).sum(dtype=jnp.uint32)
    finite = jnp.isfinite(leaf).all() if jnp.issubdtype(leaf.dtype, jnp.inexact) else True
    return checksum, jnp.asarray(finite)


def _set_aside(manager: ocp.CheckpointManager, path: pathlib.Path) -> None:
    if jax.process_index() == 0:
        target, count = path.with_name(f"{path.name}.damaged"), 1
        while target.exists():
            count += 1
            target = path.with_name(f"{path.name}.damaged{count}")
        path.rename(target)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("damaged checkpoint set aside")
    manager.reload()


def _unwritable(manager: ocp.CheckpointManager, error: OSError) -> InputError:
    return InputError(
        f"{manager.directory}: checkpoint cannot be written ({error.strerror or error}); free "
        "space, then run again: training resumes from the newest whole checkpoint"
    )
