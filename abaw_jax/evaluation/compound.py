"""Compound expressions without labels of them: from the probabilities of the eight of EXPR.

No annotation of C-EXPR-DB is public, so what can be learnt of CE comes from images of other corpora
or, as here, from an expression model: each compound class is two basic ones. Which rule to trust is
decided by how near the classes it predicts come to the published class frequencies; and so is
whether to trust predictions of CE from elsewhere more.

Shapes: n frames, 8 expressions in EXPR's order, 7 compound classes in CE's.
"""

import itertools
from collections.abc import Mapping

import numpy as np

from abaw_jax.errors import InputError
from abaw_jax.evaluation.folds import recording
from abaw_jax.evaluation.predictions import Prediction
from abaw_jax.evaluation.scenes import kmeans
from abaw_jax.evaluation.stacking import as_values
from abaw_jax.tracks import CE, EXPR
from abaw_jax.tracks.targets import PARTS

# Frames of each class in the whole of C-EXPR-DB, as published.
FREQUENCIES = (14445, 24915, 10780, 10637, 10535, 10112, 8878)
FIRST, SECOND = np.array(
    [[EXPR.classes.index(part) for part in PARTS[name]] for name in CE.classes]
).T


def add(probabilities: np.ndarray) -> np.ndarray:
    """p1 + p2 of each class: (n, 8) -> (n, 7).

    The zero-shot rule of system `hsemotion` (arXiv 2403.11590).
    """
    return probabilities[:, FIRST] + probabilities[:, SECOND]


def average(probabilities: np.ndarray) -> np.ndarray:
    """(p1 + p2) / 2 of each class: (n, 8) -> (n, 7), at most 1/2.

    No other rule than `add`, by another name: scores of a frame are divided by their sum in the
    end, and then the two are the same to the bit.
    """
    return add(probabilities) / 2


def multiply(probabilities: np.ndarray) -> np.ndarray:
    """p1 * p2 of each class: (n, 8) -> (n, 7). Both must be likely."""
    return probabilities[:, FIRST] * probabilities[:, SECOND]


def cluster(probabilities: np.ndarray, seed: int = 0) -> np.ndarray:
    """How near each frame is to the cluster of each class: (n, 8) -> (n, 7), at most 1.

    The frames are clustered by k-means, and the seven clusters given to the seven classes, one
    each, so that the sums `add` gives their centres are largest in all. exp(-d^2 / 2 s^2), with d
    the distance to the centre and s^2 the mean of d^2 to the nearest. Raises InputError for fewer
    than seven different frames.
    """
    distinct = len(np.unique(probabilities, axis=0))
    if distinct < CE.outputs:
        raise InputError(
            f"{distinct} different rows of probabilities; clustering takes {CE.outputs} at least"
        )
    centres = kmeans(probabilities.astype(np.float64), CE.outputs, seed)
    fit = add(centres)
    order = max(
        itertools.permutations(range(CE.outputs)),
        key=lambda chosen: fit[chosen, range(CE.outputs)].sum(),
    )
    distances = ((probabilities[:, None] - centres[list(order)]) ** 2).sum(axis=2)
    spread = max(float(distances.min(axis=1).mean()), 1e-12)
    # From the nearest on: far from every centre all would be 0 otherwise.
    nearest = distances.min(axis=1, keepdims=True)
    return np.exp((nearest - distances) / (2 * spread))


RULES = {"sum": add, "mean": average, "product": multiply, "cluster": cluster}


def predict_compound(
    expressions: Mapping[str, Prediction], rule: str, *, merge: bool = False
) -> dict[str, Prediction]:
    """Predictions of EXPR by video -> of CE, by the rule of that name in `RULES`.

    merge: whether faces of one recording become one video, see `merge_faces`. Raises InputError for
    an unknown rule, for no frame at all, and as the rule does.
    """
    if rule not in RULES:
        raise InputError(f"rule {rule!r}; expected one of {', '.join(RULES)}")
    if not any(len(found.frames) for found in expressions.values()):
        raise InputError("the predictions of expressions hold no frame at all")
    scores = RULES[rule](np.concatenate([found.values for found in expressions.values()]))
    ends = np.cumsum([len(found.frames) for found in expressions.values()])[:-1]
    videos = {
        video: Prediction(expressions[video].frames, found)
        for video, found in zip(expressions, np.split(scores, ends), strict=True)
    }
    if merge:
        return merge_faces(videos)
    return {video: _largest([found]) for video, found in videos.items()}


def merge_faces(videos: Mapping[str, Prediction]) -> dict[str, Prediction]:
    """Scores (n, 7) of faces -> predictions of CE, a video a recording.

    `01_left` and `01_right` become `01`; of the faces in a frame the largest score of each class
    counts.
    """
    faces: dict[str, list[Prediction]] = {}
    for video, found in videos.items():
        faces.setdefault(recording(video), []).append(found)
    return {name: _largest(found) for name, found in faces.items()}


def _largest(faces: list[Prediction]) -> Prediction:
    """The largest score of each class over the faces in a frame, of a sum of 1 in a frame."""
    frames = np.unique(np.concatenate([face.frames for face in faces]))
    scores = np.full((len(frames), CE.outputs), -np.inf)
    for face in faces:
        at = np.searchsorted(frames, face.frames)
        scores[at] = np.maximum(scores[at], face.values)
    return Prediction(frames.astype(np.int32), as_values(scores, CE))


def shared_frames(
    candidates: Mapping[str, Mapping[str, Prediction]],
) -> dict[str, dict[str, Prediction]]:
    """Each candidate's predictions of the frames that all of them have: name -> video -> (m, 7).

    Only of the same frames do class shares tell candidates apart. Raises InputError for the first
    candidate that has no frame of a video in common with those before it.
    """
    frames: dict[str, np.ndarray] = {}
    for number, (name, videos) in enumerate(candidates.items()):
        own = {video: found.frames for video, found in videos.items()}
        if number:
            both = own.keys() & frames.keys()
            own = {video: np.intersect1d(own[video], frames[video]) for video in sorted(both)}
        frames = {video: numbers for video, numbers in own.items() if len(numbers)}
        if not frames:
            others = ", ".join(list(candidates)[:number]) or "any video"
            raise InputError(
                f"candidate {name}: has no frame in common with {others}; predict the same videos, "
                "under the same names, or leave it out"
            )
    return {
        name: {video: _pick(videos[video], numbers) for video, numbers in frames.items()}
        for name, videos in candidates.items()
    }


def _pick(prediction: Prediction, frames: np.ndarray) -> Prediction:
    """Some of the frames that it has."""
    return Prediction(frames, prediction.values[np.searchsorted(prediction.frames, frames)])


def class_shares(predictions: Mapping[str, Prediction]) -> np.ndarray:
    """Share of the frames that is decoded to each class: float64 (7,)."""
    decoded = np.concatenate([CE.decode(found.values)[:, 0] for found in predictions.values()])
    return np.bincount(decoded, minlength=CE.outputs) / len(decoded)


def divergence(shares: np.ndarray, prior: np.ndarray | tuple[float, ...] = FREQUENCIES) -> float:
    """Kullback-Leibler divergence of predicted class shares (7,) from a class prior, in nats.

    KL(predicted || prior), finite where a class is never predicted. The prior, counts or shares,
    must be above 0 everywhere; InputError otherwise. Model choice without labels as in system
    `hsemotion`, which does not publish the direction.
    """
    prior = np.asarray(prior, np.float64)
    if prior.shape != shares.shape or not (np.isfinite(prior).all() and (prior > 0).all()):
        raise InputError(f"class prior {prior}; expected {len(shares)} numbers above 0")
    prior = prior / prior.sum()
    known = shares > 0
    return float((shares[known] * np.log(shares[known] / prior[known])).sum())
