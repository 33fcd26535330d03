"""Config sections become steps, weights of classes, optimisers and models."""

import math

import numpy as np
import pytest
from recipe_config import expr

from abaw_jax.errors import InputError
from abaw_jax.stages import parts
from abaw_jax.stages.check import check_config
from abaw_jax.training.partition import make_mesh


@pytest.fixture
def config():
    return expr.get_config("tiny").unlock()


def test_no_class_weights():
    assert parts.make_class_weights("none", np.array([[0], [1]]), 2) is None


def test_class_weights_by_their_formulas():
    labels = np.array([0] * 16 + [1] * 4 + [-1] * 7)[:, None]  # class 2 never occurs, -1: invalid
    inverse = parts.make_class_weights("inverse", labels, 3)
    # 1/16 and 1/4, times a factor for which 16 of the one and 4 of the other sum to 20
    assert inverse == pytest.approx((10 / 16, 10 / 4, 0))
    root = parts.make_class_weights("inverse_sqrt", labels, 3)
    assert root == pytest.approx((20 / 24, 20 / 12, 0))
    for weights in (inverse, root):
        assert np.array(weights)[[0] * 16 + [1] * 4].mean() == pytest.approx(1)


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


def test_warm_up_longer_than_the_run(config):
    config.finetune.update(epochs=1.0, batch_size=10)
    config.finetune.optimizer.update(lr=0.1, warmup_epochs=5.0)
    rate = parts.make_schedule_optimizer(config.finetune, 100).learning_rate
    rates = np.array([float(rate(step)) for step in range(11)])
    np.testing.assert_allclose(rates, np.arange(11) / 100, atol=1e-8)


def test_dtype_reaches_the_encoder(config):
    config.encoder.dtype = "bfloat16"
    assert parts.make_encoder(config).dtype == parts.DTYPES["bfloat16"]


def test_pretraining_drops_no_path(config):
    config.encoder.drop_path = 0.3
    assert parts.make_encoder(config).drop_path == 0.3
    transforms = parts.make_transforms(config)
    assert transforms.keys() == {"pretrain", "finetune"}


@pytest.mark.parametrize("scale", expr.SCALES)
def test_every_scale_passes_the_check(scale):
    check_config(expr.get_config(scale), make_mesh())


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("encoder.dtype", "float61", "one of float32, bfloat16"),
        ("encoder.heads", 5, "multiple of config.encoder.heads = 5"),
        ("encoder.heads", 0, "config.encoder.width"),
        ("encoder.width", 34, "multiple of 4"),
        ("encoder.patch_size", 5, "multiple of config.encoder.patch_size = 5"),
        ("image.mean", (0.5, 0.5), "expected 3 numbers"),
        ("pretrain.mask_ratio", 1.0, "below 1"),
        ("pretrain.accumulate", 0, "at least 1"),
        ("pretrain.crop_scale", (0.9, 0.1), "rising order"),
        ("finetune.pooling", "max", "one of mean, cls"),
        ("finetune.class_weights", "inverze", "one of none, inverse, inverse_sqrt"),
        ("finetune.batch_size", 0, "at least 1"),
        ("finetune.batch_size", 12, "multiple of 8"),
        ("finetune.evaluations", 0, "at least 1"),
        ("extract.batch_size", 12, "multiple of 8"),
        ("sequence.positions", "rope", "one of none, sincos, alibi"),
        ("sequence.activation", "tanh", "one of relu, gelu"),
        ("sequence.stride", 0, "at least 1"),
        ("ensemble.kinds", ("box", "triangle"), "triangle"),
        ("ensemble.gaps", "spline", "spline"),
    ],
)
def test_impossible_values_are_named(config, path, value, named):
    section, key = path.split(".")
    with config.ignore_type():
        config[section][key] = value
    with pytest.raises(InputError) as caught:
        check_config(config, make_mesh())
    message = str(caught.value)
    assert named in message and "\n" not in message
    assert section in message or path == "pretrain.crop_scale"


@pytest.mark.parametrize(("key", "value"), [("name", "sgdd"), ("schedule", "linear")])
def test_unknown_optimizers_are_named(config, key, value):
    config.sequence.optimizer[key] = value
    with pytest.raises(InputError, match=rf"config.sequence: .*{value}.*expected"):
        check_config(config, make_mesh())
