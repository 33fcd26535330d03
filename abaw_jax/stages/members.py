"""Members of the stage `sequence`: which training windows each of its models sees, and the scenes.

The first sees all; further ones all but a fold of the recordings, or persons, each; further ones a
scene each: the videos recorded in alike places (`fuxi`'s scene ensemble, arXiv 2403.10825). A
video's scene is that of its background (`evaluation/scenes.py`), clustered on the training videos,
or comes from a given list. Yet further ones see all windows, but one modality each, for late fusion
(`hsemotion`, arXiv 2403.11590): an encoder tuned on the training frames tells more of these than of
others, so that a model of all modalities trusts the face more than it should.
"""

import dataclasses
import itertools
import re
from collections.abc import Collection, Iterator, Mapping

import numpy as np

from abaw_jax.data.pipeline import read_image
from abaw_jax.data.records import decode_record, load_index, open_records
from abaw_jax.data.transforms import decode_image
from abaw_jax.data.windows import Windows
from abaw_jax.errors import InputError
from abaw_jax.evaluation.folds import make_folds
from abaw_jax.evaluation.scenes import (
    background_statistics,
    cluster_videos,
    read_scenes,
    write_scenes,
)
from abaw_jax.files import read_json, write_json
from abaw_jax.recipe import Context
from abaw_jax.stages.extract import splits
from abaw_jax.stages.parts import section_tracks
from abaw_jax.stages.prepare import read_persons

ALL = "all"  # the member that sees every training window
CROPS = 32  # of a video, evenly over it, that its background is taken from
FEWEST = 2  # labelled training videos that a scene must have

Scenes = Mapping[str, Mapping[str, float]]  # video -> scene -> probability


@dataclasses.dataclass(frozen=True, eq=False)
class Member:
    """One model of the stage.

    seen: the training windows it learns from. judged: the windows whose labels choose its
    parameters; of_training: whether those are of the training set, held out, or of the validation
    set. scene: whose member it is, None for one that fits every video. modality: the only one it
    sees, None for all.
    """

    seen: Windows
    judged: Windows
    of_training: bool = False
    scene: str | None = None
    modality: str | None = None


def make_members(
    context: Context, train: Windows, validation: Windows, scenes: Scenes
) -> dict[str, Member]:
    """Member -> what it learns from and is judged by.

    The one without a fold is judged by that fold, the one of a scene by the validation videos of
    that scene; where there is none, and for the member of all windows, by the validation set.
    Raises InputError for a scene with fewer than FEWEST labelled training videos.
    """
    found = {ALL: Member(train, validation)}
    frames = {
        v: int(context.track.valid(label_rows(train, v)).sum()) for v in set(train.video.tolist())
    }
    if context.config.sequence.folds:
        counts = {train.videos[v]: n for v, n in frames.items()}
        of_name = make_folds(counts, context.config.sequence.folds, read_persons(context))
        for fold in range(max(of_name.values()) + 1):  # fewer where there are fewer recordings
            held_out = [v for v in frames if of_name[train.videos[v]] == fold]
            others = [v for v in frames if of_name[train.videos[v]] != fold]
            found[f"fold{fold + 1}"] = Member(
                of_videos(train, others), of_videos(train, held_out), of_training=True
            )
    for scene in dict.fromkeys(s for shares in scenes.values() for s in shares):
        mine = [v for v in frames if likeliest_scene(scenes[train.videos[v]]) == scene]
        if (labelled := sum(frames[v] > 0 for v in mine)) < FEWEST:
            raise InputError(
                f"scene {scene}: {labelled} labelled training videos of {len(frames)}; a member "
                f"needs {FEWEST} at least: take fewer scenes, or join it with another in the list"
            )
        judged = _of_scene(context, validation, scenes, scene)
        found[_member_name(scene)] = Member(of_videos(train, mine), judged, scene=scene)
    if context.config.sequence.apart:
        for name in context.config.sequence.modalities:
            found[name] = Member(train, validation, modality=name)
    return found


def _of_scene(context: Context, windows: Windows, scenes: Scenes, scene: str) -> Windows:
    """The windows of this scene's videos, or all where none of these is labelled."""
    mine = [
        v
        for v in set(windows.video.tolist())
        if likeliest_scene(scenes[windows.videos[v]]) == scene
        and context.track.valid(label_rows(windows, v)).any()
    ]
    return of_videos(windows, mine) if mine else windows


def _member_name(scene: str) -> str:
    """The member of a scene; it names a folder. Clusters are called scene1, ... already."""
    if not re.fullmatch(r"[\w .-]+", scene):
        raise InputError(f"scene {scene!r}; its name may hold letters, digits, spaces, _ . and -")
    return scene if re.fullmatch(r"scene\d+", scene) else f"scene_{scene}"


def likeliest_scene(shares: Mapping[str, float]) -> str:
    """The scene that a video belongs to most; of equals the first."""
    return max(shares, key=shares.__getitem__)


def of_videos(windows: Windows, videos: Collection[int]) -> Windows:
    """Those windows that lie in these videos; the videos keep their numbers."""
    kept = np.isin(windows.video, list(videos))
    return dataclasses.replace(windows, video=windows.video[kept], start=windows.start[kept])


def labelled_windows(context: Context, windows: Windows) -> Windows:
    """Training windows of videos that have a label of a track that is learnt: `corpus.also` may
    have added videos of which the encoder alone learns."""
    if not context.config.corpus.get("also"):
        return windows
    index = load_index(context.folder("prepare") / "records", "train")
    tracks = section_tracks(context.config.sequence, context.track)
    known = np.any([track.valid(index.labels[track.key]) for track in tracks], axis=0)
    ends = itertools.pairwise(windows.rows.tolist())
    return of_videos(windows, [v for v, (a, b) in enumerate(ends) if known[a:b].any()])


def label_rows(windows: Windows, video: int) -> np.ndarray:
    """The labels (rows, W) of a video, (1, W) of a clip."""
    rows = windows.labels[windows.rows[video] : windows.rows[video + 1]]
    return rows[:1] if windows.whole else rows


def find_scenes(context: Context) -> Scenes:
    """The scenes of every video of every split, also written to sequence/scenes.csv; {} where the
    config asks for none.

    Of clusters, sequence/scenes.json holds what finds the scene of any other video. Raises
    InputError for a video that the given list lacks, and for more clusters than training videos.
    """
    section, folder = context.config.sequence, context.folder("sequence")
    if section.scene_file:
        found = _given_scenes(context, section.scene_file)
    elif section.scenes:
        described = {split: dict(_describe_videos(context, split)) for split in splits(context)}
        known = {v: numbers for v, numbers in described["train"].items() if numbers is not None}
        clusters = cluster_videos(known, section.scenes, context.config.seed)
        write_json(folder / "scenes.json", clusters.record())
        found = clusters.probabilities({v: d for of in described.values() for v, d in of.items()})
    else:
        return {}
    write_scenes(folder / "scenes.csv", found)
    return read_scenes(folder / "scenes.csv")  # as later stages read it


def _given_scenes(context: Context, path: str) -> Scenes:
    given, found = read_scenes(path), {}
    for split in splits(context):
        videos = load_index(context.folder("prepare") / "records", split).videos
        if absent := [video for video in videos if video not in given]:
            raise InputError(
                f"{path}: has no scene of {absent[0]} ({len(absent)} of {len(videos)} {split} "
                "videos lack one); give each video one or more"
            )
        found |= {video: given[video] for video in videos}
    return found


def _describe_videos(context: Context, split: str) -> Iterator[tuple[str, np.ndarray | None]]:
    """(video, its background's statistics (D,), or None where it has no crop)."""
    folder = context.folder("prepare") / "records"
    index, records = load_index(folder, split), open_records(folder, split)
    for v, video in enumerate(index.videos):
        first, count = int(index.first[v]), int(index.first[v + 1] - index.first[v])
        chosen = first + np.arange(min(CROPS, count)) * count // max(min(CROPS, count), 1)
        images = (read_image(records, int(i), decode_record, _decode, None) for i in chosen)
        yield video, background_statistics(images) if count else None


def _decode(data: bytes, rng: np.random.Generator | None) -> np.ndarray:
    """As a `Transform`: the image as it is."""
    del rng
    return decode_image(data)


def write_members(context: Context, members: Mapping[str, Member]) -> None:
    """sequence/members.json: member -> its scene or modality and what it learnt from."""
    track = context.track
    write_json(
        context.folder("sequence") / "members.json",
        {
            name: {
                "scene": member.scene,
                "modality": member.modality,
                "videos": len(seen := sorted(set(member.seen.video.tolist()))),
                "samples": int(sum(track.valid(label_rows(member.seen, v)).sum() for v in seen)),
            }
            for name, member in members.items()
        },
    )


def read_members(context: Context) -> dict[str, dict]:
    """What `write_members` wrote, in its order; the member of all windows where it is alone; {}
    without a sequence model."""
    if not context.config.sequence.epochs:
        return {}
    path = context.folder("sequence") / "members.json"
    return read_json(path) if path.exists() else {ALL: {"scene": None, "modality": None}}
