"""Compound expressions without labels of them: from the probabilities of the eight of EXPR.

No annotation of C-EXPR-DB is public, so what can be learnt of CE comes from images of other corpora
or, as here, from an expression model: each compound class is two basic ones. Which rule to trust is
decided by how near the classes it predicts come to the published class frequencies.

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

# The basic expressions of each class; the noun of its adverb, and the adjective's.
PARTS = {
    "Fearfully_Surprised": ("Fear", "Surprise"),
    "Happily_Surprised": ("Happiness", "Surprise"),
    "Sadly_Surprised": ("Sadness", "Surprise"),
    "Disgustedly_Surprised": ("Disgust", "Surprise"),
    "Angrily_Surprised": ("Anger", "Surprise"),
    "Sadly_Fearful": ("Sadness", "Fear"),
    "Sadly_Angry": ("Sadness", "Anger"),
}
# Frames of each class in the whole of C-EXPR-DB, as published.
FREQUENCIES = (14445, 24915, 10780, 10637, 10535, 10112, 8878)
FIRST, SECOND = np.array(
    [[EXPR.classes.index(part) for part in PARTS[name]] for name in CE.classes]
).T


def add(probabilities: np.ndarray) -> np.ndarray:
    """p1 + p2 of each class: (n, 8) -> (n, 7). The mean of the two decodes to the same.

    The zero-shot rule of system `hsemotion` (arXiv 2403.11590).
    """
    return probabilities[:, FIRST] + probabilities[:, SECOND]


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


RULES = {"sum": add, "product": multiply, "cluster": cluster}


def predict_compound(
    expressions: Mapping[str, Prediction], rule: str, *, merge: bool = False
) -> dict[str, Prediction]:
    """Predictions of EXPR by video -> of CE, by the rule of that name in `RULES`.

    merge: videos that show faces of one recording (`01_left`, `01_right`) become one, `01`; of the
    faces in a frame the largest score of each class counts. Raises InputError for an unknown rule,
    for no frame at all, and as the rule does.
    """
    if rule not in RULES:
        raise InputError(f"rule {rule!r}; expected one of {', '.join(RULES)}")
    if not any(len(found.frames) for found in expressions.values()):
        raise InputError("the predictions of expressions hold no frame at all")
    scores = RULES[rule](np.concatenate([found.values for found in expressions.values()]))
    ends = np.cumsum([len(found.frames) for found in expressions.values()])[:-1]
    faces: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for video, found in zip(expressions, np.split(scores, ends), strict=True):
        name = recording(video) if merge else video
        faces.setdefault(name, []).append((expressions[video].frames, found))
    return {name: _largest(found) for name, found in faces.items()}


def _largest(faces: list[tuple[np.ndarray, np.ndarray]]) -> Prediction:
    """The largest score of each class over the faces (frames (n,), scores (n, 7)) in a frame."""
    frames = np.unique(np.concatenate([frames for frames, _ in faces]))
    scores = np.zeros((len(frames), CE.outputs))
    for own, found in faces:
        at = np.searchsorted(frames, own)
        scores[at] = np.maximum(scores[at], found)
    return Prediction(frames.astype(np.int32), as_values(scores, CE))


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
