"""A training step and its peer's, timed by turns, each in its own process; no benchmark itself."""

import argparse
import importlib.metadata
import json
import multiprocessing
import os
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple


class Case(NamedTuple):
    """What is timed; settings: what both workers are told of it, as JSON has it."""

    name: str
    peer_name: str
    batch_size: int
    settings: dict


def main(
    script: str,
    parser: argparse.ArgumentParser,
    make_cases: Callable[[argparse.Namespace], Iterable[Case]],
    workers: dict[str, Callable[[dict, int], dict]],
    *,
    steps: int,
    unit: str,
) -> None:
    """Be a worker, (settings, steps) -> what `compare` says, or print each case's line."""
    parser.add_argument("--settings", help=argparse.SUPPRESS)
    add_options(parser, steps)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(workers[args.worker](json.loads(args.settings), args.steps)))
        return
    for name, peer_name, batch_size, settings in make_cases(args):
        options = ["--settings", json.dumps(settings)]
        line = compare(script, name, peer_name, batch_size, options, args, unit)
        print(json.dumps(line), flush=True)


def add_options(parser: argparse.ArgumentParser, steps: int) -> None:
    parser.add_argument("--steps", type=int, default=steps, help="timed steps of a process")
    parser.add_argument("--repeats", type=int, default=3, help="processes of each side")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peer-python", default=sys.executable, help="interpreter with the peer")
    parser.add_argument("--worker", choices=["ours", "peer"], help=argparse.SUPPRESS)


def compare(
    script: str,
    case: str,
    peer_name: str,
    batch_size: int,
    options: list[str],
    args: argparse.Namespace,
    unit: str,
) -> dict:
    """The line of one case: medians of both sides' processes, of memory the highest.

    Workers get `options`, and print what `time_steps` found and `versions`.
    """
    ours, peer, reason = [], [], None
    for _ in range(args.repeats):
        ours.append(_run("ours", sys.executable, script, options, args))
        if reason is None:
            try:
                peer.append(_run("peer", args.peer_python, script, options, args))
            except RuntimeError as error:
                reason = str(error)

    def median(runs, key, digits):
        return round(statistics.median(run[key] for run in runs), digits) if runs else None

    rates = {"ours": ours, "peer": peer}
    ratio = statistics.median(r["rate"] for r in ours) / statistics.median(
        r["rate"] for r in peer
    ) if peer else None  # fmt: skip
    line = {
        "case": case,
        "ours": median(ours, "rate", 2),
        "unit": unit,
        "peer": median(peer, "rate", 2),
        "ratio": ratio and round(ratio, 2),
        "peer_name": peer_name,
        **{f"{side}_all": [round(run["rate"], 2) for run in runs] for side, runs in rates.items()},
        **{f"{side}_cpu_ms": median(runs, "cpu_ms", 2) for side, runs in rates.items()},
        **{
            f"{side}_mib": max((run["mib"] for run in runs), default=None)
            for side, runs in rates.items()
        },
        "compile_seconds": median(ours, "compile_seconds", 1),
        "batch_size": batch_size,
        "steps": args.steps,
        "threads": args.threads,
        "glibc_tunables": _environment(args.threads).get("GLIBC_TUNABLES"),
        "versions": ours[0]["versions"] | (peer[0]["versions"] if peer else {}),
    }
    return line if reason is None else line | {"reason": reason}


def _environment(threads: int) -> dict:
    from abaw_jax.memory import TUNABLES

    own = {"OMP_NUM_THREADS": str(threads), "JAX_PLATFORMS": "cpu"}
    return {"GLIBC_TUNABLES": TUNABLES, **os.environ, **own}


def _run(name: str, python: str, script: str, options: list[str], args) -> dict:
    """Run one timing in its own process. Raises RuntimeError with the last line it printed."""
    command = [python, script, "--worker", name, "--steps", str(args.steps), *options]
    cores = sorted(os.sched_getaffinity(0))
    if args.threads > len(cores):
        sys.exit(f"{script}: --threads {args.threads}, but {len(cores)} cores")
    try:
        run = subprocess.run(
            command,
            capture_output=True,
            text=True,
            env=_environment(args.threads),
            preexec_fn=lambda: os.sched_setaffinity(0, cores[: args.threads]),
        )
    except OSError as error:
        raise RuntimeError(f"{python}: {error.strerror}") from error
    if run.returncode:
        last = (run.stderr.strip().splitlines() or [f"exit status {run.returncode}"])[-1]
        if name == "ours":
            sys.exit(f"{script}: {' '.join(options)} failed: {last}")
        raise RuntimeError(f"{python}: {last}")
    return json.loads(run.stdout.splitlines()[-1])


def time_steps(step: Callable[[], Any], batch_size: int, steps: int, uncounted: int = 2) -> dict:
    """In a worker: median examples a second and processor milliseconds an example, after some
    uncounted steps; the process's highest memory, in MiB."""
    wall, cpu = [], []
    for n in range(steps + uncounted):
        start = time.perf_counter(), time.process_time()
        step()
        if n >= uncounted:
            wall.append(time.perf_counter() - start[0])
            cpu.append(time.process_time() - start[1])
    status = pathlib.Path("/proc/self/status").read_text()
    kib = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return {
        "rate": batch_size / statistics.median(wall),
        "cpu_ms": 1e3 * statistics.median(cpu) / batch_size,
        "mib": round(int(kib) / 1024),
    }


def made_once(
    write: Callable[[dict, pathlib.Path], None], settings: dict, name: str
) -> pathlib.Path:
    """In a worker: the file of settings["folder"], written by the first of the repeats. In a
    process of its own, so that the worker's memory is that of the run alone."""
    file = pathlib.Path(settings["folder"]) / name
    if not file.exists():
        process = multiprocessing.get_context("spawn").Process(target=write, args=(settings, file))
        process.start()
        process.join()
        if process.exitcode:
            raise RuntimeError(f"{name} was not written")
    return file


def versions(*names: str) -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in names}


def jax_step(task: Any, optimizer: Any, batch: dict) -> tuple[Callable[[], None], dict]:
    """In our worker: (the package's own step on this batch, what to add to its figures)."""
    import jax

    from abaw_jax.memory import trim, tune_malloc
    from abaw_jax.training.partition import make_mesh
    from abaw_jax.training.step import abstract_state, jit_train_step, make_train_step, put_batch

    tune_malloc()
    mesh = make_mesh()
    init, abstract = abstract_state(task, optimizer, seed=0, batch=batch, mesh=mesh)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    train_step = jit_train_step(make_train_step(task, optimizer, seed=0), shardings, mesh)
    start = time.perf_counter()
    compiled = train_step.lower(abstract, put_batch(batch, mesh)).compile()
    seconds = time.perf_counter() - start
    trim()
    state = init()

    def step():
        nonlocal state
        state, metrics = compiled(state, put_batch(batch, mesh))
        jax.block_until_ready((state, metrics))

    names = versions("jax", "jaxlib", "flax", "optax") | {"python": sys.version.split()[0]}
    return step, {"compile_seconds": seconds, "versions": names}
