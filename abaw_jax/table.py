"""One table of finished runs: scores with their intervals, and what they gain over single frames.

    python -m abaw_jax.table runs/*

Each argument is a work directory of `python -m abaw_jax.main`. What it predicts of its validation
videos is scored again, by the labels that it was prepared with, and must give the score that it
reports. The table is Markdown, sorted by track and system:

    frames            the frame-wise encoder: each frame by itself, gaps filled; blank, as what is
                      gained over it, where it learnt another track
    frames, decided   with smoothing, thresholds and the like, chosen for it on these same videos
    final             the run's score, with what was so chosen for its own predictions
    final - frames    the gain over the encoder, smoothing and the like included
    final - decided   the gain over the encoder where both have these
    final - whole     of an ablation: the same against the run of its whole system, if that is
                      named; a line below says in which values of the config the two are unlike
    cross-validated   final, where all was chosen on other videos than those scored
    minutes, commit   of all stages; of the code, if it ran in a checkout

Brackets hold 95 % of the resamples, in which recordings, or persons where they are known, are drawn
with replacement, the same of both sides of a difference (`evaluation/confidence.py`). A folder that
is no finished run is left out, and standard error says why.
"""

import dataclasses
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags
from ml_collections import FrozenConfigDict

from abaw_jax import command
from abaw_jax.data.records import load_index
from abaw_jax.errors import InputError
from abaw_jax.evaluation.confidence import (
    LEVEL,
    RESAMPLES,
    VideoStatistics,
    bootstrap,
    compare,
    split_hash,
    video_statistics,
)
from abaw_jax.evaluation.decision import Decision
from abaw_jax.evaluation.folds import group_names
from abaw_jax.evaluation.predictions import Prediction, load_predictions
from abaw_jax.evaluation.report import markdown_table
from abaw_jax.evaluation.smoothing import Smoothing
from abaw_jax.evaluation.thresholds import with_thresholds
from abaw_jax.files import read_json
from abaw_jax.recipe import STAGES, Context, differences
from abaw_jax.stages.ensemble import FRAMES, read_decisions
from abaw_jax.stages.extract import video_labels
from abaw_jax.stages.prepare import read_persons
from abaw_jax.tracks import TRACKS, Track

NEEDED = [stage for stage in STAGES if stage != "export"]  # finished
KEYS = {"track", "system", "score", "metrics", "seconds", "git"}  # of results.json
TOLERANCE = 1e-6  # of the score that a run reports
# Column -> key of a row.
COLUMNS = {
    "track": "track",
    "system": "system",
    "run": "run",
    "frames": "frames",
    "frames, decided": "decided",
    "final": "final",
    "final - frames": "over_frames",
    "final - decided": "over_decided",
    "final - whole": "over_whole",
    "cross-validated": "cross_validated",
    "minutes": "minutes",
    "commit": "commit",
}


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A finished run.

    row: of the table; of a score with an interval {'value', 'low', 'high'}, the last two None where
    nothing can be drawn: of one recording, or a set of images. config: it ran with. final: of its
    final predictions. drawn: arguments of `bootstrap` and `compare`, None where nothing can be
    drawn.
    """

    row: dict[str, Any]
    track: Track
    config: FrozenConfigDict
    final: VideoStatistics
    drawn: Mapping[str, Any] | None


def read_run(folder: pathlib.Path, resamples: int = RESAMPLES) -> Run:
    """Of a work directory.

    Raises InputError for a folder that holds no finished run, and for predictions that do not give
    the score that it reports.
    """
    context, results = _open(folder)
    track = context.track
    labels = video_labels(load_index(context.folder("prepare") / "records", "validation"), track)
    decisions = {
        name: Decision.load(record, track, f"{context.folder('ensemble')}: {name}")
        for name, record in read_decisions(context).items()
    }
    frames, decided, final = _statistics(context, labels, decisions)
    score = _score(final, track)
    if not abs(score - results["score"]) <= TOLERANCE:
        raise InputError(
            f"{folder}: its predictions score {score:.6f}, and its results.json says "
            f"{results['score']:.6f}; run the recipe again"
        )
    groups = group_names(final.videos, read_persons(context))
    drawn = {"groups": groups, "resamples": resamples} if len(set(groups.values())) > 1 else None
    row = {
        "track": track.name,
        "system": results["system"],
        "run": folder.resolve().name,
        "folder": str(folder),
        "config": context.config.name,
        "score_name": track.score_name,
        "split_hash": split_hash(labels, track),
        "frames": _score(frames, track) if frames else None,
        "decided": _score(decided, track) if decided else None,
        "final": _interval(final, track, drawn),
        "over_frames": _gain(final, frames, track, drawn) if frames else None,
        "over_decided": _gain(final, decided, track, drawn) if decided else None,
        "cross_validated": results["metrics"].get(f"{list(decisions)[-1]}_cross_validated"),
        "minutes": results["seconds"] / 60,
        "commit": results["git"],
    }
    return Run(row, track, context.config, final, drawn)


def against_whole(run: Run, runs: Sequence[Run]) -> dict[str, Any]:
    """Of an ablation, whose config names that of the whole system: `over_whole`, its score less
    that of the first run among `runs` that is the whole system on the same labels, and
    `unlike_whole`, the dotted keys that the two configs have unlike. None both where there is none.
    """
    whole, labels = run.config.get("whole", ""), run.row["split_hash"]
    for other in runs:
        if (other.row["config"], other.row["split_hash"]) == (whole, labels):
            changed = differences(other.config.to_dict(), run.config.to_dict())
            keys = [change.split(": ")[0] for change in changed]
            return {
                "over_whole": _gain(run.final, other.final, run.track, run.drawn),
                "unlike_whole": [key for key in keys if key not in ("name", "whole")],
            }
    return {"over_whole": None, "unlike_whole": None}


def _open(folder: pathlib.Path) -> tuple[Context, dict[str, Any]]:
    """A finished run and its results.json; InputError for anything else."""
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder}: is no work directory of abaw_jax.main: it has no config.json")
    config = read_json(folder / "config.json")
    if config.get("track") not in [*TRACKS] or not config.keys() >= {"name", "corpus"}:
        raise InputError(f"{folder / 'config.json'}: is no config of a recipe")
    for stage in NEEDED:
        if not (folder / stage / "results.json").is_file():
            raise InputError(f"{folder}: {stage} is not finished; the same recipe goes on there")
    results = read_json(folder / "results.json")
    if not results.keys() >= KEYS or not isinstance(results["score"], float):
        raise InputError(
            f"{folder / 'results.json'}: has no score of a recipe; run it again to its end"
        )
    # The mesh is of the stages that compute, none of which is run.
    return Context(FrozenConfigDict(config), folder, mesh=None), results


def _statistics(
    context: Context, labels: Mapping[str, np.ndarray], decisions: Mapping[str, Decision]
) -> tuple[VideoStatistics | None, VideoStatistics | None, VideoStatistics]:
    """Of single frames, of these decided, of the final predictions; None of frames that are not
    predicted of the config's track."""
    track = context.track

    def load(stage: str) -> dict[str, Prediction]:
        place = context.folder(stage) / "predictions" / "validation"
        return load_predictions(place, track, labels)

    last = list(decisions.values())[-1]
    final = video_statistics(load("ensemble"), labels, with_thresholds(track, last.thresholds))
    if FRAMES not in decisions:
        return None, None, final
    frames = load("extract")
    if absent := sorted(labels.keys() - frames.keys()):
        raise InputError(f"{context.folder('extract')}: has no predictions of video {absent[0]}")

    def decide(decision: Decision) -> VideoStatistics:
        found = {v: decision.apply(frames[v], len(rows), track) for v, rows in labels.items()}
        return video_statistics(found, labels, with_thresholds(track, decision.thresholds))

    own = decisions[FRAMES]
    return decide(Decision(Smoothing(gaps=own.smoothing.gaps))), decide(own), final


def _score(statistics: VideoStatistics, track: Track) -> float:
    return float(track.summary(statistics.statistics.sum(axis=0)).score)


def _interval(
    statistics: VideoStatistics, track: Track, drawn: Mapping[str, Any] | None
) -> dict[str, float | None]:
    """The score; drawn: as in `Run`."""
    if drawn is None:
        return {"value": _score(statistics, track), "low": None, "high": None}
    return dataclasses.asdict(bootstrap(statistics, track, **drawn)["score"])


def _gain(
    final: VideoStatistics, other: VideoStatistics, track: Track, drawn: Mapping[str, Any] | None
) -> dict[str, float | None]:
    """final - other."""
    if drawn is None:
        value = _score(final, track) - _score(other, track)
        return {"value": value, "low": None, "high": None}
    return dataclasses.asdict(compare(final, other, track, **drawn).difference)


def _cell(key: str, value: Any) -> str:
    """A row's value as the table shows it."""
    if value is None:
        return ""
    if key == "minutes":
        return f"{value:.1f}"
    if key == "commit":
        commit, dirty, _ = value.partition("-dirty")
        return commit[:7] + dirty
    if isinstance(value, float):
        return f"{value:.3f}".replace("0.", ".", 1) if abs(value) < 0.9995 else f"{value:.3f}"
    if isinstance(value, Mapping):
        shown = {name: _cell(name, number) for name, number in value.items()}
        bounds = f" ({shown['low']}, {shown['high']})" if shown["low"] else ""
        return f"{shown['value']}{bounds}"
    return value


def _notes(rows: Sequence[Mapping[str, Any]], resamples: int) -> list[str]:
    """What is to be known below the table."""
    names = {row["track"]: row["score_name"] for row in rows}
    notes = [
        f"Scores: {', '.join(f'{track} {name}' for track, name in names.items())}, on validation. "
        f"Brackets: {100 * LEVEL:g} % of {resamples} resamples."
    ]
    for row in rows:
        if row["unlike_whole"]:
            keys = ", ".join(row["unlike_whole"])
            notes.append(f"{row['run']} is unlike its whole system in {keys}.")
    for track in names:
        runs: dict[str, list[str]] = {}
        for row in rows:
            if row["track"] == track:
                runs.setdefault(row["split_hash"], []).append(row["run"])
        if len(runs) > 1:
            parts = "; ".join(", ".join(found) for found in runs.values())
            notes.append(f"{track}: not all are scored by the same labels, but apart: {parts}.")
    return notes


def _define_flags(define: command.Define) -> None:
    define("integer", "resamples", RESAMPLES, "How many intervals are taken of.", lower_bound=1)


def _run(options: flags.FlagValues, rest: Sequence[str], track: None) -> dict[str, Any]:
    if not rest:
        raise InputError("no work directory is named, as runs/*; see --help")
    runs, left_out = [], {}
    for folder in dict.fromkeys(pathlib.Path(name) for name in rest):
        try:
            runs.append(read_run(folder, options.resamples))
        except InputError as error:
            left_out[str(folder)] = str(error)
            print(f"left out: {error}", file=sys.stderr)
    if not runs:
        raise InputError(f"none of these {len(left_out)} is a finished run; name work directories")
    rows = [run.row | against_whole(run, runs) for run in runs]
    order = [found.name for found in TRACKS.values()]
    rows.sort(key=lambda row: (order.index(row["track"]), row["system"], row["run"]))
    shown = {
        head: key for head, key in COLUMNS.items() if any(row[key] is not None for row in rows)
    }
    table = [{head: _cell(key, row[key]) for head, key in shown.items()} for row in rows]
    print(markdown_table(table))
    for note in _notes(rows, options.resamples):
        print(f"\n{note}")
    return {"rows": rows, "left_out": left_out, "level": LEVEL, "resamples": options.resamples}


def main(argv: Sequence[str] | None = None) -> int:
    """`command.run` of this command."""
    return command.run(__doc__, _define_flags, _run, argv, any_track=False)


if __name__ == "__main__":
    sys.exit(main())
