"""A frozen branch and a trained one of the same architecture, mixed on hard examples.

The second stage of `fuxi` (arXiv 2403.10825), as its authors' code has it:

    output = a frozen(x1) + (1 - a) trained(x2),  loss = a L(output, y1) + (1 - a) L(output, y2)

x1 are windows as they come, x2 hard ones, a is drawn from Beta(5, 2); predictions are of one x with
a = 0.8. What nobody published is chosen here:

- Hard windows are found in the batch itself, or micro-batch: those with the greatest mean loss of
  their labelled frames under the frozen branch. Each window is mixed with one drawn from these.
- a is one number a batch. Mixed are logits, frame by frame; what comes after them (softmax,
  clamping) sees the mixture.
- A frame counts where it is labelled in both windows, in the loss and in the trained branch's
  BatchNorm statistics; the others, padding among them, do not.
- The frozen branch runs as in predictions: without dropout, by its running statistics.
- The trained branch starts as a copy of the frozen one.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from abaw_jax.errors import InputError
from abaw_jax.tasks.goals import (
    Goal,
    Part,
    activate_goals,
    add_parts,
    check_tracks,
    goal_labels,
    goal_logits,
    goal_part,
    make_goal,
    with_factors,
)
from abaw_jax.tasks.sequences import Inputs, judged, take_features
from abaw_jax.tasks.task import Aux, Task
from abaw_jax.tracks.track import Track

FROZEN, TRAINED = "frozen", "trained"


def make_collaborate_task(
    model: nn.Module,
    track: Track,
    *,
    inputs: Inputs = take_features,
    beta: Sequence[float] = (5.0, 2.0),
    hard: float = 0.25,
    share: float = 0.8,
    loss: str | None = None,
    activation: str | None = None,
    also: Sequence[Goal] = (),
    last: bool = False,
    **options: Any,
) -> Task:
    """Labels of frames of sequences by two branches, of which `is_frozen` names what stays.

    beta: of the distribution of a. hard: share of a batch's labelled windows that are hard ones,
    rounded, but one at least. share: a of predictions, and of the loss outside training. All else,
    batch and outputs too, as in `make_sequences_task`; parameters and statistics are those of its
    task for each branch: {"frozen": ..., "trained": ...}. Raises InputError as it does, and for a
    track whose labels are of clips.
    """
    if track.per_clip:
        raise InputError(
            f"branches are mixed frame by frame, and labels of {track.name} are of clips"
        )
    goals = (make_goal(track, loss, activation, **options), *also)
    check_tracks([goal.track for goal in goals])

    run = functools.partial(_run_branch, model, inputs)

    def init(key, batch):
        variables = dict(model.init(key, inputs(batch), batch["mask"]))
        return start_branches(variables.pop("params"), variables)

    def compute(params, model_state, batch, rngs, train):
        first, fixed = run(FROZEN, params, model_state, batch)
        first = jax.lax.stop_gradient(first)
        own = goal_labels(goals, judged(batch, last))
        a, other = share, batch
        if train:
            difficulty = window_difficulty(goals, first, own)
            a, chosen = draw_mixture(rngs["mixup"], difficulty, beta, hard)
            other = {name: jnp.take(values, chosen, 0) for name, values in batch.items()}
        theirs = goal_labels(goals, judged(other, last))
        valid = [one & two for (_, one), (_, two) in zip(own, theirs, strict=True)]
        counted = jnp.stack(valid, -1) if also else valid[0]
        second, state = run(TRAINED, params, model_state, other, counted, train, rngs)
        mixed = goal_logits(goals, a * first + (1 - a) * second)
        labels = [(one, two) for (one, _), (two, _) in zip(own, theirs, strict=True)]
        parts = [_mixed_part(a, *of) for of in zip(goals, mixed, labels, valid, strict=True)]
        # How many frames are labelled in both is known here alone.
        batch = with_factors(goals, [weight for _, weight, _ in parts], batch)
        loss_sum, weight, metrics = add_parts(goals, parts, batch)
        state = {name: {FROZEN: fixed[name], TRAINED: state[name]} for name in model_state}
        return loss_sum, Aux(weight, metrics, state)

    def predict(params, model_state, batch):
        logits = {name: run(name, params, model_state, batch)[0] for name in (FROZEN, TRAINED)}
        mixed = share * logits[FROZEN] + (1 - share) * logits[TRAINED]
        return activate_goals(goals, mixed)

    return Task(init, compute, predict)


def _run_branch(
    model, inputs, branch, params, model_state, batch, counted=None, train=False, rngs=None
):
    """(logits, statistics) of one branch."""
    state = {name: of[branch] for name, of in model_state.items()}
    variables, given = {"params": params[branch], **state}, (inputs(batch), batch["mask"], counted)
    if train and state:
        return model.apply(variables, *given, train=True, rngs=rngs, mutable=list(state))
    return model.apply(variables, *given, train=train, rngs=rngs), state


def _mixed_part(a, goal: Goal, logits, labels, valid) -> Part:
    """A goal's part against two labels, whose shares are a and 1 - a; metrics are of the first."""
    pairs = (goal.loss(logits, of, valid) for of in labels)
    losses, weights = (a * one + (1 - a) * two for one, two in zip(*pairs, strict=True))
    return goal_part(goal, losses, weights, logits, labels[0], valid)


def start_branches(params: Any, model_state: Any) -> tuple[Any, Any]:
    """(params, model_state) of both branches, each as the one model that is given."""

    def both(tree):  # two copies: donating one buffer under two names is an error
        return {FROZEN: tree, TRAINED: jax.tree.map(jnp.copy, tree)}

    return both(params), {name: both(tree) for name, tree in model_state.items()}


def start_from(task: Task, params: Any, model_state: Any) -> Task:
    """The task, its two branches starting as the one model that is given, as arrays."""
    return dataclasses.replace(task, init=lambda key, batch: start_branches(params, model_state))


def is_frozen(path: str) -> bool:
    """Whether a parameter is the frozen branch's, as `make_optimizer` takes it."""
    return path.startswith(f"{FROZEN}/")


def window_difficulty(
    goals: Sequence[Goal],
    logits: jax.Array,
    labelled: Sequence[tuple[jax.Array, jax.Array]],
) -> jax.Array:
    """(B,): mean loss of each window's labelled frames, of several goals added by their weights.

    -inf for a window without any. logits (B, R, C); labelled: as from `goal_labels`. A loss that
    judges rows together (as the CCC, which says little of a window whose labels hardly move) gives
    way to the first of the track's that does not: of VA the squared error.
    """
    total, some = 0.0, False
    for goal, own, (labels, valid) in zip(goals, goal_logits(goals, logits), labelled, strict=True):
        losses, weights = _row_losses(goal, own, labels, valid)
        loss, weight = losses.sum(-1), weights.sum(-1)
        counts = weight > 0
        total += goal.weight * jnp.where(counts, loss / jnp.where(counts, weight, 1.0), 0.0)
        some |= counts
    return jnp.where(some, total, -jnp.inf)


def _row_losses(goal: Goal, logits, labels, valid):
    """(losses, weights) of each row."""
    if goal.track.find_loss(goal.loss_name).per_row:
        return goal.loss(logits, labels, valid)
    plain = next(loss for loss in goal.track.losses().values() if loss.per_row)
    outputs = goal.activate(logits, train=True) if plain.of_values else logits
    return plain.function(outputs, labels, valid)


def draw_mixture(
    key: jax.Array, difficulty: jax.Array, beta: Sequence[float], hard: float
) -> tuple[jax.Array, jax.Array]:
    """(a ~ Beta(*beta), (B,) the window that each of the batch is mixed with).

    Drawn evenly, again and again, from the share `hard` of the windows with a finite difficulty
    (B,) that are the most difficult; of equals the first.
    """
    keys = jax.random.split(key)
    labelled = (difficulty > -jnp.inf).sum()
    count = jnp.maximum(jnp.round(hard * labelled), 1).astype(jnp.int32)
    order = jnp.argsort(-difficulty)
    place = jax.random.randint(keys[1], difficulty.shape, 0, count)
    return jax.random.beta(keys[0], *beta), order[place]
