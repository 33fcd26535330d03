"""Stage `sequence`: windows of features -> a sequence model; makes sequence/model. Or windows of
crops, see `pixels.py`.

Also sequence/predictions/<split>, a file a video with a row for every annotation row: what the
overlapping windows say of a frame is averaged; with the head "last" each window ends at the frame
that it predicts, and every frame has one. Where labels are of clips, a window is a clip, and its
file has one row. With folds or scenes, sequence/predictions is the mean of the members, whose
own lie in sequence/members/<member>/<split>; sequence/fold1/model, sequence/scene1/model and so on
are the models besides, members.json what each learnt from, scenes.csv where each video belongs.
Members of single modalities are no part of that mean.

With sequence.collaborate each model gets a second branch, trained in sequence/collaborate (of a
member in its folder), and predicts with both: `model` holds the two.

Tracks of `sequence.also` are learnt beside the config's own, which alone decides which parameters
are best; what is predicted of them lies in folders whose names end in their keys, as
sequence/predictions_expr/<split>.
"""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from abaw_jax.data.records import load_index
from abaw_jax.data.windows import (
    Reader,
    Windows,
    make_clip_windows,
    make_windows,
    thin_windows,
    window_batches,
)
from abaw_jax.errors import InputError
from abaw_jax.interop.archive import content_hash, save_model
from abaw_jax.recipe import Context
from abaw_jax.stages.extract import splits, video_labels
from abaw_jax.stages.members import (
    ALL,
    Member,
    Scenes,
    find_scenes,
    label_rows,
    labelled_windows,
    make_members,
    write_members,
)
from abaw_jax.stages.modalities import describe_features
from abaw_jax.stages.parts import (
    Weights,
    count_steps,
    make_loss_weights,
    make_schedule_optimizer,
    make_second_task,
    make_sequence_task,
    output_classes,
    second_section,
)
from abaw_jax.stages.pixels import as_seen, make_frozen, make_initial, make_reader
from abaw_jax.stages.predict import (
    learnt,
    make_evaluate,
    make_windows_predict,
    save_values,
    score_videos,
)
from abaw_jax.tasks.collaborate import start_from
from abaw_jax.tasks.task import Task
from abaw_jax.tracks.together import invalid_labels, join_labels
from abaw_jax.tracks.track import Track
from abaw_jax.training.loop import TrainResult, train

PIXEL_SECTIONS = ("image", "encoder")  # that, with its pooling, describe an encoder of crops
Branch = tuple[Task, Callable[..., dict[str, np.ndarray]]]  # and its `make_windows_predict`


def split_windows(context: Context, split: str, only: str | None = None):
    """(windows, reader of what is in them, of all modalities or only one) of a split."""
    section, track = context.config.sequence, context.track
    index = load_index(context.folder("prepare") / "records", split)
    rows = index.videos, index.rows, index.labels.get(track.key)
    options = {"length": section.length, "invalid": track.invalid}
    if track.per_clip:
        windows = make_clip_windows(*rows, every=section.every, **options)
    elif section.head == "last":  # every row is predicted; `train_member` takes every stride-th
        windows = make_windows(*rows, stride=1, causal=True, **options)
    else:
        windows = make_windows(*rows, stride=section.stride, **options)
    return windows, make_reader(as_seen(context, only), split, only)


def run(context: Context) -> dict:
    """Train on the training windows, predict all splits, score every labelled validation row.

    There may be several members (`members.py`), whose predictions are averaged, each counting as
    `_share` says. The features of all are those of one frame classifier, tuned on all training
    frames, from which encoders of crops start. With 0 epochs there is no sequence model, and the
    frame classifier's predictions are the final ones. Where there is a second branch,
    `first_branch` is the score without it.
    """
    config, folder, track = context.config, context.folder("sequence"), context.track
    if not config.sequence.epochs:
        return {"metrics": {}, "samples": 0}

    @functools.cache
    def opened(only: str | None) -> dict[str, tuple[Windows, Reader]]:
        return {split: split_windows(context, split, only) for split in splits(context)}

    @functools.cache
    def branches_of(only: str | None) -> list[Branch]:
        return make_branches(as_seen(context, only), weights)

    windows = opened(None)["train"][0]
    weights = make_loss_weights(config.sequence, with_all_labels(context, windows).labels, track)
    windows = labelled_windows(context, windows)
    index = load_index(context.folder("prepare") / "records", "validation")
    labels = {other.key: video_labels(index, other) for other in learnt(context)}
    scenes = find_scenes(context)
    members = make_members(context, windows, opened(None)["validation"][0], scenes)
    sums: dict[tuple[str, str], np.ndarray] = {}
    shares: dict[tuple[str, str], float] = {}
    figures = {}
    for number, (name, member) in enumerate(members.items()):
        readers = {split: reader for split, (_, reader) in opened(member.modality).items()}
        place = folder / name if number else folder
        label = f"sequence {name}" if number else "sequence"
        asked = {"seed": config.seed + number, "label": label}
        seen, branches = as_seen(context, member.modality), branches_of(member.modality)
        trained = train_branches(seen, branches, place, member, readers, labels, **asked)
        result, (_, predict) = trained[-1], branches[-1]
        if name == ALL:
            figures = result.figures()
            if len(trained) > 1:
                figures["first_branch"] = trained[0].metrics[track.score_name]
        _save_member(seen, place, result, member.modality)
        for split, found in opened(member.modality).items():
            for video, values in predict(*found, result.params, result.model_state).items():
                if len(members) > 1:
                    save_values(context, folder / "members" / name / split, video, values)
                share = _share(member, scenes, video)
                key = split, video
                sums[key] = sums.get(key, 0) + share * values.astype(np.float64)
                shares[key] = shares.get(key, 0) + share
    means = {key: (total / shares[key]).astype(np.float32) for key, total in sums.items()}
    for (split, video), values in means.items():
        save_values(context, folder / "predictions" / split, video, values)
    if len(members) > 1:
        write_members(context, members)
    if sum(not member.modality for member in members.values()) > 1:
        figures["single"] = figures[track.score_name]
        validation = {video: means["validation", video] for video in labels[track.key]}
        figures |= score_videos(learnt(context), labels, validation)
    models = [content_hash(folder / name / "model") for name in ("", *list(members)[1:])]
    return {
        "split": "validation",
        "score": figures[track.score_name],
        "metrics": figures,
        "samples": int(sum(track.valid(label_rows(windows, v)).sum() for v in set(windows.video))),
        "content": [*models, scenes] if scenes else models,
    }


def with_all_labels(context: Context, windows: Windows) -> Windows:
    """Training windows with the labels of all tracks, side by side (`tracks.together`)."""
    tracks = learnt(context)
    index = load_index(context.folder("prepare") / "records", "train")
    for track in tracks:
        if not track.valid(index.labels.get(track.key, invalid_labels([track]))).any():
            folder = context.folder("prepare") / "records"
            raise InputError(f"{folder}: no train row has a valid {track.name} label")
    labels = join_labels([index.labels[track.key] for track in tracks])
    return dataclasses.replace(windows, labels=labels, invalid=invalid_labels(tracks))


def _truth(
    track: Track, member: Member, labels: Mapping[str, Mapping[str, np.ndarray]]
) -> dict[str, dict[str, np.ndarray]]:
    """Track key -> video -> label rows that a member is judged by.

    labels: those of all tracks on validation; by training videos only the first track is judged.
    """
    windows = member.judged
    videos = [(windows.videos[v], v) for v in np.unique(windows.video).tolist()]
    if member.of_training:
        return {track.key: {video: label_rows(windows, v) for video, v in videos}}
    return {
        key: {video: of_video[video] for video, _ in videos} for key, of_video in labels.items()
    }


def make_branches(context: Context, weights: Mapping[str, Weights]) -> list[Branch]:
    """What is trained of each member, one after another: the model, and if asked for the second
    branch beside it. weights: of `make_loss_weights`."""
    config, track = context.config, context.track
    tasks = [make_sequence_task(config, track, weights)]
    if config.sequence.collaborate.epochs:
        tasks.append(make_second_task(config, track, weights))
    return [(task, make_windows_predict(context, task)) for task in tasks]


def train_branches(
    context: Context,
    branches: Sequence[Branch],
    folder: pathlib.Path,
    member: Member,
    readers: Mapping[str, Reader],
    labels: Mapping[str, Mapping[str, np.ndarray]],
    *,
    seed: int,
    label: str,
) -> list[TrainResult]:
    """Train a member's model, and the second branch if any; labels as in `make_evaluate`."""
    judged = member.judged, readers["train" if member.of_training else "validation"]
    truth, seen = _truth(context.track, member, labels), (member.seen, readers["train"])

    def score(predict):
        return make_evaluate(learnt(context), truth, functools.partial(predict, *judged))

    (task, predict), *second = branches
    first = train_member(context, task, folder, *seen, score(predict), seed=seed, label=label)
    results, place, label = [first], folder / "collaborate", f"{label}, second branch"
    for task, predict in second:
        task = start_from(task, *jax.device_get((first.params, first.model_state)))
        asked = {"seed": seed, "label": label, "second": True}
        results.append(train_member(context, task, place, *seen, score(predict), **asked))
    return results


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
    second: bool = False,
) -> TrainResult:
    """Train on these windows in this folder, and keep what `evaluate` finds best.

    second: the task is of two branches, of which one is frozen.
    """
    config, track = context.config, context.track
    section = second_section(config.sequence) if second else config.sequence
    if windows.causal:
        windows = thin_windows(windows, section.stride)
    steps, epoch = count_steps(section, len(windows))
    return train(
        task,
        make_batches=lambda start: window_batches(
            with_all_labels(context, windows),
            reader,
            batch_size=section.batch_size,
            seed=seed,
            start_step=start,
            process=(jax.process_index(), jax.process_count()),
            threads=config.threads,
            shift=section.shift,
        ),
        optimizer=make_schedule_optimizer(
            section, len(windows), make_frozen(config, second=second)
        ),
        steps=steps,
        mesh=context.mesh,
        workdir=folder,
        seed=seed,
        accumulate=section.accumulate,
        save_every=max(round(10 * epoch), 1),
        evaluate=evaluate,
        eval_every=math.ceil(steps / section.evaluations),
        best=track.score_name,
        patience=section.patience or None,
        ema_decay=section.ema_decay or None,
        initial_params=None if second else make_initial(context),
        label=label,
        unit="windows",
        metadata={"classes": list(track.classes), **output_classes(section, track)},
    )


def _share(member: Member, scenes: Scenes, video: str) -> float:
    """How much a member counts in the mean: as likely as the video belongs to its scene, and not at
    all where it sees a part of what the others do."""
    if member.modality:
        return 0.0
    return scenes[video].get(member.scene, 0.0) if member.scene else 1.0


def _save_member(
    context: Context, folder: pathlib.Path, result: TrainResult, only: str | None
) -> None:
    """Write the model of one member, which sees all modalities or only one."""
    section, pooling = context.config.sequence, context.config.finetune.pooling
    encoder = {"finetune": {"pooling": pooling}, **context.section(*PIXEL_SECTIONS)}
    save_model(
        folder / "model",
        {"params": result.params, **result.model_state},
        {
            "kind": "two_branches" if section.collaborate.epochs else "sequence_model",
            "track": context.track.name,
            "classes": list(context.track.classes),
            **output_classes(section, context.track),
            "features": describe_features(context, only),
            **(encoder if section.pixels else {}),
            **context.section("sequence"),
        },
    )
