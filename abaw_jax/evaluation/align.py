"""Predictions of several members, side by side: one row for each frame that any of them has.

Shapes: M members, V videos, N rows (frames of all videos), K outputs, W numbers in a label row.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from abaw_jax.errors import InputError
from abaw_jax.evaluation.predictions import Prediction
from abaw_jax.evaluation.smoothing import GAP_RULES, fill_gaps
from abaw_jax.tracks.track import Track


@dataclasses.dataclass(frozen=True, eq=False)
class Aligned:
    """What all members say of all frames, in one order whatever the order they were given in.

    members: M names, sorted. videos: V names, sorted. first: int64 (V + 1,); rows first[v] ..
    first[v + 1] - 1 are video v's. frames: int32 (N,), ascending in each video. values: float32
    (M, N, K); where a member lacks the frame, the mean of those that have it. present: bool (M, N),
    whether the member has it. missing: member -> counts of 'videos' it lacks altogether, 'frames'
    it lacks of the videos it has, and frames 'filled' from its own neighbours by a gap rule.
    """

    members: tuple[str, ...]
    videos: tuple[str, ...]
    first: np.ndarray
    frames: np.ndarray
    values: np.ndarray
    present: np.ndarray
    missing: Mapping[str, Mapping[str, int]]

    def rows(self, video: int) -> slice:
        """The rows of the video of that number."""
        return slice(int(self.first[video]), int(self.first[video + 1]))

    def row_videos(self) -> np.ndarray:
        """The video number of each row, int64 (N,)."""
        return np.repeat(np.arange(len(self.videos)), np.diff(self.first))

    def by_video(self, values: np.ndarray) -> dict[str, Prediction]:
        """Values (N, K) of all rows as predictions by video."""
        return {
            video: Prediction(self.frames[self.rows(v)], values[self.rows(v)])
            for v, video in enumerate(self.videos)
        }


def align(
    members: Mapping[str, Mapping[str, Prediction]],
    track: Track,
    *,
    gaps: str | None = None,
    rows: Mapping[str, int] | None = None,
) -> Aligned:
    """Bring members, name -> video -> prediction in the track's class order, side by side.

    gaps: None leaves a frame that a member lacks to the others. A rule of `fill_gaps` fills it from
    the member's own neighbours, over frames 1 .. the last that any member has, or `rows` (video ->
    rows) if that is more; a video that a member lacks altogether is left to the others all the
    same. Raises InputError for fewer than two members, a member that shares no frame with another,
    and values of another width or that are not finite.
    """
    names = tuple(sorted(members))
    if len(names) < 2:
        raise InputError(f"{len(names)} members; an ensemble needs two at least")
    videos = tuple(sorted({v for m in names for v, p in members[m].items() if len(p.frames)}))
    frames = [_frames(members, video, gaps, (rows or {}).get(video, 0)) for video in videos]
    first = np.cumsum([0, *map(len, frames)])
    values = np.zeros((len(names), first[-1], track.outputs), np.float32)
    present = np.zeros((len(names), first[-1]), bool)
    missing = {name: {"videos": 0, "frames": 0, "filled": 0} for name in names}
    for m, name in enumerate(names):
        for v, video in enumerate(videos):
            prediction = members[name].get(video)
            if prediction is None or not len(prediction.frames):
                missing[name]["videos"] += 1
                continue
            check_values(f"member {name}", video, prediction, track)
            lacks = len(frames[v]) - len(prediction.frames)
            missing[name]["frames" if gaps is None else "filled"] += lacks
            at = np.arange(first[v], first[v + 1])
            if gaps is None:
                at = at[np.searchsorted(frames[v], prediction.frames)]
                values[m, at] = prediction.values
            else:
                values[m, at] = fill_gaps(
                    prediction.frames, prediction.values, len(frames[v]), gaps
                )
            present[m, at] = True
    shared = present.sum(axis=0) > 1
    for m, name in enumerate(names):
        if not (present[m] & shared).any():
            raise InputError(
                f"member {name}: shares no frame with another member (its {len(members[name])} "
                "videos are not theirs); predict the same split, or leave it out"
            )
    fill_absent(values, present)
    return Aligned(names, videos, first, np.concatenate(frames), values, present, missing)


def _frames(members, video: str, gaps: str | None, rows: int) -> np.ndarray:
    """The frames that any member has of a video, or with a gap rule all from the first."""
    found = [m[video].frames for m in members.values() if video in m]
    if gaps is None:
        return np.unique(np.concatenate(found)).astype(np.int32)
    last = max(int(frames[-1]) for frames in found if len(frames))
    return np.arange(1, max(last, rows) + 1, dtype=np.int32)


def check_values(source: str, video: str, prediction: Prediction, track: Track) -> None:
    """InputError, naming `source`, for values of another width or that are not finite."""
    shape = (len(prediction.frames), track.outputs)
    if prediction.values.shape != shape:
        raise InputError(
            f"{source}: {video} has values of shape {prediction.values.shape}; expected "
            f"{shape} for {track.name}"
        )
    finite = np.isfinite(prediction.values).all(axis=1)
    if not finite.all():
        raise InputError(
            f"{source}: frame {prediction.frames[np.argmin(finite)]} of {video} has a value "
            "that is not finite; leave such frames out"
        )


def fill_absent(values: np.ndarray, present: np.ndarray) -> None:
    """Put the mean of present members where others are absent: values (M, N, K), present (M, N).

    So their share of any weighted mean goes to the present ones in equal parts.
    """
    some = np.flatnonzero(~present.all(axis=0))
    here = present[:, some, None]
    mean = (values[:, some] * here).sum(axis=0, dtype=np.float64) / here.sum(axis=0)
    values[:, some] = np.where(here, values[:, some], mean.astype(values.dtype))


def labelled_rows(
    frames: Mapping[str, np.ndarray],
    labels: Mapping[str, np.ndarray],
    track: Track,
    source: str = "predictions",
) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], int]:
    """Where the labelled frames stand among the predicted ones, as the scorer counts them.

    frames: video -> ascending frames (n,). labels: video -> (rows, W), row i of frame i + 1.
    Returns video -> (index into its frames (L,), label rows (L, W)), videos sorted and those
    without a label left out, and the number of labelled last rows left out because no frame of
    theirs is predicted: the organisers count one row more than there are frames. Raises InputError
    for any other labelled frame that is not predicted, and where nothing is labelled.
    """
    wanted = {video: np.flatnonzero(track.valid(labels[video])) + 1 for video in sorted(labels)}
    wanted = {video: numbers for video, numbers in wanted.items() if len(numbers)}
    if absent := [video for video in wanted if not len(frames.get(video, ()))]:
        raise InputError(
            f"{source}: has no frame of {absent[0]}, which is labelled ({len(absent)} of "
            f"{len(wanted)} labelled videos are missing); predict the whole split"
        )
    found, missing, last_rows = {}, {}, 0
    for video, numbers in wanted.items():
        rows, known = labels[video], frames[video]
        gapless = known[-1] - known[0] == len(known) - 1  # as most are
        index = numbers - known[0] if gapless else np.searchsorted(known, numbers)
        lacks = numbers[known.take(index, mode="clip") != numbers]
        if len(lacks) and lacks[-1] == len(rows):
            index, numbers, lacks, last_rows = index[:-1], numbers[:-1], lacks[:-1], last_rows + 1
        if len(lacks):
            missing[video] = lacks
        found[video] = (index, rows[numbers - 1])
    if missing:
        video, lacks = next(iter(missing.items()))
        raise InputError(
            f"{source}: lacks frame {lacks[0]} of {video}, which is labelled ({len(lacks)} such "
            f"frames in this video, {sum(map(len, missing.values()))} in {len(missing)} videos); "
            f"predict them, or name a rule to fill gaps: --gaps {'|'.join(GAP_RULES)}"
        )
    if not sum(len(index) for index, _ in found.values()):
        raise InputError(f"no row of the {len(labels)} annotated videos has a {track.name} label")
    return found, last_rows
