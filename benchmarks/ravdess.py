"""Emotion of RAVDESS clips from the face, from sound and from both, of people never trained on.

    python benchmarks/ravdess.py [--data DIR] [--workdir DIR] [--splits 1 2 3 4 5 6] [--steps N]

Actors are taken three by three: each three is scored once by models of all the others. `face` is a
network over a clip's 35 action unit values, `sound` one over log-mel bands, MFCC and prosody every
40 ms, `fused` the product of their probabilities, which nothing is chosen for. Beside each stands a
ridge regression on the same splits, its penalty chosen on the training actors, one left out at a
time: of the action units, of 259 MFCC statistics, of both side by side.

DIR has the published layout, `Actor_01/03-01-01-01-01-01-01.wav` (or .flac), and `au_mfcc.npz`:
clip, au, mfcc of the same takes. By default it is `data/ravdess` in the folder that the environment
variable ABAW_SHARED names. With --workdir what is heard is kept for the next run, and training goes
on where it stood; without, nothing is left.

Prints one JSON line a predictor: accuracy and macro F1 of all clips together with 95 % intervals
over actors, accuracy of each split, their mean and deviation, accuracy over splits that were not
looked at while settings were chosen, and the confusion matrix, rows true. Then one line a
comparison on the same clips: the difference in accuracy and its interval.
"""

import argparse
import dataclasses
import functools
import json
import os
import pathlib
import sys
import tempfile

import numpy as np

# From a checkout, without being installed.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import jax
from ravdess_clips import (
    EMOTIONS,
    SHIFT,
    Clips,
    disturb,
    hear_all,
    read_clips,
    standardise,
    standardise_sound,
)

from abaw_jax.errors import InputError
from abaw_jax.evaluation.confidence import VideoStatistics, bootstrap, compare
from abaw_jax.evaluation.folds import given_folds
from abaw_jax.evaluation.metrics import accuracy
from abaw_jax.models.sequence import SequenceModel
from abaw_jax.tasks.sequences import make_sequences_task
from abaw_jax.tracks import one_class
from abaw_jax.tracks.track import Summary, Track
from abaw_jax.training.loop import train
from abaw_jax.training.optim import make_optimizer
from abaw_jax.training.partition import make_mesh
from abaw_jax.training.step import make_predict

TOGETHER = 3  # actors of a split
SEEN = (1, 2)  # splits that were looked at while settings were chosen
PENALTIES = (1.0, 10.0, 100.0, 1000.0, 10000.0)


def _summarise(confusion: np.ndarray, classes) -> Summary:
    return dataclasses.replace(one_class.summarise(confusion, classes), score=accuracy(confusion))


TRACK = Track(
    name="RAVDESS",
    key="ravdess",
    classes=EMOTIONS,
    folder_prefix="RAVDESS",
    location_column="clip",
    label_width=1,
    label_type="int32",
    label_range=(0, len(EMOTIONS) - 1),
    invalid=-1,
    score_name="accuracy",
    activations={"softmax": one_class.softmax},
    losses=one_class.losses,
    decode=one_class.decode,
    encode=functools.partial(one_class.encode, classes=len(EMOTIONS)),
    statistics=functools.partial(one_class.statistics, classes=len(EMOTIONS)),
    summarise=_summarise,
    per_clip=True,
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """How one network is built and trained. The same for all splits."""

    model: SequenceModel
    steps: int
    lr: float
    weight_decay: float
    batch: int = 32
    label_smoothing: float = 0.1


FACE = Settings(
    SequenceModel(
        width=256, depth=0, heads=1, mlp_width=1, head_width=64, outputs=len(EMOTIONS),
        join=(256, 256), project=False, feature_dropout=0.1, dropout=0.5,
    ),
    steps=300, lr=1e-3, weight_decay=0.3,
)  # fmt: skip
HEARD = Settings(
    SequenceModel(
        width=48, depth=0, heads=1, mlp_width=1, head_width=64, outputs=len(EMOTIONS),
        tcn=(48, 48, 48), project=False, dropout=0.3, head_between="relu",
    ),
    steps=600, lr=2e-3, weight_decay=0.05,
)  # fmt: skip


def batch_of(features: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """What the task reads: every frame of a clip holds its label."""
    shape = features.shape[:2]
    label = np.broadcast_to(labels.astype(np.int32)[:, None, None], (*shape, 1))
    return {
        "features": features,
        "mask": np.ones(shape, bool),
        "label": np.ascontiguousarray(label),
    }


def predict_network(
    settings: Settings, features, plain, labels, rows, others, workdir: pathlib.Path, augment=None
) -> np.ndarray:
    """Train on clips `rows` and say of `others` what they are: probabilities (len(others), 8).

    features (n, T, D) go through augment(part, rng) in training; plain are those to predict from.
    """
    task = make_sequences_task(settings.model, TRACK, label_smoothing=settings.label_smoothing)
    mesh = make_mesh(devices=jax.devices()[:1])
    size = settings.batch

    def batches(start):
        step = start
        while True:
            places = np.arange(step * size, (step + 1) * size)
            chosen = [_order(place // len(rows), len(rows))[place % len(rows)] for place in places]
            part = features[rows[chosen]]
            if augment is not None:
                part = augment(part, np.random.default_rng((1, step)))
            yield batch_of(part, labels[rows[chosen]])
            step += 1

    optimizer = make_optimizer(
        lr=settings.lr, steps=settings.steps, warmup_steps=settings.steps // 20,
        weight_decay=settings.weight_decay, clip_norm=1.0,
    )  # fmt: skip
    result = train(
        task, make_batches=batches, optimizer=optimizer, steps=settings.steps, mesh=mesh,
        workdir=workdir, seed=0, save_every=settings.steps, label=workdir.name, unit="clips",
        metadata={"settings": " ".join(repr(settings).split())},
    )  # fmt: skip
    predict = make_predict(task, mesh)
    parts = (batch_of(plain[others[i : i + 60]], labels[others[i : i + 60]])
             for i in range(0, len(others), 60))  # fmt: skip
    found = predict(result.params, result.model_state, parts)
    return np.concatenate([outputs["probabilities"] for _, outputs in found])


@functools.lru_cache(2)
def _order(epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng((0, epoch)).permutation(count)


def solve_ridge(x, labels, rows, others, penalties) -> np.ndarray:
    """Ridge regression of the classes' indicators on x (n, D), trained on clips `rows`: scores
    (penalties, others, 8)."""
    target = TRACK.encode(labels[rows, None]).astype(np.float64)
    mean = target.mean(axis=0)
    x = standardise(x, rows).astype(np.float64)
    gram, product, even = x[rows].T @ x[rows], x[rows].T @ (target - mean), np.eye(x.shape[1])
    weights = [np.linalg.solve(gram + penalty * even, product) for penalty in penalties]
    return x[others] @ np.stack(weights) + mean


def predict_ridge(x, labels, actors, rows, others) -> np.ndarray:
    """Scores (others, 8) with the penalty that does best on the training actors, each of them
    predicted from the rest."""
    right = np.zeros(len(PENALTIES), int)
    for actor in np.unique(actors[rows]):
        inner, outer = rows[actors[rows] != actor], rows[actors[rows] == actor]
        scores = solve_ridge(x, labels, inner, outer, PENALTIES)
        right += (scores.argmax(axis=-1) == labels[outer]).sum(axis=1)
    return solve_ridge(x, labels, rows, others, [PENALTIES[right.argmax()]])[0]


def find_splits(clips: Clips) -> np.ndarray:
    """The split that scores each clip, from 1 on: int (n,)."""
    order = np.unique(clips.actors)
    names = {
        clip: f"{np.searchsorted(order, actor) // TOGETHER:03}"
        for clip, actor in zip(clips.names, clips.actors, strict=True)
    }
    persons = dict(zip(clips.names, map(str, clips.actors), strict=True))
    folds = given_folds(dict.fromkeys(clips.names, 1), names, persons)
    return np.array([folds[clip] for clip in clips.names]) + 1


def predict_split(
    clips: Clips, sound: np.ndarray, rows, others, faces: Settings, heard: Settings, workdir
) -> dict[str, np.ndarray]:
    """Predictor -> values (others, 8) of models of the clips `rows` alone."""
    labels = clips.labels
    units = standardise(clips.units, rows)[:, None]
    rising = standardise_sound(sound, rows)
    networks = {
        "face": predict_network(
            faces, units, units, labels, rows, others, workdir / "face"
        ),
        "sound": predict_network(
            heard, rising, rising[:, SHIFT:-SHIFT], labels, rows, others, workdir / "sound", disturb
        ),
    }  # fmt: skip
    product = networks["face"] * networks["sound"]
    networks["fused"] = product / product.sum(axis=1, keepdims=True)
    inputs = {"face": clips.units, "sound": clips.statistics}
    inputs["fused"] = np.concatenate([clips.units, clips.statistics], axis=1)
    ridges = {
        f"{name}_ridge": predict_ridge(x, labels, clips.actors, rows, others)
        for name, x in inputs.items()
    }
    return networks | ridges


def actor_statistics(clips: Clips, rows: np.ndarray, values: np.ndarray) -> VideoStatistics:
    """Confusion counts of each actor's clips: what a resample draws is an actor."""
    actors = np.unique(clips.actors[rows])
    parts = [rows_of == clips.actors[rows] for rows_of in actors]
    counts = [
        TRACK.statistics(TRACK.decode(values[part]), clips.labels[rows[part], None])
        for part in parts
    ]
    frames = np.array([part.sum() for part in parts], np.int64)
    return VideoStatistics(tuple(f"{actor:02}" for actor in actors), np.stack(counts), frames)


def describe(clips: Clips, splits: np.ndarray, rows: np.ndarray, values: np.ndarray) -> dict:
    """The figures of one predictor, of clips `rows` with values (rows, 8)."""
    found = actor_statistics(clips, rows, values)
    intervals = bootstrap(found, TRACK)
    right = TRACK.decode(values)[:, 0] == clips.labels[rows]
    each = {int(split): right[splits[rows] == split].mean() for split in np.unique(splits[rows])}
    shares = np.array(list(each.values()))
    untouched = ~np.isin(splits[rows], SEEN)
    figures = {"clips": len(rows)}
    for name in ("accuracy", "macro_f1"):
        spread = intervals[name]
        figures[name] = round(spread.value, 4)
        figures[f"{name}_interval"] = [round(spread.low, 4), round(spread.high, 4)]
    return figures | {
        "splits": {split: round(float(share), 4) for split, share in each.items()},
        "mean": round(float(shares.mean()), 4),
        "deviation": round(float(shares.std(ddof=1)), 4) if len(shares) > 1 else None,
        "accuracy_untouched": round(float(right[untouched].mean()), 4) if untouched.any() else None,
        "confusion": found.statistics.sum(axis=0).tolist(),
    }


def measure(data: pathlib.Path, workdir: pathlib.Path, wanted, steps: int | None) -> None:
    """Read, train, predict; print the lines."""
    clips = read_clips(data)
    splits = find_splits(clips)
    if unknown := sorted(set(wanted or ()) - set(splits.tolist())):
        raise InputError(f"--splits: {unknown[0]}; {data} gives {splits.max()}, from 1")
    faces, heard = (
        dataclasses.replace(settings, steps=steps or settings.steps) for settings in (FACE, HEARD)
    )
    workdir.mkdir(parents=True, exist_ok=True)
    sound = hear_all(clips, workdir / "sound.npz")
    scored, values = [], {}
    for split in wanted or np.unique(splits).tolist():
        rows, others = np.flatnonzero(splits != split), np.flatnonzero(splits == split)
        found = predict_split(clips, sound, rows, others, faces, heard, workdir / f"split{split}")
        for name, part in found.items():
            values.setdefault(name, []).append(part)
        scored.append(others)
    rows = np.concatenate(scored)
    values = {name: np.concatenate(parts) for name, parts in values.items()}
    for name, part in values.items():
        print(json.dumps({"case": f"ravdess-{name}", **describe(clips, splits, rows, part)}))
    counts = {name: actor_statistics(clips, rows, part) for name, part in values.items()}
    pairs = [("fused", "face"), ("fused", "sound")]
    pairs += [(name, f"{name}_ridge") for name in ("face", "sound", "fused")]
    for better, other in pairs:
        gap = compare(counts[better], counts[other], TRACK).difference
        line = {"case": f"ravdess-{better}-less-{other}", "difference": round(gap.value, 4)}
        print(json.dumps({**line, "interval": [round(gap.low, 4), round(gap.high, 4)]}))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    shared = pathlib.Path(os.environ.get("ABAW_SHARED", "."))
    parser.add_argument("--data", type=pathlib.Path, default=shared / "data" / "ravdess")
    parser.add_argument("--workdir", type=pathlib.Path, help="what is kept; a temporary folder")
    parser.add_argument("--splits", type=int, nargs="+", help="all by default")
    parser.add_argument("--steps", type=int, help="of each network, for a quick look")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            measure(args.data, args.workdir or pathlib.Path(scratch), args.splits, args.steps)
        except InputError as error:
            print(f"{parser.prog}: {error}", file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
