"""What VA and EMI share: K real numbers a row within bounds, scored by how they vary together."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from abaw_jax.evaluation import metrics
from abaw_jax.tracks.track import Loss, Summary


def squash(name: str) -> Callable[..., Any]:
    """The function of that name in `jax.nn`, whose values keep within the bounds, in float32."""

    def activation(logits: Any, train: bool = False) -> Any:
        import jax

        del train
        return getattr(jax.nn, name)(logits.astype("float32"))

    return activation


def linear(low: float, high: float) -> Callable[..., Any]:
    """The logits themselves in losses, clipped to the bounds in predictions, in float32.

    Losses must see what lies beyond: a clipped value has no gradient to come back by.
    """

    def activation(logits: Any, train: bool = False) -> Any:
        values = logits.astype("float32")
        return values if train else values.clip(low, high)

    return activation


def clip(low: float, high: float) -> Callable[..., Any]:
    """The logits clipped to the bounds, in losses too, in float32."""

    def activation(logits: Any, train: bool = False) -> Any:
        del train
        return logits.astype("float32").clip(low, high)

    return activation


def losses(default: str) -> Callable[[], Mapping[str, Loss]]:
    """Squared error, CCC, Pearson; `default` comes first."""

    def make() -> Mapping[str, Loss]:
        from abaw_jax.tracks.losses import VALUE_LOSSES

        return {default: VALUE_LOSSES[default], **VALUE_LOSSES}

    return make


def decode(low: float, high: float) -> Callable[[np.ndarray], np.ndarray]:
    """Values (n, K) -> float32 (n, K), clipped to the bounds."""
    return lambda values: np.clip(values, low, high).astype(np.float32)


def encode(rows: np.ndarray) -> np.ndarray:
    """Label rows are values: (n, K) -> float32 (n, K)."""
    return rows.astype(np.float32)


def summarise(score_name: str) -> Callable[[np.ndarray, tuple[str, ...]], Summary]:
    """The figure of that name as the score, of `metrics.value_summary`."""

    def make(sums: np.ndarray, classes: tuple[str, ...]) -> Summary:
        table = metrics.value_table(sums, classes)
        figures = metrics.value_summary(table)
        return Summary(score=figures[score_name], metrics=figures, per_class=table)

    return make
