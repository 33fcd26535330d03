"""Training step of each system's sequence model on CPU, beside PyTorch: examples a second, float32.

    python benchmarks/sequence_step.py [--cases ctyun fuxi ...] [--peer-python PYTHON]

A step is forward, backward and the optimiser's update, at the sizes, window, batch and dropout of
the system's config at paper scale, on random features that lie in memory as float32. An example is
a window, of emotic_mae a frame. Ours is the package's own step (stages.parts, training.step); the
peer is written with torch.nn (sequence_peer.py) and torch.optim's fused AdamW or Adam. Losses have
no weights of classes. `--batch-size` takes another batch than the published.

Prints one JSON line a case. Both run by turns, each in its own process, on the same `--threads`
cores, as in mae_step.py. A process's figure is the median step after one uncounted, the case's is
the median of the repeats; `mib` is the highest memory of any of them (VmHWM), `compile_seconds` the
time from Python to a program. `--peer-python` names an interpreter with torch and numpy where this
one has none; without a peer, `peer` is null and `reason` says why.
"""

import argparse
import importlib
import os
import pathlib
import sys
from collections.abc import Iterator

import numpy as np
import steps

# From a checkout, without being installed.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

# Track, argument of its config, numbers a frame, batch size (None: the config's).
CASES = {
    "ctyun": ("va", "ctyun,paper", 768, None),
    "mae_transformer": ("expr", "mae_transformer,paper", 768, None),
    "fuxi": ("expr", "fuxi,paper", 768 + 896, None),  # face; sound, in the paper's two forms
    "masked_vit": ("va", "masked_vit,paper", 768, 268),  # of the paper's two, 268 and 512
    "emotic_mae": ("expr", "emotic_mae,paper", 2 * 768, None),
    "tiny": ("va", "ctyun,tiny", 16, None),  # for tests
}
OUTPUTS = {"va": 2, "expr": 8}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cases = [name for name in CASES if name != "tiny"]
    parser.add_argument("--cases", nargs="+", choices=CASES, default=cases)
    parser.add_argument("--batch-size", type=int, help="in place of the published")
    workers = {"ours": time_ours, "peer": time_peer}
    steps.main(__file__, parser, make_cases, workers, steps=3, unit="examples/s")


def make_cases(args: argparse.Namespace) -> Iterator[steps.Case]:
    for name in args.cases:
        settings = make_settings(name, args.batch_size)
        batch_size = settings["section"]["batch_size"]
        peer = "torch.nn, torch.optim fused"
        yield steps.Case(f"sequence-step-{name}", peer, batch_size, settings)


def make_settings(name: str, batch_size: int | None) -> dict:
    """What both workers are told of a case; `section` is config.sequence."""
    track, argument, features, published = CASES[name]
    section = published_config(track, argument).sequence.to_dict()
    section["batch_size"] = batch_size or published or section["batch_size"]
    return {
        "track": track,
        "argument": argument,
        "features": features,
        "outputs": OUTPUTS[track],
        "section": section,
    }


def published_config(track: str, argument: str):
    """The config of a track, without weights of classes, which the training labels give."""
    config = importlib.import_module(f"configs.{track}").get_config(argument).unlock()
    config.sequence.class_weights = "none"
    return config


def make_batch(settings: dict) -> dict[str, np.ndarray]:
    """Random features and labels; the last window is shorter, if windows may be."""
    section, rng = settings["section"], np.random.default_rng(0)
    shape = section["batch_size"], section["length"]
    mask = np.ones(shape, bool)
    if section["head"] == "frames":
        mask[-1, 1 + shape[1] // 2 :] = False
    labels = rng.uniform(-1, 1, (*shape, 2)).astype(np.float32)
    if settings["track"] != "va":
        labels = rng.integers(0, settings["outputs"], (*shape, 1), np.int32)
    features = rng.standard_normal((*shape, settings["features"]), np.float32)
    return {"features": features, "mask": mask, "label": labels}


def time_ours(settings: dict, count: int) -> dict:
    from abaw_jax.stages.parts import make_schedule_optimizer, make_sequence_task
    from abaw_jax.tracks import TRACKS

    config = published_config(settings["track"], settings["argument"])
    config.sequence.batch_size = batch_size = settings["section"]["batch_size"]
    task = make_sequence_task(config, TRACKS[settings["track"]])
    optimizer = make_schedule_optimizer(config.sequence, 100 * batch_size)
    step, figures = steps.jax_step(task, optimizer, make_batch(settings))
    return steps.time_steps(step, batch_size, count, uncounted=1) | figures


def time_peer(settings: dict, count: int) -> dict:
    from sequence_peer import make_step

    step = make_step(settings, make_batch(settings), len(os.sched_getaffinity(0)))
    found = steps.time_steps(step, settings["section"]["batch_size"], count, uncounted=1)
    return found | {"versions": steps.versions("torch")}


if __name__ == "__main__":
    main()
