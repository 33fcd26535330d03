"""Seconds to search an ensemble's weights, beside scipy.optimize over scikit-learn's score.

    python benchmarks/ensemble.py [--members 10] [--frames 500000] [--evaluations 100]

Draws labels and members of 70 videos and prints one JSON line a track that has frames:

    ours           one search of weights per class, as the ensemble does it: the ascent sees evenly
                   spaced frames (`weights.ROWS`), what it proposes is compared on all frames
    peer           Nelder-Mead over one softmax weight a member, all frames in each evaluation, cut
                   off after --evaluations; macro F1 by scikit-learn, CCC by NumPy's moments
    ratio          peer / ours, seconds; higher is better for ours
    seconds_cross_validated   all 16 searches of 5 folds: of all, without each fold and each pair
                   of them, by which the trust is chosen and the score out of fold is found

Scores are on all frames, those of the search included, but for `cross_validated`. The peer has
fewer weights and is cut off, but sees all frames each time: `ratio` compares ways to work, not
equal work. Without scipy or scikit-learn `peer` is null and
`reason` says why.
"""

import argparse
import importlib.metadata
import json
import os
import pathlib
import sys
import time

import numpy as np

# From a checkout, without being installed.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from abaw_jax.evaluation.align import align
from abaw_jax.evaluation.ensemble import evaluate_ensemble, label_rows
from abaw_jax.evaluation.folds import make_folds
from abaw_jax.evaluation.predictions import Prediction
from abaw_jax.evaluation.stacking import is_choice
from abaw_jax.evaluation.weights import combine, decode, match, search_weights
from abaw_jax.tracks import TRACKS

VIDEOS = 70


def main() -> None:
    names = [key for key in ("expr", "va", "au") if key in TRACKS]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--members", type=int, default=10)
    parser.add_argument("--frames", type=int, default=500_000)
    parser.add_argument("--evaluations", type=int, default=100, help="of the peer, at most")
    parser.add_argument("--tracks", nargs="+", choices=names, default=names)
    args = parser.parse_args()
    for name in args.tracks:
        print(json.dumps(compare(TRACKS[name], args)), flush=True)


def draw(track, members: int, frames: int):
    """Labels by video, and members whose skill differs by member and class."""
    rng = np.random.default_rng(0)
    labels, predictions = {}, {f"m{i}": {} for i in range(members)}
    skill = rng.uniform(0.2, 1.5, (members, track.outputs))
    for v in range(VIDEOS):
        rows = max(frames // VIDEOS, 1)
        steps = rows // 25 + 1
        if track.label_type == "float32":
            labels_ = rng.uniform(*track.label_range, (steps, track.label_width))
        elif is_choice(track):
            share = 0.6 ** np.arange(track.outputs)
            labels_ = rng.choice(track.outputs, (steps, 1), p=share / share.sum())
        else:
            labels_ = rng.random((steps, track.label_width)) < 0.2
        labels[f"v{v}"] = np.repeat(labels_, 25, axis=0)[:rows].astype(track.label_type)
        targets = track.encode(labels[f"v{v}"])
        for i in range(members):
            # A video's own error does not average out over its frames.
            error = rng.normal(size=targets.shape) + rng.normal(size=track.outputs)
            logits = skill[i] * targets + 0.7 * error
            if is_choice(track):
                values = np.exp(logits)
                values /= values.sum(axis=1, keepdims=True)
            elif track.label_type == "int32":
                values = 1 / (1 + np.exp(-2 * logits))
            else:
                values = np.tanh(logits)
            frame = np.arange(1, rows + 1, dtype=np.int32)
            predictions[f"m{i}"][f"v{v}"] = Prediction(frame, values.astype(np.float32))
    return predictions, labels


def compare(track, args: argparse.Namespace) -> dict:
    """Time both; the result line of one track."""
    predictions, labels = draw(track, args.members, args.frames)
    aligned = align(predictions, track)
    labelled = label_rows(aligned, labels, track)
    values, rows = aligned.values[:, labelled.index], labelled.labels

    def score(weights: np.ndarray) -> float:
        combined = combine(values, weights)
        predicted = decode(combined, match(combined, rows, track), track)  # as the search judges
        return track.summary(track.statistics(predicted, rows)).score

    start = time.perf_counter()
    _, weights = search_weights(values, rows, track)
    ours = time.perf_counter() - start
    start = time.perf_counter()
    folds = make_folds(labelled.frames(aligned))
    result = evaluate_ensemble(aligned, labelled, track, "weights", folds, progress=False)
    validated = time.perf_counter() - start
    even = np.full(weights.shape, 1 / args.members)
    line = {
        "case": f"ensemble-{track.key}-{args.members}x{len(rows)}",
        "ours": round(ours, 2),
        "unit": "s",
        "peer": None,
        "ratio": None,
        "peer_name": "scipy Nelder-Mead over scikit-learn",
        "seconds_cross_validated": round(validated, 2),
        "score": round(score(weights), 4),
        "cross_validated": round(result.cross_validated.score, 4),
        "average": round(score(even), 4),
        "cores": len(os.sched_getaffinity(0)),
        "versions": {"python": sys.version.split()[0], "numpy": np.__version__},
    }
    try:
        peer, shares, evaluations = time_peer(track, values, rows, args.evaluations)
    except ImportError as error:
        return line | {"reason": str(error)}
    line["versions"] |= {p: importlib.metadata.version(p) for p in ("scipy", "scikit-learn")}
    return line | {
        "peer": round(peer, 2),
        "ratio": round(peer / ours, 2),
        "peer_score": round(score(np.repeat(shares[:, None], track.outputs, axis=1)), 4),
        "peer_evaluations": evaluations,
    }


def time_peer(track, values: np.ndarray, rows: np.ndarray, evaluations: int):
    """Seconds, weights (M,) and evaluations of the search one would write."""
    from scipy.optimize import minimize
    from scipy.special import softmax
    from sklearn.metrics import f1_score

    def loss(logits: np.ndarray) -> float:
        combined = np.tensordot(softmax(logits).astype(np.float32), values, 1)
        if track.label_type == "float32":
            return -float(np.mean([ccc(*pair) for pair in zip(combined.T, rows.T, strict=True)]))
        truth, predicted = rows, (combined >= 0.5).astype(np.int32)
        if is_choice(track):
            truth, predicted = rows[:, 0], combined.argmax(axis=1)
        return -f1_score(truth, predicted, average="macro", zero_division=0.0)

    start = time.perf_counter()
    options = {"maxfev": evaluations}
    found = minimize(loss, np.zeros(len(values)), method="Nelder-Mead", options=options)
    return time.perf_counter() - start, softmax(found.x), int(found.nfev)


def ccc(x: np.ndarray, y: np.ndarray) -> float:
    cov = np.mean((x - x.mean()) * (y - y.mean()))
    return 2 * cov / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)


if __name__ == "__main__":
    main()
