"""What the report of the stage `ensemble` shows, gathered from the work directory."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from abaw_jax.data.records import IMAGE_SET, Index
from abaw_jax.evaluation.combination import TUNED
from abaw_jax.evaluation.confidence import bootstrap, video_statistics, video_table
from abaw_jax.evaluation.decision import Decision, Tuned
from abaw_jax.evaluation.folds import group_names
from abaw_jax.evaluation.predictions import Prediction
from abaw_jax.evaluation.report import Timeline
from abaw_jax.evaluation.smoothing import Smoothing
from abaw_jax.files import read_json
from abaw_jax.recipe import Context, stage_row
from abaw_jax.stages.combine import Combined
from abaw_jax.stages.members import ALL, read_members
from abaw_jax.stages.views import further_views
from abaw_jax.tracks.track import Summary, Track


def evidence(
    track: Track,
    final: Mapping[str, Prediction],
    labels: Mapping[str, np.ndarray],
    persons: Mapping[str, str] | None,
) -> dict[str, Any]:
    """What the score rests on, as `write_report` takes it: each video, and intervals over videos,
    recordings and persons drawn whole, where there are two at least."""
    statistics = video_statistics(final, labels, track)
    several = len(statistics.videos) > 1  # a set of images is one
    found: dict[str, Any] = {"videos": video_table(statistics, track) if several else ()}
    groups = group_names(statistics.videos, persons)
    if len(set(groups.values())) > 1:
        found["intervals"] = bootstrap(statistics, track, groups=groups)
    if track.label_type == "float32":
        decoded = [track.decode(final[video].values) for video in labels]
        found["pairs"] = np.concatenate(decoded), np.concatenate(list(labels.values()))
    return found


# Stage -> (folder, name) of what is trained of a model before or after it, if asked for.
FURTHER = {"finetune": ("head", "head alone"), "sequence": ("collaborate", "second branch")}


def histories(context: Context) -> dict[str, dict[str, pathlib.Path]]:
    """Stage that trained -> model of it -> its learning curves."""
    stages = {
        "pretrain": [ALL],
        "finetune": [ALL, *further_views(context)],
        "sequence": list(read_members(context)),
    }
    found = {}
    for stage, models in stages.items():
        folder = context.folder(stage)
        files = {m: folder / ("" if m == ALL else m) / "metrics.jsonl" for m in models}
        if stage in FURTHER:
            place, words = FURTHER[stage]
            more = {m: path.parent / place / path.name for m, path in files.items()}
            files |= {f"{m}, {words}": path for m, path in more.items()}
        files = {model: path for model, path in files.items() if path.exists()}
        found |= {stage: files} if files else {}
    return found


def stage_rows(context: Context) -> list[dict[str, Any]]:
    """Seconds and score of the stages that came before."""
    rows = []
    for name in ("prepare", "pretrain", "finetune", "extract", "sequence"):
        results = read_json(context.folder(name) / "results.json")
        rows.append(stage_row(name, results, context.track))
    return rows


def notes(
    index: Index, scored: str, member: str, tuned: Tuned, track: Track, combined: Combined | None
) -> list[str]:
    """What the report says under its title. scored: the labels' `split_hash`. member: whose
    predictions were decided."""
    notes = [f"The split hash of the labels scored begins with {scored[:16]}."]
    if combined is not None:
        method, scores = combined.result.combination.method, combined.result
        notes.append(f"{len(combined.folders)} members combined by: {method}.")
        if method in TUNED:
            notes.append(
                f"By itself this combination scores {scores.tuned.score:.4f} on the videos it was "
                f"fitted on and {scores.cross_validated.score:.4f} on videos out of fold."
            )
    if track.per_clip:
        searched = combined is not None and combined.result.combination.method in TUNED
        chosen = _out_of_fold(tuned) if searched else []  # clips are not smoothed
        return [f"{len(index.videos)} validation clips", *notes, *chosen]
    if index.videos == (IMAGE_SET,):
        return [f"{len(index.frames)} validation images, of which none follows on another", *notes]
    best = tuned.decision.smoothing
    if tuned.decision.matching is not None:
        notes.append("Matched to the mean and the standard deviation of the training labels.")
    if tuned.decision.thresholds is not None:
        notes.append(
            "Each class is decided by its own threshold, chosen on these same videos, and filters "
            "are compared at the thresholds that suit each."
        )
    notes += _out_of_fold(tuned)
    return [
        f"{len(index.videos)} validation videos, {int(index.rows[-1])} annotation rows",
        f"Smoothing of the {member} predictions: {best}, chosen on these same videos; gaps are "
        f"filled by the rule {best.gaps}",
        *notes,
    ]


def _out_of_fold(tuned: Tuned) -> list[str]:
    if tuned.cross_validated is None:
        return []
    return [
        f"{tuned.cross_validated.score:.4f} where all of this is chosen for each fold of "
        "videos on the others: what new videos are more likely to give than the score below."
    ]


def with_threshold_column(summary: Summary, decision: Decision) -> Summary:
    """The figures of each class beside the threshold that it is decided by, if it has its own."""
    if decision.thresholds is None:
        return summary
    rows = zip(summary.per_class, decision.thresholds, strict=True)
    return dataclasses.replace(
        summary, per_class=tuple({**row, "threshold": limit} for row, limit in rows)
    )


def timelines(
    track: Track,
    labels: Mapping[str, np.ndarray],
    predictions: Mapping[str, Mapping[str, Prediction]],
    decision: Decision,
    table: Sequence[Mapping[str, Any]],
    chosen: Sequence[str] = (),
) -> list[Timeline]:
    """The chosen validation videos over time; none of clips and images.

    Of no choice the one whose labels change most often, and the one that scores worst. predictions:
    of the frames, then of what is decided. table: of `confidence.video_table`.
    """
    if track.per_clip or IMAGE_SET in labels:
        return []
    places = {row["video"]: place for place, row in enumerate(reversed(table), start=1)}
    reasons = {video: [] for video in chosen}
    if not chosen:
        reasons[_liveliest(labels)] = ["Its labels change most often."]
        if table:
            reasons.setdefault(table[0]["video"], []).append("It scores worst.")
    scores = {row["video"]: row["score"] for row in table}

    def decide(member: str, video: str, decision: Decision) -> np.ndarray:
        found = decision.apply(predictions[member][video], len(labels[video]), track)
        return track.decode(found.values)

    found = []
    for video, notes in reasons.items():
        if video in scores:
            place = f"place {places[video]} of {len(places)}"
            notes = [f"{track.score_name} {scores[video]:.4f} by its own frames, {place}.", *notes]
        rows = {"labels": labels[video]}
        rows |= {member: decide(member, video, Decision(Smoothing())) for member in predictions}
        rows["final"] = decide(list(predictions)[-1], video, decision)
        found.append(Timeline(video, rows, " ".join(notes)))
    return found


def _liveliest(labels: Mapping[str, np.ndarray]) -> str:
    """The video whose label changes most often; of equals the first by name."""

    def changes(video: str) -> int:
        return int((np.diff(labels[video], axis=0) != 0).any(axis=1).sum())

    return max(sorted(labels), key=changes)
