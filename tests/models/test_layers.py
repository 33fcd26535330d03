"""Positions, GELU, attention, drop path: against formulas, in float32 and bfloat16."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf, softmax

from abaw_jax.models.layers import (
    Dropout,
    DropPath,
    LayerNorm,
    Mlp,
    SelfAttention,
    alibi,
    attention,
    attention_apart,
    draw_mask,
    exact_gelu,
    sincos_1d,
    sincos_2d,
)


def test_sincos_1d_is_the_formula():
    table = sincos_1d(np.arange(5), 6)
    assert table.dtype == np.float32
    for position in range(5):
        for k in range(3):
            angle = position / 10000 ** (2 * k / 6)
            assert table[position, k] == pytest.approx(math.sin(angle), abs=1e-7)
            assert table[position, 3 + k] == pytest.approx(math.cos(angle), abs=1e-7)


def test_sincos_2d_puts_the_column_first_and_a_zero_row_for_cls():
    table = sincos_2d(3, 8)
    assert table.shape == (10, 8) and not table[0].any()
    row, column = 2, 1
    place = table[1 + row * 3 + column]
    np.testing.assert_array_equal(place[:4], sincos_1d(np.array([column]), 4)[0])
    np.testing.assert_array_equal(place[4:], sincos_1d(np.array([row]), 4)[0])


def test_odd_width_is_refused():
    with pytest.raises(ValueError, match="even width, got 7"):
        sincos_1d(np.arange(2), 7)


def test_gelu_is_exact_with_its_gradient():
    x = np.linspace(-12, 12, 4001)
    cdf = 0.5 * (1 + erf(x / np.sqrt(2)))
    slope = cdf + x * np.exp(-x * x / 2) / np.sqrt(2 * np.pi)
    given = x.astype(np.float32)
    np.testing.assert_allclose(exact_gelu(jnp.asarray(given)), x * cdf, rtol=1e-6, atol=3e-6)
    found = jax.vmap(jax.grad(exact_gelu))(given)
    np.testing.assert_allclose(found, slope, atol=1e-6)


def test_gelu_in_bfloat16_keeps_the_negative_tail():
    x = jnp.asarray([-3.0, -2.0, 1.0], jnp.bfloat16)
    found = exact_gelu(x)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(found.astype(np.float32), [-0.00405, -0.0455, 0.8413], rtol=0.1)


def test_layer_norm_survives_a_large_mean():
    x = 1000 + np.random.default_rng(0).normal(size=(4, 64)).astype(np.float32)
    model = LayerNorm(epsilon=1e-6)
    found = model.apply(model.init(jax.random.key(0), x), x)
    wide = x.astype(np.float64)
    wide = (wide - wide.mean(-1, keepdims=True)) / wide.std(-1, keepdims=True)
    np.testing.assert_allclose(found, wide, atol=3e-4)


@pytest.fixture
def heads():
    rng = np.random.default_rng(3)
    return [rng.normal(size=(2, 3, 5, 4)).astype(np.float32) for _ in range(3)]


@pytest.mark.parametrize("attend", [attention, attention_apart])
def test_attention_is_the_equation(heads, attend):
    query, key, value = heads
    weights = softmax(query @ key.swapaxes(-1, -2) / math.sqrt(4), axis=-1)
    np.testing.assert_allclose(attend(query, key, value), weights @ value, atol=1e-6)


@pytest.mark.parametrize("attend", [attention, attention_apart])
def test_masked_keys_change_nothing(heads, attend):
    query, key, value = heads
    mask = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], bool)
    found = attend(query, key, value, mask)
    garbage = np.where(mask[:, None, :, None], 0, 1e4).astype(np.float32)
    np.testing.assert_array_equal(attend(query, key + garbage, value - garbage, mask), found)
    short = attend(query[:1], key[:1, :, :3], value[:1, :, :3])
    np.testing.assert_allclose(found[:1], short, atol=1e-6)


@pytest.mark.parametrize("attend", [attention, attention_apart])
def test_an_example_of_padding_alone_gives_finite_values_and_gradients(heads, attend):
    mask = np.array([[False] * 5, [True] * 5])

    def total(query, key, value):
        return attend(query, key, value, mask).sum()

    out = attend(*heads, mask)
    np.testing.assert_allclose(
        out[0], np.broadcast_to(heads[2][0].mean(1, keepdims=True), out[0].shape), atol=1e-6
    )
    for gradient in jax.grad(total, argnums=(0, 1, 2))(*heads):
        assert np.isfinite(gradient).all()


def test_heads_apart_refuse_what_they_do_not_know():
    x, model = np.zeros((1, 2, 6), np.float32), SelfAttention(3, dropout=0.5, apart=True)
    variables = model.init(jax.random.key(0), x)
    assert model.apply(variables, x).shape == x.shape
    for given in ({"bias": np.zeros((3, 2, 2), np.float32)}, {"train": True}):
        with pytest.raises(ValueError, match="neither bias nor dropout"):
            model.apply(variables, x, **given)


def test_self_attention_refuses_a_width_its_heads_do_not_divide():
    with pytest.raises(ValueError, match="width 10 is not a multiple of 3 heads"):
        SelfAttention(heads=3).init(jax.random.key(0), np.zeros((1, 2, 10), np.float32))


def test_dropout_acts_in_training_alone():
    x = np.random.default_rng(0).normal(size=(2, 6, 8)).astype(np.float32)
    for model in (SelfAttention(heads=2, dropout=0.5), Mlp(16, dropout=0.5)):
        apply = jax.jit(model.apply, static_argnames="train")
        variables = jax.jit(model.init)(jax.random.key(0), x)
        still = apply(variables, x)
        first = apply(variables, x, train=True, rngs={"dropout": jax.random.key(1)})
        again = apply(variables, x, train=True, rngs={"dropout": jax.random.key(1)})
        np.testing.assert_array_equal(first, again)
        assert np.abs(first - still).max() > 1e-3


def test_mask_is_drawn_at_its_rate_anew_by_every_key_and_alike_at_no_two_places():
    keys = [jax.random.key(i) for i in range(8)]
    masks = np.stack([draw_mask(key, 0.3, (64, 25, 40)) for key in keys]).reshape(8, -1)
    n = masks[0].size
    # Five standard deviations: of a share of n draws; of the correlation of n pairs of draws.
    np.testing.assert_allclose(masks.mean(1), 0.3, atol=5 * math.sqrt(0.3 * 0.7 / n))
    alike = np.corrcoef(masks)[np.triu_indices(8, 1)]
    lags = [np.corrcoef(masks[0], np.roll(masks[0], lag))[0, 1] for lag in (1, 2, 25, 40, 1000)]
    assert np.abs([*alike, *lags]).max() < 5 / math.sqrt(n)
    np.testing.assert_array_equal(masks[0], draw_mask(keys[0], 0.3, (n,)))


def test_mask_falls_into_runs_as_long_as_chance_makes_them():
    mask = np.asarray(draw_mask(jax.random.key(0), 0.5, (2**18,)))
    words = np.packbits(mask)  # 2**15 numbers, each of 256 as likely
    counts = np.bincount(words, minlength=256)
    assert counts.min() > 0
    # Chi-squared of 255 degrees of freedom: mean 255, deviation 22.6.
    assert abs(((counts - 128) ** 2 / 128).sum() - 255) < 5 * 22.6


def test_mask_of_a_rate_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="rate 1.0; expected 0 up to below 1"):
        draw_mask(jax.random.key(0), 1.0, (2,))


def test_dropout_keeps_the_mean():
    x = np.ones((200, 500), np.float32)
    found = np.asarray(Dropout(0.25).apply({}, x, train=True, rngs={"dropout": jax.random.key(0)}))
    assert set(np.unique(found)) == {0.0, np.float32(1 / 0.75)}
    assert abs((found == 0).mean() - 0.25) < 5 * math.sqrt(0.25 * 0.75 / x.size)


def test_mlp_of_an_unknown_activation_is_refused():
    with pytest.raises(KeyError):
        Mlp(4, activation="swish").init(jax.random.key(0), np.zeros((1, 2), np.float32))


def test_drop_path_drops_whole_examples_and_keeps_the_mean():
    x = np.ones((20000, 2, 1), np.float32)
    rngs = {"drop_path": jax.random.key(0)}
    found = np.asarray(DropPath(0.25).apply({}, x, train=True, rngs=rngs))
    assert set(np.unique(found)) == {0.0, np.float32(1 / 0.75)}
    np.testing.assert_array_equal(found[:, 0], found[:, 1])
    # Four standard deviations of a share of 20,000 draws.
    share = (found == 0).mean()
    assert abs(share - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 20000)
    assert found.mean() == pytest.approx(1.0, abs=0.02)
    np.testing.assert_array_equal(DropPath(0.25).apply({}, x), x)


def test_alibi_falls_with_distance_in_both_directions():
    bias = alibi(5, 4)
    assert bias.shape == (4, 5, 5)
    np.testing.assert_allclose(bias[0, 2], -0.25 * np.array([2, 1, 0, 1, 2]))  # 2 ** (-8 / 4)
    np.testing.assert_allclose(bias[3, 0], -(2.0**-8) * np.arange(5))


def test_directed_alibi_lets_each_head_see_one_side():
    bias, off = alibi(4, 4, directed=True), -np.inf
    np.testing.assert_allclose(bias[0, 1], [-0.25, 0, off, off])  # before; 2 ** (-8 / 4)
    np.testing.assert_allclose(bias[1, 1], [off, 0, -0.25, -0.5])  # after
    np.testing.assert_allclose(bias[2, 3], -(2.0**-4) * np.array([3, 2, 1, 0]))
    assert np.isfinite(bias[:, range(4), range(4)]).all()


def test_a_strong_bias_is_local_attention():
    query, key = jnp.zeros((1, 1, 6, 4)), jnp.zeros((1, 1, 6, 4))
    value = jnp.arange(24.0).reshape(1, 1, 6, 4)
    np.testing.assert_allclose(
        attention(query, key, value, bias=1e5 * alibi(6, 1)), value, rtol=1e-6
    )
