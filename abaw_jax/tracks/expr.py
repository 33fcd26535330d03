"""EXPR: one of eight expressions per frame of Aff-Wild2, scored by macro F1."""

from typing import Any

import numpy as np

from abaw_jax.evaluation import metrics
from abaw_jax.tracks.track import Summary, Track

CLASSES = ("Neutral", "Anger", "Disgust", "Fear", "Happiness", "Sadness", "Surprise", "Other")
INVALID = -1


def _activation(logits: Any) -> Any:
    """Softmax over the classes, in float32."""
    import jax

    return jax.nn.softmax(logits.astype("float32"), axis=-1)


def _loss(logits: Any, labels: Any, **options: Any) -> Any:
    """Cross-entropy per row: logits (..., 8), labels int (..., 1) -> float32 (...).

    options: those of `training.losses.cross_entropy` (class_weights, label_smoothing).
    """
    import jax.numpy as jnp

    from abaw_jax.training.losses import cross_entropy

    label = labels[..., 0]
    valid = label != INVALID
    # An invalid row is computed as class 0 and then dropped, so that its gradient is 0, not NaN.
    loss = cross_entropy(logits, jnp.where(valid, label, 0), **options)
    return jnp.where(valid, loss, 0.0)


def _decode(probabilities: np.ndarray) -> np.ndarray:
    """The most probable class: (n, 8) -> int32 (n, 1); the first of equals."""
    return np.argmax(probabilities, axis=-1).astype(np.int32)[:, None]


def _encode(rows: np.ndarray) -> np.ndarray:
    """Certainty of the given class: int (n, 1) -> float32 (n, 8)."""
    return np.eye(len(CLASSES), dtype=np.float32)[rows[:, 0]]


def _statistics(predicted: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return metrics.confusion_matrix(predicted[:, 0], labels[:, 0], len(CLASSES))


def _summarise(confusion: np.ndarray, classes: tuple[str, ...]) -> Summary:
    figures = metrics.classification_summary(confusion)
    return Summary(
        score=figures["macro_f1"],
        metrics=figures,
        per_class=metrics.class_table(confusion, classes),
        confusion=confusion,
    )


EXPR = Track(
    name="EXPR",
    key="expr",
    classes=CLASSES,
    folder_prefix="EXPR",
    location_column="image_location",
    label_width=1,
    label_type="int32",
    label_range=(0, 7),
    invalid=INVALID,
    score_name="macro_f1",
    activation=_activation,
    loss=_loss,
    decode=_decode,
    encode=_encode,
    statistics=_statistics,
    summarise=_summarise,
)
