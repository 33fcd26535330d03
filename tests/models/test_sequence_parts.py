"""The published systems' parts: what they leave alone, how much they hold, what they refuse."""

from functools import partial

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from abaw_jax.models import fusion
from abaw_jax.models.fusion import Pointwise, TwoViewFusion, scalar_attention
from abaw_jax.models.heads import LastFrameHead, SequenceHead
from abaw_jax.models.layers import RandomMask
from abaw_jax.models.recurrent import ClipModel, GRUEncoder
from abaw_jax.models.sequence import SequenceModel
from abaw_jax.models.tcn import TemporalConvNet

MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 0, 0, 0, 0]], bool)
KEY = jax.random.key(0)


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def made(model, *inputs):
    """Parameters of the model's shapes, drawn without compiling how it starts."""
    shapes, rng = jax.eval_shape(model.init, KEY, *inputs)["params"], np.random.default_rng(9)
    return jax.tree.map(lambda a: rng.normal(0, 0.4, a.shape).astype(np.float32), shapes)


def finite(tree):
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"project": False}, "5 numbers a frame where width is 8"),
        ({"project": False, "join": (8, 4)}, "4 numbers a frame where width is 8"),
        ({"head": "first"}, "head 'first'; expected one of"),
        ({"positions": "rope"}, "positions 'rope'; expected one of"),
    ],
)
def test_a_sequence_model_whose_parts_do_not_fit_is_refused(changes, message):
    model = SequenceModel(8, 1, 2, mlp_width=8, head_width=4, outputs=3, **changes)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(model.init, KEY, np.zeros((3, 5, 5), np.float32), MASK)


def test_a_head_each_is_a_model_of_one_output_each():
    options = dict(width=8, depth=1, heads=2, mlp_width=8, head_width=4)
    model = SequenceModel(**options, outputs=2, head_each=True, also=(("au", 3),))
    x = drawn(3, 5, 6)
    params = made(model, x, MASK)
    heads = {name: params.pop(name) for name in ("head_0", "head_1", "head_au")}
    norm = {"norm": {"mean": drawn(4), "var": np.ones(4, np.float32)}}

    def run(model, **heads):
        given = {"params": params | heads, "batch_stats": dict.fromkeys(heads, norm)}
        return jax.jit(model.apply)(given, x, MASK)

    alone = [run(SequenceModel(**options, outputs=n), head=heads[name])
             for name, n in (("head_0", 1), ("head_1", 1), ("head_au", 3))]  # fmt: skip
    expected = np.concatenate(alone, -1)[MASK]
    assert np.abs(expected[:, 0] - expected[:, 1]).max() > 0.1
    np.testing.assert_allclose(run(model, **heads)[MASK], expected, atol=1e-6)


def test_convolutions_see_no_later_frame_and_no_more_than_they_say():
    model, x = TemporalConvNet(widths=(4, 4), kernel_size=3), drawn(1, 16, 4)
    variables = jax.jit(model.init)(KEY, x)
    run = jax.jit(partial(model.apply, variables))
    out = np.asarray(run(x))
    for frame in (0, 3):
        other = x.copy()
        other[:, frame] = 50.0
        reached = np.flatnonzero((np.asarray(run(other)) != out).any((0, 2)))
        assert (reached[0], reached[-1]) == (frame, frame + 12)  # 13 = 1 + 2 * 2 * 3 frames
    padded = np.where(np.arange(16)[:, None] < 9, x, np.float32(1e6))
    np.testing.assert_array_equal(np.asarray(run(padded))[:, :9], out[:, :9])
    for block in jax.device_get(variables["params"]).values():
        for name in ("conv1", "conv2"):  # at first the kernel is v itself
            conv = block[name]
            np.testing.assert_allclose(
                conv["scale"], np.sqrt(np.square(conv["kernel"]).sum((0, 1))), rtol=1e-6
            )


def test_last_frame_head_ignores_padding_and_windows_that_do_not_count():
    model, x = LastFrameHead(6, 2), drawn(4, 3, 5)
    mask = np.array([[1, 1, 1], [0, 1, 1], [1, 1, 1], [0, 0, 0]], bool)
    params = made(model, x, mask)
    start = {"norm": {"mean": np.zeros(6, np.float32), "var": np.ones(6, np.float32)}}

    @jax.jit
    @partial(jax.value_and_grad, has_aux=True)
    def run(params, x, mask, counted):
        given = {"params": params, "batch_stats": start}
        logits, updated = model.apply(given, x, mask, counted, train=True, mutable=["batch_stats"])
        return logits.sum(), (logits, updated)

    (_, (logits, stats)), gradients = run(params, x, mask, mask)
    assert logits.shape == (4, 2) and finite((logits, gradients))
    garbage = np.where(mask[..., None], x, np.float32(7))
    (_, (other, other_stats)), _ = run(params, garbage, mask, mask)
    np.testing.assert_array_equal(other, logits)
    jax.tree.map(np.testing.assert_array_equal, other_stats, stats)
    # The third window's last frame has no label: it may hold what it will.
    counted = mask & (np.arange(4) != 2)[:, None]
    changed = x.copy()
    changed[2] += 5
    (_, (_, some)), _ = run(params, x, mask, counted)
    (_, (_, same)), _ = run(params, changed, mask, counted)
    jax.tree.map(np.testing.assert_array_equal, same, some)
    (_, (none, _)), gradients = run(params, x, np.zeros_like(mask), np.zeros_like(mask))
    assert finite((none, gradients))


@pytest.mark.parametrize(
    "width, chunk, wide, limit",
    [
        (7, 3 * 2 * 7, 1, 1e-6),  # each query by itself, of 7 at a time 3, 3 and 1
        (200, 2**20, 1, 3e-6),  # by series
        (200, 2**13, 20, 1e-5),  # too wide for them; exponents of 200 are rounded to 1e-5
    ],
)
def test_scalar_attention_is_exact(monkeypatch, width, chunk, wide, limit):
    monkeypatch.setattr(fusion, "LOGITS_AT_ONCE", chunk)
    query, key, value, probe = (drawn(2, width, seed=i) for i in range(4))
    query = wide * query + 1

    def whole(query, key, value):
        weights = jax.nn.softmax(query[:, :, None] * key[:, None, :], -1)
        return jnp.einsum("bij,bj->bi", weights, value, precision="highest")

    def probed(attend):
        found, pulled = jax.vjp(attend, query, key, value)
        return found, *pulled(probe)

    jitted = jax.jit(lambda: probed(scalar_attention))()
    with jax.enable_x64():
        query, key, value, probe = (np.float64(a) for a in (query, key, value, probe))
        expected = probed(whole)
    for found, wanted in zip(jitted, expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=limit * np.abs(wanted).max())


def test_scalar_attention_of_even_numbers():
    """Where all are the same there is no range to divide by."""
    query, key, value = jnp.full((2, 100), 3.0), jnp.full((2, 100), -2.0), drawn(2, 100)
    found, pulled = jax.vjp(scalar_attention, query, key, value)
    np.testing.assert_allclose(found, value.mean(-1, keepdims=True) + 0 * found, rtol=1e-5)
    of_query, of_key, of_value = pulled(jnp.ones_like(found))
    np.testing.assert_allclose(of_value, 1, rtol=1e-5)
    np.testing.assert_allclose(of_query, 0, atol=1e-5)
    np.testing.assert_allclose(of_key, 3 * (value - found), atol=1e-4)


def test_scalar_attention_of_any_number_of_examples_is_the_same():
    (batch,) = jax.export.symbolic_shape("b")
    shape = jax.ShapeDtypeStruct((batch, 7), jnp.float32)
    program = jax.export.export(jax.jit(scalar_attention))(shape, shape, shape)
    inputs = [drawn(3, 7, seed=seed) for seed in range(3)]
    np.testing.assert_allclose(program.call(*inputs), scalar_attention(*inputs), rtol=1e-6)


def test_scalar_attention_never_holds_all_its_logits():
    shape = jax.ShapeDtypeStruct((128, 1024), jnp.float32)
    gradient_of = jax.grad(lambda *a: scalar_attention(*a).sum(), argnums=(0, 1, 2))
    compiled = jax.jit(gradient_of).lower(shape, shape, shape).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 2**26  # all are 2**29


@pytest.mark.parametrize("unit", ["frames", "values"])
def test_random_masking(unit):
    model, x = RandomMask(0.3, unit), drawn(8, 50, 6)
    run = jax.jit(lambda seed: model.apply({}, x, train=True, rngs={"mask": jax.random.key(seed)}))
    first = np.asarray(run(0))
    np.testing.assert_array_equal(run(0), first)
    assert (np.asarray(run(1)) != first).any()
    kept = first != 0
    np.testing.assert_array_equal(first[kept], x[kept])  # nothing is rescaled
    rows = kept.reshape(400, 6)
    assert (rows.all(1) | ~rows.any(1)).all() == (unit == "frames")
    assert 0.2 < 1 - kept.mean() < 0.4
    assert model.apply({}, x) is x and RandomMask(0.0).apply({}, x, train=True) is x


def test_training_draws_and_options_that_cannot_be():
    x = drawn(2, 4, 6)
    cases = [
        (TemporalConvNet((6,), 2, 0.5), (x,)),
        (Pointwise((4,), dropout=0.5), (x,)),
        (RandomMask(0.5), (x,)),
    ]
    for model, inputs in cases:
        variables = jax.eval_shape(model.init, KEY, *inputs)
        with pytest.raises(flax.errors.InvalidRngError):
            jax.eval_shape(partial(model.apply, train=True), variables, *inputs)
    for model, inputs in (
        (RandomMask(0.5, "clips"), (x,)),
        (SequenceHead(4, 2, between="tanh"), (x, MASK[:2, :4])),
        (TwoViewFusion(method="max"), (x, x)),
    ):
        with pytest.raises(ValueError, match="expected one of"):
            jax.eval_shape(model.init, KEY, *inputs)


def test_shapes_and_types():
    x, mask = drawn(3, 5, 6), MASK
    half = {"dtype": jnp.bfloat16}
    cases = [
        (TemporalConvNet((4, 6), 3, **half), (x,), (3, 5, 6), "bfloat16"),
        (GRUEncoder(4, 7, **half), (x, mask), (3, 7), "bfloat16"),
        (ClipModel(4, 5, 3, 2, **half), ({"frames": x, "sound": x[:, :2]},), (3, 2), "float32"),
        (LastFrameHead(4, 2, **half), (x, mask), (3, 2), "float32"),
        (Pointwise((4, 2), **half), (x, x[..., :2]), (3, 5, 2), "bfloat16"),
        (TwoViewFusion(16), (x, x), (3, 5, 16), "float32"),
        (TwoViewFusion(16, "attention_local"), (x[0], x[0]), (5, 16), "float32"),
        (TwoViewFusion(16, "concatenation"), (x, x), (3, 5, 32), "float32"),
    ]
    for model, inputs, shape, dtype in cases:
        found, _ = jax.eval_shape(model.init_with_output, KEY, *inputs)
        assert (found.shape, found.dtype) == (shape, dtype), model
    for model, inputs in (
        (TemporalConvNet((4,)), (x[0],)),
        (GRUEncoder(4, 7), (x, mask[:, :4])),
        (LastFrameHead(4, 2), (x, mask[:2])),
        (TwoViewFusion(16), (x, x[..., :3])),
    ):
        with pytest.raises(TypeCheckError):
            jax.eval_shape(model.init, KEY, *inputs)
