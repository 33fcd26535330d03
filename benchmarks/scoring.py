"""Seconds to score prediction folders against annotation files, beside pandas and scikit-learn.

    python benchmarks/scoring.py [--frames 3000000] [--repeats 3] [--peer-python PYTHON]

Draws labels and predictions of 600 videos into a temporary folder and prints one JSON line each of
VA, EXPR and AU. Both read every annotation file and every .npz and score the labelled frames, all
videos together:

    ours    what `python -m abaw_jax.score` does after its imports
    peer    pandas.read_csv for the annotations, np.load for the predictions, f1_score of
            scikit-learn (macro over classes, or over units), CCC by NumPy's moments
    ratio   peer / ours, seconds; higher is better for ours

The peer checks nothing; ours refuses missing frames, damaged rows and values that are not finite.
Files were just written, so that both read them from memory. Without pandas `peer` is null and
`reason` says why.
"""

import argparse
import importlib.metadata
import json
import pathlib
import tempfile
import time

import numpy as np
import turns

VIDEOS = 600
WIDTHS = {"va": 2, "expr": 1, "au": 12}  # of a label row
CLASSES = {"va": 2, "expr": 8, "au": 12}
INVALID = {"va": -5, "expr": -1, "au": -1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=3_000_000)
    parser.add_argument("--tracks", nargs="+", choices=WIDTHS, default=list(WIDTHS))
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    turns.add_options(parser)
    args = parser.parse_args()
    if args.worker:
        score = {"ours": score_ours, "peer": score_peer}[args.worker]
        turns.report(lambda: score(pathlib.Path(args.folder), args.tracks[0]))
        return
    turns.from_checkout()
    for track in args.tracks:
        with tempfile.TemporaryDirectory() as folder:
            videos = min(VIDEOS, args.frames)
            write(pathlib.Path(folder), track, videos, args.frames // videos)
            options = ["--folder", folder, "--tracks", track]
            figures = turns.compare(__file__, "pandas + scikit-learn", options, args)
        case = {"case": f"scoring-{track}-{args.frames}", **figures, "videos": videos}
        print(json.dumps(case), flush=True)


def write(folder: pathlib.Path, track: str, videos: int, frames: int) -> None:
    """Annotation files and predictions; one row in ten has no label."""
    from abaw_jax.evaluation.predictions import save_prediction
    from abaw_jax.tracks import TRACKS

    rng, facts = np.random.default_rng(0), TRACKS[track]
    (folder / "annotations").mkdir()
    for v in range(videos):
        values = rng.random((frames, CLASSES[track]), np.float32)
        if track == "va":
            labels = np.clip(values + rng.normal(0, 0.3, values.shape), -1, 1).round(4)
        elif track == "au":
            labels = (values + rng.normal(0, 0.3, values.shape) > 0.7).astype(int)
        else:
            labels = (values + rng.normal(0, 0.3, values.shape)).argmax(axis=1)[:, None]
        labels[rng.random(frames) < 0.1] = INVALID[track]
        lines = [",".join(map(str, row)) for row in labels.tolist()]
        text = "\n".join([",".join(facts.classes), *lines]) + "\n"
        (folder / "annotations" / f"v{v}.txt").write_text(text)
        numbers = np.arange(1, frames + 1)
        save_prediction(folder / "predictions", f"v{v}", numbers, values, facts.classes)


def score_ours(folder: pathlib.Path, key: str) -> tuple[float, float, dict]:
    turns.from_checkout()
    from abaw_jax.score import read_predictions, score_predictions
    from abaw_jax.tracks import TRACKS
    from abaw_jax.tracks.annotations import read_labels

    start, track = time.perf_counter(), TRACKS[key]
    labels, _ = read_labels(folder / "annotations", track, "Validation_Set")
    predictions = read_predictions(str(folder / "predictions"), track, labels)
    score = score_predictions(predictions, labels, track).summary.score
    return time.perf_counter() - start, score, {"numpy": np.__version__}


def score_peer(folder: pathlib.Path, key: str) -> tuple[float, float, dict]:
    import pandas
    from sklearn.metrics import f1_score

    start = time.perf_counter()
    labels, values = [], []
    for path in sorted((folder / "annotations").glob("*.txt")):
        # The header of EXPR is wider than its rows.
        table = pandas.read_csv(path, skiprows=1, header=None, names=range(WIDTHS[key]))
        rows = table.to_numpy()
        with np.load(folder / "predictions" / f"{path.stem}.npz") as arrays:
            frames, found = arrays["frames"], arrays["values"]
        rows = rows[frames - 1]
        keep = (rows != INVALID[key]).all(axis=1)
        labels.append(rows[keep])
        values.append(found[keep])
    labels, values = np.concatenate(labels), np.concatenate(values)
    if key == "va":
        pairs = zip(values.astype(np.float64).T, labels.astype(np.float32).T, strict=True)
        score = float(np.mean([ccc(x, y.astype(np.float64)) for x, y in pairs]))
    elif key == "expr":
        score = f1_score(labels[:, 0], values.argmax(axis=1), average="macro")
    else:
        score = f1_score(labels, values >= 0.5, average="macro")
    names = ("pandas", "scikit-learn", "numpy")
    versions = {name: importlib.metadata.version(name) for name in names}
    return time.perf_counter() - start, float(score), versions


def ccc(x: np.ndarray, y: np.ndarray) -> float:
    cov = np.mean((x - x.mean()) * (y - y.mean()))
    return 2 * cov / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)


if __name__ == "__main__":
    main()
