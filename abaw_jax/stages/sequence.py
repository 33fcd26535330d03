"""Stage `sequence`: windows of features -> a sequence model; makes sequence/model.

Also sequence/predictions/<split>, a file a video with a row for every annotation row: what the
overlapping windows say of a frame is averaged. Where labels are of clips, a window is a clip, and
its file has one row.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from abaw_jax.data.features import FeatureStore
from abaw_jax.data.records import load_index
from abaw_jax.data.windows import (
    make_clip_windows,
    make_feature_reader,
    make_windows,
    merge_windows,
    window_batches,
    window_epoch,
)
from abaw_jax.evaluation.predictions import save_prediction
from abaw_jax.files import read_json
from abaw_jax.interop.archive import content_hash, save_model
from abaw_jax.recipe import Context
from abaw_jax.stages.extract import splits, video_labels
from abaw_jax.stages.parts import (
    count_steps,
    make_loss_weights,
    make_schedule_optimizer,
    make_sequence_task,
    training_figures,
)
from abaw_jax.tasks.task import Task
from abaw_jax.training.loop import train
from abaw_jax.training.step import make_predict


def split_windows(context: Context, split: str):
    """(windows, reader of their features) of a split."""
    section, track = context.config.sequence, context.track
    index = load_index(context.folder("prepare") / "records", split)
    store = FeatureStore(
        context.folder("extract") / "features" / split,
        encoder=content_hash(context.folder("finetune") / "model"),
        width=context.config.encoder.width,
        source_hash=index.content_hash(),
    )
    rows = index.videos, index.rows, index.labels.get(track.key)
    options = {"length": section.length, "invalid": track.invalid}
    if track.per_clip:
        windows = make_clip_windows(*rows, **options)
    else:
        windows = make_windows(*rows, stride=section.stride, **options)
    return windows, make_feature_reader(index.videos, [store])


def run(context: Context) -> dict:
    """Train on the training windows, score every labelled validation row, predict all splits."""
    config, folder, track = context.config, context.folder("sequence"), context.track
    section = config.sequence
    windows, reader = split_windows(context, "train")
    weights = make_loss_weights(section, windows.labels, track)
    task = make_sequence_task(config, track, weights)
    predict = make_split_predict(context, task)
    steps, epoch = count_steps(section, len(windows))
    result = train(
        task,
        make_batches=lambda start: window_batches(
            windows,
            reader,
            batch_size=section.batch_size,
            seed=config.seed,
            start_step=start,
            process=(jax.process_index(), jax.process_count()),
            threads=config.threads,
            shift=section.shift,
        ),
        optimizer=make_schedule_optimizer(section, len(windows)),
        steps=steps,
        mesh=context.mesh,
        workdir=folder,
        seed=config.seed,
        accumulate=section.accumulate,
        save_every=max(round(10 * epoch), 1),
        evaluate=make_evaluate(context, predict),
        eval_every=math.ceil(steps / section.evaluations),
        best=track.score_name,
        ema_decay=section.ema_decay or None,
        label="sequence",
        unit="windows",
        metadata={"classes": list(track.classes)},
    )
    for split in splits(context):
        for video, values in predict(split, result.params, result.model_state).items():
            frames = np.arange(1, len(values) + 1, dtype=np.int32)
            save_prediction(folder / "predictions" / split, video, frames, values, track.classes)
    learnt = windows.labels[windows.rows[windows.video]] if windows.whole else windows.labels
    features = read_json(context.folder("extract") / "features" / "train" / "features.json")
    save_model(
        folder / "model",
        {"params": result.params, **result.model_state},
        {
            "kind": "sequence_model",
            "track": track.name,
            "classes": list(track.classes),
            "features": {k: features[k] for k in ("encoder", "width")},
            **context.section("sequence"),
        },
    )
    return {
        "split": "validation",
        "score": result.metrics[track.score_name],
        "metrics": training_figures(result),
        "samples": int(track.valid(learnt).sum()),
        "content": content_hash(folder / "model"),
    }


def make_split_predict(context: Context, task: Task) -> Callable[..., dict[str, np.ndarray]]:
    """predict(split, params, model_state) -> probabilities (rows, C) of each video, (1, C) of a
    clip."""
    run_model = make_predict(task, context.mesh)
    opened = {}

    def predict(split: str, params: Any, model_state: Any) -> dict[str, np.ndarray]:
        if split not in opened:
            opened[split] = split_windows(context, split)
        windows, reader = opened[split]
        section = context.config.sequence
        batches = window_epoch(
            windows, reader, batch_size=section.batch_size, threads=context.config.threads
        )
        parts = [
            (output["probabilities"], batch["video"], batch["start"], batch["mask"])
            for batch, output in run_model(params, model_state, batches)
        ]
        values, video, start, mask = (np.concatenate(a) for a in zip(*parts, strict=True))
        rows = np.diff(windows.rows)
        if windows.whole:  # a clip is a video of one row
            values, mask, rows = values[:, None], mask.any(1, keepdims=True), np.ones_like(rows)
        merged = merge_windows(values, video, start, mask, rows)
        return dict(zip(windows.videos, merged, strict=True))

    return predict


def make_evaluate(context: Context, predict) -> Callable[[Any, Any], dict[str, float]]:
    """Figures over every labelled validation row (or clip), each counted once."""
    track = context.track
    index = load_index(context.folder("prepare") / "records", "validation")
    labels = np.concatenate(list(video_labels(index, track).values()))

    def evaluate(params: Any, model_state: Any) -> dict[str, float]:
        values = np.concatenate(list(predict("validation", params, model_state).values()))
        return dict(track.summary(track.evaluate(track.decode(values), labels)).metrics)

    return evaluate
