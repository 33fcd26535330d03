"""Config sections become steps, losses, optimisers and models."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from abaw_jax.errors import InputError
from abaw_jax.stages import parts
from abaw_jax.stages.check import check_config
from abaw_jax.tracks import AU, EXPR, VA
from abaw_jax.tracks.together import join_labels
from abaw_jax.training.partition import make_mesh
from abaw_jax.training.state import named_leaves
from abaw_jax.training.step import abstract_state, make_train_step
from configs import expr, va


@pytest.fixture
def config():
    return expr.get_config("tiny").unlock()


def test_a_section_chooses_loss_output_and_weights(config):
    section = config.sequence
    section.update(
        loss="binary_cross_entropy", label_smoothing=0.0, class_weights="max",
        positive_weights="ratio", output="sigmoid",
    )  # fmt: skip
    labels = np.random.default_rng(0).integers(0, 2, (50, 12))
    weights = parts.make_loss_weights(section, labels, AU)["au"]
    on = labels.sum(0)
    assert weights["class_weights"] == pytest.approx(tuple(on.max() / on))
    assert weights["positive_weights"] == pytest.approx(tuple((50 - on) / on))
    arguments = parts.make_loss_arguments(section, weights)
    assert arguments == {
        "loss": "binary_cross_entropy", "activation": "sigmoid", "label_smoothing": None, **weights,
    }  # fmt: skip
    parts.make_sequence_task(config, AU, {"au": weights})
    section.class_weights = "none"
    assert list(parts.make_loss_weights(section, labels, AU)["au"]) == ["positive_weights"]
    section.update(loss="focal", loss_options={"gamma": 3.0})
    assert parts.make_loss_arguments(section, None)["gamma"] == 3.0


@pytest.mark.parametrize(
    ("track", "changes", "named"),
    [
        ("expr", {"loss": "ccc"}, "EXPR has no such loss; expected one of cross_entropy, focal"),
        ("expr", {"output": "tanh"}, "EXPR has no such activation; expected one of softmax"),
        ("expr", {"loss": "soft_f1"}, "has no option 'label_smoothing'; it takes none"),
        ("expr", {"loss_options": {"gama": 1.0}}, "has no option 'gama'; it takes class_weights"),
        ("expr", {"class_weights": (1.0, 2.0)}, "expected 8 numbers"),
        ("expr", {"positive_weights": "ratio"}, "has no option 'positive_weights'"),
        ("va", {"loss": "ccc", "label_smoothing": 0.0, "class_weights": "max"}, "no classes"),
        ("va", {"loss": "mse", "label_smoothing": 0.1}, "has no option 'label_smoothing'"),
    ],
)
@pytest.mark.parametrize("section", ["finetune", "sequence"])
def test_impossible_losses_are_named(config, section, track, changes, named):
    config.track = track
    with config.ignore_type():
        for name in ("finetune", "sequence"):
            config[name].update(loss=None, label_smoothing=0.0, class_weights="none")
        config[section].update({"label_smoothing": 0.1, **changes})
    with pytest.raises(InputError, match=rf"^config\.{section}: ") as caught:
        check_config(config, make_mesh())
    assert named in str(caught.value)


@pytest.fixture
def together():
    return va.get_config("tiny,together").unlock()


def test_each_track_has_weights_of_its_own_labels(together):
    section = together.sequence
    section.also.expr.class_weights = "max"
    expr_labels = np.array([0] * 16 + [1] * 4 + [-1] * 4)[:, None]
    au_labels = np.tile([1, 0] * 6, (24, 1))
    au_labels[:6] = 1
    labels = join_labels([np.zeros((24, 2), np.float32), au_labels, expr_labels])
    weights = parts.make_loss_weights(section, labels, VA)
    assert list(weights) == ["va", "au", "expr"] and weights["va"] == {}
    assert weights["expr"] == {"class_weights": (1, 4, 0, 0, 0, 0, 0, 0)}
    assert weights["au"]["positive_weights"][1] == pytest.approx(3**0.5)  # 6 rows of 24 are on
    task = parts.make_sequence_task(together, VA, weights)
    shapes = {"features": jnp.zeros((2, 4, 8)), "mask": jnp.ones((2, 4), bool)}
    params, state = jax.eval_shape(task.init, jax.random.key(0), shapes)
    assert {"head", "head_au", "head_expr"} < params.keys()
    assert state["batch_stats"].keys() == {"head", "head_au", "head_expr"}


@pytest.mark.parametrize("section", ["finetune", "sequence"])
@pytest.mark.parametrize(
    ("key", "part", "read", "named"),
    [
        ("exqr", {}, (), "config.SECTION.also: 'exqr' is not a track; .*did you mean 'expr'"),
        ("va", {}, (), "config.SECTION.also.va: tracks VA, VA: one stands twice"),
        (
            "emi",
            {},
            (),
            "config.SECTION.also.emi: .*labels of EMI are of clips; it is learnt alone",
        ),
        (
            "ce",
            {},
            ("expr",),
            "config.SECTION.also.ce: labels of ce are not read; name it in config.",
        ),
        ("ce", {}, ("c",), "config.corpus.also: 'c' is not a track"),
        (
            "ce",
            {"los": "focal"},
            ("ce",),
            "config.SECTION.also.ce: 'los' is not a key of a further",
        ),
        ("ce", {"weight": 0.0}, ("ce",), "config.SECTION.also.ce.weight: 0.0; expected a number"),
        ("ce", 1.0, ("ce",), "config.SECTION.also.ce: 1.0; expected {'weight': ..., 'loss': ...}"),
        ("ce", {"loss": "ccc"}, ("ce",), "config.SECTION: .*CE has no such loss"),
        ("ce", {"class_weights": (1.0,)}, ("ce",), "config.SECTION: .*expected 7 numbers"),
    ],
)
def test_impossible_further_tracks_are_named(together, section, key, part, read, named):
    for name in ("finetune", "sequence"):
        together[name].also = {}
    with together.ignore_type():
        together.corpus.also = read
        together[section].also = {key: part}
    with pytest.raises(InputError, match="^" + named.replace("SECTION", section)) as caught:
        check_config(together, make_mesh())
    assert "\n" not in str(caught.value)


def test_mixing_with_a_further_loss_of_rows_together_is_named(together):
    together.finetune.update(loss="mse", mixup=0.5)
    together.finetune.also.au.update(loss="soft_f1", positive_weights="none")
    with pytest.raises(InputError, match=r"^config\.finetune: loss soft_f1 of AU: judges rows"):
        check_config(together, make_mesh())


def test_count_steps(config):
    config.finetune.update(epochs=2.5, batch_size=16)
    steps, epoch = parts.count_steps(config.finetune, 100)
    assert epoch == 6.25
    assert steps == math.ceil(2.5 * 6.25) == 16
    assert parts.count_steps(config.finetune, 1)[0] == 1  # fewer examples than a batch has


def test_schedule_warms_up_then_falls(config):
    config.finetune.update(epochs=10.0, batch_size=10)
    config.finetune.optimizer.update(lr=0.1, warmup_epochs=2.0, warmup_lr=0.01, final_lr=0.001)
    rate = parts.make_schedule_optimizer(config.finetune, 100).learning_rate
    assert float(rate(0)) == pytest.approx(0.01)
    assert float(rate(10)) == pytest.approx(0.055)
    assert float(rate(20)) == pytest.approx(0.1)
    assert float(rate(60)) == pytest.approx(0.0505)
    assert float(rate(100)) == pytest.approx(0.001)


def test_schedule_starts_anew_after_each_period(config):
    config.finetune.update(epochs=6.0, batch_size=10)
    config.finetune.optimizer.update(lr=0.1, warmup_epochs=0.0, final_lr=0.02, period_epochs=2.0)
    rate = parts.make_schedule_optimizer(config.finetune, 100).learning_rate
    found = [float(rate(step)) for step in (0, 10, 20, 30, 40)]
    np.testing.assert_allclose(found, [0.1, 0.06, 0.1, 0.06, 0.1], rtol=1e-5)


def test_warm_up_longer_than_the_run(config):
    config.finetune.update(epochs=1.0, batch_size=10)
    config.finetune.optimizer.update(lr=0.1, warmup_epochs=5.0)
    rate = parts.make_schedule_optimizer(config.finetune, 100).learning_rate
    rates = np.array([float(rate(step)) for step in range(11)])
    np.testing.assert_allclose(rates, np.arange(11) / 100, atol=1e-8)


def lowered_step(config, frozen):
    """(state, batch, step before it is compiled) of fine-tuning with that many frozen blocks."""
    config.finetune.frozen_blocks = frozen
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, (4, 16, 16, 3), np.uint8),
        "label": rng.integers(0, 8, (4, 1), np.int32),
    }
    task = parts.make_finetune_task(config, EXPR)
    optimizer = parts.make_schedule_optimizer(config.finetune, 4)
    mesh = make_mesh((1, 1, 1), jax.devices()[:1])
    with jax.set_mesh(mesh):
        init, _ = abstract_state(task, optimizer, seed=0, batch=batch, mesh=mesh, ema_decay=0.5)
        state = init()
        step = jax.jit(make_train_step(task, optimizer, seed=0, ema_decay=0.5))
        return state, batch, step.lower(state, batch)


def test_frozen_blocks_stay_and_save_their_backward_pass(config):
    config.image.size = 16
    config.encoder.update(width=16, depth=3, remat=True)
    config.finetune.update(batch_size=4, epochs=9.0)
    config.finetune.optimizer.update(lr=0.1, warmup_epochs=0.0, weight_decay=0.5, layer_decay=0.8)
    state, batch, lowered = lowered_step(config, 2)
    compiled = lowered.compile()
    after = compiled(compiled(state, batch)[0], batch)[0]
    frozen = ("patch_embed", "cls_token", "blocks_0", "blocks_1")
    start = named_leaves(state.params)
    for tree in (after.params, after.ema):
        for path, leaf in named_leaves(tree).items():
            same = np.asarray(leaf).tobytes() == np.asarray(start[path]).tobytes()
            assert same == any(name in path for name in frozen), path
    arrays = [path for path, leaf in named_leaves(after.opt_state).items() if jnp.ndim(leaf)]
    assert arrays and not any(name in path for path in arrays for name in frozen)
    # Of 12 passes through a block (3 forward, 3 again, 3 x 2 backward) 6 are left.
    whole = lowered_step(config, 0)[2]
    assert lowered.cost_analysis()["flops"] < 0.65 * whole.cost_analysis()["flops"]


def test_dtype_reaches_the_encoder(config):
    config.encoder.dtype = "bfloat16"
    assert parts.make_encoder(config).dtype == parts.DTYPES["bfloat16"]


def test_pretraining_drops_no_path(config):
    config.encoder.drop_path = 0.3
    assert parts.make_encoder(config).drop_path == 0.3
    transforms = parts.make_transforms(config)
    assert transforms.keys() == {"pretrain", "finetune"}
