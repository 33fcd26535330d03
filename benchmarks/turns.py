"""Two ways to do the same work, timed by turns, each in its own process; no benchmark itself."""

import argparse
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peer-python", default=sys.executable, help="interpreter with the peer")
    parser.add_argument("--worker", choices=["ours", "peer"], help=argparse.SUPPRESS)


def compare(script: str, peer_name: str, options: list[str], args: argparse.Namespace) -> dict:
    """The figures of one case: medians of seconds, ratio peer / ours, the highest memory of each.

    Both workers get `options`, and must come to the same `result`, within 1e-6.
    """
    found, reason = {"ours": [], "peer": []}, None
    for _ in range(args.repeats):
        found["ours"].append(_run("ours", sys.executable, script, options))
        if reason is None:
            try:
                found["peer"].append(_run("peer", args.peer_python, script, options))
            except RuntimeError as error:
                reason = str(error)
    results = [worker["result"] for workers in found.values() for worker in workers]
    if max(results) - min(results) > 1e-6:
        sys.exit(f"{script}: the two come to different results: {results}")
    seconds = {name: [worker["seconds"] for worker in found[name]] for name in found}
    median = {name: statistics.median(s) if s else None for name, s in seconds.items()}
    line = {
        "ours": round(median["ours"], 3),
        "unit": "s",
        "peer": median["peer"] and round(median["peer"], 3),
        "ratio": median["peer"] and round(median["peer"] / median["ours"], 2),
        "peer_name": peer_name,
        "result": results[0],
        "cores": len(os.sched_getaffinity(0)),
        "versions": {},
    }
    for name, workers in found.items():
        line[f"{name}_all"] = [round(s, 3) for s in seconds[name]]
        line[f"{name}_mib"] = max((worker["mib"] for worker in workers), default=None)
        for worker in workers:
            line["versions"] |= {f"{name} {k}": v for k, v in worker["versions"].items()}
    return line if reason is None else line | {"reason": reason}


def _run(name: str, python: str, script: str, options: list[str]) -> dict:
    """One timing. Raises RuntimeError with the last line of a peer that failed."""
    try:
        run = subprocess.run(
            [python, script, "--worker", name, *options],
            capture_output=True,
            text=True,
            timeout=900,
        )
    except OSError as error:
        raise RuntimeError(f"{python}: {error.strerror}") from error
    if run.returncode:
        last = (run.stderr.strip().splitlines() or ["no message"])[-1]
        if name == "ours":
            sys.exit(f"{script}: {last}")
        raise RuntimeError(f"{python}: {last}")
    return json.loads(run.stdout.splitlines()[-1])


def report(work: Callable[[], tuple[float, float, dict]]) -> None:
    """In a worker: print what it found. work: () -> (seconds, result, versions)."""
    seconds, result, versions = work()
    mib = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    versions = {"python": sys.version.split()[0], **versions}
    print(json.dumps({"seconds": seconds, "result": result, "mib": mib, "versions": versions}))


def from_checkout() -> None:
    """Make the package importable without being installed."""
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
