"""Of stage `sequence`: what a model of windows predicts of each video, kept and scored."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from abaw_jax.data.windows import Reader, Windows, merge_windows, window_epoch
from abaw_jax.evaluation.predictions import save_prediction
from abaw_jax.recipe import Context
from abaw_jax.stages.parts import section_tracks
from abaw_jax.tasks.task import Task
from abaw_jax.tracks.together import output_names, score_tracks, split_outputs
from abaw_jax.tracks.track import Track
from abaw_jax.training.step import make_predict


def learnt(context: Context) -> list[Track]:
    """The tracks that the stage learns, the config's own first."""
    return section_tracks(context.config.sequence, context.track)


def make_windows_predict(context: Context, task: Task) -> Callable[..., dict[str, np.ndarray]]:
    """predict(windows, reader, params, model_state) -> values (rows, C) of each video that has
    windows, (1, C) of a clip; of several tracks those of all, side by side."""
    names = output_names(learnt(context))
    run_model = make_predict(task, context.mesh)

    def predict(
        windows: Windows, reader: Reader, params: Any, model_state: Any
    ) -> dict[str, np.ndarray]:
        section = context.config.sequence
        batches = window_epoch(
            windows, reader, batch_size=section.batch_size, threads=context.config.threads
        )
        parts = [
            (
                np.concatenate([output[n] for n in names], -1),
                batch["video"],
                batch["start"],
                batch["mask"],
            )
            for batch, output in run_model(params, model_state, batches)
        ]
        values, video, start, mask = (np.concatenate(a) for a in zip(*parts, strict=True))
        seen = np.unique(windows.video)
        rows = np.zeros(len(windows.videos), np.int64)
        rows[seen] = 1 if windows.whole else np.diff(windows.rows)[seen]
        if windows.whole:  # a clip is a video of one row
            values, mask = values[:, None], mask.any(1, keepdims=True)
        if windows.causal:  # a window's last row is what it predicts
            start, mask = start + windows.length - 1, mask[:, -1:]
        merged = merge_windows(values, video, start, mask, rows)
        return {windows.videos[v]: merged[v] for v in seen}

    return predict


def make_evaluate(
    tracks: Sequence[Track],
    labels: Mapping[str, Mapping[str, np.ndarray]],
    predict: Callable[[Any, Any], dict[str, np.ndarray]],
) -> Callable[[Any, Any], dict[str, float]]:
    """Figures over every labelled row (or clip) of these videos, each counted once.

    labels: track key -> video -> its label rows; of the first track at least.
    """

    def evaluate(params: Any, model_state: Any) -> dict[str, float]:
        return score_videos(tracks, labels, predict(params, model_state))

    return evaluate


def score_videos(
    tracks: Sequence[Track],
    labels: Mapping[str, Mapping[str, np.ndarray]],
    found: Mapping[str, np.ndarray],
) -> dict[str, float]:
    """`score_tracks` of values (rows, C) of all tracks, by video; labels as in `make_evaluate`."""
    pairs = {
        track.key: [
            (split_outputs(found[video], tracks)[at], rows)
            for video, rows in labels.get(track.key, {}).items()
        ]
        for at, track in enumerate(tracks)
    }
    return score_tracks(tracks, pairs)


def save_values(context: Context, folder: pathlib.Path, video: str, values: np.ndarray) -> None:
    """Write values (rows, sum of K) to the folder of a split, further tracks' beside its parent."""
    frames, tracks = np.arange(1, len(values) + 1, dtype=np.int32), learnt(context)
    for track, part in zip(tracks, split_outputs(values, tracks), strict=True):
        own = folder.parent.with_name(f"{folder.parent.name}_{track.key}") / folder.name
        place = folder if track is context.track else own
        save_prediction(place, video, frames, part, track.classes)
