import jax
import jax.numpy as jnp
import numpy as np
import pytest

from abaw_jax.errors import InputError
from abaw_jax.models.heads import FrameClassifier
from abaw_jax.models.tcn import TemporalConvNet
from abaw_jax.models.vit import ViT
from abaw_jax.training.optim import (
    decay_mask,
    freeze_blocks,
    layer_scales,
    make_optimizer,
    make_schedule,
)
from abaw_jax.training.state import named_leaves


def test_decay_of_convolutions_is_of_their_kernels_alone():
    model, x = TemporalConvNet((4, 3)), jnp.zeros((1, 6, 4))
    mask = named_leaves(decay_mask(jax.eval_shape(model.init, jax.random.key(0), x)["params"]))
    assert {path for path, decayed in mask.items() if decayed} == {
        path for path in mask if path.endswith("kernel")
    }
    assert {path.split("/")[-1] for path in mask} == {"kernel", "scale", "bias", "negative_slope"}


def vit_params():
    model = FrameClassifier(ViT(image_size=8, patch_size=4, width=8, depth=3, heads=2), 8)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    return shapes["params"]


def follow(optimizer, params, gradients):
    state = optimizer.init(params)
    for gradient in gradients:
        updates, state = optimizer.update(gradient, state, params)
        params = jax.tree.map(jnp.add, params, updates)
    return params, state


def test_warm_up_then_cosine():
    rate = make_schedule(lr=1.0, steps=30, warmup_steps=10, warmup_lr=0.5, final_lr=0.2)
    found = [float(rate(step)) for step in (0, 5, 10, 20, 30, 99)]
    np.testing.assert_allclose(found, [0.5, 0.75, 1.0, 0.6, 0.2, 0.2], rtol=1e-6)


def test_cosine_restarts_after_each_period():
    rate = make_schedule(lr=1.0, steps=40, period_steps=10, final_lr=0.0)
    found = [float(rate(step)) for step in (0, 5, 10, 15, 20)]
    np.testing.assert_allclose(found, [1, 0.5, 1, 0.5, 1], atol=1e-6)


def test_steps_follow_a_warm_up():
    rate = make_schedule(lr=0.8, steps=20, warmup_steps=2, schedule="step", period_steps=5,
                         step_factor=0.5)  # fmt: skip
    found = [float(rate(step)) for step in (1, 2, 6, 7, 11, 12, 19)]
    np.testing.assert_allclose(found, [0.4, 0.8, 0.8, 0.4, 0.4, 0.2, 0.1], rtol=1e-6)


def test_constant():
    rate = make_schedule(lr=0.3, steps=10, warmup_steps=2, schedule="constant")
    np.testing.assert_allclose([float(rate(s)) for s in (0, 1, 2, 9)], [0, 0.15, 0.3, 0.3])


@pytest.mark.parametrize("name", ["adamw", "adam"])
def test_updates_follow_the_papers(name):
    random = np.random.default_rng(1)
    w = random.normal(size=(3, 2))
    gradients = [random.normal(size=(3, 2)) for _ in range(4)]
    optimizer = make_optimizer(
        name=name, lr=0.1, steps=4, schedule="constant", weight_decay=0.3, b2=0.99
    )
    found, _ = follow(optimizer, {"kernel": jnp.asarray(w)}, [{"kernel": g} for g in gradients])
    m = v = np.zeros_like(w)
    for t, g in enumerate(gradients, 1):
        g = g + (0.3 * w if name == "adam" else 0)
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g * g
        step = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.99**t)) + 1e-8)
        w = w - 0.1 * (step + (0.3 * w if name == "adamw" else 0))
    np.testing.assert_allclose(found["kernel"], w, rtol=1e-5)


def test_only_kernels_decay():
    decayed = {path for path, decays in named_leaves(decay_mask(vit_params())).items() if decays}
    assert decayed == {path for path in named_leaves(vit_params()) if path.endswith("/kernel")}
    # The fused projection's bias has three dimensions and is a bias all the same.
    assert "encoder/blocks_0/attn/qkv/bias" not in decayed and len(decayed) == 3 * 4 + 2


def test_layer_decay_counts_layers_as_beit_does():
    scales = named_leaves(layer_scales(vit_params(), 0.5))
    assert scales["encoder/cls_token"] == scales["encoder/patch_embed/kernel"] == 0.5**4
    assert scales["encoder/blocks_0/mlp/fc1/kernel"] == 0.5**3
    assert scales["encoder/blocks_2/norm1/scale"] == 0.5
    assert scales["fc_norm/scale"] == scales["head/kernel"] == 1
    assert set(scales.values()) == {0.5**i for i in range(5)}


def test_layer_decay_scales_the_step_and_the_decay():
    params = {"encoder": {"blocks_0": {"kernel": jnp.ones((2, 2))}}, "head": jnp.ones((2, 2))}
    gradient = jax.tree.map(jnp.ones_like, params)
    options = dict(lr=0.1, steps=1, schedule="constant", weight_decay=0.5)
    plain, _ = follow(make_optimizer(**options), params, [gradient])
    scaled, _ = follow(make_optimizer(**options, layer_decay=0.25), params, [gradient])
    change = jax.tree.map(lambda after, before: after - before, (plain, scaled), (params, params))
    ratio = change[1]["encoder"]["blocks_0"]["kernel"] / change[0]["encoder"]["blocks_0"]["kernel"]
    np.testing.assert_allclose(ratio, 0.25, rtol=1e-5)
    np.testing.assert_array_equal(scaled["head"], plain["head"])


def test_clipping_uses_the_norm_of_all_gradients():
    params = {"a": jnp.zeros(1), "b": jnp.zeros(1)}
    options = dict(lr=1.0, steps=1, schedule="constant", eps=1.0)
    clipped = make_optimizer(**options, clip_norm=1.0)
    found, _ = follow(clipped, params, [{"a": jnp.array([30.0]), "b": jnp.array([40.0])}])
    expected, _ = follow(
        make_optimizer(**options), params, [{"a": jnp.array([0.6]), "b": jnp.array([0.8])}]
    )
    np.testing.assert_allclose([found["a"], found["b"]], [expected["a"], expected["b"]], rtol=1e-6)


def test_frozen_parameters_stay_and_have_no_state():
    params = {"encoder": {"kernel": jnp.ones((2, 2))}, "head": {"kernel": jnp.ones((2, 2))}}
    optimizer = make_optimizer(
        lr=0.1, steps=9, weight_decay=0.5, frozen=lambda path: path.startswith("encoder/")
    )
    found, state = follow(optimizer, params, [jax.tree.map(jnp.ones_like, params)] * 2)
    np.testing.assert_array_equal(found["encoder"]["kernel"], 1)
    assert (found["head"]["kernel"] < 1).all()
    arrays = [path for path, leaf in named_leaves(state).items() if leaf.ndim]
    assert len(arrays) == 2 and all("head" in path for path in arrays)


def test_frozen_blocks_count_from_the_patches_up():
    assert freeze_blocks(0) is None
    paths = set(named_leaves(vit_params()))
    stem = {path for path in paths if "patch_embed" in path or "cls_token" in path}
    two = {path for path in paths if "/blocks_0/" in path or "/blocks_1/" in path}
    assert len(stem) == 3 and len(two) == 2 * 12
    assert set(filter(freeze_blocks(2), paths)) == stem | two
    last = set(filter(freeze_blocks(3), paths))
    assert paths - last == {f"{n}/{p}" for n, p in
                            (("fc_norm", "scale"), ("fc_norm", "bias"), ("head", "kernel"),
                             ("head", "bias"))}  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(name="sgdx"), "optimizer: 'sgdx'"),
        (dict(schedule="stop"), "schedule: 'stop'"),
        (dict(schedule="step"), "schedule 'step' with a period of None steps"),
        (dict(schedule="step", period_steps=2, step_factor=2.0), "factor 2.0; expected"),
        (dict(warmup_steps=11), "warmup_steps: 11 of 10 steps"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(InputError, match=message):
        make_optimizer(**{"lr": 1.0, "steps": 10, **options})
