"""Stage `sequence`: windows of features -> a sequence model; makes sequence/model.

Also sequence/predictions/<split>, a file a video with a row for every annotation row: what the
overlapping windows say of a frame is averaged. Where labels are of clips, a window is a clip, and
its file has one row. With folds, sequence/predictions is the mean of the members, whose own lie in
sequence/members/<member>/<split>, and sequence/fold1/model and so on are the models besides.
"""

import functools
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from abaw_jax.data.records import load_index
from abaw_jax.data.windows import (
    Reader,
    Windows,
    make_clip_windows,
    make_feature_reader,
    make_windows,
    merge_windows,
    window_batches,
    window_epoch,
)
from abaw_jax.evaluation.predictions import save_prediction
from abaw_jax.interop.archive import content_hash, save_model
from abaw_jax.recipe import Context
from abaw_jax.stages.extract import splits, video_labels
from abaw_jax.stages.members import ALL, label_rows, member_windows, of_videos
from abaw_jax.stages.modalities import describe_features, open_stores
from abaw_jax.stages.parts import (
    count_steps,
    make_loss_weights,
    make_schedule_optimizer,
    make_sequence_task,
    training_figures,
)
from abaw_jax.tasks.task import Task
from abaw_jax.tracks.track import Track
from abaw_jax.training.loop import TrainResult, train
from abaw_jax.training.step import make_predict


def split_windows(context: Context, split: str):
    """(windows, reader of their features) of a split."""
    section, track = context.config.sequence, context.track
    index = load_index(context.folder("prepare") / "records", split)
    rows = index.videos, index.rows, index.labels.get(track.key)
    options = {"length": section.length, "invalid": track.invalid}
    if track.per_clip:
        windows = make_clip_windows(*rows, **options)
    else:
        windows = make_windows(*rows, stride=section.stride, **options)
    return windows, make_feature_reader(index.videos, open_stores(context, split))


def run(context: Context) -> dict:
    """Train on the training windows, predict all splits, score every labelled validation row.

    With `folds` k above 0 there are k + 1 members, whose predictions are averaged: one trained on
    all training windows, and one without each fold of the training recordings, which chooses its
    parameters by that fold; those of the first are chosen by the validation set. The features of
    all are those of one frame classifier, tuned on all training frames.
    """
    config, folder, track = context.config, context.folder("sequence"), context.track
    windows, reader = split_windows(context, "train")
    task = make_sequence_task(
        config, track, make_loss_weights(config.sequence, windows.labels, track)
    )
    predict = make_windows_predict(context, task)
    opened = {split: split_windows(context, split) for split in splits(context)}
    labels = video_labels(load_index(context.folder("prepare") / "records", "validation"), track)
    sums: dict[tuple[str, str], np.ndarray] = {}
    results = {}
    for number, (name, chosen) in enumerate(member_windows(context, windows).items()):
        # The member of all windows is judged by the validation set, the others by their own fold.
        judged, truth = opened["validation"], labels
        if number:
            held_out = np.setdiff1d(windows.video, chosen.video)
            judged = of_videos(windows, held_out), reader
            truth = {windows.videos[v]: label_rows(windows, v) for v in held_out}
        place = folder / name if number else folder
        result = train_member(
            context,
            task,
            place,
            chosen,
            reader,
            make_evaluate(track, truth, functools.partial(predict, *judged)),
            seed=config.seed + number,
            label=f"sequence {name}" if number else "sequence",
        )
        _save_member(context, place, result)
        results[name] = result
        for split, found in opened.items():
            for video, values in predict(*found, result.params, result.model_state).items():
                if config.sequence.folds:
                    _save(context, folder / "members" / name / split, video, values)
                sums[split, video] = sums.get((split, video), 0) + values.astype(np.float64)
    means = {key: (total / len(results)).astype(np.float32) for key, total in sums.items()}
    for (split, video), values in means.items():
        _save(context, folder / "predictions" / split, video, values)
    statistics = sum(
        track.evaluate(track.decode(means["validation", video]), rows)
        for video, rows in labels.items()
    )
    figures = training_figures(results[ALL])
    if config.sequence.folds:
        figures["single"] = figures[track.score_name]
        figures |= track.summary(statistics).metrics
    return {
        "split": "validation",
        "score": figures[track.score_name],
        "metrics": figures,
        "samples": int(sum(track.valid(label_rows(windows, v)).sum() for v in set(windows.video))),
        "content": [content_hash(folder / name / "model") for name in ("", *list(results)[1:])],
    }


def train_member(
    context: Context,
    task: Task,
    folder: pathlib.Path,
    windows: Windows,
    reader: Reader,
    evaluate: Callable[[Any, Any], dict[str, float]],
    *,
    seed: int,
    label: str,
) -> TrainResult:
    """Train on these windows in this folder, and keep what `evaluate` finds best."""
    config, track = context.config, context.track
    section = config.sequence
    steps, epoch = count_steps(section, len(windows))
    return train(
        task,
        make_batches=lambda start: window_batches(
            windows,
            reader,
            batch_size=section.batch_size,
            seed=seed,
            start_step=start,
            process=(jax.process_index(), jax.process_count()),
            threads=config.threads,
            shift=section.shift,
        ),
        optimizer=make_schedule_optimizer(section, len(windows)),
        steps=steps,
        mesh=context.mesh,
        workdir=folder,
        seed=seed,
        accumulate=section.accumulate,
        save_every=max(round(10 * epoch), 1),
        evaluate=evaluate,
        eval_every=math.ceil(steps / section.evaluations),
        best=track.score_name,
        ema_decay=section.ema_decay or None,
        label=label,
        unit="windows",
        metadata={"classes": list(track.classes)},
    )


def _save_member(context: Context, folder: pathlib.Path, result: TrainResult) -> None:
    """Write the model of one member."""
    save_model(
        folder / "model",
        {"params": result.params, **result.model_state},
        {
            "kind": "sequence_model",
            "track": context.track.name,
            "classes": list(context.track.classes),
            "features": describe_features(context),
            **context.section("sequence"),
        },
    )


def _save(context: Context, folder: pathlib.Path, video: str, values: np.ndarray) -> None:
    frames = np.arange(1, len(values) + 1, dtype=np.int32)
    save_prediction(folder, video, frames, values, context.track.classes)


def make_windows_predict(context: Context, task: Task) -> Callable[..., dict[str, np.ndarray]]:
    """predict(windows, reader, params, model_state) -> probabilities (rows, C) of each video that
    has windows, (1, C) of a clip."""
    run_model = make_predict(task, context.mesh)

    def predict(
        windows: Windows, reader: Reader, params: Any, model_state: Any
    ) -> dict[str, np.ndarray]:
        section = context.config.sequence
        batches = window_epoch(
            windows, reader, batch_size=section.batch_size, threads=context.config.threads
        )
        parts = [
            (output["probabilities"], batch["video"], batch["start"], batch["mask"])
            for batch, output in run_model(params, model_state, batches)
        ]
        values, video, start, mask = (np.concatenate(a) for a in zip(*parts, strict=True))
        seen = np.unique(windows.video)
        rows = np.zeros(len(windows.videos), np.int64)
        rows[seen] = 1 if windows.whole else np.diff(windows.rows)[seen]
        if windows.whole:  # a clip is a video of one row
            values, mask = values[:, None], mask.any(1, keepdims=True)
        merged = merge_windows(values, video, start, mask, rows)
        return {windows.videos[v]: merged[v] for v in seen}

    return predict


def make_evaluate(
    track: Track,
    labels: Mapping[str, np.ndarray],
    predict: Callable[[Any, Any], dict[str, np.ndarray]],
) -> Callable[[Any, Any], dict[str, float]]:
    """Figures over every labelled row (or clip) of these videos, each counted once."""

    def evaluate(params: Any, model_state: Any) -> dict[str, float]:
        found = predict(params, model_state)
        statistics = sum(track.evaluate(track.decode(found[v]), labels[v]) for v in labels)
        return dict(track.summary(statistics).metrics)

    return evaluate
