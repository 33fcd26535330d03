"""Stage `ensemble`: predictions -> smoothed predictions, scores, submission and report.

For single frames and for sequences alike, the smoothing that scores best on validation is kept;
where the config asks for it, numbers are matched to the training labels' distribution, and classes
that are on or off get thresholds of their own (`evaluation/decision.py`). Each of these has a score
on the frames it was chosen on, and all together one on videos that had no part in the choice.

Makes ensemble/smoothing.json, ensemble/matching.json and ensemble/thresholds.json where there are
such, ensemble/predictions/<split> (the final ones: sequences, smoothed and matched, a row for every
annotation row), ensemble/submission.txt for the test set and ensemble/report.html.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from abaw_jax.data.records import Index, load_index
from abaw_jax.evaluation.confidence import bootstrap, video_statistics, video_table
from abaw_jax.evaluation.decision import Decision, Tuned, tune_decision
from abaw_jax.evaluation.folds import group_videos, make_folds, recording
from abaw_jax.evaluation.predictions import Prediction, load_predictions, save_prediction
from abaw_jax.evaluation.report import Timeline, write_report
from abaw_jax.evaluation.smoothing import Smoothing, smoothing_grid
from abaw_jax.evaluation.submission import check_submission, write_submission
from abaw_jax.evaluation.thresholds import with_thresholds
from abaw_jax.files import read_json, write_json
from abaw_jax.recipe import SCORES, Context, package_versions
from abaw_jax.stages.extract import splits, video_labels, video_rows
from abaw_jax.stages.prepare import test_example
from abaw_jax.tracks.track import Summary, Track

MEMBERS = {"frames": "extract", "sequence": "sequence"}  # what predicts -> the stage that made it
DECIDED = ("smoothing", "matching", "thresholds")  # keys of `Decision.record`; a file each
FOLDS = 5  # of validation videos


def run(context: Context) -> dict:
    """Choose, apply, score, write; the score is that of the final sequence predictions."""
    folder, track = context.folder("ensemble"), context.track
    index = load_index(context.folder("prepare") / "records", "validation")
    labels = video_labels(index, track)
    predictions = {
        name: load_predictions(context.folder(stage) / "predictions" / "validation", track)
        for name, stage in MEMBERS.items()
    }
    tuned = {name: _tune(context, found, labels) for name, found in predictions.items()}
    _write_decisions(context, {name: found.decision for name, found in tuned.items()})
    best = tuned["sequence"]
    for split in splits(context):
        _write_predictions(context, split, best.decision)
    decided = with_thresholds(track, best.decision.thresholds)
    scores = {key: score for name, found in tuned.items() for key, score in _scores(name, found)}
    final = {
        video: best.decision.apply(found, len(labels[video]), track)
        for video, found in predictions["sequence"].items()
    }
    evidence = _evidence(decided, final, labels)
    write_report(
        folder / "report.html",
        f"{track.name}, {context.config.system}, validation",
        decided,
        _with_threshold_column(best.summary, best.decision),
        notes=_notes(index, best, track),
        stages=[*_stages(context), *({"stage": SCORES[k], "score": v} for k, v in scores.items())],
        candidates=best.table if len(best.table) > 1 else (),
        timeline=_timeline(decided, labels, predictions, best.decision),
        histories=_histories(context),
        config=context.config.to_dict(),
        versions=package_versions(),
        **evidence,
    )
    interval = evidence.get("intervals", {}).get("score")
    if interval is not None:
        scores |= {"score_low": interval.low, "score_high": interval.high}
    return {
        "split": "validation",
        "score": best.summary.score,
        "metrics": {**best.summary.metrics, **scores, **_submit(context, decided)},
        "samples": int(np.sum([track.valid(rows).sum() for rows in labels.values()])),
    }


def _tune(
    context: Context, predictions: Mapping[str, Prediction], labels: Mapping[str, np.ndarray]
) -> Tuned:
    """The decision of one member, as the section `ensemble` says."""
    track, section = context.track, context.config.ensemble
    training = None
    if section.get("match"):
        records = context.folder("prepare") / "records"
        training = np.concatenate(list(video_labels(load_index(records, "train"), track).values()))
    frames = {video: int(track.valid(rows).sum()) for video, rows in labels.items()}
    frames = {video: count for video, count in frames.items() if count}
    # A single recording cannot be parted.
    several = len(set(group_videos(list(frames)).values())) > 1
    return tune_decision(
        predictions,
        labels,
        track,
        smoothing_grid(tuple(section.kinds), section.gaps),
        training_labels=training,
        thresholds=bool(section.get("search_thresholds")),
        folds=make_folds(frames, FOLDS) if several else None,
    )


def _scores(name: str, tuned: Tuned) -> list[tuple[str, float]]:
    """(key of `recipe.SCORES`, score) of a member's steps and out of fold; of the plain predictions
    alone where there was nothing to choose."""
    if len(tuned.table) == 1 and tuned.decision == Decision(tuned.decision.smoothing):
        return [(name, tuned.scores["plain"])]
    scores = [
        (name if step == "plain" else f"{name}_{step}", score)
        for step, score in tuned.scores.items()
    ]
    if tuned.cross_validated is not None:
        scores.append((f"{name}_cross_validated", tuned.cross_validated.score))
    return scores


def _write_decisions(context: Context, decisions: Mapping[str, Decision]) -> None:
    """A file for each of DECIDED that there is: member -> what was chosen for it."""
    records = {name: d.record(context.track) for name, d in decisions.items()}
    for key in DECIDED:
        if all(key in record for record in records.values()):
            found = {name: record[key] for name, record in records.items()}
            write_json(context.folder("ensemble") / f"{key}.json", found)


def read_decisions(context: Context) -> dict[str, dict[str, Any]]:
    """Member -> `Decision.record`, as this stage left it."""
    files = {key: context.folder("ensemble") / f"{key}.json" for key in DECIDED}
    found = {key: read_json(path) for key, path in files.items() if path.exists()}
    return {name: {key: by_member[name] for key, by_member in found.items()} for name in MEMBERS}


def _write_predictions(context: Context, split: str, decision: Decision) -> None:
    """The final predictions of one split, a row for every annotation row."""
    index, track = load_index(context.folder("prepare") / "records", split), context.track
    rows = video_rows(index, track)
    folder = context.folder("sequence") / "predictions" / split
    for video, prediction in load_predictions(folder, track, index.videos).items():
        final = decision.apply(prediction, rows[video], track)
        save_prediction(
            context.folder("ensemble") / "predictions" / split,
            video,
            final.frames,
            final.values,
            track.classes,
        )


def _submit(context: Context, decided: Track) -> dict[str, int]:
    """Write the test submission from the final predictions, and read it back; {} for a corpus
    without test set."""
    example, folder = test_example(context), context.folder("ensemble")
    if "test" not in splits(context) or not example:
        return {}
    path = folder / "submission.txt"
    write_submission(path, example, folder / "predictions" / "test", decided)
    checked = check_submission(path, example, decided)
    return {"submission_lines": checked["lines"], "submission_videos": checked["videos"]}


def _evidence(
    track: Track, final: Mapping[str, Prediction], labels: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """What the score rests on, as `write_report` takes it: each video, and intervals over videos,
    recordings drawn whole, where there are two at least."""
    statistics = video_statistics(final, labels, track)
    found: dict[str, Any] = {"videos": video_table(statistics, track)}
    groups = {video: recording(video) for video in statistics.videos}
    if len(set(groups.values())) > 1:
        found["intervals"] = bootstrap(statistics, track, groups=groups)
    if track.label_type == "float32":
        decoded = [track.decode(final[video].values) for video in labels]
        found["pairs"] = np.concatenate(decoded), np.concatenate(list(labels.values()))
    return found


def _histories(context: Context) -> dict[str, pathlib.Path]:
    """The learning curves of the stages that trained."""
    files = {
        name: context.folder(name) / "metrics.jsonl"
        for name in ("pretrain", "finetune", "sequence")
    }
    return {name: path for name, path in files.items() if path.exists()}


def _stages(context: Context) -> list[dict[str, Any]]:
    """Seconds and score of the stages that came before."""
    rows = []
    for name in ("prepare", "pretrain", "finetune", "extract", "sequence"):
        results = read_json(context.folder(name) / "results.json")
        rows.append({"stage": name, "seconds": results["seconds"], "score": results["score"]})
    return rows


def _notes(index: Index, tuned: Tuned, track: Track) -> list[str]:
    """What the report says under its title."""
    if track.per_clip:
        return [f"{len(index.videos)} validation clips"]
    best, notes = tuned.decision.smoothing, []
    if tuned.decision.matching is not None:
        notes.append("Matched to the mean and the standard deviation of the training labels.")
    if tuned.decision.thresholds is not None:
        notes.append(
            "Each class is decided by its own threshold, chosen on these same videos after the "
            "smoothing, which is compared at the track's own."
        )
    if tuned.cross_validated is not None:
        notes.append(
            f"{tuned.cross_validated.score:.4f} where all of this is chosen for each fold of "
            "videos on the others: what new videos are more likely to give than the score below."
        )
    return [
        f"{len(index.videos)} validation videos, {int(index.rows[-1])} annotation rows",
        f"Smoothing of the sequence predictions: {best}, chosen on these same videos; gaps are "
        f"filled by the rule {best.gaps}",
        *notes,
    ]


def _with_threshold_column(summary: Summary, decision: Decision) -> Summary:
    """The figures of each class beside the threshold that it is decided by, if it has its own."""
    if decision.thresholds is None:
        return summary
    rows = zip(summary.per_class, decision.thresholds, strict=True)
    return dataclasses.replace(
        summary, per_class=tuple({**row, "threshold": limit} for row, limit in rows)
    )


def _timeline(
    track: Track,
    labels: Mapping[str, np.ndarray],
    predictions: Mapping[str, Mapping[str, Prediction]],
    decision: Decision,
) -> Timeline | None:
    """The validation video whose label changes most often, over time; None for clips."""
    if track.per_clip:
        return None

    def changes(video: str) -> int:
        return int((np.diff(labels[video], axis=0) != 0).any(axis=1).sum())

    video = max(sorted(labels), key=changes)
    count = len(labels[video])

    def decide(member: str, decision: Decision) -> np.ndarray:
        return track.decode(decision.apply(predictions[member][video], count, track).values)

    rows = {
        "labels": labels[video],
        "frames": decide("frames", Decision(Smoothing())),
        "sequence": decide("sequence", Decision(Smoothing())),
        "final": decide("sequence", decision),
    }
    return Timeline(video, rows)
