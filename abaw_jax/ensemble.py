"""Combine several predictions of one track, and say what that is worth.

    python -m abaw_jax.ensemble --track EXPR --predictions a=DIR b=DIR c=DIR \
        --annotations A --method weights --output DIR

Each member is a folder of <video>.npz predictions, whichever system made it. A is a folder of
<video>.txt annotation files, the challenge's folder, or the folder of all annotations; for EMI,
whose labels are of clips, a csv table or the folder of train_split.csv and valid_split.csv. Two
scores are given: of the combination on the frames it was tuned on, and cross-validated, each fold
of videos scored by what was found on the others. Folds keep a recording's videos together, and a
person's with --persons. --compare scores every other method too. With --search_thresholds (AU) each
class gets a threshold of its own, chosen with the combination on the same frames and scored so; the
predictions are written such that the track's own threshold decides as these do.

Weighted numbers that the CCC judges (VA) are given the labels' spread where that serves.

The combination is written to DIR/ensemble.json, and its predictions of all videos that any member
has, annotated or not, to DIR/predictions. With --combination FILE in place of --annotations and
--method, a stored ensemble.json is used as it is, on other videos by members of the same names.
"""

import dataclasses
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags

from abaw_jax import command
from abaw_jax.errors import InputError
from abaw_jax.evaluation.align import Aligned, align
from abaw_jax.evaluation.combination import METHODS, TUNED, Combination, apply
from abaw_jax.evaluation.confidence import split_hash
from abaw_jax.evaluation.ensemble import (
    Labelled,
    Result,
    compare_with_best,
    evaluate_ensemble,
    label_rows,
    score_members,
)
from abaw_jax.evaluation.folds import given_folds, make_folds, read_mapping
from abaw_jax.evaluation.predictions import load_predictions, save_prediction
from abaw_jax.evaluation.report import text_table
from abaw_jax.evaluation.scenes import read_scenes
from abaw_jax.evaluation.smoothing import GAP_RULES
from abaw_jax.files import read_json, write_json
from abaw_jax.tracks import Track
from abaw_jax.tracks.annotations import read_labels


def _define_flags(define: command.Define) -> None:
    define("multi_string", "predictions", [], "NAME=DIR of a member; more may follow it.")
    define("string", "annotations", None, "Folder of annotation files.")
    define("string", "split", "Validation_Set", "Which folder of the annotations.")
    define("enum", "method", "weights", METHODS, "How members are combined.")
    define("bool", "compare", False, "Score the other methods too.")
    define("bool", "search_thresholds", False, "AU: choose a threshold for each unit as well.")
    define("string", "output", None, "Folder to write to.")
    define("string", "combination", None, "A stored ensemble.json to use as it is.")
    define("integer", "folds", 5, "Folds of videos to cross-validate over.", lower_bound=2)
    define("string", "fold_file", None, "csv video,fold: folds to use instead.")
    define("string", "persons", None, "csv video,person: persons to keep in one fold.")
    define("string", "scenes", None, "csv video,scene[,probability].")
    define("multi_string", "member_scene", [], "NAME=SCENE a member was trained on.")
    define("enum", "gaps", None, GAP_RULES, "Fill frames a member lacks from its own neighbours.")


def _read_options(options: flags.FlagValues, rest: Sequence[str], track: Track) -> dict[str, str]:
    """Member name -> folder; InputError where the flags do not go together."""
    wrong = [text for text in rest if "=" not in text or not options.predictions]
    command.refuse_arguments(wrong)
    command.require(options, "output")
    if bool(options.annotations) == bool(options.combination):
        raise InputError("give one of --annotations and --combination; see --help")
    if options.fold_file and options["folds"].present:
        raise InputError("give one of --folds and --fold_file; see --help")
    if options.search_thresholds and options.combination:
        raise InputError("--search_thresholds needs --annotations; see --help")
    if options.search_thresholds and track.thresholds is None:
        raise InputError(f"--search_thresholds: {track.name} is not decided by thresholds")
    needs_scenes = options.method == "scenes" and not options.combination
    if needs_scenes and not (options.scenes and options.member_scene):
        raise InputError("--method=scenes needs --scenes and --member_scene; see --help")
    return command.read_pairs([*options.predictions, *rest], "predictions", "DIR")


def _read_members(
    folders: Mapping[str, str], options: flags.FlagValues, track: Track, rows: Mapping[str, int]
) -> Aligned:
    output = pathlib.Path(options.output, "predictions")
    for name, folder in folders.items():
        if pathlib.Path(folder).resolve() == output.resolve():
            raise InputError(f"--output: {output} is member {name}'s own folder; name another")
    members = {name: load_predictions(folder, track) for name, folder in folders.items()}
    aligned = align(members, track, gaps=options.gaps, rows=rows)
    if output.is_dir():
        made = {f"{video}.npz" for video in aligned.videos}
        # A folder of predictions must never be a mixture of two runs.
        if others := sorted(p.name for p in output.glob("[!.]*.npz") if p.name not in made):
            raise InputError(f"{output}: holds {others[0]}, of another run; name another folder")
    return aligned


def _folds(
    options: flags.FlagValues, labelled: Labelled, aligned: Aligned
) -> tuple[dict[str, int], str]:
    """Folds of the labelled videos, and what they keep together."""
    frames = labelled.frames(aligned)
    persons = read_mapping(options.persons, "person") if options.persons else None
    if options.fold_file:
        return given_folds(frames, read_mapping(options.fold_file, "fold"), persons), "given"
    return make_folds(frames, options.folds, persons), "person" if persons else "recording"


def _methods(options: flags.FlagValues, track: Track, folds: int) -> list[str]:
    """The method that is written, then those that are scored beside it.

    Raises InputError for a method that is tuned on some folds and judged by others, and too few.
    """
    if options.method in TUNED and folds < 3:
        raise InputError(
            f"--method={options.method} needs 3 folds at least, and these are {folds}; raise "
            "--folds, or take --method=average where there are no more recordings"
        )
    if not options.compare:
        return [options.method]
    others = [
        method
        for method in METHODS
        if method != options.method
        and (method not in TUNED or folds >= 3)
        and (method != "vote" or track.label_type == "int32")
        and (method != "scenes" or (options.scenes and options.member_scene))
    ]
    return [options.method, *others]


def _write(output: str, aligned: Aligned, values: np.ndarray, track: Track, record: dict) -> None:
    """The predictions, then the record that says what they are."""
    folder = pathlib.Path(output)
    (folder / "ensemble.json").unlink(missing_ok=True)
    for video, found in aligned.by_video(values).items():
        save_prediction(folder / "predictions", video, found.frames, found.values, track.classes)
    write_json(folder / "ensemble.json", record)


def _record(
    results: Mapping[str, Result],
    labels: Mapping[str, np.ndarray],
    aligned: Aligned,
    labelled: Labelled,
    track: Track,
    folds: tuple[dict[str, int], str],
    options: flags.FlagValues,
    folders: Mapping[str, str],
) -> dict[str, Any]:
    written = results[options.method]
    return {
        "score": written.cross_validated.score,
        "score_name": track.score_name,
        **written.combination.record(track),
        "scores": {
            "members": score_members(aligned, labelled, track),
            "tuned": written.tuned.score,
            "cross_validated": written.cross_validated.score,
            "folds": list(written.folds),
            "methods": {
                name: {"tuned": r.tuned.score, "cross_validated": r.cross_validated.score}
                for name, r in results.items()
            },
            **_against_best(written, aligned, labelled, track, options.persons),
        },
        "metrics": dict(written.cross_validated.metrics),
        "per_class": list(written.cross_validated.per_class),
        "frames": len(labelled.index),
        "videos": len(folds[0]),
        "last_rows": labelled.last_rows,
        "missing": {name: dict(counts) for name, counts in aligned.missing.items()},
        "gaps": options.gaps,
        "folds": folds[0],
        "folds_by": folds[1],
        "split": options.split,
        "split_hash": split_hash(labels, track),
        "predictions": dict(folders),
        "annotations": options.annotations,
    }


def _against_best(
    written: Result, aligned: Aligned, labelled: Labelled, track: Track, persons: str | None
) -> dict[str, Any]:
    """The combination out of fold beside the best member alone, recordings or persons redrawn."""
    people = read_mapping(persons, "person") if persons else None
    member, found = compare_with_best(written, aligned, labelled, track, people)
    difference = dataclasses.asdict(found.difference)
    return {"best_member": {"member": member, **difference, "better": found.a_better}}


_LACKS = {"videos": "lacks videos", "frames": "lacks frames", "filled": "filled"}


def _show(record: Mapping[str, Any]) -> None:
    """The record's figures for people."""
    members, missing = record["scores"]["members"], record["missing"]
    rows = [
        {"member": name, **members[name], **{_LACKS[k]: n for k, n in missing[name].items()}}
        for name in members
    ]
    print(text_table(rows) + "\n")
    limits = dict(zip(record["classes"], record["thresholds"] or (), strict=False))
    rows = [
        {"method": name + ("" if name in TUNED or limits else " (nothing tuned)"), **scores}
        for name, scores in record["scores"]["methods"].items()
    ]
    print(text_table(rows))
    if limits:
        print("\nthresholds " + ", ".join(f"{name} {t:.3g}" for name, t in limits.items()))
    print(
        f"\n{record['frames']} labelled frames of {record['videos']} videos in "
        f"{len(record['scores']['folds'])} folds (kept together: {record['folds_by']})"
    )
    scores = record["scores"]
    best = scores["best_member"]
    print(
        f"against {best['member']} alone, the best member: {best['value']:+.4f}, 95 % of resamples "
        f"of the recordings {best['low']:+.4f} .. {best['high']:+.4f}, above 0 in "
        f"{best['better']:.0%}"
    )
    print(f"tuned {record['score_name']} {scores['tuned']:.4f}, on the frames it was tuned on")
    print(
        f"{record['track']} {record['score_name']} {record['score']:.4f} by {record['method']}, "
        "cross-validated"
    )


def _evaluate(options: flags.FlagValues, folders: Mapping[str, str], track: Track) -> dict:
    labels, _ = read_labels(options.annotations, track, options.split)
    aligned = _read_members(folders, options, track, {v: len(rows) for v, rows in labels.items()})
    labelled = label_rows(aligned, labels, track, "predictions of all members")
    folds = _folds(options, labelled, aligned)
    scenes = command.read_pairs(options.member_scene, "member_scene", "SCENE")
    probabilities = read_scenes(options.scenes) if options.scenes else None
    results = {
        method: evaluate_ensemble(
            aligned,
            labelled,
            track,
            method,
            folds[0],
            scenes=scenes if method == "scenes" else None,
            probabilities=probabilities,
            thresholds=options.search_thresholds,
        )
        for method in _methods(options, track, 1 + max(folds[0].values()))
    }
    record = _record(results, labels, aligned, labelled, track, folds, options, folders)
    _write(options.output, aligned, results[options.method].values, track, record)
    _show(record)
    return record


def _apply(options: flags.FlagValues, folders: Mapping[str, str], track: Track) -> dict:
    stored = read_json(options.combination)
    combination = Combination.load(stored, track, options.combination)
    aligned = _read_members(folders, options, track, {})
    probabilities = read_scenes(options.scenes) if options.scenes else None
    values = apply(combination, aligned, track, probabilities)
    record = {
        **combination.record(track),
        "missing": {name: dict(counts) for name, counts in aligned.missing.items()},
        "gaps": options.gaps,
        "frames": len(aligned.frames),
        "videos": len(aligned.videos),
        "predictions": dict(folders),
        "combination": options.combination,
    }
    _write(options.output, aligned, values, track, record)
    print(
        f"{combination.method} of {len(combination.members)} members: {len(aligned.frames)} frames "
        f"of {len(aligned.videos)} videos written to {options.output}"
    )
    return record


def _run(options: flags.FlagValues, rest: Sequence[str], track: Track) -> dict[str, Any]:
    folders = _read_options(options, rest, track)
    return (_apply if options.combination else _evaluate)(options, folders, track)


def main(argv: Sequence[str] | None = None) -> int:
    """`command.run` of this command."""
    return command.run(__doc__, _define_flags, _run, argv)


if __name__ == "__main__":
    sys.exit(main())
