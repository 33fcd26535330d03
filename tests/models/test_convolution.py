"""Both forms of convolutions in groups are the same, and which is taken where."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from abaw_jax.models.convolution import Conv, ConvNorm, convolve, find_form
from abaw_jax.models.layers import keep_norms


def drawn(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def operations(form):
    """The names of what a depthwise convolution is traced to."""
    x, kernel = drawn(0, 1, 5, 5, 4), drawn(1, 3, 3, 1, 4)
    traced = jax.make_jaxpr(lambda x: convolve(x, kernel, groups=4, form=form))(x)
    return str(traced)


@pytest.mark.parametrize(
    ("sides", "stride", "padding", "channels", "groups", "outputs"),
    [
        ((3, 3), 1, (1, 1), 4, 4, 4),
        ((5, 5), 2, (2, 2), 4, 4, 4),  # of 8 rows the last padding goes unseen, of 7 columns none
        ((3, 3), 2, (0, 0), 4, 4, 8),  # two outputs a channel; the last row goes unseen
        ((1, 7), 1, (0, 0), 6, 6, 6),
        ((3, 3), 1, (1, 1), 6, 3, 9),  # three groups of two inputs and three outputs
        ((1, 1), 1, (0, 0), 3, 1, 5),
        ((3, 1), 2, (2, 1), 3, 3, 3),  # more padding than the kernel reaches
    ],
)
def test_both_forms_give_the_same_values_and_gradients(
    sides, stride, padding, channels, groups, outputs
):
    x, kernel = drawn(0, 2, 8, 7, channels), drawn(1, *sides, channels // groups, outputs)

    def probed(x, kernel, form):
        out = convolve(x, kernel, stride=stride, padding=padding, groups=groups, form=form)
        return (out * drawn(2, *out.shape)).sum(), out

    compute = jax.jit(jax.value_and_grad(probed, argnums=(0, 1), has_aux=True), static_argnums=2)
    ((_, shifted), gradients), ((_, grouped), expected) = (
        compute(x, kernel, form) for form in ("shifted", "grouped")
    )
    np.testing.assert_allclose(shifted, grouped, rtol=1e-5, atol=1e-5)
    for found, gradient in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(found, gradient, rtol=1e-5, atol=2e-5)


def test_the_form_follows_the_backend_unless_it_is_named(monkeypatch):
    assert "conv_general_dilated" in operations("grouped")
    assert "conv_general_dilated" not in operations("shifted")
    assert operations(None) == operations("shifted")  # tests run on CPU
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert find_form() == "grouped" and find_form("shifted") == "shifted"
    with pytest.raises(ValueError, match="form 'direct'; expected one of"):
        find_form("direct")


def test_channels_that_do_not_fit_the_groups_are_refused():
    with pytest.raises(ValueError, match="6 channels to 8 in 4 groups of 2"):
        convolve(drawn(0, 1, 4, 4, 6), drawn(1, 1, 1, 2, 8), groups=4)


def test_a_form_is_passed_on_and_layers_compute_in_their_type():
    model = ConvNorm(4, (3, 3), groups=4, activation="prelu", form="grouped", dtype=jnp.bfloat16)
    x = drawn(0, 2, 5, 5, 4)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    traced = jax.make_jaxpr(model.apply)(variables, x)
    assert traced.out_avals[0].dtype == jnp.bfloat16 and "conv_general_dilated" in str(traced)


def test_a_norm_done_with_a_convolution_scales_its_bias_too():
    conv, x = Conv(3, bias=True), drawn(0, 1, 2, 2, 4)
    variables = {"params": {"kernel": drawn(1, 1, 1, 4, 3), "bias": drawn(2, 3)}}
    factor, shift = jnp.asarray(drawn(3, 3)), jnp.asarray(drawn(4, 3))
    expected = conv.apply(variables, x) * factor + shift
    np.testing.assert_allclose(conv.apply(variables, x, (factor, shift)), expected, atol=1e-5)


def test_a_frozen_norm_is_folded_as_elsewhere():
    model, x = ConvNorm(4, (3, 3), form="grouped"), drawn(0, 2, 5, 5, 3)
    variables = model.init(jax.random.key(0), x)
    with keep_norms(lambda path: True):
        found = model.apply(variables, x)
    np.testing.assert_array_equal(found, model.apply(variables, x))
