"""AU: twelve action units per frame of Aff-Wild2, each on or off, scored by their mean F1."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from abaw_jax.errors import InputError
from abaw_jax.evaluation import metrics
from abaw_jax.tracks.track import Loss, Summary, Track

CLASSES = tuple(f"AU{number}" for number in (1, 2, 4, 6, 7, 10, 12, 15, 23, 24, 25, 26))
THRESHOLD = 0.5


def _sigmoid(logits: Any, train: bool = False) -> Any:
    """Of each unit by itself, in float32."""
    import jax

    del train
    return jax.nn.sigmoid(logits.astype("float32"))


def _losses() -> Mapping[str, Loss]:
    from abaw_jax.tracks.losses import UNIT_LOSSES

    return UNIT_LOSSES


def _decode(
    probabilities: np.ndarray, thresholds: float | Sequence[float] = THRESHOLD
) -> np.ndarray:
    """A unit is on from its threshold up: (n, 12) -> int32 (n, 12). thresholds: one, or (12,)."""
    limits = np.asarray(thresholds, np.float64)
    if limits.shape not in ((), (len(CLASSES),)):
        raise InputError(
            f"AU: thresholds of shape {limits.shape}; expected one number or {len(CLASSES)}, one "
            f"for each of {','.join(CLASSES)}"
        )
    return (probabilities >= limits).astype(np.int32)


def _encode(rows: np.ndarray) -> np.ndarray:
    """Certainty of each unit's state: int (n, 12) -> float32 (n, 12)."""
    return rows.astype(np.float32)


def _summarise(counts: np.ndarray, classes: tuple[str, ...]) -> Summary:
    figures = metrics.binary_summary(counts)
    return Summary(
        score=figures["mean_f1"], metrics=figures, per_class=metrics.binary_table(counts, classes)
    )


AU = Track(
    name="AU",
    key="au",
    classes=CLASSES,
    folder_prefix="AU",
    location_column="image_location",
    label_width=len(CLASSES),
    label_type="int32",
    label_range=(0, 1),
    invalid=-1,
    score_name="mean_f1",
    activations={"sigmoid": _sigmoid},
    losses=_losses,
    decode=_decode,
    encode=_encode,
    statistics=metrics.binary_counts,
    summarise=_summarise,
    thresholds=THRESHOLD,
)
