"""A frozen and a trained branch mixed on hard windows: against NumPy, and what stays as it was."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.special import expit, log_softmax

from abaw_jax.models.sequence import SequenceModel
from abaw_jax.tasks import make_collaborate_task, make_sequences_task
from abaw_jax.tasks.collaborate import (
    draw_mixture,
    is_frozen,
    start_branches,
    start_from,
    window_difficulty,
)
from abaw_jax.tasks.goals import FACTORS, goal_labels, make_goal
from abaw_jax.tracks import AU, EXPR, TRACKS, VA
from abaw_jax.training.optim import make_optimizer
from abaw_jax.training.partition import make_mesh
from abaw_jax.training.rng import stream_keys
from abaw_jax.training.state import named_leaves
from abaw_jax.training.step import abstract_state, make_train_step, put_batch

B, T, D = 8, 6, 5
RNGS = stream_keys(3, 0)
WEIGHTS = np.linspace(0.5, 4.0, 12)
OPTIONS = {
    "va": {"loss": "ccc", "activation": "clip"},
    "expr": {"class_weights": tuple(WEIGHTS[:8])},
    "au": {"class_weights": tuple(WEIGHTS)},
}


def model_of(track, **options):
    return SequenceModel(
        width=8, depth=1, heads=2, mlp_width=8, head_width=4, outputs=track.outputs, **options
    )


def draw_labels(track, rng):
    """A third without a label; of the last window all, and the one before is padding alone."""
    shape = (B, T, track.label_width)
    if track.label_type == "float32":
        labels = rng.uniform(-1, 1, shape).astype(np.float32)
    else:
        labels = rng.integers(0, 8 if track is EXPR else 2, shape).astype(np.int32)
    labels[rng.random((B, T)) < 0.33, 0] = track.invalid
    labels[-1] = track.invalid
    return labels


def draw_batch(*tracks):
    rng = np.random.default_rng(5)
    mask = np.arange(T) < np.array([6, 6, 3, 6, 4, 6, 0, 6])[:, None]
    labels = [draw_labels(track, rng).astype(np.float32) for track in tracks]
    if len(tracks) == 1:
        labels = [labels[0].astype(tracks[0].label_type)]
    features = rng.normal(size=(B, T, D)).astype(np.float32)
    return {"features": features, "mask": mask, "label": np.concatenate(labels, -1)}


def variables_of(model, batch, seed):
    """Parameters far from small, and statistics of a run."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), batch["features"], batch["mask"])
    rng = np.random.default_rng(seed)
    params = jax.tree.map(lambda x: np.float32(rng.normal(0, 0.5, x.shape)), shapes["params"])
    state = jax.tree.map(
        lambda x: np.float32(rng.uniform(0.5, 1.5, x.shape)), shapes["batch_stats"]
    )
    return {"params": params, "batch_stats": state}


@functools.cache
def case(key):
    """(task, compiled loss, model, its two branches' variables, batch) of a track."""
    track = TRACKS[key]
    model, batch = model_of(track), draw_batch(track)
    task = make_collaborate_task(model, track, hard=0.4, **OPTIONS[track.key])
    branches = {name: variables_of(model, batch, i) for i, name in enumerate(("frozen", "trained"))}
    return task, jax.jit(task.loss, static_argnums=4), model, branches, batch


def joined(branches):
    """(params, model_state) as the task has them."""
    params, state = (
        {name: of[key] for name, of in branches.items()} for key in ("params", "batch_stats")
    )
    return params, {"batch_stats": state}


def row_losses(track, logits, labels):
    """Losses and weights of rows, written out; of VA, whose CCC is of none, the squared error."""
    logits = logits.astype(np.float64)
    if track is VA:
        return ((logits.clip(-1, 1) - labels) ** 2).mean(-1), np.ones(len(labels))
    if track is AU:
        p = expit(logits)
        terms = labels * np.log(p) + (1 - labels) * np.log(1 - p)
        return -(WEIGHTS * terms).mean(-1), np.ones(len(labels))
    weights = WEIGHTS[labels[:, 0]]
    return -weights * log_softmax(logits, -1)[np.arange(len(labels)), labels[:, 0]], weights


def batch_loss(track, logits, labels):
    """(sum, weight) of the task's loss over rows."""
    if track is not VA:
        return tuple(part.sum() for part in row_losses(track, logits, labels))
    x, y = logits.astype(np.float64).clip(-1, 1), labels.astype(np.float64)
    cov = ((x - x.mean(0)) * (y - y.mean(0))).mean(0)
    ccc = 2 * cov / (x.var(0) + y.var(0) + (x.mean(0) - y.mean(0)) ** 2)
    return len(x) * (1 - ccc.mean()), len(x)


@pytest.mark.parametrize("key", ["va", "expr", "au"])
def test_the_loss_is_that_of_the_mixture_against_both_labels(key):
    track, (_, loss, model, branches, batch) = TRACKS[key], case(key)
    labelled = batch["mask"] & track.valid(batch["label"])
    run = jax.jit(model.apply)
    first = np.asarray(run(branches["frozen"], batch["features"], batch["mask"]))
    means = np.full(B, -np.inf)
    for b in np.flatnonzero(labelled.any(1)):
        losses, weights = row_losses(track, first[b][labelled[b]], batch["label"][b][labelled[b]])
        means[b] = losses.sum() / weights.sum()
    assert np.isfinite(means).sum() == B - 2
    hardest = np.argsort(-means)[:2]  # of 6 labelled windows, a share of 0.4
    a, chosen = (
        np.asarray(x) for x in draw_mixture(RNGS["mixup"], jnp.asarray(means), (5, 2), 0.4)
    )
    assert set(chosen.tolist()) <= set(hardest.tolist())

    other = {name: values[chosen] for name, values in batch.items()}
    both = labelled & labelled[chosen]
    assert 5 < both.sum() < labelled.sum()
    second, state = model.apply(
        branches["trained"], other["features"], other["mask"], both, train=True,
        mutable=["batch_stats"],
    )  # fmt: skip
    mixed = (a * first + (1 - a) * np.asarray(second))[both]
    own, theirs = (batch_loss(track, mixed, x["label"][both]) for x in (batch, other))
    expected = [a * x + (1 - a) * y for x, y in zip(own, theirs, strict=True)]

    params, model_state = joined(branches)
    loss_sum, aux = loss(params, model_state, batch, RNGS, True)
    np.testing.assert_allclose((loss_sum, aux.weight), expected, rtol=1e-5)
    want = {"frozen": branches["frozen"]["batch_stats"], "trained": state["batch_stats"]}
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-5), aux.model_state,
        {"batch_stats": want},
    )  # fmt: skip


def test_predictions_mix_the_logits_of_one_window():
    task, _, model, branches, batch = case("expr")
    inputs = {k: batch[k] for k in ("features", "mask")}
    found = jax.jit(task.predict)(*joined(branches), inputs)["probabilities"]
    logits = [np.asarray(model.apply(of, *inputs.values())) for of in branches.values()]
    expected = np.exp(log_softmax(0.8 * logits[0] + 0.2 * logits[1], -1))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_it_starts_as_the_one_model():
    model, batch = model_of(EXPR), draw_batch(EXPR)
    variables = variables_of(model, batch, 0)
    given = variables["params"], {"batch_stats": variables["batch_stats"]}
    task = start_from(make_collaborate_task(model, EXPR), *given)
    started = jax.jit(task.init)(jax.random.key(0), batch)
    jax.tree.map(np.testing.assert_array_equal, started, start_branches(*given))
    inputs = {k: batch[k] for k in ("features", "mask")}
    want = jax.jit(make_sequences_task(model, EXPR).predict)(*given, inputs)["probabilities"]
    found = jax.jit(task.predict)(*started, inputs)["probabilities"]
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-6)


def test_padding_changes_nothing():
    _, loss, _, branches, batch = case("expr")
    other = {name: values.copy() for name, values in batch.items()}
    other["features"][~batch["mask"]] = 9.0
    other["label"][~batch["mask"]] = 3
    found = [loss(*joined(branches), x, RNGS, True) for x in (batch, other)]
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(close, *found)


def test_a_batch_of_no_labels_weighs_nothing_and_moves_nothing():
    task, _, _, branches, batch = case("expr")
    batch = batch | {"label": np.full_like(batch["label"], -1)}
    params, state = joined(branches)
    gradient = jax.jit(jax.value_and_grad(lambda p: task.loss(p, state, batch, RNGS, True)[0]))
    value, found = gradient(params)
    assert value == 0 and all((leaf == 0).all() for leaf in jax.tree.leaves(found))


def test_hard_windows_are_drawn_evenly_and_the_share_from_the_beta_distribution():
    difficulty = jnp.array([0.1, -jnp.inf, 3.0, 0.5, 3.0, 0.2, -jnp.inf, 0.3])
    keys = jax.random.split(jax.random.key(0), 4000)
    run = jax.jit(jax.vmap(draw_mixture, (0, None, None, None)))

    def draws(values, hard):
        a, chosen = run(keys, values, (5.0, 2.0), hard)
        return np.asarray(a), np.bincount(np.asarray(chosen).ravel(), minlength=B) / chosen.size

    a, chosen = draws(difficulty, 0.5)  # three of the six that are labelled
    np.testing.assert_allclose(chosen, np.isin(np.arange(B), (2, 4, 3)) / 3, atol=0.02)
    assert stats.kstest(a, stats.beta(5, 2).cdf).pvalue > 0.01
    np.testing.assert_array_equal(np.flatnonzero(draws(difficulty, 1e-6)[1]), [2])
    np.testing.assert_array_equal(np.flatnonzero(draws(difficulty, 1.0)[1]), [0, 2, 3, 4, 5, 7])
    np.testing.assert_array_equal(np.flatnonzero(draws(jnp.full(B, -jnp.inf), 0.5)[1]), [0])


def test_several_tracks_weigh_as_their_goals_say():
    """Each by its own frames; the hardest windows are those of the weighted sum."""
    also = (("expr", 8),)
    goal = make_goal(EXPR, weight=2.0, **OPTIONS["expr"])
    model, batch = model_of(AU, also=also), draw_batch(AU, EXPR)
    task = make_collaborate_task(model, AU, hard=0.4, also=(goal,), **OPTIONS["au"])
    branches = {name: variables_of(model, batch, i) for i, name in enumerate(("frozen", "trained"))}
    loss_sum, aux = jax.jit(task.loss, static_argnums=4)(*joined(branches), batch, RNGS, True)
    parts = [aux.metrics[name] for name in ("au_loss", "expr_loss")]
    expected = sum(w * float(x / n) for w, (x, n) in zip((1, 2), parts, strict=True))
    assert float(loss_sum / aux.weight) == pytest.approx(expected, rel=1e-5)
    assert FACTORS not in task.whole(batch)

    goals = make_goal(AU, **OPTIONS["au"]), goal
    logits = jax.jit(model.apply)(branches["frozen"], batch["features"], batch["mask"])
    found = window_difficulty(goals, logits, goal_labels(goals, batch))
    columns = (slice(0, 12), slice(0, 12)), (slice(12, 13), slice(12, 20))
    for b in range(B):
        total = -np.inf
        for one, (rows, outputs) in zip(goals, columns, strict=True):
            labels = batch["label"][b, :, rows].astype(np.int32)
            keep = batch["mask"][b] & one.track.valid(labels)
            if keep.any():
                losses, weights = row_losses(
                    one.track, np.asarray(logits)[b, keep][:, outputs], labels[keep]
                )
                total = max(total, 0) + one.weight * losses.sum() / weights.sum()
        assert float(found[b]) == pytest.approx(total, rel=1e-5)


def test_the_frozen_branch_stays_and_devices_change_nothing():
    """A step with decay, in two micro-batches, on one device and on eight."""
    model, batch = model_of(EXPR), draw_batch(EXPR)
    batch = {name: np.concatenate([values, values[::-1]]) for name, values in batch.items()}
    variables = variables_of(model, batch, 0)
    given = variables["params"], {"batch_stats": variables["batch_stats"]}
    task = start_from(make_collaborate_task(model, EXPR), *given)
    optimizer = make_optimizer(lr=1e-2, steps=4, weight_decay=0.1, clip_norm=1.0, frozen=is_frozen)
    ends = []
    for shape, devices in (((1, 1, 1), jax.devices()[:1]), ((4, 2, 1), jax.devices())):
        mesh = make_mesh(shape, devices)
        with jax.set_mesh(mesh):
            init, _ = abstract_state(task, optimizer, seed=0, batch=batch, mesh=mesh, ema_decay=0.5)
            state = init()
            step = jax.jit(make_train_step(task, optimizer, seed=0, accumulate=2, ema_decay=0.5))
            state, metrics = step(state, put_batch(batch, mesh))
        ends.append(jax.device_get((state, metrics["loss"], metrics["grad_norm"])))
    state = ends[0][0]
    for tree in (state.params, state.ema):
        jax.tree.map(np.testing.assert_array_equal, tree["frozen"], given[0])
    stats = state.model_state["batch_stats"]
    jax.tree.map(np.testing.assert_array_equal, stats["frozen"], given[1]["batch_stats"])
    moments = [path for path in named_leaves(state.opt_state) if "/mu/" in path]
    assert moments and not any("/frozen/" in path for path in moments)
    moved = named_leaves(jax.tree.map(lambda x, y: np.abs(x - y).max(), state.params["trained"],
                                      given[0]))  # fmt: skip
    assert moved["head/fc2/kernel"] > 1e-3 and moved["encoder/layers_0/attn/qkv/kernel"] > 1e-3
    # Parameters without a gradient, as biases of keys, go where Adam sends their rounding.
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    jax.tree.map(close, *[(end.model_state, *figures) for end, *figures in ends])
