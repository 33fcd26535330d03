"""The one training loop: from an iterator of batches to the parameters of the best evaluation."""

import contextlib
import dataclasses
import itertools
import pathlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from abaw_jax.errors import InputError
from abaw_jax.memory import trim
from abaw_jax.tasks.task import Task
from abaw_jax.training import checkpoint
from abaw_jax.training.checkpoint import NotFinite
from abaw_jax.training.feed import Feed
from abaw_jax.training.optim import Optimizer
from abaw_jax.training.partition import RULES, batch_sharding, check_batch
from abaw_jax.training.progress import LateMetrics, Progress
from abaw_jax.training.state import TrainState, named_leaves
from abaw_jax.training.step import abstract_state, jit_train_step, make_train_step
from abaw_jax.training.writers import Writer


class Interrupted(SystemExit):
    """A signal stopped the run after a whole step, which is saved; exit status 128 + signal."""


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """What a run leaves.

    params (EMA where kept), model_state: of the best evaluation if `best` was named, else the last.
    step: theirs. metrics: of the evaluation at that step, {} without one. last_step: where training
    stopped. seconds: of this call, all in. input_wait_share: part of the training time (without
    compiling, evaluating, saving) in which the devices had nothing to do but wait for input.
    compiles, compile_seconds: of the step function; 0 where there was nothing left to train.
    examples_per_second: over the training time.
    """

    params: Any
    model_state: Any
    step: int
    metrics: dict[str, float]
    last_step: int
    seconds: float
    input_wait_share: float = 0.0
    compiles: int = 0
    compile_seconds: float = 0.0
    examples_per_second: float = 0.0

    def figures(self) -> dict[str, float]:
        """What a stage reports of its training, beside its score."""
        return {
            **self.metrics,
            "step": self.step,
            "examples_per_second": round(self.examples_per_second, 1),
            "input_wait_share": round(self.input_wait_share, 4),
            "compiles": self.compiles,
            "compile_seconds": round(self.compile_seconds, 2),
        }


def train(
    task: Task,
    *,
    make_batches: Callable[[int], Iterator[Any]],
    optimizer: Optimizer,
    steps: int,
    mesh: Mesh,
    workdir: str | pathlib.Path,
    seed: int,
    save_every: int,
    log_every: int = 50,
    evaluate: Callable[[Any, Any], dict[str, float]] | None = None,
    eval_every: int | None = None,
    best: str | None = None,
    patience: int | None = None,
    ema_decay: float | None = None,
    accumulate: int = 1,
    initial_params: Callable[[Any], Any] | None = None,
    initial_state: Callable[[Any], Any] | None = None,
    metadata: dict[str, Any] | None = None,
    keep: int = 2,
    rules: Any = RULES,
    label: str = "train",
    unit: str = "images",
) -> TrainResult:
    """Train to `steps`, or go on from the newest whole checkpoint in workdir/checkpoints.

    A run that is killed anywhere and started again ends with the same bits as one that is not.

    make_batches: start step -> infinite iterator of this process's part of each batch, dicts of
        NumPy arrays of one shape; the batch of step n must depend on n alone.
    evaluate: (params, model_state) -> figures; called every `eval_every` steps and at the end, on
        the EMA where there is one. best: the figure to maximise. patience: stop after this many
        evaluations in a row without a better `best`.
    save_every, log_every: in steps; each evaluation and the last step are saved as well.
    initial_params, initial_state: params -> params and model_state -> model_state, applied to a
        fresh run only (pre-trained weights, and their running statistics).
    metadata: JSON values kept in every checkpoint (class names, ...); a checkpoint whose values
        differ is refused. keep: how many newest checkpoints stay, beside the best.
    rules: sharding table. label, unit: words for the progress bar and the log.

    Writes workdir only. Raises InputError for wrong input, NotFinite (an InputError) when loss or
    state stops being finite, Interrupted after SIGTERM or SIGINT.
    """
    begun = time.perf_counter()
    workdir = pathlib.Path(workdir)
    _check_options(steps, save_every, log_every, evaluate, eval_every, best, patience)
    with contextlib.ExitStack() as stack:
        stack.enter_context(jax.set_mesh(mesh))
        stop_signal = stack.enter_context(_stop_signals())
        manager = stack.enter_context(
            checkpoint.open_checkpoints(workdir / "checkpoints", keep=keep, best=best)
        )
        run = _open_run(
            task, optimizer, manager, make_batches, (initial_params, initial_state), metadata or {},
            seed=seed, mesh=mesh, ema_decay=ema_decay, rules=rules, accumulate=accumulate,
        )  # fmt: skip
        state, step, progress = run.state, run.step, run.progress
        if step >= steps or progress.exhausted(patience):
            return _result(manager, state, step, progress, begun, {})

        writer = Writer(
            workdir, start=step, steps=steps, label=label, active=jax.process_index() == 0
        )
        stack.callback(writer.close)
        feed = Feed(run.batches, mesh)
        stack.callback(feed.close)
        train_step = make_train_step(
            task, optimizer, seed=seed, accumulate=accumulate, ema_decay=ema_decay
        )
        compiled, compile_seconds = _compile(train_step, run.abstract, run.abstract_batch, mesh)
        writer.write(step, {"compile_seconds": compile_seconds})
        late = LateMetrics(
            progress, writer, step=step, every=log_every, size=run.batch_size, unit=unit
        )

        while step < steps and not progress.exhausted(patience):
            batch = feed.get(late.busy)
            with jax.transfer_guard("disallow"):
                state, metrics = compiled(state, batch)
            step += 1
            with _naming_last_good(manager):
                late.push(step, metrics)  # reads those of the step before while this one runs
                stopping = stop_signal(step)
                evaluating = evaluate is not None and (
                    step == steps or bool(eval_every and step % eval_every == 0)
                )
                if not (evaluating or stopping or step == steps or step % save_every == 0):
                    continue
                # From here on the state after this step is final: its loss was seen to be finite,
                # and `save` looks at every number in it.
                late.drain()
                if step == steps:
                    late.write_line(step)
                with late.clock.pause():
                    figures = None
                    if evaluating:
                        weights = state.params if state.ema is None else state.ema
                        figures = dict(evaluate(weights, state.model_state))
                        progress.evaluated(step, figures, best)
                        writer.write(step, {f"evaluation/{k}": v for k, v in figures.items()})
                    checkpoint.save(manager, state, progress.dump(), figures)
            if stopping and step < steps:
                checkpoint.wait(manager)
                raise Interrupted(128 + stopping)

        checkpoint.wait(manager)
        times = dict(
            compiles=1, compile_seconds=compile_seconds, examples_per_second=late.rate(),
            input_wait_share=feed.waited / max(late.clock.elapsed(), 1e-9),
        )  # fmt: skip
        return _result(manager, state, step, progress, begun, times)


class _Run(NamedTuple):
    """Where a run stands before its first step."""

    state: TrainState
    abstract: TrainState
    abstract_batch: Any
    step: int
    progress: Progress
    batches: Iterator[Any]
    batch_size: int


def _open_run(
    task, optimizer, manager, make_batches, initial, metadata,
    *, seed, mesh, ema_decay, rules, accumulate,
) -> _Run:  # fmt: skip
    """State, born sharded or read back, and the batches from its step on."""
    start = manager.latest_step() or 0
    first, batches = _first_batch(make_batches, start)
    shapes, size = _global_batch(first, mesh)
    check_batch(size, mesh, accumulate)
    init, abstract = abstract_state(
        task, optimizer, seed=seed, batch=shapes, mesh=mesh, ema_decay=ema_decay, rules=rules
    )
    restored = checkpoint.restore(manager, abstract)
    if restored is None:
        state, step, progress = _with_initial(init(), *initial), 0, Progress(metadata)
    else:
        state, saved = restored
        step = saved["step"]
        progress = Progress.load(saved, metadata, str(manager.directory))
    if step != start:  # the newest checkpoint was damaged
        first, batches = _first_batch(make_batches, step)
    batches = itertools.chain([first], batches)
    return _Run(state, abstract, shapes, step, progress, batches, size)


def _first_batch(make_batches, start: int) -> tuple[Any, Iterator[Any]]:
    batches = iter(make_batches(start))
    try:
        return next(batches), batches
    except StopIteration:
        raise InputError("input: there is not one batch; is a batch more than the data?") from None


def _global_batch(first: Any, mesh: Mesh) -> tuple[Any, int]:
    """(shapes of the global batch, its size) from this process's part of one."""
    sizes = {name: leaf.shape[0] for name, leaf in named_leaves(first).items()}
    if len(set(sizes.values())) != 1:
        raise InputError(f"input: arrays of one batch differ in length: {sizes}")
    size = next(iter(sizes.values())) * jax.process_count()
    sharding = batch_sharding(mesh)
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype, sharding=sharding), first
    )
    return shapes, size


def _with_initial(
    state: TrainState, initial_params: Callable | None, initial_state: Callable | None
) -> TrainState:
    """The state with initial_params(params) and initial_state(model_state); raises InputError where
    arrays do not fit."""
    if initial_state is not None:
        given = _as_laid_out("statistics", state.model_state, initial_state(state.model_state))
        state = state.replace(model_state=given)
    if initial_params is None:
        return state
    params = _as_laid_out("parameters", state.params, initial_params(state.params))
    ema = None if state.ema is None else jax.tree.map(jnp.copy, params)
    return state.replace(params=params, ema=ema)


def _as_laid_out(kind: str, now: Any, given: Any) -> Any:
    """Given arrays with the types and shardings of those that are there now."""
    old, new = named_leaves(now), named_leaves(given)
    wrong = [
        f"{name} {getattr(new.get(name), 'shape', 'absent')}, expected "
        f"{getattr(old.get(name), 'shape', 'none')}"
        for name in sorted(old.keys() | new.keys())
        if name not in old or name not in new or old[name].shape != new[name].shape
    ]
    if wrong:
        raise InputError(
            f"initial {kind}: {'; '.join(wrong)}; give weights of the model in the config"
        )
    return jax.tree.map(
        lambda now, value: jax.device_put(jnp.asarray(value, now.dtype), now.sharding), now, given
    )


def _compile(train_step, abstract: TrainState, batch: Any, mesh: Mesh) -> tuple[Callable, float]:
    """The step compiled ahead of time, so that it is compiled once and never silently again."""
    begun = time.perf_counter()
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    compiled = jit_train_step(train_step, shardings, mesh).lower(abstract, batch).compile()
    seconds = time.perf_counter() - begun
    trim()
    return compiled, seconds


@contextlib.contextmanager
def _naming_last_good(manager) -> Iterator[None]:
    """Completes NotFinite's message: where the run can go on from, and what to do."""
    try:
        yield
    except NotFinite as error:
        checkpoint.wait(manager)
        step = manager.latest_step()
        good = "there is no checkpoint yet" if step is None else f"{manager.directory}/{step}"
        raise NotFinite(
            f"{error}; last good checkpoint: {good}; lower the learning rate or clip the gradient, "
            "then run again"
        ) from error


@contextlib.contextmanager
def _stop_signals() -> Iterator[Callable[[int], int]]:
    """A function of the step that says which signal asks to stop: 0 for none.

    With several processes all must stop at one step, on which JAX's preemption service agrees
    after SIGTERM. One process has its own handler for SIGTERM and SIGINT; a second signal acts as
    it would without. Off the main thread Python allows no handlers, and there are none.
    """
    if jax.process_count() > 1:
        yield (
            lambda step: (
                signal.SIGTERM if multihost_utils.reached_preemption_sync_point(step) else 0
            )
        )
        return
    if threading.current_thread() is not threading.main_thread():
        yield lambda step: 0
        return
    caught: list[int] = []
    before: dict[int, Any] = {}

    def handle(number, frame):
        caught.append(number)
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in (signal.SIGTERM, signal.SIGINT):
        # None stands for a handler that is not Python's and cannot be put back from here.
        before[number] = signal.signal(number, handle) or signal.SIG_DFL
    try:
        yield lambda step: caught[0] if caught else 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _check_options(steps, save_every, log_every, evaluate, eval_every, best, patience) -> None:
    counts = dict(steps=steps, save_every=save_every, log_every=log_every)
    counts |= {k: v for k, v in dict(eval_every=eval_every, patience=patience).items() if v}
    for name, value in counts.items():
        if value < 1:
            raise InputError(f"{name}: {value}; expected at least 1")
    if best is not None and evaluate is None:
        raise InputError(f"best: '{best}', but nothing is evaluated; give an evaluation or no best")
    if patience is not None and best is None:
        raise InputError(f"patience: {patience}, but no best is named; name the figure to watch")


def _result(manager, state, step, progress: Progress, begun, times: dict) -> TrainResult:
    params = state.params if state.ema is None else state.ema
    model_state, chosen = state.model_state, progress.best or progress.last
    if progress.best and progress.best["step"] != step:
        shardings = jax.tree.map(lambda leaf: leaf.sharding, (params, model_state))
        best, best_state, _ = checkpoint.load_params(manager.directory, progress.best["step"])
        params, model_state = jax.device_put((best, best_state), shardings)
    return TrainResult(
        params=params,
        model_state=model_state,
        step=progress.best["step"] if progress.best else step,
        metrics=chosen["metrics"] if chosen else {},
        last_step=step,
        seconds=time.perf_counter() - begun,
        **times,
    )
