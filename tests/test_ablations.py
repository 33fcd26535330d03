"""Ablations: which systems have them, what they change, and that all that is left builds."""

import importlib
import itertools

import jax
import jax.numpy as jnp
import pytest

from abaw_jax.stages import parts
from abaw_jax.stages.check import check_config
from abaw_jax.tracks import TRACKS
from abaw_jax.training.partition import make_mesh
from abaw_jax.training.state import named_leaves
from configs import base, ce, expr, va
from configs.ablations import ABLATIONS

PARTS = ("without_finetuning", "without_transformer")
VIEWS = (
    "face_alone",
    "eyes_mouth_alone",
    "fuse_mean",
    "fuse_concatenation",
    "fuse_attention_local",
)
# System -> its ablations at every scale, whatever the track; plain_loss of tracks with classes.
ABLATED = {
    "ctyun": (*PARTS, "without_tcn"),
    "fuxi": (*PARTS, "without_sound", "face_alone", "plain_loss"),
    "masked_vit": (*PARTS, "without_masking", "plain_loss"),
    "emotic_mae": ("without_finetuning", "plain_loss", *VIEWS),
    "fuxi_basic": ("without_finetuning",),
}
# Of hsemotion, whose heads are of other modalities for each track and whose encoder has no
# pre-training to stay as it is after.
ABLATED_HSEMOTION = {
    "va": set(),
    "expr": {"without_sound", "face_alone", "plain_loss"},
    "au": {"plain_loss"},
    "ce": set(),
    "emi": {"without_sound"},
}
# Track and ablation of the default system at demo scale.
ABLATED_DEMO = {
    ("va", "without_sound"), ("va", "face_alone"), ("emi", "without_sound"), ("emi", "face_alone"),
    *((key, "plain_loss") for key in ("expr", "au", "ce")),
    *itertools.product(("va", "expr", "au", "ce", "emi"), PARTS),
}  # fmt: skip


def ablations_of(key, system, scale):
    """Those that do not raise."""
    module, found = importlib.import_module(f"configs.{key}"), set()
    for name in ABLATIONS:
        try:
            config = module.get_config(f"{system},{scale},{name}")
        except ValueError as error:
            assert f"{name!r} changes nothing of {system} at scale {scale!r}; it is" in str(error)
            continue
        check_config(config, make_mesh())
        plain = module.get_config(f"{system},{scale}")
        assert config.is_locked and config.name == f"{plain.name}-{name}"
        assert (config.whole, plain.whole) == (plain.name, "")
        found.add(name)
    return found


@pytest.mark.parametrize("scale", ["demo", "tiny", "paper"])
def test_each_ablation_of_each_system_passes_the_check(scale):
    for system, names in ABLATED.items():
        for key in base.SYSTEMS[system]:
            if (key, system) == ("ce", "fuxi"):  # of images alone
                assert ablations_of(key, system, scale) == {"without_finetuning"}
                continue
            without = {"plain_loss"} if key in ("va", "emi") else set()
            if key == "emi":  # of fuxi, a recurrent network
                without |= {"without_transformer"}
            assert ablations_of(key, system, scale) == set(names) - without, (system, key)


@pytest.mark.parametrize("scale", ["demo", "tiny", "paper"])
def test_ablations_of_hsemotion(scale):
    for key, names in ABLATED_HSEMOTION.items():
        assert ablations_of(key, "hsemotion", scale) == names, key


def test_ablations_of_the_default_system():
    keys = base.SYSTEMS["mae_transformer"]
    found = {(key, name) for key in keys for name in ablations_of(key, "mae_transformer", "demo")}
    assert found == ABLATED_DEMO


def changed_keys(arguments):
    """Keys that two configs of EXPR have unlike, by section; without the names."""
    one, other = (expr.get_config(argument).to_dict() for argument in arguments)
    one.pop("name"), one.pop("whole")
    return {
        section: {k for k in values if other[section][k] != values[k]}
        for section, values in one.items()
        if other[section] != values
    }


@pytest.mark.parametrize(
    ("system", "name", "changed"),
    [
        ("ctyun", "without_finetuning", {"finetune": {"frozen_blocks"}}),
        ("ctyun", "without_tcn", {"sequence": {"tcn"}}),
        ("masked_vit", "without_transformer", {"sequence": {"depth", "positions"}}),
        ("masked_vit", "without_masking", {"sequence": {"mask_rate"}}),
        ("masked_vit", "plain_loss", {"sequence": {"loss", "loss_options", "class_weights"}}),
        ("fuxi", "without_sound", {"sequence": {"modalities"}}),
        ("emotic_mae", "fuse_mean", {"sequence": {"fuse"}}),
        ("emotic_mae", "fuse_concatenation", {"sequence": {"fuse", "width"}}),
        ("emotic_mae", "eyes_mouth_alone", {"sequence": {"modalities", "fuse", "project"}}),
        ("emotic_mae", "face_alone", {"sequence": {"modalities", "fuse", "project"}}),
    ],
)
def test_an_ablation_changes_its_part_alone(system, name, changed):
    assert changed_keys((f"{system},paper", f"{system},paper,{name}")) == changed


@pytest.mark.parametrize("system", [system for system in ABLATED if system != "fuxi_basic"])
def test_each_ablation_builds(system):
    """The sequence model, from features of the modalities that are left."""
    wide = {"face": 32, "eyes_mouth": 32, "sound": 9}
    for name in set(ABLATED[system]) - {"without_finetuning"}:
        config = expr.get_config(f"{system},tiny,{name}")
        shape = (2, config.sequence.length)
        windows = {
            "features": jax.ShapeDtypeStruct(
                (*shape, sum(wide[modality] for modality in config.sequence.modalities)),
                jnp.float32,
            ),
            "mask": jax.ShapeDtypeStruct(shape, jnp.bool_),
        }
        params, _ = jax.eval_shape(
            parts.make_sequence_task(config, TRACKS["expr"]).init, jax.random.key(0), windows
        )
        left = {path.split("_")[0] for path in params}
        assert "tcn" not in left or name != "without_tcn"
        assert "encoder" not in left or name != "without_transformer"


def test_without_finetuning_no_block_of_the_encoder_learns():
    config = expr.get_config("ctyun,tiny,without_finetuning")
    task = parts.make_finetune_task(config, TRACKS["expr"])
    size = config.image.size
    images = {
        "image": jax.ShapeDtypeStruct((2, size, size, 3), jnp.uint8),
        "mask": jax.ShapeDtypeStruct((2,), jnp.bool_),
    }
    params, _ = jax.eval_shape(task.init, jax.random.key(0), images)
    frozen = parts.make_schedule_optimizer(config.finetune, 100).frozen
    learns = {path for path in named_leaves(params) if not frozen(path)}
    assert learns and not any("encoder" in path for path in learns), learns


def test_an_ablation_of_several_tracks_at_once_is_of_each_that_has_the_part():
    config = va.get_config("masked_vit,tiny,together,plain_loss").sequence
    assert config.loss == "ccc"
    assert {key: part.loss for key, part in config.also.items()} == {
        "expr": "cross_entropy", "au": "binary_cross_entropy",
    }  # fmt: skip
    assert all(
        part.class_weights == "none" and not part.loss_options for part in config.also.values()
    )


def test_ablations_that_cannot_be_are_refused_by_name():
    refused = {
        "ctyun,without_masking": "changes nothing of ctyun at scale 'demo'; it is for masked_vit",
        "faces,fuse_mean": "of mae_transformer at scale 'faces'; it is for emotic_mae",
        "faces,without_sound": "at scale 'faces'; it is for no system of this track",
        "fuxi,without_sound,plain_loss": "and plain_loss; name one ablation at most",
        "ctyun,without_tnc": r"'without_tnc' is neither .* nor an ablation \(without_finetuning, ",
    }
    for argument, message in refused.items():
        with pytest.raises(ValueError, match=f"configs/expr.py:{argument}: .*{message}"):
            expr.get_config(argument)
    with pytest.raises(ValueError, match="'plain_loss' .* it is for mae_transformer$"):
        ce.get_config("fuxi,plain_loss")
