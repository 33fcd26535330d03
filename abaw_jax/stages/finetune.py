"""Stage `finetune`: labelled crops -> a frame classifier; makes finetune/model.

Where labels are of clips, crops learn from their clip's label, which need not show in each of them
(weak labels); clips are scored, each by the mean over its crops.

The encoder starts from pretrain/model where there is one. The parameters that score best on the
validation crops are kept.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from abaw_jax.data.pipeline import image_batches, image_epoch
from abaw_jax.data.records import load_index, open_records
from abaw_jax.data.transforms import make_eval_transform
from abaw_jax.errors import InputError
from abaw_jax.interop.archive import check_variables, content_hash, load_model, save_model
from abaw_jax.recipe import Context
from abaw_jax.stages.parts import (
    count_steps,
    make_finetune_task,
    make_loss_weights,
    make_schedule_optimizer,
    make_transforms,
    training_figures,
)
from abaw_jax.tasks.task import Task
from abaw_jax.training.loop import train
from abaw_jax.training.step import make_predict


def labelled(context: Context, split: str) -> tuple[Any, np.ndarray, np.ndarray]:
    """(records, indices of those with a valid label, labels (R, W)) of a split."""
    folder = context.folder("prepare") / "records"
    labels = load_index(folder, split).record_labels(context.track.key)
    indices = np.flatnonzero(context.track.valid(labels))
    if not len(indices):
        raise InputError(f"{folder}: no {split} crop has a valid {context.track.name} label")
    return open_records(folder, split), indices, labels


def run(context: Context) -> dict:
    """Train on the labelled training crops, score on the labelled validation crops."""
    config, folder, track = context.config, context.folder("finetune"), context.track
    section = config.finetune
    records, indices, labels = labelled(context, "train")
    weights = make_loss_weights(section, labels[indices], track)
    task = make_finetune_task(config, track, weights)
    steps, epoch = count_steps(section, len(indices))
    result = train(
        task,
        make_batches=lambda start: image_batches(
            records,
            indices,
            labels,
            batch_size=section.batch_size,
            transform=make_transforms(config)["finetune"],
            seed=config.seed,
            start_step=start,
            process=(jax.process_index(), jax.process_count()),
            threads=config.threads,
        ),
        optimizer=make_schedule_optimizer(section, len(indices)),
        steps=steps,
        mesh=context.mesh,
        workdir=folder,
        seed=config.seed,
        accumulate=section.accumulate,
        save_every=max(round(epoch), 1),
        evaluate=make_evaluate(context, task),
        eval_every=math.ceil(steps / section.evaluations),
        best=track.score_name,
        ema_decay=section.ema_decay or None,
        initial_params=pretrained(context),
        label="finetune",
        metadata={"classes": list(track.classes)},
    )
    save_model(
        folder / "model",
        {"params": result.params, **result.model_state},
        {
            "kind": "frame_classifier",
            "track": track.name,
            "classes": list(track.classes),
            **context.section("image", "encoder", "finetune"),
        },
    )
    return {
        "split": "validation",
        "score": result.metrics[track.score_name],
        "metrics": training_figures(result),
        "samples": len(indices),
        "content": content_hash(folder / "model"),
    }


def pretrained(context: Context) -> Callable[[Any], Any] | None:
    """Puts the pre-trained encoder into fresh parameters; None without pre-training."""
    folder = context.folder("pretrain") / "model"
    if not context.config.pretrain.epochs:
        return None
    encoder = load_model(folder)[0]["params"]["encoder"]

    def initial(params: Any) -> Any:
        check_variables(encoder, params["encoder"], folder)
        return {**params, "encoder": jax.tree.map(jnp.asarray, encoder)}

    return initial


def make_evaluate(context: Context, task: Task) -> Callable[[Any, Any], dict[str, float]]:
    """Figures on the labelled validation crops, one by one, or on the clips they are of."""
    track, config = context.track, context.config
    records, indices, labels = labelled(context, "validation")
    index = load_index(context.folder("prepare") / "records", "validation")
    videos, truth = index.record_videos()[indices], labels[indices]
    predict = make_predict(task, context.mesh)

    def evaluate(params: Any, model_state: Any) -> dict[str, float]:
        batches = image_epoch(
            records,
            indices,
            batch_size=config.extract.batch_size,
            transform=make_eval_transform(config.image.size),
            threads=config.threads,
        )
        values = np.concatenate(
            [
                outputs["probabilities"][batch["mask"]]
                for batch, outputs in predict(params, model_state, batches)
            ]
        )
        rows = truth
        if track.per_clip:
            values, first = mean_by_clip(values, videos)
            rows = truth[first]
        return dict(track.summary(track.evaluate(track.decode(values), rows)).metrics)

    return evaluate


def mean_by_clip(values: np.ndarray, clips: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(mean over the rows of each clip float32 (V, K), index of its first row (V,)).

    values (n, K); clips (n,), rising: the number of the clip of each row.
    """
    _, first, counts = np.unique(clips, return_index=True, return_counts=True)
    sums = np.add.reduceat(values.astype(np.float64), first, axis=0)
    return (sums / counts[:, None]).astype(np.float32), first
