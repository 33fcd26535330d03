"""The sequence models of four systems equal PyTorch's in outputs, losses and every gradient.

The golden files are written by tests/golden/make_golden_parts.py.
"""

import jax
import numpy as np
from test_model_parity import Golden, same_tree

from abaw_jax.models.recurrent import ClipModel
from abaw_jax.models.sequence import SequenceModel
from abaw_jax.tasks import collaborate
from abaw_jax.tasks.sequences import clip_features, make_sequences_task
from abaw_jax.tracks import AU, EMI, EXPR, VA
from abaw_jax.training.rng import stream_keys

FUXI_WEIGHTS = (1, 10.40, 16.23, 19.61, 1.856, 2.225, 5.611, 1.059)


def check_system(golden, task, model, batch, counted, *, loss_scale=1.0):
    """The task's loss on the golden weights, its gradients, the model's logits of the rows that
    count, and BatchNorm's statistics are those of the file. Returns a function of a batch to the
    loss and all these, compiled.

    counted: which of the predicted rows have a label. loss_scale: the file's loss over the task's.
    """
    params, state = jax.eval_shape(task.init, jax.random.key(0), batch)
    same_tree(golden.params, {"params": params})
    state = jax.tree_util.tree_map_with_path(
        lambda path, s: np.full(s.shape, path[-1].key == "var", np.float32), state
    )

    @jax.jit
    def compute(params, batch):
        def mean(params):
            total, aux = task.loss(params, state, batch, {}, True)
            return loss_scale * total / aux.weight, aux.model_state

        variables = {"params": params, **state}
        rows = counted if model.head == "frames" else counted[:, -1:]
        inputs = batch["features"], batch["mask"], rows
        logits, _ = model.apply(variables, *inputs, train=True, mutable=["batch_stats"])
        return jax.value_and_grad(mean, has_aux=True)(params), logits[rows]

    ((loss, state_after), gradients), logits = compute(golden.params, batch)
    np.testing.assert_allclose(logits, golden["logits"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(loss, golden["loss"], rtol=1e-5)
    check_norm(golden, state_after["batch_stats"], gradients)
    golden.check_gradients(gradients)
    return lambda batch: compute(golden.params, batch)


def check_norm(golden, statistics, gradients):
    """The head's BatchNorm has the file's statistics. Takes gradients that it makes zero out of
    both sides."""
    norm = statistics["head"]["norm"]
    np.testing.assert_allclose(norm["mean"], golden["mean"], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(norm["var"], golden["var"], rtol=1e-5)
    # BatchNorm takes a constant away again: the gradients of the biases before it are zero, and
    # what both sides hold there is rounding.
    before_norm = [gradients["head"]["fc1"].pop("bias")]
    before_norm.append(gradients["encoder"]["layers_1"]["norm2"].pop("bias"))
    for name in ("head/fc1/bias", "encoder/layers_1/norm2/bias"):
        before_norm.append(golden.arrays.pop(f"gradients/{name}"))
    largest = np.abs(golden["gradients/head/fc1/kernel"]).max()
    assert max(np.abs(gradient).max() for gradient in before_norm) < 1e-4 * largest


def marked(labels, valid, invalid):
    """Labels with the mark of those that are none."""
    return np.where(valid[..., None], labels, np.asarray(invalid, labels.dtype))


def test_ctyun():
    golden = Golden("system_ctyun")
    model = SequenceModel(12, 2, 2, mlp_width=10, head_width=8, outputs=2, tcn=(8, 6, 4))
    valid = golden.given("valid")
    batch = {
        "features": golden.given("features"),
        "mask": golden.given("mask"),
        "label": marked(golden.given("labels"), valid, VA.invalid),
    }
    task = make_sequences_task(model, VA, loss="ccc", activation="linear")
    # The loss is the sum of two, not the mean.
    check_system(golden, task, model, batch, valid, loss_scale=2.0)


def test_fuxi():
    golden = Golden("system_fuxi")
    model = SequenceModel(8, 2, 4, mlp_width=8, head_width=6, outputs=8, join=(9, 8), project=False)
    valid = golden.given("valid")
    batch = {
        "features": np.concatenate([golden.given("face"), golden.given("sound")], -1),
        "mask": golden.given("mask"),
        "label": marked(golden.given("labels")[..., None], valid, EXPR.invalid),
    }
    task = make_sequences_task(model, EXPR, loss="cross_entropy", class_weights=FUXI_WEIGHTS)
    check_system(golden, task, model, batch, valid)


def test_fuxi_second_stage(monkeypatch):
    golden = Golden("system_fuxi_second")
    model = SequenceModel(8, 2, 4, mlp_width=8, head_width=6, outputs=8, join=(9, 8), project=False)
    valid, draw, seen = golden.given("valid"), collaborate.draw_mixture, []
    batch = {
        "features": np.concatenate([golden.given("face"), golden.given("sound")], -1),
        "mask": golden.given("mask"),
        "label": marked(golden.given("labels")[..., None], valid, EXPR.invalid),
    }

    def mixture(key, difficulty, *given):
        seen.append(difficulty)
        return golden["a"], draw(key, difficulty, *given)[1]

    monkeypatch.setattr(collaborate, "draw_mixture", mixture)
    task = collaborate.make_collaborate_task(
        model, EXPR, hard=1 / 3, loss="cross_entropy", class_weights=FUXI_WEIGHTS
    )
    params, state = jax.eval_shape(task.init, jax.random.key(0), batch)
    same_tree(golden.params, {"params": params})
    state = jax.tree_util.tree_map_with_path(
        lambda path, s: np.full(s.shape, path[-1].key == "var", np.float32), state
    )

    def mean(params):
        total, aux = task.loss(params, state, batch, stream_keys(0, 0), True)
        return total / aux.weight, (aux.model_state["batch_stats"]["trained"], seen[-1])

    compute = jax.jit(jax.value_and_grad(mean, has_aux=True))
    (loss, (after, difficulty)), gradients = compute(golden.params)
    np.testing.assert_allclose(difficulty, golden["difficulty"], rtol=1e-5)
    np.testing.assert_allclose(loss, golden["loss"], rtol=1e-5)
    check_norm(golden, after, gradients["trained"])
    golden.check_gradients(gradients["trained"])
    assert not any(leaf.any() for leaf in jax.tree.leaves(gradients["frozen"]))


def test_fuxi_of_clips():
    golden, model = Golden("system_fuxi_emi"), ClipModel(4, 5, 7, outputs=6)
    batch = {}
    for name in ("frames", "sound", "words"):
        seen = golden.given(f"mask/{name}")[..., None]
        # Where there is no row it may hold anything.
        values = np.where(seen, golden.given(name), np.float32(9))
        key = "features" if name == "frames" else f"features/{name}"
        batch[key] = np.concatenate([values, seen], -1, dtype=np.float32)
    # A clip's label stands at each of its frames, of which the first is no padding.
    valid = golden.given("valid")
    labels = marked(golden.given("labels"), valid, EMI.invalid)
    batch["mask"] = golden.given("mask/frames")
    batch["label"] = np.repeat(labels[:, None], batch["mask"].shape[1], 1)
    task = make_sequences_task(model, EMI, loss="mse", activation="linear", clips=True)
    params, state = jax.eval_shape(task.init, jax.random.key(0), batch)
    same_tree(golden.params, {"params": params})
    assert not state

    @jax.jit
    def compute(params):
        def mean(params):
            total, aux = task.loss(params, {}, batch, {}, True)
            return total / aux.weight

        return jax.value_and_grad(mean)(params), model.apply(
            {"params": params}, clip_features(batch)
        )

    (loss, gradients), logits = compute(golden.params)
    np.testing.assert_allclose(logits, golden["logits"], rtol=1e-5, atol=5e-6)
    np.testing.assert_allclose(loss, golden["loss"], rtol=1e-6)
    golden.check_gradients(gradients)
    inputs = {name: values for name, values in batch.items() if name.startswith("features")}
    found = task.predict(golden.params, {}, inputs)["probabilities"]
    np.testing.assert_allclose(found, golden["logits"].clip(0, 1), rtol=1e-5, atol=5e-6)


def test_masked_vit():
    golden = Golden("system_masked_vit")
    model = SequenceModel(
        8, 2, 4, mlp_width=12, head_width=7, outputs=12, positions="sincos", project=False,
        head="last",
    )  # fmt: skip
    labels = golden.given("labels")
    valid = np.ones(labels.shape[:2], bool)
    valid[3, -1] = False
    batch = {
        "features": golden.given("features"),
        "mask": np.ones_like(valid),
        "label": marked(labels, valid, AU.invalid),
    }
    task = make_sequences_task(
        model, AU, loss="focal", last=True, alpha=0.25, gamma=2.0,
        class_weights=tuple(np.linspace(0.5, 1.0, 12)),
    )  # fmt: skip
    compute = check_system(golden, task, model, batch, valid)
    # Of the frames before the last, labels are not read.
    label = batch["label"].copy()
    label[:, :-1] = AU.invalid
    jax.tree.map(np.testing.assert_array_equal, compute(batch), compute(batch | {"label": label}))


def test_emotic_mae():
    golden = Golden("system_emotic_mae")
    model = SequenceModel(
        12, 0, 1, mlp_width=1, head_width=9, outputs=8, project=False, fuse="attention",
        fuse_width=12, head_between="relu",
    )  # fmt: skip
    valid = np.arange(6)[:, None] < 5
    batch = {
        "features": np.concatenate([golden.given("whole"), golden.given("composite")], -1),
        "mask": np.ones_like(valid),
        "label": marked(golden.given("labels")[..., None], valid, EXPR.invalid),
    }
    weights = tuple(np.linspace(0.5, 4.0, 8).tolist())
    task = make_sequences_task(model, EXPR, loss="cross_entropy", class_weights=weights)
    params, state = jax.eval_shape(task.init, jax.random.key(0), batch)
    same_tree(golden.params, {"params": params})
    assert not state  # there is no BatchNorm

    @jax.jit
    def compute(params):
        def mean(params):
            total, aux = task.loss(params, {}, batch, {}, True)
            return total / aux.weight

        logits = model.apply({"params": params}, batch["features"], batch["mask"])
        return jax.value_and_grad(mean)(params), logits[valid]

    (loss, gradients), logits = compute(golden.params)
    np.testing.assert_allclose(logits, golden["logits"], rtol=1e-5, atol=5e-6)
    np.testing.assert_allclose(loss, golden["loss"], rtol=1e-5)
    golden.check_gradients(gradients)
