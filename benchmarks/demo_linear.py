"""How far a linear classifier of pixels comes on a demo corpus: the floor for any model.

    python benchmarks/demo_linear.py [--corpus DIR] [--side 24]

Ridge regression on the classes' indicator vectors, rows weighted against class frequency, from grey
pixels standardised per image; trained on the training videos, scored on the validation videos, with
the penalty that does best there (which favours it). Without --corpus the default corpus is drawn in
a temporary folder first. Prints one JSON line.
"""

import argparse
import json
import pathlib
import tempfile
import time

import cv2
import numpy as np

from abaw_jax.data import demo
from abaw_jax.data.demo.expressions import EXPRESSIONS
from abaw_jax.data.demo.layout import ANNOTATIONS, FOLDERS, TASKS
from abaw_jax.data.demo.plan import ROOTS

PENALTIES = (1e2, 1e3, 1e4)


def load_pixels(corpus: pathlib.Path, split: str, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Standardised grey pixels, float32 (n, side * side), and labels (n,) of all valid crops."""
    pixels, labels = [], []
    folder = corpus / ANNOTATIONS / TASKS["EXPR"][0] / FOLDERS[split]
    for path in sorted(folder.glob("[!.]*.txt")):
        rows = [int(row) for row in path.read_text().splitlines()[1:]]
        crops = next(p for p in (corpus / root / path.stem for root in ROOTS) if p.is_dir())
        for crop in sorted(crops.glob("[!.]*.jpg")):
            frame = int(crop.stem)
            if frame <= len(rows) and rows[frame - 1] >= 0:
                image = cv2.imread(str(crop), cv2.IMREAD_GRAYSCALE)
                small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
                pixels.append(small.reshape(-1).astype(np.float32))
                labels.append(rows[frame - 1])
    pixels = np.stack(pixels)
    pixels -= pixels.mean(axis=1, keepdims=True)
    return pixels / (pixels.std(axis=1, keepdims=True) + 5), np.array(labels)


def macro_f1(labels: np.ndarray, guesses: np.ndarray) -> float:
    """Mean F1 of the eight classes; 0 for one that never occurs."""
    scores = []
    for k in range(len(EXPRESSIONS)):
        hits = np.sum((labels == k) & (guesses == k))
        scores.append(2 * hits / max(np.sum(labels == k) + np.sum(guesses == k), 1))
    return float(np.mean(scores))


def score_linear(corpus: pathlib.Path, side: int) -> dict:
    """Fit and score; returns the figures."""
    pixels, labels = load_pixels(corpus, "train", side)
    others, truth = load_pixels(corpus, "validation", side)
    mean = pixels.mean(axis=0)
    pixels, others = pixels - mean, others - mean
    weight = (len(labels) / np.maximum(np.bincount(labels, minlength=8), 1))[labels][:, None]
    target = np.eye(8)[labels] - 1 / 8
    gram, right = pixels.T @ (pixels * weight), pixels.T @ (weight * target)
    scores = {}
    for penalty in PENALTIES:
        solved = np.linalg.solve(gram + penalty * np.eye(len(gram)), right)
        scores[penalty] = macro_f1(truth, (others @ solved).argmax(axis=1))
    constant = np.full_like(truth, np.bincount(labels).argmax())
    return {
        "benchmark": "demo_linear",
        "side": side,
        "train": len(labels),
        "validation": len(truth),
        "macro_f1": round(max(scores.values()), 4),
        "most_frequent_class": round(macro_f1(truth, constant), 4),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=pathlib.Path, help="a demo corpus; drawn if not given")
    parser.add_argument("--side", type=int, default=24, help="pixels of the shrunk crop's side")
    options = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        corpus = options.corpus or pathlib.Path(scratch) / "demo"
        if options.corpus is None:
            demo.generate(corpus, "default")
        figures = score_linear(corpus, options.side)
    print(json.dumps(figures | {"seconds": round(time.monotonic() - started, 1)}))


if __name__ == "__main__":
    main()
