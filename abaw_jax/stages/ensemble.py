"""Stage `ensemble`: predictions -> smoothed predictions, scores, submission and report.

For single frames and for sequences alike, the smoothing that scores best on validation is kept.
Makes ensemble/smoothing.json, ensemble/predictions/<split> (the final ones: sequences, smoothed, a
row for every annotation row), ensemble/submission.txt for the test set and ensemble/report.html.
"""

import dataclasses
from typing import Any

import numpy as np

from abaw_jax.data.records import Index, load_index
from abaw_jax.evaluation.predictions import Prediction, load_predictions, save_prediction
from abaw_jax.evaluation.report import Timeline, write_report
from abaw_jax.evaluation.smoothing import (
    Smoothing,
    search_smoothing,
    smooth_prediction,
    smoothing_grid,
)
from abaw_jax.evaluation.submission import check_submission, write_submission
from abaw_jax.files import read_json, write_json
from abaw_jax.recipe import Context
from abaw_jax.stages.extract import splits, video_labels, video_rows
from abaw_jax.stages.prepare import test_example

MEMBERS = {"frames": "extract", "sequence": "sequence"}  # what predicts -> the stage that made it


def run(context: Context) -> dict:
    """Search, smooth, score, write; the score is that of the smoothed sequence predictions."""
    folder, track, section = context.folder("ensemble"), context.track, context.config.ensemble
    index = load_index(context.folder("prepare") / "records", "validation")
    labels = video_labels(index, track)
    predictions = {
        name: load_predictions(context.folder(stage) / "predictions" / "validation", track)
        for name, stage in MEMBERS.items()
    }
    searches = {
        name: search_smoothing(
            members, labels, track, smoothing_grid(tuple(section.kinds), section.gaps)
        )
        for name, members in predictions.items()
    }
    best = searches["sequence"].best
    write_json(
        folder / "smoothing.json", {n: dataclasses.asdict(s.best) for n, s in searches.items()}
    )
    for split in splits(context):
        _write_predictions(context, split, best)
    final = {
        video: smooth_prediction(p, len(labels[video]), best)
        for video, p in predictions["sequence"].items()
    }
    statistics = sum(track.evaluate(track.decode(final[v].values), labels[v]) for v in labels)
    summary = track.summary(statistics)
    scores = {}
    for name, search in searches.items():
        scores[name] = search.table[0][track.score_name]
        scores[f"{name}_smoothed"] = search.score
    metrics = {**summary.metrics, **scores, **_submit(context, best)}
    write_report(
        folder / "report.html",
        f"{track.name}, {context.config.system}, validation",
        track,
        summary,
        notes=_notes(context, index, searches),
        stages=[*_stages(context), *({"stage": k, "score": v} for k, v in scores.items())],
        candidates=searches["sequence"].table,
        timeline=None if track.per_clip else _timeline(track, labels, predictions, final),
    )
    return {
        "split": "validation",
        "score": summary.score,
        "metrics": metrics,
        "samples": int(np.sum([track.valid(rows).sum() for rows in labels.values()])),
    }


def _write_predictions(context: Context, split: str, best: Smoothing) -> None:
    """The final predictions of one split, a row for every annotation row."""
    index = load_index(context.folder("prepare") / "records", split)
    rows = video_rows(index, context.track)
    folder = context.folder("sequence") / "predictions" / split
    for video, prediction in load_predictions(folder, context.track, index.videos).items():
        smooth = smooth_prediction(prediction, rows[video], best)
        save_prediction(
            context.folder("ensemble") / "predictions" / split,
            video,
            smooth.frames,
            smooth.values,
            context.track.classes,
        )


def _submit(context: Context, best: Smoothing) -> dict[str, int]:
    """Write the test submission and read it back; {} for a corpus without test set."""
    example = test_example(context)
    if "test" not in splits(context) or not example:
        return {}
    path = context.folder("ensemble") / "submission.txt"
    predictions = load_predictions(
        context.folder("sequence") / "predictions" / "test", context.track
    )
    write_submission(path, example, predictions, context.track, smoothing=best)
    checked = check_submission(path, example, context.track)
    return {"submission_lines": checked["lines"], "submission_videos": checked["videos"]}


def _stages(context: Context) -> list[dict[str, Any]]:
    """Seconds and score of the stages that came before."""
    rows = []
    for name in ("prepare", "pretrain", "finetune", "extract", "sequence"):
        results = read_json(context.folder(name) / "results.json")
        rows.append({"stage": name, "seconds": results["seconds"], "score": results["score"]})
    return rows


def _notes(context: Context, index: Index, searches) -> list[str]:
    """What the report says under its title."""
    best = searches["sequence"].best
    return [
        f"{len(index.videos)} validation videos, {int(index.rows[-1])} annotation rows",
        f"Smoothing of the sequence predictions: {best.kind}, width {best.width:g}, chosen on "
        "these same videos; gaps are filled by the rule " + best.gaps,
    ]


def _timeline(
    track, labels: dict[str, np.ndarray], predictions, final: dict[str, Prediction]
) -> Timeline:
    """The validation video with the most changes of label, over time."""

    def changes(video: str) -> int:
        return int((np.diff(labels[video][:, 0]) != 0).sum())

    video = max(sorted(labels), key=changes)
    rows = len(labels[video])
    frames = smooth_prediction(predictions["frames"][video], rows, Smoothing())
    return Timeline(
        video,
        {
            "labels": labels[video],
            "frames": track.decode(frames.values),
            "sequence": track.decode(predictions["sequence"][video].values)[:rows],
            "smoothed": track.decode(final[video].values),
        },
    )
