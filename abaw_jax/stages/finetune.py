"""Stage `finetune`: labelled crops -> a frame classifier; makes finetune/model.

Of each further view in `finetune.views` there is one more, finetune/<view>/model, tuned alike.

Where labels are of clips, crops learn from their clip's label, which need not show in each of them
(weak labels); clips are scored, each by the mean over its crops.

Each encoder starts from pretrain/model where there is one, or from the public weights that
`finetune.start` names (`start.py`). With `finetune.head_epochs` the head is trained first, in
finetune/head, while all else stays as it is, and tuning goes on from there. The parameters that
score best on the validation crops are kept. With tracks in `finetune.also` a crop counts for each
track that it has a label of; the config's own decides which parameters are best. Of another track
in its place, and of encoders that are finished and not trained here, see `encoder.py`.

With `finetune.target` another thing is learnt in place of the track, which is read from it
(`tracks/targets.py`); with `finetune.curriculum` the easier of its examples come first, and the
others' share rises to 1 over that part of the schedule. The score is the track's.
"""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import FrozenConfigDict

from abaw_jax.data.pipeline import Curriculum, image_batches, image_epoch
from abaw_jax.data.records import load_index, open_records
from abaw_jax.data.transforms import make_eval_transform
from abaw_jax.data.views import FACE, VIEWS
from abaw_jax.errors import InputError
from abaw_jax.files import read_json
from abaw_jax.interop.archive import check_variables, content_hash, load_model, save_model
from abaw_jax.interop.convert import KIND as PUBLIC
from abaw_jax.interop.export import make_task
from abaw_jax.recipe import Context
from abaw_jax.stages.encoder import frames_track, is_pretrained
from abaw_jax.stages.parts import (
    count_steps,
    head_config,
    make_finetune_task,
    make_loss_weights,
    make_schedule_optimizer,
    make_transforms,
    output_classes,
    section_tracks,
)
from abaw_jax.stages.start import given_folder, load_start, take_public
from abaw_jax.stages.views import tuning_folder
from abaw_jax.tasks.task import Task
from abaw_jax.tracks.targets import find_target
from abaw_jax.tracks.together import join_labels, output_names, score_tracks, split_labels
from abaw_jax.tracks.track import Track
from abaw_jax.training.loop import TrainResult, train
from abaw_jax.training.step import make_predict


def labelled(context: Context, split: str) -> tuple[Any, np.ndarray, np.ndarray]:
    """(records, indices of those with a label of any track, labels (R, W) of all) of a split: of
    what is learnt in training, of what is scored elsewhere.

    Raises InputError where a track has no label at all; of the validation set this is asked of the
    first track alone.
    """
    folder = context.folder("prepare") / "records"
    tracks = learnt(context) if split == "train" else scored(context)
    index = load_index(folder, split)
    labels = [index.record_labels(track.key) for track in tracks]
    valid = np.stack([track.valid(rows) for track, rows in zip(tracks, labels, strict=True)])
    for track, rows in zip(tracks, valid, strict=True):
        if not rows.any() and (track is tracks[0] or split == "train"):
            raise InputError(f"{folder}: no {split} crop has a valid {track.name} label")
    return open_records(folder, split), np.flatnonzero(valid.any(axis=0)), join_labels(labels)


def learnt(context: Context) -> list[Track]:
    """The tracks that the stage learns, the target in place of the first where there is one."""
    return section_tracks(context.config.finetune, frames_track(context))


def scored(context: Context) -> list[Track]:
    """The tracks that the stage is scored by; the first decides which parameters are best."""
    return [frames_track(context), *learnt(context)[1:]]


def run(context: Context) -> dict:
    """Train on the labelled training crops, score on the labelled validation crops: the score is
    that of the whole face. A given encoder is taken, and has no score here."""
    if context.config.finetune.encoder:
        return _take(context)
    track, views = frames_track(context), context.config.finetune.views
    results = {view: _tune(context, view, number) for number, view in enumerate(views)}
    figures, score = results[FACE].figures(), track.score_name
    figures |= {f"{v}_{score}": r.metrics[score] for v, r in results.items() if v != FACE}
    models = [content_hash(tuning_folder(context, view) / "model") for view in views]
    return {
        "track": track,
        "split": "validation",
        "score": figures[score],
        "metrics": figures,
        "samples": len(labelled(context, "train")[1]),
        "content": models if len(models) > 1 else models[0],
    }


def _take(context: Context) -> dict:
    """Write the given encoder's model as this stage's own."""
    source, folder = given_folder(context.config, "encoder"), context.folder("finetune") / "model"
    if read_json(source / "config.json")["kind"] == PUBLIC:
        variables, config = take_public(context, source)
    else:
        variables, config = load_model(source)
    check_variables(variables, make_task(config, source)[1], source)
    save_model(folder, variables, config)
    track = frames_track(context)
    return {
        **({"track": track} if track else {}),
        "metrics": {},
        "samples": 0,
        "content": content_hash(folder),
    }


def _tune(context: Context, view: str, number: int) -> TrainResult:
    """Train the classifier of a view, the number-th from 0, and write its model."""
    config, folder, track = context.config, tuning_folder(context, view), frames_track(context)
    label = f"finetune {view}" if number else "finetune"
    initial = {"initial_params": pretrained(context), "initial_state": started_state(context)}
    if config.finetune.get("head_epochs"):
        head = dataclasses.replace(context, config=FrozenConfigDict(head_config(config)))
        initial |= {"label": f"{label}, head", "frozen": is_below_head}
        first = _train(head, view, number, folder / "head", **initial)
        kept = jax.device_get((first.params, first.model_state))
        initial = {"initial_params": lambda _: kept[0], "initial_state": lambda _: kept[1]}
    result = _train(context, view, number, folder, label=label, **initial)
    save_model(
        folder / "model",
        {"params": result.params, **result.model_state},
        {
            "kind": "frame_classifier",
            "track": track.name,
            "classes": list(track.classes),
            **output_classes(config.finetune, track),
            **context.section("image", "encoder", "finetune"),
            **({"view": view} if number else {}),
        },
    )
    return result


def is_below_head(path: str) -> bool:
    """Whether a parameter stays as it is where the head alone is trained."""
    return path.split("/")[0] in ("encoder", "fc_norm")


def _train(
    context: Context,
    view: str,
    number: int,
    folder: pathlib.Path,
    frozen: Callable[[str], bool] | None = None,
    **options: Any,
) -> TrainResult:
    """Train the classifier of a view in a folder as the config says; options: those of `train`."""
    config, track = context.config, frames_track(context)
    section, seed = config.finetune, config.seed + number
    records, indices, labels = labelled(context, "train")
    weights = make_loss_weights(section, labels[indices], track)
    task = make_finetune_task(config, track, weights)
    late = late_examples(context)
    indices, classes = balanced_examples(context, indices, labels)
    steps, epoch = count_steps(section, len(indices))
    early = max(round(section.get("curriculum", 0.0) * steps), 1)
    return train(
        task,
        make_batches=lambda start: image_batches(
            records,
            indices,
            labels,
            batch_size=section.batch_size,
            transform=make_transforms(config, view)["finetune"],
            seed=seed,
            start_step=start,
            process=(jax.process_index(), jax.process_count()),
            threads=config.threads,
            curriculum=None if late is None else Curriculum(late, early),
            classes=classes,
        ),
        optimizer=make_schedule_optimizer(section, len(indices), frozen),
        steps=steps,
        mesh=context.mesh,
        workdir=folder,
        seed=seed,
        accumulate=section.accumulate,
        save_every=max(round(epoch), 1),
        evaluate=make_evaluate(context, task, view),
        eval_every=math.ceil(steps / section.evaluations),
        best=track.score_name,
        ema_decay=section.ema_decay or None,
        metadata={"classes": list(track.classes), **output_classes(section, track)},
        **options,
    )


def balanced_examples(
    context: Context, indices: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None]:
    """(indices of the crops that are drawn, the class of each for `image_batches`). Balanced, those
    without a class are left out; else all are drawn, and there is no second."""
    if not context.config.finetune.get("balanced"):
        return indices, None
    classes = split_labels(labels[indices], learnt(context))[0][:, 0]
    known = learnt(context)[0].valid(classes[:, None])
    return indices[known], classes[known]


def late_examples(context: Context) -> np.ndarray | None:
    """Which of the labelled training crops a curriculum comes to last, bool (n,); None without one.

    Raises InputError where all are of one kind.
    """
    section = context.config.finetune
    if not section.get("curriculum"):
        return None
    _, indices, labels = labelled(context, "train")
    own = split_labels(labels[indices], learnt(context))[0]
    late = find_target(frames_track(context), section.target).late(own)
    if late.all() or not late.any():
        raise InputError(
            f"config.finetune.curriculum: of {len(late)} training images {late.sum()} are of two "
            "emotions; expected images of one too (config.corpus.singles), or 0 for no curriculum"
        )
    return late


def pretrained(context: Context) -> Callable[[Any], Any] | None:
    """Puts the pre-trained encoder, or the given first weights, into fresh parameters; None
    without either."""
    folder = context.folder("pretrain") / "model"
    if context.config.finetune.get("start"):
        folder, given = context.config.finetune.start, load_start(context.config)["params"]
    elif is_pretrained(context.config):
        given = {"encoder": load_model(folder)[0]["params"]["encoder"]}
    else:
        return None
    return functools.partial(_put_in, given, folder)


def started_state(context: Context) -> Callable[[Any], Any] | None:
    """Puts the running statistics that the first weights have into a fresh model state; None
    where there are none."""
    folder = context.config.finetune.get("start")
    given = load_start(context.config) if folder else {}
    given = {name: tree for name, tree in given.items() if name != "params"}

    def initial(state: Any) -> Any:
        put = {name: _put_in(tree, folder, state[name]) for name, tree in given.items()}
        return {**state, **put}

    return initial if given else None


def _put_in(given: Any, folder: pathlib.Path | str, fresh: Any) -> Any:
    """Fresh arrays with those that are given, which are of a model in `folder`."""
    check_variables(given, {name: fresh[name] for name in given}, folder)
    return {**fresh, **jax.tree.map(jnp.asarray, given)}


def make_evaluate(
    context: Context, task: Task, view: str = FACE
) -> Callable[[Any, Any], dict[str, float]]:
    """Figures (`score_tracks`) on the validation crops, one by one, or on the clips they are of."""
    config, tracks = context.config, scored(context)
    records, indices, labels = labelled(context, "validation")
    index = load_index(context.folder("prepare") / "records", "validation")
    videos, truth = index.record_videos()[indices], labels[indices]
    predict = make_predict(task, context.mesh)

    def evaluate(params: Any, model_state: Any) -> dict[str, float]:
        batches = image_epoch(
            records,
            indices,
            batch_size=config.extract.batch_size,
            transform=make_eval_transform(config.image.size, VIEWS[view]),
            threads=config.threads,
        )
        parts = [
            [outputs[name][batch["mask"]] for name in output_names(tracks)]
            for batch, outputs in predict(params, model_state, batches)
        ]
        found = {}
        for track, values, rows in zip(
            tracks, zip(*parts, strict=True), split_labels(truth, tracks), strict=True
        ):
            values = np.concatenate(values)
            if track.per_clip:
                values, first = mean_by_clip(values, videos)
                rows = rows[first]
            found[track.key] = [(values, rows)]
        return score_tracks(tracks, found)

    return evaluate


def mean_by_clip(values: np.ndarray, clips: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(mean over the rows of each clip float32 (V, K), index of its first row (V,)).

    values (n, K); clips (n,), rising: the number of the clip of each row.
    """
    _, first, counts = np.unique(clips, return_index=True, return_counts=True)
    sums = np.add.reduceat(values.astype(np.float64), first, axis=0)
    return (sums / counts[:, None]).astype(np.float32), first
