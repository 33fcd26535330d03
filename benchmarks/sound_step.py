"""wav2vec 2.0 over a recording on CPU, beside transformers: seconds of sound a second, float32.

    python benchmarks/sound_step.py [--cases base-60s ...] [--peer-python PYTHON]

Random weights, random sound that lies in memory. Ours is `encode_long` with its own blocks, or, in
cases named so, with one block of the whole recording; the peer is transformers' Wav2Vec2Model in
inference mode, which takes the whole at once. A step is the whole recording.

Prints one JSON line a case. Both run by turns, each in its own process, on the same `--threads`
cores. A process's figure is the median step after one uncounted, the case's is the median of the
repeats; `mib` is the highest memory of any of them (VmHWM): of cases that differ in length alone it
tells how it grows. `compile_seconds` is the first block's time, its program made. `--peer-python`
names an interpreter with torch and transformers where this one has none; without a peer, `peer` is
null and `reason` says why.
"""

import argparse
import os
import pathlib
import sys
import time
from collections.abc import Iterator

import numpy as np
import steps

# From a checkout, without being installed.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

RATE = 16_000
BASE = dict(width=768, depth=12, heads=12)
# Fields of the model, seconds of sound, frames of a block (None: as is; 0: the whole).
CASES = {
    "base-60s": (BASE, 60, None),
    "base-60s-whole": (BASE, 60, 0),
    "base-180s": (BASE, 180, None),
    # For tests.
    "tiny": (dict(width=32, depth=1, heads=2, conv_width=16, position_groups=2), 4, 160),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cases = [name for name in CASES if name != "tiny"]
    parser.add_argument("--cases", nargs="+", choices=CASES, default=cases)
    workers = {"ours": time_ours, "peer": time_peer}
    steps.main(__file__, parser, make_cases, workers, steps=3, unit="seconds of sound/s")


def make_cases(args: argparse.Namespace) -> Iterator[steps.Case]:
    for name in args.cases:
        fields, seconds, block = CASES[name]
        settings = {"fields": fields, "seconds": seconds, "block": block}
        yield steps.Case(f"sound-step-{name}", "transformers", seconds, settings)


def make_sound(seconds: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(-8000, 8000, seconds * RATE).astype(np.int16)


def time_ours(settings: dict, count: int) -> dict:
    import jax

    from abaw_jax.models.wav2vec2 import Wav2Vec2, count_frames, encode_long

    seconds, block = settings["seconds"], settings["block"]
    model, samples = Wav2Vec2(**settings["fields"]), make_sound(seconds)
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 400), np.float32))
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: jax.device_put(0.02 * rng.standard_normal(leaf.shape, np.float32)),
        shapes["params"],
    )
    frames = count_frames(len(samples))
    options = {} if block is None else {"block": block or frames}
    start = time.perf_counter()
    next(encode_long(model, params, samples, **options))
    figures = {"compile_seconds": time.perf_counter() - start}

    def step():
        assert sum(map(len, encode_long(model, params, samples, **options))) == frames

    figures |= steps.time_steps(step, seconds, count, uncounted=1)
    names = steps.versions("jax", "jaxlib", "flax") | {"python": sys.version.split()[0]}
    return figures | {"versions": names}


def time_peer(settings: dict, count: int) -> dict:
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    fields, seconds = settings["fields"], settings["seconds"]
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    width = fields["width"]
    config = Wav2Vec2Config(
        hidden_size=width,
        num_hidden_layers=fields["depth"],
        num_attention_heads=fields["heads"],
        intermediate_size=4 * width,
        conv_dim=[fields.get("conv_width", 512)] * 7,
        num_conv_pos_embedding_groups=fields.get("position_groups", 16),
    )
    model, samples = Wav2Vec2Model(config).eval(), make_sound(seconds)

    @torch.inference_mode()
    def step():
        x = torch.from_numpy(samples.astype(np.float32) / 32768)
        x = (x - x.mean()) / torch.sqrt(x.var(correction=0) + 1e-7)
        model(x[None]).last_hidden_state.numpy()

    found = steps.time_steps(step, seconds, count, uncounted=1)
    return found | {"versions": steps.versions("torch", "transformers")}


if __name__ == "__main__":
    main()
