"""Tensors of another library as our arrays and back."""

import numpy as np
import pytest

from abaw_jax.errors import InputError
from abaw_jax.interop.keymap import Rule, read_tensors, write_tensors

RULES = (
    Rule("embed.weight", "params/patch_embed/kernel", "patches"),
    Rule("layers.{i}.{k}.conv.weight", "params/stage_{i}/block_{k}/conv/kernel", "conv"),
    Rule("wave.weight", "params/wave/kernel", "conv1d"),
    Rule(
        ("attn.{i}.q.weight", "attn.{i}.k.weight", "attn.{i}.v.weight"),
        "params/blocks_{i}/qkv/kernel",
        "dense",
    ),
    Rule("attn.{i}.bias", "params/blocks_{i}/qkv/bias", "flat"),
    Rule("attn.{i}.out.weight", "params/blocks_{i}/proj/kernel", "dense_heads"),
    Rule("norm.running_mean", "batch_stats/norm/mean"),
)
SHAPES = {
    "params/patch_embed/kernel": (48, 5),
    "params/stage_0/block_1/conv/kernel": (3, 2, 4, 6),
    "params/wave/kernel": (7, 2, 3),
    "params/blocks_10/qkv/kernel": (8, 3, 2, 4),
    "params/blocks_10/qkv/bias": (3, 2, 4),
    "params/blocks_10/proj/kernel": (2, 4, 8),
    "batch_stats/norm/mean": (5,),
}


@pytest.fixture
def tensors():
    rng = np.random.default_rng(0)
    shapes = {
        "embed.weight": (5, 3, 4, 4),
        "layers.0.1.conv.weight": (6, 4, 3, 2),
        "wave.weight": (3, 2, 7),
        **{f"attn.10.{name}.weight": (8, 8) for name in ("q", "k", "v")},
        "attn.10.bias": (24,),
        "attn.10.out.weight": (8, 8),
        "norm.running_mean": (5,),
    }
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def test_there_and_back_is_the_same(tensors):
    arrays = read_tensors(tensors, RULES, SHAPES, "a.pth")
    assert {path: array.shape for path, array in arrays.items()} == SHAPES
    back = write_tensors(arrays, RULES)
    assert back.keys() == tensors.keys()
    for name, array in tensors.items():
        assert back[name].tobytes() == array.tobytes() and back[name].shape == array.shape


def test_layouts(tensors):
    arrays, rng = read_tensors(tensors, RULES, SHAPES, "a.pth"), np.random.default_rng(1)
    x = rng.normal(size=8)
    qkv = np.einsum("d,dkhe->khe", x, arrays["params/blocks_10/qkv/kernel"])
    theirs = [tensors[f"attn.10.{name}.weight"] @ x for name in ("q", "k", "v")]
    np.testing.assert_allclose(qkv.reshape(3, 8), theirs, atol=1e-5)
    heads = rng.normal(size=(2, 4))
    out = np.einsum("he,hed->d", heads, arrays["params/blocks_10/proj/kernel"])
    np.testing.assert_allclose(out, tensors["attn.10.out.weight"] @ heads.ravel(), atol=1e-5)
    patch = rng.normal(size=(4, 4, 3))  # row, column, channel
    embedded = patch.ravel() @ arrays["params/patch_embed/kernel"]
    expected = np.einsum("pqc,dcpq->d", patch, tensors["embed.weight"])
    np.testing.assert_allclose(embedded, expected, atol=1e-5)
    kernel = arrays["params/stage_0/block_1/conv/kernel"]
    assert kernel[2, 1, 3, 5] == tensors["layers.0.1.conv.weight"][5, 3, 2, 1]
    assert arrays["params/wave/kernel"][6, 1, 2] == tensors["wave.weight"][2, 1, 6]


def test_all_that_does_not_fit_is_named_at_once(tensors):
    del tensors["attn.10.k.weight"], tensors["norm.running_mean"]
    tensors |= {"attn.10.bias": np.zeros(6), "head.weight": np.zeros(3), "norm.steps": np.zeros(())}
    with pytest.raises(InputError) as caught:
        read_tensors(tensors, RULES, SHAPES, "a.pth", ignored=(r".*\.steps",))
    assert str(caught.value) == (
        "a.pth: its tensors are not those of this architecture: missing: attn.10.k.weight, "
        "norm.running_mean; too many: head.weight; of another shape: attn.10.bias (6,), expected "
        "(24,)"
    )


def test_a_part_of_another_shape_is_named(tensors):
    tensors["attn.10.v.weight"] = np.zeros((4, 8))
    with pytest.raises(InputError, match=r"shape: attn.10.v.weight \(4, 8\), expected \(8, 8\)$"):
        read_tensors(tensors, RULES, SHAPES, "a.pth")


def test_a_path_without_a_rule_is_a_mistake_of_ours():
    with pytest.raises(ValueError, match="no rule makes params/head/kernel"):
        write_tensors({"params/head/kernel": np.zeros(2)}, RULES)
