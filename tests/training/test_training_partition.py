"""Run this file with --regenerate to write the golden table anew after a wanted change."""

import json
import pathlib
import re
import sys

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from abaw_jax.errors import InputError
from abaw_jax.files import write_json
from abaw_jax.models.heads import FrameClassifier
from abaw_jax.models.mae import MAE
from abaw_jax.models.recurrent import ClipModel
from abaw_jax.models.sequence import SequenceModel
from abaw_jax.models.vit import SIZES, ViT
from abaw_jax.training import partition
from abaw_jax.training.optim import make_optimizer
from abaw_jax.training.partition import RULES, check_batch, make_mesh, param_specs, state_shardings
from abaw_jax.training.state import TrainState, named_leaves

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "shardings.json"


def model_params() -> dict:
    """Shapes of the parameters of every model, ViT-B in full size; nothing is computed."""
    vit = ViT(image_size=224, patch_size=16, **SIZES["B"])
    images, features = jnp.zeros((1, 224, 224, 3)), jnp.zeros((1, 100, 768))
    sequence = SequenceModel(
        width=512, depth=8, heads=4, mlp_width=512, head_width=256, outputs=8, positions="sincos"
    )
    convolutions = sequence.clone(tcn=(768, 256, 128), depth=1)
    joined = sequence.clone(join=(256, 128), width=128, project=False, depth=1)
    joined = joined.clone(outputs=2, head_each=True)
    fused = sequence.clone(fuse="attention_local", width=1024, project=False, depth=0)
    fused = fused.clone(positions="none", head_between="relu")
    last = sequence.clone(width=768, heads=8, project=False, head="last", depth=1)
    clips = {name: jnp.zeros((1, 9, width)) for name, width in (("frames", 769), ("sound", 95))}
    mask, odd = jnp.ones((1, 100), bool), jnp.zeros((1, 100, 817))  # with sound
    calls = {
        "mae": (MAE(vit), images, jnp.zeros((1, 196))),
        "frames": (FrameClassifier(vit, 8), images),
        "sequence": (sequence, features, mask),
        "sequence of several modalities": (sequence.clone(depth=1), odd, mask),
        "sequence with convolutions": (convolutions, odd, mask),
        "sequence of joined features": (joined, odd, mask),
        "sequence of two views": (fused, jnp.zeros((1, 100, 2 * 768)), mask),
        "sequence of a last frame": (last, features, mask),
        "clips": (ClipModel(256, 256, 256, outputs=6), clips),
    }
    return {
        name: jax.eval_shape(model.init, jax.random.key(0), *arguments)["params"]
        for name, (model, *arguments) in calls.items()
    }


def sharding_table() -> dict:
    """model -> path -> [shape, spec], blocks after the first left out (they are the same)."""
    mesh = make_mesh((2, 2, 2))
    table = {}
    for name, params in model_params().items():
        specs = named_leaves(param_specs(params, RULES, mesh))
        table[name] = {
            path: [list(leaf.shape), [axis for axis in specs[path]]]
            for path, leaf in named_leaves(params).items()
            if not re.search(r"(blocks|encoder/layers)_[1-9]", path)
        }
    return table


def test_golden_shardings():
    assert json.loads(GOLDEN.read_text()) == sharding_table(), "see this file's first line"


def test_every_parameter_of_every_model_matches_exactly_one_rule():
    for name, params in model_params().items():
        for path in named_leaves(params):
            matches = [pattern for pattern, _ in RULES if re.fullmatch(pattern, path)]
            assert len(matches) == 1, (name, path, matches)


def test_every_block_is_laid_out_as_the_first():
    specs = named_leaves(param_specs(model_params()["mae"]))
    for path, spec in specs.items():
        assert spec == specs[re.sub(r"blocks_\d+", "blocks_0", path)]


def test_unmatched_and_overlapping_parameters_are_named():
    params = {"odd": jnp.zeros(3), "head": {"kernel": jnp.zeros((4, 4))}}
    with pytest.raises(InputError, match=r"1 parameters .* odd \(0 rules\)"):
        param_specs(params)
    with pytest.raises(InputError, match=r"head/kernel \(2 rules\)"):
        param_specs({"head": params["head"]}, (*RULES, (r"head/.*", P())))


def test_sides_that_do_not_divide_are_named():
    params = {"head": {"kernel": jnp.zeros((6, 4))}}
    with pytest.raises(InputError, match=r"head/kernel of shape \(6, 4\): 6 over fsdp=8"):
        param_specs(params, RULES, make_mesh((1, 8, 1)))
    explicit = ((r"head/kernel", P()),)
    assert param_specs(params, explicit, make_mesh((1, 8, 1))) == {"head": {"kernel": P()}}


def test_a_rule_of_too_many_dimensions_is_refused():
    with pytest.raises(InputError, match="fewer dimensions"):
        param_specs({"head": {"kernel": jnp.zeros(8)}}, RULES, make_mesh((1, 8, 1)))


def test_moments_and_average_lie_as_their_parameters():
    params = {
        "encoder": {"head": {"kernel": jnp.zeros((8, 8))}, "norm": {"bias": jnp.zeros(8)}},
        "head": {"kernel": jnp.zeros((8, 4))},
    }
    optimizer = make_optimizer(
        lr=1, steps=1, weight_decay=0.1, frozen=lambda path: path.endswith("bias")
    )
    state = TrainState(
        jnp.int32(0), params, {"batch_stats": {"head": {"kernel": jnp.zeros((8, 4))}}},
        optimizer.init(params), params,
    )  # fmt: skip
    specs = {
        k: s.spec for k, s in named_leaves(state_shardings(state, make_mesh((2, 4, 1)))).items()
    }
    split = {path for path, spec in specs.items() if spec == P("fsdp", None)}
    for kernel in ("encoder/head/kernel", "head/kernel"):
        assert len([path for path in split if path.endswith(f"/{kernel}")]) >= 4, kernel
    assert all(not path.startswith("model_state") for path in split)
    assert specs["step"] == specs["model_state/batch_stats/head/kernel"] == P()
    assert specs["params/encoder/norm/bias"] == P()


def test_mesh_shapes():
    assert dict(make_mesh().shape) == {"data": 8, "fsdp": 1, "tensor": 1}
    assert dict(make_mesh((-1, 2, 2)).shape) == {"data": 2, "fsdp": 2, "tensor": 2}
    for shape in ((3, 1, 1), (-1, 3, 1), (-1, -1, 1), (8, 1), (0, 8, 1)):
        with pytest.raises(InputError, match="mesh: "):
            make_mesh(shape)


def test_batches_that_do_not_divide_are_refused_with_both_numbers():
    mesh = make_mesh((2, 2, 2))
    check_batch(8, mesh, 2)
    with pytest.raises(InputError, match="10 examples .* 4 devices"):
        check_batch(10, mesh)
    with pytest.raises(InputError, match="12 examples .* 4 devices .* 2 micro-batches"):
        check_batch(12, mesh, 2)


if __name__ == "__main__":
    if sys.argv[1:] != ["--regenerate"]:
        sys.exit(f"usage: {sys.argv[0]} --regenerate (with 8 devices: see tests/conftest.py)")
    write_json(GOLDEN, sharding_table())
    print(f"{GOLDEN}: written by {partition.__name__}'s rules; look at the difference")
