"""What EXPR and CE share: one class a row, its number in the label, scored by macro F1."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from abaw_jax.evaluation import metrics
from abaw_jax.tracks.track import Loss, Summary


def softmax(logits: Any, train: bool = False) -> Any:
    """Softmax over the classes, in float32."""
    import jax

    del train
    return jax.nn.softmax(logits.astype("float32"), axis=-1)


def losses() -> Mapping[str, Loss]:
    """Cross-entropy, focal loss, soft F1."""
    from abaw_jax.tracks.losses import CLASS_LOSSES

    return CLASS_LOSSES


def decode(probabilities: np.ndarray) -> np.ndarray:
    """The most probable class: (n, C) -> int32 (n, 1); the first of equals."""
    return np.argmax(probabilities, axis=-1).astype(np.int32)[:, None]


def encode(rows: np.ndarray, classes: int) -> np.ndarray:
    """Certainty of the given class: int (n, 1) -> float32 (n, C)."""
    return np.eye(classes, dtype=np.float32)[rows[:, 0]]


def statistics(predicted: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Confusion counts int64 (C, C), rows true and columns predicted."""
    return metrics.confusion_matrix(predicted[:, 0], labels[:, 0], classes)


def summarise(confusion: np.ndarray, classes: tuple[str, ...]) -> Summary:
    """Macro F1, accuracy, and the figures of each class."""
    figures = metrics.classification_summary(confusion)
    return Summary(
        score=figures["macro_f1"],
        metrics=figures,
        per_class=metrics.class_table(confusion, classes),
        confusion=confusion,
    )
