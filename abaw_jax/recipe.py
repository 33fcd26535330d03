"""A recipe: the stages of one system on one track, run in order, each once.

The work directory holds `config.json`, `results.json` and one folder a stage:

    <stage>/stage.json      what the stage was started with: its config sections and its inputs
    <stage>/results.json    written last; a stage that has it is finished and is skipped
    <stage>/...             what the stage makes (see its module in abaw_jax/stages)

A stage that was interrupted goes on where it stood. A stage whose config or inputs differ from
those it was started with stops the run and says what differs, unless `redo` is asked for. A stage
that is not run, and was made with another config or from other inputs, counts as not finished.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import importlib
import json
import pathlib
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence

import jax
import ml_collections

from abaw_jax.errors import InputError, unknown_name
from abaw_jax.evaluation.report import text_table
from abaw_jax.files import read_json, write_json
from abaw_jax.tracks import TRACKS
from abaw_jax.tracks.track import Track


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stage's config sections and the stages it reads; abaw_jax/stages/<name>.py runs it."""

    sections: tuple[str, ...]
    inputs: tuple[str, ...] = ()


STAGES = {
    "prepare": Stage(("corpus", "pretrain.corpora")),
    "pretrain": Stage(("seed", "image", "encoder", "pretrain"), ("prepare",)),
    "finetune": Stage(("seed", "track", "image", "encoder", "finetune"), ("prepare", "pretrain")),
    "extract": Stage(("extract", "sequence.modalities"), ("prepare", "finetune")),
    "sequence": Stage(("seed", "track", "sequence"), ("prepare", "extract")),
    "ensemble": Stage(("ensemble",), ("prepare", "extract", "sequence")),
    "export": Stage(("export",), ("finetune", "sequence", "ensemble")),
}

# Scores of the stage `ensemble`, as tables show them. Each step stands on those before it.
STEPS = {
    "": "",
    "_smoothed": ", smoothed",
    "_matched": ", matched",
    "_thresholds": ", own thresholds",
    "_cross_validated": ", cross-validated",
}
SCORES = {
    member + step: member + text
    for member in ("frames", "sequence", "ensemble")
    for step, text in STEPS.items()
}


@dataclasses.dataclass(frozen=True)
class Context:
    """What every stage is given."""

    config: ml_collections.FrozenConfigDict
    workdir: pathlib.Path
    mesh: jax.sharding.Mesh

    @property
    def track(self) -> Track:
        """The track that the config names."""
        return TRACKS[self.config.track]

    def folder(self, stage: str) -> pathlib.Path:
        """Where a stage keeps what it makes."""
        return self.workdir / stage

    def section(self, *names: str) -> dict:
        """Sections of the config as plain JSON types, for files that travel with a model."""
        return {name: _section(self.config, name) for name in names}


def check_sections(config: ml_collections.ConfigDict) -> None:
    """Raise InputError for a config that lacks a section; `stages.check` looks into them."""
    needed = {path.split(".")[0] for stage in STAGES.values() for path in stage.sections}
    absent = sorted((needed | {"system", "name", "mesh", "threads"}) - set(config))
    if absent:
        raise InputError(
            f"config: has no {', '.join(absent)}; configs/base.py has all that a recipe needs"
        )


def run(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    mesh: jax.sharding.Mesh,
    *,
    stages: Sequence[str] = (),
    redo: bool = False,
) -> dict:
    """Run a recipe's stages, or those named, and return the contents of `results.json`.

    `redo` starts a stage again whose config or inputs changed. Raises InputError for an unknown
    stage, for a changed one without `redo`, and for a work directory that cannot be used.
    """
    unknown = [name for name in stages if name not in STAGES]
    if unknown:
        raise unknown_name("--stages", unknown[0], "a stage", STAGES)
    if config.track not in TRACKS:
        raise unknown_name("config.track", config.track, "a track", TRACKS)
    context = Context(ml_collections.FrozenConfigDict(config), workdir, mesh)
    results = {}
    with _locked(workdir):
        for name in STAGES:
            if not stages or name in stages:
                results[name] = _run_stage(name, context, results, redo)
            elif _is_current(name, context, results):
                results[name] = read_json(context.folder(name) / "results.json")
        return _summarise(context, results)


@contextlib.contextmanager
def _locked(workdir: pathlib.Path) -> Iterator[None]:
    """Hold the work directory for one run at a time; the lock goes with the process."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        file = open(workdir / ".lock", "w")
    except OSError as error:
        raise InputError(
            f"{workdir}: cannot be written ({error.strerror}); name another with --workdir"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"{workdir}: another run uses it; wait for it or name another with --workdir"
            ) from error
        yield


def _module(name: str):
    """A stage's module, imported when it is needed: a skipped stage costs nothing."""
    return importlib.import_module(f"abaw_jax.stages.{name}")


def _section(config, path: str):
    """A config value by its dotted path, as plain JSON types."""
    for key in path.split("."):
        config = config[key]
    plain = config.to_dict() if hasattr(config, "to_dict") else config
    return json.loads(json.dumps(plain))


def _made_from(name: str, context: Context, results: dict[str, dict]) -> dict:
    """The config sections of a stage, and the hashes of the finished stages it reads."""
    stage = STAGES[name]
    return {
        "config": {s: _section(context.config, s) for s in stage.sections},
        "inputs": {source: results[source]["config_hash"] for source in stage.inputs},
    }


def _is_current(name: str, context: Context, results: dict[str, dict]) -> bool:
    """Whether a stage was finished with this config and from `results`, those before it.

    What else it read is not looked at: what was prepared from a corpus can be used where that is
    not mounted.
    """
    folder, stage = context.folder(name), STAGES[name]
    if not (folder / "results.json").exists() or not results.keys() >= set(stage.inputs):
        return False
    record, now = read_json(folder / "stage.json"), _made_from(name, context, results)
    sources = {source: record["inputs"].get(source) for source in stage.inputs}
    return {**record, "inputs": sources} == now


def _flat(tree: dict, prefix: str = "") -> dict:
    """Nested dict -> dotted keys."""
    flat = {}
    for key, value in tree.items():
        inner = _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else None
        flat.update(inner if inner else {f"{prefix}{key}": value})
    return flat


def differences(old: dict, new: dict) -> list[str]:
    """Dotted keys that differ, with both values."""
    old, new = _flat(old), _flat(new)
    keys = sorted(old.keys() | new.keys())
    return [f"{k}: {old.get(k)!r} -> {new.get(k)!r}" for k in keys if old.get(k) != new.get(k)]


def _run_stage(name: str, context: Context, results: dict[str, dict], redo: bool) -> dict:
    """Skip, continue or start one stage; returns its results. `results`: of those before it."""
    folder = context.folder(name)
    for source in STAGES[name].inputs:
        if source not in results:
            raise InputError(
                f"--stages: {name} needs {source}, which is not finished with this config in "
                f"{context.workdir}; run {source} first"
            )
    started = _made_from(name, context, results)
    if look := _module("disk").FOUND.get(name):
        started["inputs"] |= look(context)
    record, finished = folder / "stage.json", folder / "results.json"
    discarded = folder.with_name(f".{name}.discarded")
    if record.exists():
        changed = differences(read_json(record), started)
        if changed and not redo:
            raise InputError(
                f"{folder}: was made with another config or input ({'; '.join(changed[:4])}); "
                "add --redo to make it again, or name another --workdir"
            )
        if not changed and finished.exists():
            print(f"{name}: finished before, skipped", flush=True)
            return read_json(finished)
    else:
        changed = []
    _module("check").check_config(context.config, context.mesh)
    if name != "prepare":
        _module("check").check_prepared(context)
    if changed:
        print(f"{name}: made again ({'; '.join(changed[:4])})", flush=True)
        # Away at once: a kill while files are removed must not leave some to be taken up.
        shutil.rmtree(discarded, ignore_errors=True)
        folder.rename(discarded)
    shutil.rmtree(discarded, ignore_errors=True)
    write_json(record, started)
    write_json(context.workdir / "config.json", context.config.to_dict())
    print(f"{name}: started", flush=True)
    start = time.monotonic()
    try:
        outcome = _module(name).run(context)
    except InputError:
        if not [path for path in folder.rglob("*") if path.is_file() and path != record]:
            shutil.rmtree(folder)  # nothing was made: the mended input is no change
        raise
    results = {
        "track": outcome.get("track", context.track).name,
        "system": context.config.system,
        "split": outcome.get("split"),
        "split_hash": outcome.get("split_hash"),
        "score": outcome.get("score"),
        "metrics": outcome.get("metrics", {}),
        "classes": list(outcome.get("track", context.track).classes),
        "samples": outcome.get("samples"),
        "config_hash": hashlib.sha256(
            json.dumps([name, started, outcome.get("content")], sort_keys=True).encode()
        ).hexdigest()[:16],
        "git": _git_commit(),
        "versions": package_versions(),
        "seconds": round(time.monotonic() - start, 2),
    }
    write_json(finished, results)
    return results


def _summarise(context: Context, results: dict[str, dict]) -> dict:
    """Write the root's results.json, print the table of stages."""
    final = results.get("ensemble", {})
    newest = final or list(results.values())[-1]
    summary = {
        "track": context.track.name,
        "system": context.config.system,
        "split": final.get("split"),
        "split_hash": final.get("split_hash"),
        "score": final.get("score"),
        "metrics": final.get("metrics"),
        "classes": list(context.track.classes),
        "samples": final.get("samples"),
        "config_hash": hashlib.sha256(
            json.dumps({name: r["config_hash"] for name, r in results.items()}).encode()
        ).hexdigest()[:16],
        "git": newest["git"],
        "versions": newest["versions"],
        "seconds": round(sum(r["seconds"] for r in results.values()), 2),
        "stages": {
            name: {k: r[k] for k in ("track", "score", "seconds", "metrics")}
            for name, r in results.items()
        },
    }
    write_json(context.workdir / "results.json", summary)
    table = [stage_row(name, found, context.track) for name, found in results.items()]
    scores = {k: v for k, v in (final.get("metrics") or {}).items() if k in SCORES}
    table += [{"stage": SCORES[k], "seconds": None, "score": v} for k, v in scores.items()]
    print(f"\n{text_table(table)}\n\n{context.workdir / 'results.json'}", flush=True)
    return summary


def stage_row(name: str, results: dict, track: Track) -> dict:
    """A stage's seconds and score for a table of `track`'s; a score of another is named so."""
    title = name if results["track"] == track.name else f"{name}, {results['track']}"
    return {"stage": title, "seconds": results["seconds"], "score": results["score"]}


def _git_commit() -> str | None:
    """The commit of the source tree, with `-dirty` where files differ; None outside a checkout."""
    here = pathlib.Path(__file__).parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        answer = subprocess.run([*command, "--exclude=*"], capture_output=True, text=True)
    except OSError:  # there is no git
        return None
    return answer.stdout.strip() or None


def package_versions() -> dict[str, str]:
    """Versions that the figures were made with."""
    import flax
    import numpy

    return {
        "python": platform.python_version(),
        "jax": jax.__version__,
        "flax": flax.__version__,
        "numpy": numpy.__version__,
    }
