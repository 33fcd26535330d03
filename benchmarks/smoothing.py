"""Seconds to smooth predictions of 12 outputs over time, beside scipy.ndimage.

    python benchmarks/smoothing.py [--frames 3000000] [--repeats 3] [--peer-python PYTHON]

Draws 600 videos of random values and smooths each by itself; prints one JSON line a filter:

    ours    `smooth_values`: windows are cut at a video's ends, weights renormalised
    peer    uniform_filter1d, gaussian_filter1d, median_filter along time, float32 in and out,
            the last value repeated beyond the ends; majority: uniform_filter1d of the votes
    ratio   peer / ours, seconds; higher is better for ours

`result` is the mean of the first video's values away from its ends, where the two agree. Without
scipy `peer` is null and `reason` says why.
"""

import argparse
import importlib.metadata
import json
import time

import numpy as np
import turns

VIDEOS, OUTPUTS = 600, 12
WIDTHS = {"box": 25, "gaussian": 8, "median": 25, "majority": 25}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=3_000_000)
    parser.add_argument("--filters", nargs="+", choices=WIDTHS, default=list(WIDTHS))
    turns.add_options(parser)
    args = parser.parse_args()
    if args.worker:
        make = {"ours": make_ours, "peer": make_peer}[args.worker]
        turns.report(lambda: smooth(make, args.filters[0], args.frames))
        return
    for name in args.filters:
        options = ["--filters", name, "--frames", str(args.frames)]
        figures = turns.compare(__file__, "scipy.ndimage", options, args)
        case = f"smoothing-{name}{WIDTHS[name]}-{args.frames}x{OUTPUTS}"
        print(json.dumps({"case": case, **figures}), flush=True)


def smooth(make, name: str, frames: int) -> tuple[float, float, dict]:
    """make: (filter's name, its width) -> (function of one video (T, K), versions)."""
    function, versions = make(name, WIDTHS[name])
    length = max(frames // VIDEOS, 1)
    values = np.random.default_rng(0).random((frames // length, length, OUTPUTS), np.float32)
    start = time.perf_counter()
    smoothed = [function(video) for video in values]
    seconds = time.perf_counter() - start
    inner = smoothed[0][40 : max(length - 40, 41)]
    return seconds, float(inner.mean(dtype=np.float64)), versions


def make_ours(name: str, width: int):
    turns.from_checkout()
    from abaw_jax.evaluation.smoothing import Smoothing, smooth_values

    smoothing = Smoothing(name, width)
    return lambda video: smooth_values(video, smoothing), {"numpy": np.__version__}


def make_peer(name: str, width: int):
    from scipy import ndimage

    def majority(video):
        votes = np.eye(video.shape[1], dtype=np.float32)[video.argmax(axis=1)]
        return ndimage.uniform_filter1d(votes, width, axis=0, mode="nearest")

    functions = {
        "box": lambda video: ndimage.uniform_filter1d(video, width, axis=0, mode="nearest"),
        "gaussian": lambda video: ndimage.gaussian_filter1d(video, width, axis=0, mode="nearest"),
        "median": lambda video: ndimage.median_filter(video, (width, 1), mode="nearest"),
        "majority": majority,
    }
    versions = {p: importlib.metadata.version(p) for p in ("scipy", "numpy")}
    return functions[name], versions


if __name__ == "__main__":
    main()
