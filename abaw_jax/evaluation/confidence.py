"""How far a score can be trusted: intervals over videos, paired comparison, splits that are apart.

Frames of one video say nearly the same, so that a score's chance lies in which videos were drawn.
The bootstrap (Efron, 1979) draws as many videos as there are, with replacement; a track's
statistics add up, so each resample is one sum of statistics weighted by how often a video was
drawn, and its score is that of all its frames together, as the organisers count.

Shapes: V videos, G groups of videos, R resamples; S... is the shape of the track's statistics.
"""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from abaw_jax.errors import InputError
from abaw_jax.evaluation.align import labelled_rows
from abaw_jax.evaluation.predictions import Prediction
from abaw_jax.tracks.track import Track

RESAMPLES = 1000
LEVEL = 0.95


@dataclasses.dataclass(frozen=True, eq=False)
class VideoStatistics:
    """Sufficient statistics of each labelled video. videos: V names, sorted. statistics: (V, S...).
    frames: int64 (V,), labelled frames that count."""

    videos: tuple[str, ...]
    statistics: np.ndarray
    frames: np.ndarray


def video_statistics(
    predictions: Mapping[str, Prediction],
    labels: Mapping[str, np.ndarray],
    track: Track,
    source: str = "predictions",
) -> VideoStatistics:
    """Of predictions against labels, video -> (rows, W), row i of frame i + 1.

    Their sum is the split's statistics. Raises InputError for a labelled frame that is not
    predicted (fill gaps first), but for a row after the last frame.
    """
    frames = {video: prediction.frames for video, prediction in predictions.items()}
    found, _ = labelled_rows(frames, labels, track, source)
    found = {video: part for video, part in found.items() if len(part[0])}
    parts = [
        track.statistics(track.decode(predictions[video].values[index]), rows)
        for video, (index, rows) in found.items()
    ]
    counts = np.array([len(rows) for _, rows in found.values()], np.int64)
    return VideoStatistics(tuple(found), np.stack(parts), counts)


def video_table(statistics: VideoStatistics, track: Track) -> list[dict[str, Any]]:
    """A row for each video: video, frames, score and every metric, by its own frames; worst first.

    Of a clip, whose one row has no correlation, the error alone. To see where a system fails: the
    mean of these scores is not the score of the split.
    """
    if track.per_clip:
        errors = [track.summary(part).metrics["mean_rmse"] for part in statistics.statistics]
        clips = zip(statistics.videos, errors, strict=True)
        rows = [{"video": clip, "mean_rmse": error} for clip, error in clips]
        return sorted(rows, key=lambda row: (-row["mean_rmse"], row["video"]))
    rows = []
    for video, part, frames in zip(
        statistics.videos, statistics.statistics, statistics.frames, strict=True
    ):
        summary = track.summary(part)
        row = {"video": video, "frames": int(frames), "score": summary.score}
        rows.append({**row, **summary.metrics})
    return sorted(rows, key=lambda row: (row["score"], row["video"]))


@dataclasses.dataclass(frozen=True)
class Interval:
    """value: of all videos. low, high: percentiles of the resamples."""

    value: float
    low: float
    high: float


def _draws(
    videos: tuple[str, ...], resamples: int, seed: int, groups: Mapping[str, str] | None
) -> np.ndarray:
    """How often each video stands in each resample: int64 (R, V). Groups are drawn whole."""
    if groups is not None and (absent := [video for video in videos if video not in groups]):
        raise InputError(f"video {absent[0]} has no group; name one for each video")
    names = [video if groups is None else groups[video] for video in videos]
    distinct, of_video = np.unique(names, return_inverse=True)
    if len(distinct) < 2 or resamples < 1:
        raise InputError(
            f"{resamples} resamples of {len(distinct)} videos or groups; an interval needs 1 of 2"
        )
    even = np.full(len(distinct), 1 / len(distinct))
    return np.random.default_rng(seed).multinomial(len(distinct), even, size=resamples)[:, of_video]


def _resampled(statistics: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Statistics of each resample: (R, S...)."""
    flat = statistics.reshape(len(statistics), -1)
    return (draws @ flat).reshape(len(draws), *statistics.shape[1:])


def _tail(level: float) -> tuple[float, float]:
    if not 0 < level < 1:
        raise InputError(f"level {level}; expected a share between 0 and 1, as 0.95")
    return (1 - level) / 2, (1 + level) / 2


def bootstrap(
    statistics: VideoStatistics,
    track: Track,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
    groups: Mapping[str, str] | None = None,
) -> dict[str, Interval]:
    """'score' and each metric -> its interval, the same for the same seed.

    groups: video -> what is drawn whole in place of the video (its person, its recording). Raises
    InputError for fewer than two videos or groups, and for a level outside 0 .. 1.
    """
    tail = _tail(level)
    draws = _draws(statistics.videos, resamples, seed, groups)
    whole = track.summary(statistics.statistics.sum(axis=0))
    summaries = [track.summary(part) for part in _resampled(statistics.statistics, draws)]
    drawn = {name: [s.metrics[name] for s in summaries] for name in whole.metrics}
    values = {**whole.metrics, "score": whole.score}
    drawn["score"] = [s.score for s in summaries]
    return {
        name: Interval(float(values[name]), *map(float, np.quantile(drawn[name], tail)))
        for name in sorted(drawn)
    }


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two prediction sets on the same frames. a, b: their scores. difference: a - b, and its
    interval. a_better, b_better: shares of the resamples in which one scores strictly higher."""

    a: float
    b: float
    difference: Interval
    a_better: float
    b_better: float


def compare(
    a: VideoStatistics,
    b: VideoStatistics,
    track: Track,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
    groups: Mapping[str, str] | None = None,
) -> Comparison:
    """Paired: both are scored on the same videos in every resample.

    Raises InputError unless both hold the same videos with as many labelled frames, and as
    `bootstrap` does.
    """
    if a.videos != b.videos or (a.frames != b.frames).any():
        counts = [dict(zip(s.videos, s.frames.tolist(), strict=True)) for s in (a, b)]
        videos = sorted({*a.videos, *b.videos})
        video = next(v for v in videos if counts[0].get(v) != counts[1].get(v))
        raise InputError(
            f"video {video}: {counts[0].get(video, 0)} labelled frames against "
            f"{counts[1].get(video, 0)}; compare predictions of the same frames, or fill the gaps"
        )
    tail = _tail(level)
    draws = _draws(a.videos, resamples, seed, groups)
    scores = np.array(
        [[track.summary(p).score for p in _resampled(s.statistics, draws)] for s in (a, b)]
    )
    difference = scores[0] - scores[1]
    whole = [track.summary(s.statistics.sum(axis=0)).score for s in (a, b)]
    return Comparison(
        whole[0],
        whole[1],
        Interval(whole[0] - whole[1], *map(float, np.quantile(difference, tail))),
        float((difference > 0).mean()),
        float((difference < 0).mean()),
    )


def split_hash(labels: Mapping[str, np.ndarray], track: Track) -> str:
    """What a score is of: sha256, in hexadecimal, of its labelled videos' sorted names, the numbers
    of their labelled frames, and those frames' labels.

    labels: video -> (rows, W), row i of frame i + 1. The same for any order of videos, any machine,
    any width of the same numbers' type, and whatever has no label.
    """
    digest = hashlib.sha256()
    for video in sorted(labels):
        rows = np.asarray(labels[video])
        frames = np.flatnonzero(track.valid(rows))
        if not len(frames):
            continue
        kind = "<i4" if rows.dtype.kind in "iu" else "<f4"
        name = video.encode()
        # Lengths divide what would otherwise run together.
        digest.update(np.array([len(name), len(frames), rows.shape[1]], "<i8").tobytes() + name)
        digest.update((frames + 1).astype("<i8").tobytes())
        digest.update(np.ascontiguousarray(rows[frames], kind).tobytes())
    return digest.hexdigest()


def check_apart(
    splits: Mapping[str, Sequence[str]], persons: Mapping[str, str], source: str
) -> None:
    """Refuse splits, name -> videos, that share a person. persons: video -> person.

    Raises InputError, naming `source`, where the persons come from: for the first such person, with
    both videos, and for a video without a person.
    """
    seen: dict[str, tuple[str, str]] = {}
    for split, videos in splits.items():
        if absent := [video for video in videos if video not in persons]:
            raise InputError(
                f"{source}: has no person of video {absent[0]} ({len(absent)} of {len(videos)} "
                f"{split} videos lack one); give each video of {' and '.join(splits)} one"
            )
        for video in videos:
            other, there = seen.setdefault(persons[video], (split, video))
            if other != split:
                raise InputError(
                    f"{source}: person {persons[video]} lies in {other} ({there}) and in {split} "
                    f"({video}); take them out of one: a score would be of who was trained on"
                )
