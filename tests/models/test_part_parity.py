"""The parts of the published systems equal PyTorch's in outputs and in every gradient.

The golden files are written by tests/golden/make_golden_parts.py.
"""

import jax
import numpy as np
import pytest
from test_model_parity import Golden, same_tree

from abaw_jax.models.fusion import METHODS, LearnedGates, Pointwise, TwoViewFusion, fixed_gates
from abaw_jax.models.heads import LastFrameHead
from abaw_jax.models.recurrent import GRUEncoder
from abaw_jax.models.tcn import TemporalConvNet


def check_part(golden, run, *inputs, input_gradients):
    """run(params, *inputs) gives the file's `output`, and with its probe the file's gradients.

    input_gradients: names of those of the first inputs. Returns what was compiled for it, a
    function of the same arguments to (output, gradients of params and of the first inputs).
    """
    probe = golden.given("probe")

    def probed(params, *inputs):
        out = run(params, *inputs)
        return (out * probe).sum(), out

    @jax.jit
    def compute(params, *inputs):
        argnums = tuple(range(1 + len(input_gradients)))
        gradient_of = jax.value_and_grad(probed, argnums=argnums, has_aux=True)
        (_, out), gradients = gradient_of(params, *inputs)
        return out, gradients

    out, (gradients, *of_inputs) = compute(golden.params, *inputs)
    np.testing.assert_allclose(out, golden["output"], rtol=1e-5, atol=5e-6)
    for name, found in zip(input_gradients, of_inputs, strict=True):
        np.testing.assert_allclose(found, golden[name], rtol=1e-5, atol=5e-6)
    golden.check_gradients(gradients)
    return lambda *arguments: jax.device_get(compute(*arguments))


def finite(tree):
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))


def test_temporal_convolution_network():
    golden = Golden("parts_tcn")
    model, x = TemporalConvNet(widths=(8, 5)), golden.given("features")
    same_tree(golden.params, jax.eval_shape(model.init, jax.random.key(0), x))
    run = lambda params, x: model.apply({"params": params}, x)  # noqa: E731
    check_part(golden, run, x, input_gradients=["input_gradient"])


def test_gru_encoder_equals_packed_sequences_and_passes_masked_frames_over():
    golden = Golden("parts_gru")
    model, x, mask = GRUEncoder(5, 4), golden.given("features"), golden.given("mask")
    same_tree(golden.params, jax.eval_shape(model.init, jax.random.key(0), x, mask))
    run = lambda params, x, mask: model.apply({"params": params}, x, mask)  # noqa: E731
    compute = check_part(golden, run, x, mask, input_gradients=["input_gradient"])

    out, (_, of_x) = compute(golden.params, x, mask)
    np.testing.assert_array_equal(of_x[~mask], 0)
    garbage = np.where(mask[..., None], x, np.float32(9))
    np.testing.assert_array_equal(compute(golden.params, garbage, mask)[0], out)
    # A hole counts for as little as padding: four frames, then the same four further apart.
    torn, holes = x.copy(), mask.copy()
    torn[1, 3:6], holes[1] = x[1, 1:4], [1, 0, 0, 1, 1, 1, 0]
    np.testing.assert_allclose(compute(golden.params, torn, holes)[0], out, rtol=1e-5, atol=1e-6)
    # A clip of padding alone has states of zero.
    empty, gradients = compute(golden.params, x, np.zeros_like(mask))
    bias = golden.params["project"]["bias"]
    np.testing.assert_allclose(empty, [np.where(bias > 0, bias, 0.01 * bias)] * 3, rtol=1e-6)
    assert finite(gradients)


def test_last_frame_head():
    golden = Golden("parts_last_frame")
    model, x, probe = LastFrameHead(8, 3), golden.given("features"), golden.given("probe")
    mask = np.ones(x.shape[:2], bool)
    counted = mask & (np.arange(4) < 3)[:, None]
    same_tree(golden.params, jax.eval_shape(model.init, jax.random.key(0), x, mask))
    stats = {"norm": {"mean": np.zeros(8, np.float32), "var": np.ones(8, np.float32)}}

    def probed(params):
        given = {"params": params, "batch_stats": stats}
        out, updated = model.apply(given, x, mask, counted, train=True, mutable=["batch_stats"])
        return (out[:3] * probe).sum(), (out, updated["batch_stats"])

    (_, (out, updated)), gradients = jax.jit(jax.value_and_grad(probed, has_aux=True))(
        golden.params
    )
    np.testing.assert_allclose(out[:3], golden["output"], rtol=1e-5, atol=5e-6)
    np.testing.assert_allclose(updated["norm"]["mean"], golden["mean"], rtol=1e-5)
    np.testing.assert_allclose(updated["norm"]["var"], golden["var"], rtol=1e-5)
    evaluated = jax.jit(model.apply)({"params": golden.params, "batch_stats": updated}, x, mask)
    np.testing.assert_allclose(evaluated, golden["evaluated"], rtol=1e-5, atol=5e-6)
    # BatchNorm takes a constant away again: the bias before it has a gradient of rounding alone.
    before_norm = gradients["fc1"].pop("bias"), golden.arrays.pop("gradients/fc1/bias")
    assert max(np.abs(gradient).max() for gradient in before_norm) < 5e-6
    golden.check_gradients(gradients)


def test_modalities_gated_and_projected_whatever_a_missing_one_holds():
    golden = Golden("parts_modalities")
    parts, presence = [golden.given("part_0"), golden.given("part_1")], golden.given("presence")
    gates, fuse = LearnedGates(), Pointwise((6, 4))

    def run(params, *parts):
        gated = gates.apply({"params": params["gates"]}, parts, presence)
        return fuse.apply({"params": params["fuse"]}, *gated)

    key = jax.random.key(0)
    initial = {"gates": jax.eval_shape(gates.init, key, parts, presence)["params"]}
    initial["fuse"] = jax.eval_shape(fuse.init, key, *parts)["params"]
    same_tree(golden.params, {"params": initial})
    names = ["part_0_gradient", "part_1_gradient"]
    compute = check_part(golden, run, *parts, input_gradients=names)
    holes = [np.where(presence[..., m, None], part, np.nan) for m, part in enumerate(parts)]
    compare = np.testing.assert_array_equal
    jax.tree.map(compare, compute(golden.params, *holes), compute(golden.params, *parts))
    weighted = fixed_gates(holes, presence, (0.5, 2.0))
    fixed = fuse.apply({"params": golden.params["fuse"]}, *weighted)
    np.testing.assert_allclose(fixed, golden["fixed"], rtol=1e-5, atol=5e-6)


@pytest.mark.parametrize("method", METHODS)
def test_two_view_fusion(method):
    golden = Golden(f"parts_views_{method}")
    fusion, head = TwoViewFusion(width=12, method=method), Pointwise((8, 5), slope=0.0)
    views = golden.given("whole"), golden.given("composite")
    key = jax.random.key(0)
    fused, initial = jax.eval_shape(fusion.init_with_output, key, *views)
    initial["params"]["head"] = jax.eval_shape(head.init, key, fused)["params"]
    same_tree(golden.params, initial)

    def run(params, *views):
        own = {name: part for name, part in params.items() if name != "head"}
        return head.apply({"params": params["head"]}, fusion.apply({"params": own}, *views))

    check_part(golden, run, *views, input_gradients=["whole_gradient", "composite_gradient"])
