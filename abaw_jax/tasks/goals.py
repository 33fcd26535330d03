"""What a task with labels is to reach: the loss of one track, or of several from one model.

Each track has a head, a loss and a weight of its own, and rows that count for it alone. The loss of
several is sum_t weight_t * (sum of losses_t) / (sum of weights_t), sums over the valid rows of
track t in the whole global batch. What a track's rows weigh together follows from the labels, so
`whole_batch` finds it before the batch is cut into micro-batches, and each of them adds its part.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from abaw_jax.errors import InputError
from abaw_jax.tasks.task import class_metrics, make_loss
from abaw_jax.tracks.together import output_names, split_labels, split_outputs
from abaw_jax.tracks.track import Track

FACTORS = "factors"  # of a batch: (B, G), in every row the number that scales each goal's loss


class Goal(NamedTuple):
    """A track, its loss by name and as `make_loss` gives it, its activation, its weight."""

    track: Track
    loss_name: str | None
    loss: Callable[..., tuple[jax.Array, jax.Array]]
    activate: Callable[..., jax.Array]
    weight: float


# Sum of a goal's losses, of their weights, its metrics; over the rows of a batch.
Part = tuple[jax.Array, jax.Array, dict[str, Any]]


def make_goal(
    track: Track,
    loss: str | None = None,
    activation: str | None = None,
    weight: float = 1.0,
    **options: Any,
) -> Goal:
    """A goal; names and options as in `make_loss`. Raises InputError as it does."""
    return Goal(
        track,
        loss,
        make_loss(track, loss, activation, **options),
        track.find_activation(activation),
        weight,
    )


def check_tracks(tracks: Sequence[Track]) -> None:
    """Raise InputError for tracks that do not go together: one twice, or of clips and others."""
    names = ", ".join(track.name for track in tracks)
    if len({track.key for track in tracks}) < len(tracks):
        raise InputError(f"tracks {names}: one stands twice; name each once")
    clips = [track.name for track in tracks if track.per_clip]
    if clips and len(tracks) > 1:
        raise InputError(f"tracks {names}: labels of {clips[0]} are of clips; it is learnt alone")


def goal_labels(goals: Sequence[Goal], batch: Any) -> list[tuple[jax.Array, jax.Array]]:
    """(labels (..., W), valid bool (...)) of each goal; rows that are padding are not valid."""
    labels = batch["label"]
    mask = batch.get("mask", jnp.ones(labels.shape[0], bool))
    parts = split_labels(labels, [goal.track for goal in goals])
    return [(part, goal.track.valid(part) & mask) for part, goal in zip(parts, goals, strict=True)]


def goal_logits(goals: Sequence[Goal], logits: jax.Array) -> list[jax.Array]:
    """The logits (..., K) of each goal out of a model's (..., sum of K)."""
    return split_outputs(logits, [goal.track for goal in goals])


def whole_batch(goals: Sequence[Goal], batch: Any) -> Any:
    """The global batch with FACTORS, which its micro-batches take along; of one goal as it is."""
    if len(goals) == 1 or FACTORS in batch:
        return batch
    totals = []
    for goal, (labels, valid) in zip(goals, goal_labels(goals, batch), strict=True):
        # Weights of a loss do not depend on the outputs, so any will do.
        outputs = jnp.zeros((*valid.shape, goal.track.outputs))
        totals.append(goal.loss(outputs, labels, valid)[1].sum())
    return with_factors(goals, totals, batch)


def with_factors(goals: Sequence[Goal], totals: Sequence[jax.Array], batch: Any) -> Any:
    """The batch with FACTORS; totals: what the rows of each goal weigh together."""
    factors, rows = [], batch["label"].shape[0]
    for goal, total in zip(goals, totals, strict=True):
        some = total > 0
        factors.append(jnp.where(some, goal.weight * rows / jnp.where(some, total, 1.0), 0.0))
    return {**batch, FACTORS: jnp.broadcast_to(jnp.stack(factors), (rows, len(goals)))}


def add_parts(goals: Sequence[Goal], parts: Sequence[Part], batch: Any) -> Part:
    """The part of all goals together, from one each; of one goal its own.

    The weight of several is the number of the batch's rows, by which their factors were multiplied.
    Metrics of further tracks begin with their keys; `<key>_loss` is each track's own loss.
    """
    if len(goals) == 1:
        return parts[0]
    factors = whole_batch(goals, batch)[FACTORS]
    total, metrics = jnp.float32(0), {}
    for i, (goal, (loss_sum, weight, found)) in enumerate(zip(goals, parts, strict=True)):
        total += factors[:, i].max() * loss_sum  # all rows are alike
        metrics[f"{goal.track.key}_loss"] = loss_sum, weight
        metrics |= {f"{goal.track.key}_{name}" if i else name: v for name, v in found.items()}
    return total, jnp.float32(len(factors)), metrics


def goal_part(goal: Goal, losses: jax.Array, weights: jax.Array, *rows: jax.Array) -> Part:
    """A goal's part from its losses; rows: logits, labels, valid, for the metrics."""
    return losses.sum(), weights.sum(), class_metrics(goal.track, *rows)


def activate_goals(goals: Sequence[Goal], logits: jax.Array) -> dict[str, jax.Array]:
    """The values of each goal by the names of `output_names`."""
    names = output_names([goal.track for goal in goals])
    parts = goal_logits(goals, logits)
    return {name: g.activate(part) for name, g, part in zip(names, goals, parts, strict=True)}
