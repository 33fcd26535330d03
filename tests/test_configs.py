"""Every config builds at full size, without memory for it."""

import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import pytest

from abaw_jax.recipe import STAGES
from abaw_jax.stages import parts
from abaw_jax.tracks import TRACKS

ROOT = pathlib.Path(__file__).parents[1]
SCALES = ("", "demo", "tiny", "faces", "paper", "mae_transformer,paper")


def load(scale):
    spec = importlib.util.spec_from_file_location("expr", ROOT / "configs" / "expr.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(scale)


@pytest.mark.parametrize("scale", SCALES)
def test_builds_at_full_size(scale):
    config = load(scale)
    track = TRACKS[config.track]
    size, batch = config.image.size, 2
    images = {
        "image": jax.ShapeDtypeStruct((batch, size, size, 3), jnp.uint8),
        "label": jax.ShapeDtypeStruct((batch, track.label_width), jnp.int32),
    }
    length = config.sequence.length
    windows = {
        "features": jax.ShapeDtypeStruct((batch, length, config.encoder.width), jnp.float32),
        "mask": jax.ShapeDtypeStruct((batch, length), jnp.bool_),
        "label": jax.ShapeDtypeStruct((batch, length, track.label_width), jnp.int32),
    }
    tasks = {
        "pretrain": (parts.make_pretrain_task(config), images),
        "finetune": (parts.make_finetune_task(config, track), images),
        "sequence": (parts.make_sequence_task(config, track), windows),
    }
    for name, (task, example) in tasks.items():
        params, state = jax.eval_shape(task.init, jax.random.key(0), example)
        optimizer = parts.make_schedule_optimizer(config[name], 1000)
        assert jax.tree.leaves(jax.eval_shape(optimizer.init, params))
        outputs = jax.eval_shape(task.predict, params, state, example)
        leading = (batch, length) if name == "sequence" else (batch,)
        if name != "pretrain":
            assert outputs["probabilities"].shape == (*leading, track.outputs)
        if name == "pretrain":
            assert outputs["features"].shape == (batch, config.encoder.width)


def test_paper_scale_is_vit_b16():
    config = load("paper")
    encoder = parts.make_encoder(config)
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    shapes = jax.eval_shape(encoder.init, jax.random.key(0), images)
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    # timm's vit_base_patch16_224 without head (85,798,656), its learned positions (197 x 768) and
    # its last norm (2 x 768), which belong to the autoencoder and the classifier here.
    assert count == 85_798_656 - 197 * 768 - 2 * 768


def test_sections_belong_to_stages():
    config = load("demo")
    used = {section.split(".")[0] for stage in STAGES.values() for section in stage.sections}
    assert set(config) - used == {"system", "name", "mesh", "threads"}


@pytest.mark.parametrize("argument", ["papr", "paper,xl", "ctyun"])
def test_unknown_argument_is_named(argument):
    with pytest.raises(ValueError, match=r"neither a system \(mae_transformer\) nor a scale"):
        load(argument)
