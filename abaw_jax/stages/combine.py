"""Which members the stage `ensemble` makes one, and how its section says.

Members are those of the recipe (`stages/members.py`, and the frame classifier as `frames`) and any
other folders of predictions that the config names.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from abaw_jax.data.records import Index, load_index
from abaw_jax.errors import InputError, unknown_name
from abaw_jax.evaluation.align import Aligned, align
from abaw_jax.evaluation.combination import TUNED, apply
from abaw_jax.evaluation.ensemble import (
    Labelled,
    Result,
    evaluate_ensemble,
    label_rows,
    score_members,
)
from abaw_jax.evaluation.folds import group_names, make_folds
from abaw_jax.evaluation.predictions import Prediction, load_predictions
from abaw_jax.evaluation.scenes import read_scenes, scene_weights
from abaw_jax.recipe import Context
from abaw_jax.stages.encoder import frames_track
from abaw_jax.stages.extract import splits, video_rows
from abaw_jax.stages.members import likeliest_scene, read_members
from abaw_jax.stages.prepare import read_persons
from abaw_jax.tracks.track import Track

FRAMES = "frames"  # the frame classifier as a member
FOLDS = 5  # of validation videos


def validation_folds(context: Context, labels: Mapping[str, np.ndarray]) -> dict[str, int] | None:
    """Labelled video -> fold of its recording, or its person; None for a single one of these, which
    has no parts."""
    frames = {video: int(context.track.valid(rows).sum()) for video, rows in labels.items()}
    frames = {video: count for video, count in frames.items() if count}
    persons = read_persons(context)
    several = len(set(group_names(list(frames), persons).values())) > 1
    return make_folds(frames, FOLDS, persons) if several else None


def member_folders(context: Context) -> dict[str, pathlib.Path]:
    """Member -> the folder that holds its predictions of each split.

    Raises InputError for a name that no member has or two have, and for a folder that lacks the
    validation or the test split.
    """
    section, own = context.config.ensemble, list(read_members(context))
    stage = context.folder("sequence")
    known = {name: stage / "members" / name for name in own}
    if len(own) == 1:
        known = {own[0]: stage / "predictions"}
    if frames_track(context) is context.track:
        known[FRAMES] = context.folder("extract") / "predictions"
    for name in section.members:
        if name not in known:
            raise unknown_name("config.ensemble.members", name, "a member", known)
    found = {name: known[name] for name in section.members or own or [FRAMES]}
    for name, folder in section.others.items():
        if name in known:
            raise InputError(
                f"config.ensemble.others.{name}: the recipe has a member {name} itself"
            )
        found[name] = pathlib.Path(folder)
    for name, folder in found.items():
        for split in splits(context):
            if split != "train" and not (folder / split).is_dir():
                raise InputError(f"member {name}: {folder} has no folder {split}; predict that too")
    return found


@dataclasses.dataclass(frozen=True, eq=False)
class Combined:
    """The members of the validation set made one.

    folders: of `member_folders`. aligned, labelled, result: of the validation set. probabilities:
    video -> scene -> probability; {} without scenes.
    """

    folders: Mapping[str, pathlib.Path]
    aligned: Aligned
    labelled: Labelled
    result: Result
    probabilities: Mapping[str, Mapping[str, float]]

    def predictions(self) -> dict[str, Prediction]:
        """Of the validation set, by video."""
        return self.aligned.by_video(self.result.values)

    def without(self, track: Track) -> Callable[[int], dict[str, Prediction]] | None:
        """fold -> the same by what was found without it; None where nothing was searched."""
        if self.result.combination.method not in TUNED:
            return None
        return lambda fold: self.aligned.by_video(
            apply(self.result.without[fold], self.aligned, track)
        )


def combine(context: Context, labels: Mapping[str, np.ndarray]) -> Combined | None:
    """As the section `ensemble` says, on the validation set; None for a single member.

    Raises InputError as `member_folders`, `align` and `evaluate_ensemble` do, and for a method that
    must be tuned on fewer recordings than three.
    """
    section, track = context.config.ensemble, context.track
    folders = member_folders(context)
    own = list(read_members(context)) or [FRAMES]
    if len(own) == 1 and list(folders) == own:
        return None
    aligned = _align(context, folders, "validation")
    labelled = label_rows(aligned, labels, track, "the members")
    folds = validation_folds(context, labels)
    scenes = {
        name: member["scene"]
        for name, member in read_members(context).items()
        if member["scene"] and name in folders
    }
    apart = any(m["modality"] for name, m in read_members(context).items() if name in folders)
    enough = len(set((folds or {}).values())) >= 3
    usual = "weights" if apart and enough else "scenes" if scenes else "average"
    method = section.method or usual
    if method in TUNED and not enough:
        raise InputError(
            f"config.ensemble.method: {method} is tuned on one part of the validation "
            "recordings and judged by others, and there are fewer than three; take average"
        )
    path = context.folder("sequence") / "scenes.csv"
    probabilities = read_scenes(path) if path.exists() else {}
    result = evaluate_ensemble(
        aligned,
        labelled,
        track,
        method,
        folds or dict.fromkeys(labels, 0),
        scenes=scenes if method == "scenes" else None,
        probabilities=probabilities,
    )
    return Combined(folders, aligned, labelled, result, probabilities)


def combine_split(context: Context, combined: Combined, split: str) -> dict[str, Prediction] | None:
    """The combination's predictions of a split; None where a member has none of the training set.

    Raises InputError for a video that no member predicts.
    """
    if not all((folder / split).is_dir() for folder in combined.folders.values()):
        return None
    aligned = _align(context, combined.folders, split)
    index = load_index(context.folder("prepare") / "records", split)
    if absent := sorted(set(index.videos) - set(aligned.videos)):
        raise InputError(f"no member predicts {absent[0]} ({split}); predict the whole split")
    values = apply(combined.result.combination, aligned, context.track, combined.probabilities)
    return aligned.by_video(values)


def _align(context: Context, folders: Mapping[str, pathlib.Path], split: str) -> Aligned:
    """The members' predictions of a split's videos, gaps filled by the config's rule."""
    index = load_index(context.folder("prepare") / "records", split)
    members = {
        name: load_predictions(folder / split, context.track, index.videos)
        for name, folder in folders.items()
    }
    rows = video_rows(index, context.track)
    return align(members, context.track, gaps=context.config.ensemble.gaps, rows=rows)


def combination_record(context: Context, combined: Combined) -> dict[str, Any]:
    """What was combined, how, and what it is worth, as JSON values."""
    result, root = combined.result, context.workdir
    return {
        **result.combination.record(context.track),
        "predictions": {
            name: str(folder.relative_to(root) if folder.is_relative_to(root) else folder)
            for name, folder in combined.folders.items()
        },
        "scores": {
            "members": score_members(combined.aligned, combined.labelled, context.track),
            "tuned": result.tuned.score,
            "cross_validated": result.cross_validated.score if len(result.folds) > 1 else None,
            "folds": list(result.folds),
        },
        "missing": {name: dict(counts) for name, counts in combined.aligned.missing.items()},
    }


def member_table(combined: Combined, track: Track) -> list[dict[str, Any]]:
    """A row for each member: its score, labelled frames and weight, of each class if they differ.

    Of stacking the coefficient of the member's own output for each class; of scenes the mean
    weight over the labelled frames.
    """
    scores = score_members(combined.aligned, combined.labelled, track)
    weights = _mean_weights(combined, track)
    if (np.ptp(weights, axis=1) < 1e-9).all():
        shown = [{"weight": float(row[0])} for row in weights]
    else:
        names = [f"weight of {name}" for name in track.classes]
        shown = [dict(zip(names, map(float, row), strict=True)) for row in weights]
    return [
        {"member": name, track.score_name: scores[name]["score"], "frames": scores[name]["frames"]}
        | numbers
        for name, numbers in zip(combined.aligned.members, shown, strict=True)
    ]


def _mean_weights(combined: Combined, track: Track) -> np.ndarray:
    """(M, K): how much each member counts in each output."""
    found, members = combined.result.combination, combined.aligned.members
    if found.method == "weights":
        return found.coefficients
    if found.method == "stacking":
        own = found.coefficients[:-1].reshape(len(members), track.outputs, track.outputs)
        return np.diagonal(own, axis1=1, axis2=2)
    weights = np.full(len(members), 1 / len(members))
    if found.method == "scenes":
        aligned = combined.aligned
        of_video = scene_weights(aligned.videos, members, found.scenes, combined.probabilities)
        rows = combined.labelled.index
        present = aligned.present[:, rows]
        of_row = of_video[:, aligned.row_videos()[rows]] * present
        # Members alone of other scenes count alike, as in the combination.
        of_row = np.where(of_row.sum(axis=0) > 0, of_row, present)
        weights = (of_row / of_row.sum(axis=0)).mean(axis=1)
    return np.repeat(weights[:, None], track.outputs, axis=1)


def scene_table(context: Context, combined: Combined) -> list[dict[str, Any]]:
    """A row for each scene: videos and rows of each split, and every member's score on the labelled
    validation frames there, None where there is none."""
    likeliest = {v: likeliest_scene(shares) for v, shares in combined.probabilities.items()}
    scenes = dict.fromkeys(s for shares in combined.probabilities.values() for s in shares)
    indices = {
        split: load_index(context.folder("prepare") / "records", split) for split in splits(context)
    }
    return [
        {"scene": scene}
        | _scene_sizes(context, indices, likeliest, scene)
        | _scene_scores(combined, likeliest, scene, context.track)
        for scene in scenes
    ]


def _scene_sizes(
    context: Context, indices: Mapping[str, Index], likeliest: Mapping[str, str], scene: str
) -> dict[str, int]:
    found = {}
    for split, index in indices.items():
        rows = video_rows(index, context.track)
        mine = [video for video in index.videos if likeliest[video] == scene]
        found |= {f"{split} videos": len(mine), f"{split} rows": sum(rows[v] for v in mine)}
    return found


def _scene_scores(
    combined: Combined, likeliest: Mapping[str, str], scene: str, track: Track
) -> dict[str, float | None]:
    aligned, labelled = combined.aligned, combined.labelled
    here = np.array([likeliest[video] == scene for video in aligned.videos])
    rows = here[labelled.videos]
    if not rows.any():
        return dict.fromkeys(aligned.members)
    return {
        name: track.summary(
            track.statistics(
                track.decode(aligned.values[m, labelled.index[rows]]), labelled.labels[rows]
            )
        ).score
        for m, name in enumerate(aligned.members)
    }
