"""Every config passes the check and builds at full size, without memory for it."""

import importlib
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from abaw_jax.data.demo import layout
from abaw_jax.recipe import STAGES
from abaw_jax.stages import parts
from abaw_jax.stages.check import check_config
from abaw_jax.stages.class_weights import parse_weight_rule
from abaw_jax.tracks import TRACKS
from abaw_jax.training.partition import make_mesh
from configs import base, emi

TRACK_KEYS = ("va", "expr", "au", "ce")
CONFIGS = {key: importlib.import_module(f"configs.{key}") for key in TRACK_KEYS}
CASES = [(key, scale) for key in TRACK_KEYS for scale in CONFIGS[key].SCALES]
SYSTEMS = [
    (key, f"{system},{scale}")
    for system in ("ctyun", "fuxi", "masked_vit")
    for key, scale in (("va", "demo"), ("va", "paper"), ("expr", "tiny"), ("au", "paper"))
] + [("expr", f"emotic_mae,{scale}") for scale in ("demo", "tiny", "paper")]
SYSTEMS += [
    (key, f"hsemotion,{scale}") for key in TRACK_KEYS for scale in ("demo", "tiny", "paper")
]


def draw_labels(track, rng):
    """Valid label rows (50, W) with every class among them."""
    if track.label_type == "float32":
        return rng.uniform(*track.label_range, (50, track.label_width)).astype(np.float32)
    if track.label_width == 1:
        return np.arange(50, dtype=np.int32)[:, None] % track.outputs
    return rng.integers(0, 2, (50, track.label_width)).astype(np.int32)


def shape_images(config, batch):
    """A batch of images, as shapes and types."""
    size = config.image.size
    return {
        "image": jax.ShapeDtypeStruct((batch, size, size, 3), jnp.uint8),
        "mask": jax.ShapeDtypeStruct((batch,), jnp.bool_),
    }


@pytest.mark.parametrize(("key", "scale"), CASES)
def test_builds_at_full_size(key, scale):
    config = CONFIGS[key].get_config(scale)
    assert config.is_locked and config.track == key
    track = TRACKS[key]
    labels = draw_labels(track, np.random.default_rng(0))
    batch, length = 2, config.sequence.length
    images = shape_images(config, batch) | {
        "label": jax.ShapeDtypeStruct((batch, track.label_width), labels.dtype),
    }
    windows = {
        "features": jax.ShapeDtypeStruct((batch, length, config.encoder.width), jnp.float32),
        "mask": jax.ShapeDtypeStruct((batch, length), jnp.bool_),
        "label": jax.ShapeDtypeStruct((batch, length, track.label_width), labels.dtype),
    }
    weights = {
        name: parts.make_loss_weights(config[name], labels, track)
        for name in ("finetune", "sequence")
    }
    tasks = {
        "finetune": (parts.make_finetune_task(config, track, weights["finetune"]), images),
        "sequence": (parts.make_sequence_task(config, track, weights["sequence"]), windows),
    }
    for name, (task, example) in tasks.items():
        params, state = jax.eval_shape(task.init, jax.random.key(0), example)
        optimizer = parts.make_schedule_optimizer(config[name], 1000)
        assert jax.tree.leaves(jax.eval_shape(optimizer.init, params))
        outputs = jax.eval_shape(task.predict, params, state, example)
        leading = (batch, length) if name == "sequence" else (batch,)
        assert outputs["probabilities"].shape == (*leading, track.outputs)


# Of configs whose autoencoders and their training are alike one each.
PRETRAINED = {
    repr([CONFIGS[key].get_config(scale)[name] for name in ("image", "encoder", "pretrain")]): (
        key,
        scale,
    )
    for key, scale in CASES
}


@pytest.mark.parametrize(("key", "scale"), PRETRAINED.values())
def test_autoencoders_build_at_full_size(key, scale):
    config = CONFIGS[key].get_config(scale)
    task, images = parts.make_pretrain_task(config), shape_images(config, 2)
    params, state = jax.eval_shape(task.init, jax.random.key(0), images)
    optimizer = parts.make_schedule_optimizer(config.pretrain, 1000)
    assert jax.tree.leaves(jax.eval_shape(optimizer.init, params))
    outputs = jax.eval_shape(task.predict, params, state, images)
    assert outputs["features"].shape == (2, config.encoder.width)


@pytest.mark.parametrize(("key", "scale"), CASES + SYSTEMS)
def test_passes_the_check(key, scale):
    check_config(CONFIGS[key].get_config(scale), make_mesh())


@pytest.mark.parametrize("key", TRACK_KEYS)
def test_scales_and_system_are_named(key):
    module = CONFIGS[key]
    assert tuple(module.SCALES)[:2] == ("demo", "tiny") and "paper" in module.SCALES
    assert module.get_config().to_dict() == module.get_config("demo").to_dict()
    paper = module.get_config("paper")
    assert paper.to_dict() == module.get_config("mae_transformer,paper").to_dict()
    assert paper.name == f"{key}-paper" and not paper.corpus.demo_size


@pytest.mark.parametrize("key", ["va", "expr", "au"])
def test_test_files_are_those_of_the_demo_corpus(key):
    corpus, name = CONFIGS[key].get_config().corpus, TRACKS[key].name
    assert corpus.annotations == layout.ANNOTATIONS
    assert corpus.test_list == f"names_of_videos_in_each_test_set/{layout.LISTS[name]}"
    assert corpus.test_example == f"test_set_examples/{layout.EXAMPLES[name][0]}"


@pytest.mark.parametrize("scale", ["demo", "paper", "masked_vit,tiny"])
@pytest.mark.parametrize("key", ["va", "expr", "au"])
def test_together_adds_the_other_tracks_with_their_own_losses(key, scale):
    config = CONFIGS[key].get_config(f"{scale},together")
    check_config(config, make_mesh())
    others = {"va", "expr", "au"} - {key}
    name = f"{key}-{scale.replace(',', '-')}-together"
    assert config.name == name and set(config.corpus.also) == others
    for section in ("finetune", "sequence"):
        assert set(config[section].also) == others
        for other in others:
            own = CONFIGS[other].get_config(scale)[section].to_dict()
            part = config[section].also[other].to_dict()
            assert part.pop("weight") == 1.0 and part.items() <= own.items()
            assert part["loss"] and "class_weights" in part
    # All else is the track's own config.
    plain = CONFIGS[key].get_config(scale).to_dict()
    made = config.to_dict() | {"name": plain["name"]}
    for section in ("corpus", "finetune", "sequence"):
        made[section] = made[section] | {"also": plain[section]["also"]}
    assert made == plain


def test_together_is_a_word_of_the_tracks_that_share_their_videos():
    with pytest.raises(ValueError, match="'together' is neither a system"):
        CONFIGS["ce"].get_config("tiny,together")
    with pytest.raises(ValueError, match="configs/expr.py:faces,together: .* labels of EXPR alone"):
        CONFIGS["expr"].get_config("faces,together")


def test_paper_scale_is_vit_b16():
    encoder = parts.make_encoder(CONFIGS["expr"].get_config("paper"))
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    shapes = jax.eval_shape(encoder.init, jax.random.key(0), images)
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    # timm's vit_base_patch16_224 without head (85,798,656), its learned positions (197 x 768) and
    # its last norm (2 x 768), which belong to the autoencoder and the classifier here.
    assert count == 85_798_656 - 197 * 768 - 2 * 768


def dense(width_in, width_out):
    return width_in * width_out + width_out


def encoder_layer(width, mlp_width):
    """Queries, keys and values, their projection, two LayerNorms, the feed-forward part."""
    attention = 3 * dense(width, width) + dense(width, width)
    return attention + 4 * width + dense(width, mlp_width) + dense(mlp_width, width)


def head(rows, hidden, outputs):
    """Linear, BatchNorm's scale and bias, Linear."""
    return dense(rows, hidden) + 2 * hidden + dense(hidden, outputs)


def convolutions(*widths):
    """Each block: two weight-normalised convolutions of 5 frames (direction, scale, bias), three
    PReLUs of one slope, and where widths differ a 1x1 convolution."""
    total = 0
    for width_in, width_out in itertools.pairwise(widths):
        total += sum(5 * width * width_out + 2 * width_out for width in (width_in, width_out)) + 3
        total += dense(width_in, width_out) if width_in != width_out else 0
    return total


# System -> features, parameters of all but the head, rows into the head, its width.
DESCRIBED = {
    # 768 -> 768, 256, 128 -> 512; 8 layers; 256.
    "ctyun": (
        768,
        convolutions(768, 768, 256, 128) + dense(128, 512) + 8 * encoder_layer(512, 512),
        (512, 256),
    ),
    # Visual 768, sound 768 + 128 -> 256, 128; 4 layers; 64.
    "fuxi": (
        768 + 896,
        dense(1664, 256) + dense(256, 128) + 4 * encoder_layer(128, 128),
        (128, 64),
    ),
    # 6 layers; all 100 frames into 1024.
    "masked_vit": (768, 6 * encoder_layer(768, 2048), (100 * 768, 1024)),
}  # fmt: skip
COUNTS = {
    "ctyun": {"va": 20_511_371, "expr": 20_512_913, "au": 20_513_941},
    "fuxi": {"va": 874_370, "expr": 866_376, "au": 866_636},
    "masked_vit": {"va": 111_732_226, "expr": 111_738_376, "au": 111_742_476},
}


@pytest.mark.parametrize("key", ["va", "expr", "au"])
@pytest.mark.parametrize("system", DESCRIBED)
def test_systems_have_as_many_parameters_as_described(system, key):
    config, track = CONFIGS[key].get_config(f"{system},paper"), TRACKS[key]
    features, before, (rows, hidden) = DESCRIBED[system]
    length = config.sequence.length
    windows = {
        "features": jax.ShapeDtypeStruct((2, length, features), jnp.float32),
        "mask": jax.ShapeDtypeStruct((2, length), jnp.bool_),
    }
    task = parts.make_sequence_task(config, track)
    params, state = jax.eval_shape(task.init, jax.random.key(0), windows)
    found = sum(leaf.size for leaf in jax.tree.leaves(params))
    apart = (system, key) == ("fuxi", "va")  # a head for valence, another for arousal
    heads = 2 * head(rows, hidden, 1) if apart else head(rows, hidden, track.outputs)
    assert found == before + heads == COUNTS[system][key]
    outputs = jax.eval_shape(task.predict, params, state, windows)["probabilities"]
    assert outputs.shape == (2, 1 if system == "masked_vit" else length, track.outputs)
    # The other models are those of the default system, which are built above.
    default = CONFIGS[key].get_config("paper")
    unlike = {"pretrain": {"epochs", "optimizer"}} if system == "fuxi" else {}
    if system == "ctyun":
        unlike["finetune"] = {"track"} | ({"loss"} if key != "expr" else set())
        unlike["finetune"] |= {"output"} if key == "va" else set()
    for section in ("image", "encoder", "pretrain", "finetune"):
        own, other = config[section].to_dict(), default[section].to_dict()
        changed = {name for name in own.keys() | other if own.get(name) != other.get(name)}
        assert changed == unlike.get(section, set())


def test_fuxi_alone_has_a_second_stage_of_two_such_models():
    for key in base.SHARED:
        config = CONFIGS[key].get_config("fuxi,paper")
        found = config.sequence.collaborate
        assert found.epochs and found.beta == (5.0, 2.0) and found.share == 0.8
        for argument in ("demo", "paper", "ctyun,paper", "masked_vit,paper"):
            assert not CONFIGS[key].get_config(argument).sequence.collaborate.epochs
        check_config(CONFIGS[key].get_config("fuxi,tiny,together"), make_mesh())
    windows = {
        "features": jax.ShapeDtypeStruct((2, 100, 768 + 896), jnp.float32),
        "mask": jax.ShapeDtypeStruct((2, 100), jnp.bool_),
    }
    task = parts.make_second_task(config, TRACKS["au"])
    params, state = jax.eval_shape(task.init, jax.random.key(0), windows)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 2 * COUNTS["fuxi"]["au"]
    outputs = jax.eval_shape(task.predict, params, state, windows)["probabilities"]
    assert outputs.shape == (2, 100, 12)


def recurrent(inputs, width, vector):
    """Two layers of two directions of three gates, LayerNorm between, Linear."""
    layers = sum(2 * 3 * (dense(size, width) + dense(width, width)) for size in (inputs, 2 * width))
    return layers + 2 * 2 * width + dense(2 * width, vector)


@pytest.mark.parametrize("scale", ["demo", "tiny", "paper"])
def test_fuxi_has_of_clips_a_recurrent_network_a_modality(scale):
    config = emi.get_config(f"fuxi,{scale}")
    check_config(config, make_mesh())
    section, steps, face = config.sequence, config.extract.steps, config.encoder.width
    assert config.name == f"emi-fuxi-{scale}" and section.stride == section.length
    if scale == "paper":
        assert (section.length, steps.sound, steps.words, face) == (32, 320, 128, 768)
    # As of a store of wav2vec2 and one of a language model.
    clips = {
        "features": jax.ShapeDtypeStruct((2, section.length, face + 1), jnp.float32),
        "features/sound": jax.ShapeDtypeStruct((2, steps.sound, 769), jnp.float32),
        "features/words": jax.ShapeDtypeStruct((2, steps.words, 1025), jnp.float32),
    }
    task = parts.make_sequence_task(config, TRACKS["emi"])
    params, state = jax.eval_shape(task.init, jax.random.key(0), clips)
    found = sum(leaf.size for leaf in jax.tree.leaves(params))
    width, vector = section.width, section.mlp_width
    encoders = sum(recurrent(inputs, width, vector) for inputs in (face, 768, 1024))
    assert not state
    assert found == encoders + dense(3 * vector, section.head_width) + dense(section.head_width, 6)
    assert jax.eval_shape(task.predict, params, state, clips)["probabilities"].shape == (2, 6)
    # All before it is the default system's.
    default = emi.get_config(scale)
    for name in ("corpus", "image", "encoder", "pretrain", "finetune", "ensemble"):
        assert config[name].to_dict() == default[name].to_dict()


def test_emotic_mae_has_as_many_parameters_as_described_and_two_views_tuned_alike():
    config, track = CONFIGS["expr"].get_config("emotic_mae,paper"), TRACKS["expr"]
    windows = {
        "features": jax.ShapeDtypeStruct((2, 1, 2 * 768), jnp.float32),
        "mask": jax.ShapeDtypeStruct((2, 1), jnp.bool_),
    }
    task = parts.make_sequence_task(config, track)
    params, state = jax.eval_shape(task.init, jax.random.key(0), windows)
    found = sum(leaf.size for leaf in jax.tree.leaves(params))
    # Two views to 1,024 positions each, a key of both; 512; 8.
    fusion = 2 * dense(768, 1024) + dense(2048, 1024)
    assert not state and found == fusion + dense(1024, 512) + dense(512, 8) == 4_201_992
    outputs = jax.eval_shape(task.predict, params, state, windows)["probabilities"]
    assert outputs.shape == (2, 1, 8)
    assert config.finetune.views == config.sequence.modalities == ("face", "eyes_mouth")
    rate = parts.make_schedule_optimizer(config.finetune, 288).learning_rate  # a step is an epoch
    np.testing.assert_allclose(
        [rate(step) for step in (0, 4, 5, 19)], [1e-4, 1e-4, 5e-5, 1.25e-5], rtol=1e-6
    )
    with pytest.raises(
        ValueError, match="expr.py:emotic_mae,tiny,together: emotic_mae does not cover va;"
    ):
        CONFIGS["expr"].get_config("emotic_mae,tiny,together")


def test_crops_are_cleaned_by_the_system_that_does_so_alone():
    for argument in ("demo", "paper", "ctyun,paper"):
        assert not any(CONFIGS["expr"].get_config(argument).corpus.clean.values())
    assert all(CONFIGS["expr"].get_config("emotic_mae,paper").corpus.clean.values())


def test_systems_are_named_with_their_tracks_and_scales():
    assert CONFIGS["va"].get_config("fuxi,tiny").name == "va-fuxi-tiny"
    for key in ("ce", "emi"):
        covers = f"configs/{key}.py:ctyun: system 'ctyun' is for va, expr, au; name one "
        with pytest.raises(ValueError, match=covers):
            importlib.import_module(f"configs.{key}").get_config("ctyun")
    with pytest.raises(ValueError, match="system 'fuxi' has no scale 'faces'; name one of demo"):
        CONFIGS["expr"].get_config("fuxi,faces")


@pytest.mark.parametrize(
    ("system", "modalities", "differing"),
    [
        ("ctyun", ("face",), {"paper": {"epochs"}}),
        ("fuxi", ("face", "sound"), {scale: {"head_each"} for scale in ("demo", "tiny", "paper")}),
        ("masked_vit", ("face",), {"paper": {"optimizer"}}),
    ],
)
def test_a_system_is_one_for_all_tracks_but_for_their_losses(system, modalities, differing):
    """What the tracks' own recipes have at a scale does not come through."""
    for scale in ("demo", "tiny", "paper"):
        argument = f"{system},{scale}"
        first, *others = (CONFIGS[key].get_config(argument).sequence for key in base.SHARED)
        unlike = {k for k in first if any(k in other and other[k] != first[k] for other in others)}
        assert unlike - {*base.LOSS_KEYS} == differing.get(scale, set())
        assert first.modalities == modalities and not first.apart


@pytest.mark.parametrize("scale", ["demo", "tiny", "paper"])
def test_the_losses_of_ctyun_are_plain_at_every_scale(scale):
    for key, named in (("va", "output"), ("expr", "class_weights"), ("au", "positive_weights")):
        config = CONFIGS[key].get_config(f"ctyun,{scale}")
        assert config.sequence[named] == ("linear" if key == "va" else "none")
        for section in (config.finetune, config.sequence):
            assert section.label_smoothing == 0 and section.class_weights == "none"


@pytest.mark.parametrize("argument", ["ctyun,demo", "ctyun,tiny", "ctyun,paper,together"])
def test_the_encoder_of_ctyun_learns_expr_alone_whatever_the_track(argument):
    own = CONFIGS["expr"].get_config(argument).finetune
    for key in base.SHARED:
        config = CONFIGS[key].get_config(argument)
        check_config(config, make_mesh())
        assert config.finetune.track == "expr" and not config.finetune.also
        assert "expr" in (key, *config.corpus.also)
        of_va = {"output": ""} if key == "va" else {}
        of_au = {"positive_weights": "none"} if key == "au" else {}
        assert config.finetune.to_dict() == own.to_dict() | of_va | of_au
        further = set(base.SHARED) - {key} if "together" in argument else set()
        assert set(config.sequence.also) == further


def test_without_convolutions_ctyun_is_the_default_system_at_paper_scale():
    for key in ("va", "expr", "au"):
        ctyun, default = (CONFIGS[key].get_config(f"{s}paper").to_dict() for s in ("ctyun,", ""))
        assert ctyun["sequence"].pop("tcn") == (768, 256, 128)
        assert default["sequence"].pop("tcn") == ()
        changed = {name for name in default if ctyun[name] != default[name]}
        further = {"corpus"} if key != "expr" else set()  # the labels of the encoder's track
        assert changed == {"system", "name", "ensemble", "finetune"} | further


def test_paper_scales_differ_where_the_papers_do():
    papers = {key: CONFIGS[key].get_config("paper") for key in TRACK_KEYS}
    assert {key: papers[key].sequence.epochs for key in ("va", "expr", "au")} == {
        "va": 40.0, "expr": 10.0, "au": 30.0,
    }  # fmt: skip
    assert papers["va"].encoder.to_dict() == papers["au"].encoder.to_dict()
    assert papers["va"].pretrain.to_dict() == papers["expr"].pretrain.to_dict()


@pytest.mark.parametrize("key", TRACK_KEYS)
def test_sections_belong_to_stages(key):
    used = {section.split(".")[0] for stage in STAGES.values() for section in stage.sections}
    assert set(CONFIGS[key].get_config()) - used == {"system", "name", "whole", "mesh", "threads"}


@pytest.mark.parametrize("argument", ["tiny,paper", "ctyun,fuxi", "ctyun,tiny,ctyun"])
def test_two_of_a_kind_are_named(argument):
    with pytest.raises(ValueError, match="and .*; name one (system|scale) at most"):
        CONFIGS["va"].get_config(argument)


def test_the_paper_of_fuxi_weighs_classes_by_its_own_numbers():
    for key in ("expr", "au"):
        rule = CONFIGS[key].get_config("fuxi,paper").sequence.class_weights
        numbers, _ = parse_weight_rule(rule, TRACKS[key].outputs, "class_weights")
        assert len(numbers) == TRACKS[key].outputs and min(numbers) == 1.0


@pytest.mark.parametrize("argument", ["papr", "paper,xl", "hsemotions"])
@pytest.mark.parametrize("key", TRACK_KEYS)
def test_unknown_argument_is_named(key, argument):
    named = rf"configs/{key}.py:.*neither a system \(mae_transformer.*\) nor a scale \(demo, tiny"
    with pytest.raises(ValueError, match=named):
        CONFIGS[key].get_config(argument)


def test_optimizer_has_no_other_values():
    with pytest.raises(KeyError, match="betas"):
        base.optimizer(1e-3, betas=(0.9, 0.95))


@pytest.mark.parametrize(("argument", "period"), [("paper", 0.0), ("fuxi,paper", 2.0)])
def test_period_of_the_schedule(argument, period):
    assert CONFIGS["expr"].get_config(argument).sequence.optimizer.period_epochs == period
