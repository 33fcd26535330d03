"""Scenes: where a video was recorded, from its background or from a given list.

The scene ensemble of system `fuxi` (arXiv 2403.10825) trains a member per scene; how scenes were
found and test videos assigned is not published. Here the corners of the crops, outside the ellipse
that the face fills, are described by their colours, and videos are clustered by k-means.

Shapes: V videos, S scenes, D numbers that describe a video.
"""

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from abaw_jax.errors import InputError
from abaw_jax.evaluation.folds import read_columns
from abaw_jax.files import atomic_write

BINS = 8  # of each colour's histogram
STARTS = 30  # of k-means, the tightest of which is kept
ROUNDS = 100  # of Lloyd's steps at most


def background_statistics(images: Iterable[np.ndarray]) -> np.ndarray:
    """Colours of the background of one video: float64 (D,), D = 30.

    images: crops uint8 (H, W, 3) of any size, one after the other; a sample of the video is enough.
    The background is what lies outside the ellipse inscribed in the crop; pixels of pure black are
    left out, as aligning fills what lies outside the picture with them. The numbers: mean and
    standard deviation of each colour, 0 .. 1, and shares of 8 bins of each. Zeros where no such
    pixel is. Raises InputError for anything but a colour image, or for no image.
    """
    total, square, pixels, bins = np.zeros(3), np.zeros(3), 0, np.zeros((3, BINS))
    seen = 0
    for image in images:
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise InputError(
                f"crop {image.dtype} of shape {image.shape}; expected uint8 (height, width, 3)"
            )
        seen += 1
        found = image[_outside(*image.shape[:2])]
        found = found[found.any(axis=1)]
        part = found / 255.0
        total += part.sum(axis=0)
        square += (part * part).sum(axis=0)
        pixels += len(found)
        for colour in range(3):
            bins[colour] += np.bincount(found[:, colour] // (256 // BINS), minlength=BINS)
    if not seen:
        raise InputError("a video without any crop has no background; leave it out")
    if not pixels:
        return np.zeros(6 + 3 * BINS)
    mean = total / pixels
    deviation = np.sqrt(np.maximum(square / pixels - mean**2, 0))
    return np.concatenate([mean, deviation, (bins / pixels).ravel()])


def _outside(height: int, width: int) -> np.ndarray:
    """Which pixels lie outside the ellipse inscribed in the image: bool (H, W)."""
    y = (2 * np.arange(height) + 1) / height - 1
    x = (2 * np.arange(width) + 1) / width - 1
    return y[:, None] ** 2 + x[None, :] ** 2 > 1


def kmeans(points: np.ndarray, clusters: int, seed: int = 0) -> np.ndarray:
    """Centres (S, D) of points (V, D): Lloyd's steps from k-means++ starts, the tightest of STARTS.

    (Arthur and Vassilvitskii, 2007.) Centres are ordered by the first point that is theirs. Raises
    InputError for fewer distinct points than clusters.
    """
    distinct = len(np.unique(points, axis=0))
    if not 1 <= clusters <= distinct:
        raise InputError(f"{clusters} scenes of {distinct} different videos; expected 1 .. that")
    rng = np.random.default_rng(seed)
    best, tightest = points[:clusters], np.inf
    for _ in range(STARTS):
        centres = _lloyd(points, _plus_plus(points, clusters, rng))
        spread = float(_distances(points, centres).min(axis=1).sum())
        if spread < tightest:
            best, tightest = centres, spread
    nearest = _distances(points, best).argmin(axis=1)
    return best[sorted(range(clusters), key=nearest.tolist().index)]


def _distances(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Squared distances (V, S)."""
    return ((points[:, None] - centres[None]) ** 2).sum(axis=2)


def _plus_plus(points: np.ndarray, clusters: int, rng: np.random.Generator) -> np.ndarray:
    """Starting centres: each next one drawn by its squared distance from those before."""
    chosen = [int(rng.integers(len(points)))]
    while len(chosen) < clusters:
        far = _distances(points, points[chosen]).min(axis=1)
        chosen.append(int(rng.choice(len(points), p=far / far.sum())))
    return points[chosen].copy()


def _lloyd(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Centres moved to the mean of their points until nothing changes; each keeps a point."""
    before = None
    for _ in range(ROUNDS):
        distances = _distances(points, centres)
        nearest = distances.argmin(axis=1)
        for s in range(len(centres)):
            if not (nearest == s).any():
                # The point that its own centre serves worst, of those that can be spared.
                spare = np.bincount(nearest, minlength=len(centres))[nearest] > 1
                own = distances[np.arange(len(points)), nearest]
                nearest[np.argmax(np.where(spare, own, -1.0))] = s
        if before is not None and (nearest == before).all():
            break
        before = nearest
        centres = np.stack([points[nearest == s].mean(axis=0) for s in range(len(centres))])
    return centres


@dataclasses.dataclass(frozen=True, eq=False)
class Scenes:
    """Clusters of videos, and where any other video lies among them.

    centres: (S, D), standardised. mean, weight: (D,), of the videos clustered, their mean and the
    inverse of their standard deviation, 0 for a number that never changes. spread: their mean
    squared distance from their centre. shares: (S,), of the videos, those that lie in each.
    """

    centres: np.ndarray
    mean: np.ndarray
    weight: np.ndarray
    spread: float
    shares: np.ndarray

    def probabilities(
        self, features: Mapping[str, np.ndarray | None]
    ) -> dict[str, dict[str, float]]:
        """Video -> scene ('scene1', ...) -> probability, in proportion to exp(-d^2 / 2 spread).

        features: video -> (D,), or None of a video that shows nothing: it belongs to each scene
        as often as the videos that were clustered.
        """
        found = {}
        for video in sorted(features):
            share = self.shares
            if features[video] is not None:
                point = (np.asarray(features[video], np.float64) - self.mean) * self.weight
                away = _distances(point[None], self.centres)[0]
                share = np.exp(-(away - away.min()) / (2 * max(self.spread, 1e-12)))
                share /= share.sum()
            found[video] = {f"scene{s + 1}": float(p) for s, p in enumerate(share)}
        return found

    def record(self) -> dict[str, Any]:
        """As JSON values, enough to find the scene of any other video."""
        arrays = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {name: np.asarray(value).tolist() for name, value in arrays.items()}


def cluster_videos(features: Mapping[str, np.ndarray], scenes: int, seed: int = 0) -> Scenes:
    """Cluster videos by any description of the same length: video -> (D,).

    Each number is standardised over the videos; one that never changes is left out of account. The
    same for any order of videos. Raises InputError for numbers that are not finite, descriptions of
    different lengths, and as `kmeans` does.
    """
    videos = sorted(features)
    shapes = {np.shape(features[video]) for video in videos}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1:
        raise InputError(f"descriptions of shapes {sorted(shapes)}; expected one (D,) for all")
    points = np.stack([np.asarray(features[video], np.float64) for video in videos])
    finite = np.isfinite(points).all(axis=1)
    if not finite.all():
        raise InputError(f"video {videos[int(np.argmin(finite))]}: description is not finite")
    mean, deviation = points.mean(axis=0), points.std(axis=0)
    changes = deviation > 1e-12
    weight = np.divide(1, deviation, out=np.zeros_like(deviation), where=changes)
    points = (points - mean) * weight
    centres = kmeans(points, scenes, seed)
    away = _distances(points, centres)
    shares = np.bincount(away.argmin(axis=1), minlength=scenes) / len(videos)
    return Scenes(centres, mean, weight, float(away.min(axis=1).mean()), shares)


def write_scenes(path: str | os.PathLike, probabilities: Mapping[str, Mapping[str, float]]) -> None:
    """Write `video,scene,probability`, a row for each video and scene."""
    with atomic_write(path, "w") as file:
        file.write("video,scene,probability\n")
        for video in sorted(probabilities):
            for scene, share in probabilities[video].items():
                file.write(f"{video},{scene},{share:.6f}\n")


def read_scenes(path: str | os.PathLike) -> dict[str, dict[str, float]]:
    """A csv file `video,scene[,probability]` -> video -> scene -> probability, summing to 1.

    Without the column each row is certain; probabilities of a video are divided by their sum.
    Raises InputError as file:line for a pair twice, a probability outside 0 .. 1 and, without the
    column, a second scene of a video; and for a video whose probabilities are all 0.
    """
    found: dict[str, dict[str, float]] = {}
    for line, row in read_columns(path, ("video", "scene"), ("probability",)):
        scenes = found.setdefault(row["video"], {})
        try:
            share = float(row.get("probability", "1"))
        except ValueError:
            share = -1.0
        if not 0 <= share <= 1:  # False for NaN
            raise InputError(f"{path}:{line}: probability {row['probability']!r}; expected 0 .. 1")
        if row["scene"] in scenes:
            raise InputError(f"{path}:{line}: {row['video']}, {row['scene']} stands here again")
        if scenes and "probability" not in row:
            raise InputError(
                f"{path}:{line}: a second scene of {row['video']}; add a column probability"
            )
        scenes[row["scene"]] = share
    for video, scenes in found.items():
        total = sum(scenes.values())
        if total <= 0:
            raise InputError(f"{path}: the probabilities of {video} are all 0; one must be more")
        found[video] = {scene: share / total for scene, share in scenes.items()}
    return found


def scene_weights(
    videos: Sequence[str],
    members: Sequence[str],
    scenes: Mapping[str, str],
    probabilities: Mapping[str, Mapping[str, float]],
) -> np.ndarray:
    """How much each member counts in each video: float64 (M, V), its scene's probability there.

    scenes: member -> scene; a member without one fits every video: 1. Raises InputError for a scene
    of an unknown member, a scene that no video has, and a video without probabilities.
    """
    known = sorted({scene for shares in probabilities.values() for scene in shares})
    if not scenes:
        raise InputError("no member has a scene; name one for a member at least")
    for member, scene in scenes.items():
        if member not in members:
            raise InputError(f"scene {scene} of {member}; the members are {', '.join(members)}")
        if scene not in known:
            raise InputError(
                f"member {member}: scene {scene!r} is no video's; these are: {', '.join(known)}"
            )
    for video in videos:
        if video not in probabilities:
            raise InputError(f"video {video} has no scene; give one or more for each video")
    return np.array(
        [
            [
                probabilities[video].get(scenes[member], 0.0) if member in scenes else 1.0
                for video in videos
            ]
            for member in members
        ]
    )
