"""Members of the stage `sequence`: which training windows each of its models sees."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from abaw_jax.data.windows import Windows
from abaw_jax.evaluation.folds import make_folds
from abaw_jax.recipe import Context

ALL = "all"  # the member that sees every training window


def member_windows(context: Context, windows: Windows) -> dict[str, Windows]:
    """Member -> the training windows that it sees: all of them, then all but each fold's."""
    found, folds = {ALL: windows}, context.config.sequence.folds
    if folds:
        frames = {
            windows.videos[v]: int(context.track.valid(label_rows(windows, v)).sum())
            for v in set(windows.video.tolist())
        }
        fold_of = make_folds(frames, folds)
        for fold in range(max(fold_of.values()) + 1):  # fewer where there are fewer recordings
            seen = [v for v in set(windows.video.tolist()) if fold_of[windows.videos[v]] != fold]
            found[f"fold{fold + 1}"] = of_videos(windows, seen)
    return found


def of_videos(windows: Windows, videos: Sequence[int]) -> Windows:
    """Those windows that lie in these videos; the videos keep their numbers."""
    kept = np.isin(windows.video, videos)
    return dataclasses.replace(windows, video=windows.video[kept], start=windows.start[kept])


def label_rows(windows: Windows, video: int) -> np.ndarray:
    """The labels (rows, W) of a video, (1, W) of a clip."""
    rows = windows.labels[windows.rows[video] : windows.rows[video + 1]]
    return rows[:1] if windows.whole else rows
