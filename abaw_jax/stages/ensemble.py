"""Stage `ensemble`: predictions -> combined, smoothed predictions, scores, submission and report.

Where there are several members (`combine.py`), they are made one first. Then, for single frames and
for that alike, the smoothing that scores best on validation is kept; where the config asks for it,
numbers are matched to the training labels' distribution, and classes that are on or off get
thresholds of their own (`evaluation/decision.py`). Each of these has a score on the frames it was
chosen on, and all together, the combination included, one on videos that had no part in the choice.

Makes ensemble/smoothing.json, ensemble/matching.json and ensemble/thresholds.json where there are
such, of several members ensemble/ensemble.json, ensemble/predictions/<split> (the final ones:
combined, smoothed and matched, a row for every annotation row), ensemble/submission.txt for the
test set and ensemble/report.html. Without a sequence model (0 epochs) the final ones are those of
frames.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from abaw_jax.data.records import load_index
from abaw_jax.evaluation.combination import TUNED
from abaw_jax.evaluation.confidence import split_hash
from abaw_jax.evaluation.decision import Decision, Tuned, tune_decision
from abaw_jax.evaluation.predictions import Prediction, load_predictions, save_prediction
from abaw_jax.evaluation.report import write_report
from abaw_jax.evaluation.smoothing import smoothing_grid
from abaw_jax.evaluation.submission import check_submission, write_submission
from abaw_jax.evaluation.thresholds import with_thresholds
from abaw_jax.files import read_json, write_json
from abaw_jax.recipe import SCORES, Context, package_versions
from abaw_jax.stages import report
from abaw_jax.stages.combine import (
    Combined,
    combination_record,
    combine,
    combine_split,
    member_table,
    scene_table,
    validation_folds,
)
from abaw_jax.stages.encoder import frames_track
from abaw_jax.stages.extract import splits, video_labels, video_rows
from abaw_jax.stages.prepare import read_persons, test_example
from abaw_jax.tracks.track import Track

FRAMES, SEQUENCE, ENSEMBLE = "frames", "sequence", "ensemble"  # whose predictions are decided
DECIDED = ("smoothing", "matching", "thresholds")  # keys of `Decision.record`; a file each


def run(context: Context) -> dict:
    """Combine, choose, apply, score, write; the score is that of the final predictions."""
    folder, config, track = context.folder("ensemble"), context.config, context.track
    index = load_index(context.folder("prepare") / "records", "validation")
    labels = video_labels(index, track)
    combined = combine(context, labels)
    predictions = {}
    if frames_track(context) is track:
        predictions[FRAMES] = _load(context, "extract", "validation")
    if combined is not None:
        predictions[ENSEMBLE] = combined.predictions()
    elif config.sequence.epochs:
        predictions[SEQUENCE] = _load(context, "sequence", "validation")
    final = list(predictions)[-1]
    without = {final: combined.without(track)} if combined else {}
    tuned = {
        name: _tune(context, found, labels, without.get(name))
        for name, found in predictions.items()
    }
    _write_decisions(context, {name: found.decision for name, found in tuned.items()})
    best = tuned[final]
    for split in splits(context):
        _write_predictions(context, split, combined, best.decision)
    decided = with_thresholds(track, best.decision.thresholds)
    several = combined is not None and combined.result.combination.method in TUNED
    scores = {
        key: score
        for name, found in tuned.items()
        for key, score in _scores(name, found, several and name == final)
    }
    last = {
        video: best.decision.apply(found, len(labels[video]), track)
        for video, found in predictions[final].items()
        if video in labels
    }
    evidence = report.evidence(decided, last, labels, read_persons(context))
    scored = split_hash(labels, track)
    write_report(
        folder / "report.html",
        f"{track.name}, {config.system}, validation",
        decided,
        report.with_threshold_column(best.summary, best.decision),
        notes=report.notes(index, scored, final, best, track, combined),
        stages=[
            *report.stage_rows(context),
            *({"stage": SCORES[k], "score": v} for k, v in scores.items()),
        ],
        members=member_table(combined, track) if combined else (),
        scenes=scene_table(context, combined) if combined and combined.probabilities else (),
        candidates=best.table if len(best.table) > 1 else (),
        timelines=report.timelines(
            decided,
            labels,
            predictions,
            best.decision,
            evidence["videos"],
            config.ensemble.report_videos,
        ),
        histories=report.histories(context),
        config=config.to_dict(),
        versions=package_versions(),
        **evidence,
    )
    interval = evidence.get("intervals", {}).get("score")
    if interval is not None:
        scores |= {"score_low": interval.low, "score_high": interval.high}
    if combined is not None:
        scores |= _write_combination(context, combined, best)
    return {
        "split": "validation",
        "split_hash": scored,
        "score": best.summary.score,
        "metrics": {**best.summary.metrics, **scores, **_submit(context, decided)},
        "samples": int(np.sum([track.valid(rows).sum() for rows in labels.values()])),
    }


def _load(
    context: Context, stage: str, split: str, videos: Iterable[str] | None = None
) -> dict[str, Prediction]:
    """What a stage predicts of a split: of all its videos, or of these."""
    return load_predictions(context.folder(stage) / "predictions" / split, context.track, videos)


def _tune(
    context: Context,
    predictions: Mapping[str, Prediction],
    labels: Mapping[str, np.ndarray],
    without: Callable[[int], Mapping[str, Prediction]] | None,
) -> Tuned:
    """The decision on one set of predictions, as the section `ensemble` says."""
    track, section = context.track, context.config.ensemble
    training = None
    if section.get("match"):
        records = context.folder("prepare") / "records"
        training = np.concatenate(list(video_labels(load_index(records, "train"), track).values()))
    return tune_decision(
        predictions,
        labels,
        track,
        smoothing_grid(section.kinds, section.gaps, section.widths),
        training_labels=training,
        thresholds=bool(section.get("search_thresholds")),
        folds=validation_folds(context, labels),
        without=without,
    )


def _scores(name: str, tuned: Tuned, searched: bool) -> list[tuple[str, float]]:
    """(key of `recipe.SCORES`, score) of a member's steps and out of fold; of the plain predictions
    alone where there was nothing to choose. searched: whether they were themselves tuned."""
    trivial = tuned.decision == Decision(tuned.decision.smoothing)
    if len(tuned.table) == 1 and trivial and not searched:
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
    """What was decided -> `Decision.record`, as this stage left it: `frames`, if they are predicted
    of the config's track, and `sequence` or, of several members, `ensemble`."""
    files = {key: context.folder("ensemble") / f"{key}.json" for key in DECIDED}
    # Smoothing is always decided: a file that is absent is an error.
    found = {k: read_json(path) for k, path in files.items() if k == "smoothing" or path.exists()}
    names = found["smoothing"]
    return {name: {key: of_name[name] for key, of_name in found.items()} for name in names}


def _write_predictions(
    context: Context, split: str, combined: Combined | None, decision: Decision
) -> None:
    """The final predictions of one split, a row for every annotation row; none of a training set
    that a member lacks."""
    index, track = load_index(context.folder("prepare") / "records", split), context.track
    rows = video_rows(index, track)
    if combined is None:
        stage = "sequence" if context.config.sequence.epochs else "extract"
        predictions = _load(context, stage, split, index.videos)
    else:
        predictions = combine_split(context, combined, split) or {}
    for video, prediction in predictions.items():
        final = decision.apply(prediction, rows[video], track)
        save_prediction(
            context.folder("ensemble") / "predictions" / split,
            video,
            final.frames,
            final.values,
            track.classes,
        )


def _write_combination(context: Context, combined: Combined, tuned: Tuned) -> dict[str, float]:
    """Write ensemble.json; returns each member's score by 'member_<name>'."""
    record = combination_record(context, combined)
    decided = {
        "tuned": tuned.summary.score,
        "cross_validated": tuned.cross_validated.score if tuned.cross_validated else None,
    }
    record |= {"decision": tuned.decision.record(context.track), "decided": decided}
    write_json(context.folder("ensemble") / "ensemble.json", record)
    members = record["scores"]["members"]
    return {f"member_{name}": found["score"] for name, found in members.items()}


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
