"""Outputs, losses and gradients equal PyTorch's on the same weights and inputs.

The golden files are written by tests/golden/make_golden_models.py.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from abaw_jax.models.heads import FrameClassifier
from abaw_jax.models.layers import BatchNorm
from abaw_jax.models.mae import MAE, reconstruction_loss, reconstruction_target
from abaw_jax.models.sequence import SequenceModel
from abaw_jax.models.transformer import TemporalEncoder
from abaw_jax.models.vit import ViT

GOLDEN = Path(__file__).parents[1] / "golden"
ENCODER = ViT(image_size=16, patch_size=4, width=16, depth=2, heads=4)
AUTOENCODER = MAE(ENCODER, decoder_width=12, decoder_depth=1, decoder_heads=2)


class Golden:
    """One golden file: weights as a tree of float32, inputs by name, found values by name."""

    def __init__(self, name):
        with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as arrays:
            self.arrays = {key: self._read(arrays[key]) for key in arrays.files}
        weights = {key[8:]: a for key, a in self.arrays.items() if key.startswith("weights/")}
        self.params = unflatten_dict(weights, sep="/")

    @staticmethod
    def _read(array):
        return array.astype(np.float32) / 128 if array.dtype == np.int8 else array

    def __getitem__(self, name):
        return self.arrays[name]

    def given(self, name):
        return self.arrays[f"inputs/{name}"]

    def check_gradients(self, found, prefix="gradients/"):
        """Every gradient of the file, to 1e-4 of the largest entry of the same parameter."""
        found = flatten_dict(found, sep="/")
        expected = {k[len(prefix) :]: a for k, a in self.arrays.items() if k.startswith(prefix)}
        assert found.keys() == expected.keys()
        for name, gradient in expected.items():
            largest = np.abs(gradient).max()
            assert largest > 0, name
            np.testing.assert_allclose(
                found[name], gradient, rtol=0, atol=1e-4 * largest, err_msg=name
            )


def same_tree(params, initial):
    """The golden weights have the names and shapes that the model's init makes."""
    shapes = jax.tree.map(lambda a: a.shape, params)
    assert shapes == jax.tree.map(lambda a: a.shape, initial["params"])


@pytest.mark.parametrize("key", ["raw", "normed"])
def test_mae_forward_loss_and_gradients(key):
    golden = Golden("mae_small")
    images, noise = golden.given("images"), golden.given("noise")
    same_tree(golden.params, jax.eval_shape(AUTOENCODER.init, jax.random.key(0), images, noise))

    def loss_of(params):
        prediction, mask = AUTOENCODER.apply({"params": params}, images, noise, train=True)
        target = reconstruction_target(images, 4, norm_pix_loss=key == "normed")
        total, weight = reconstruction_loss(prediction, target, mask)
        return total / weight, (prediction, mask)

    (loss, (prediction, mask)), gradients = jax.jit(jax.value_and_grad(loss_of, has_aux=True))(
        golden.params
    )
    np.testing.assert_array_equal(mask, golden["mask"])
    np.testing.assert_allclose(prediction, golden["prediction"], rtol=1e-5, atol=2e-6)
    np.testing.assert_allclose(loss, golden[f"loss/{key}"], rtol=1e-6)
    golden.check_gradients(gradients, f"gradients/{key}/")


def test_frame_classifier():
    golden = Golden("vit_classifier")
    images, labels = golden.given("images"), np.array([0, 3, 4])
    model = FrameClassifier(ENCODER, outputs=5)
    same_tree(golden.params, jax.eval_shape(model.init, jax.random.key(0), images))

    def loss_of(params):
        logits, features = model.apply({"params": params}, images, train=True)
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)
        return -chosen.mean(), (logits, features)

    (loss, (logits, features)), gradients = jax.jit(jax.value_and_grad(loss_of, has_aux=True))(
        golden.params
    )
    tokens = jax.jit(ENCODER.apply)({"params": golden.params["encoder"]}, images)
    np.testing.assert_allclose(tokens, golden["tokens"], rtol=1e-5, atol=5e-6)
    np.testing.assert_allclose(features, golden["features"], rtol=1e-5, atol=5e-6)
    np.testing.assert_allclose(logits, golden["logits"], rtol=1e-5, atol=5e-6)
    np.testing.assert_allclose(loss, golden["loss"], rtol=1e-6)
    golden.check_gradients(gradients)


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_temporal_encoder_with_padding(activation):
    golden = Golden(f"transformer_{activation}")
    x, mask, probe = golden.given("features"), golden.given("mask"), golden.given("probe")
    model = TemporalEncoder(depth=2, heads=2, mlp_width=24, activation=activation)
    same_tree(golden.params, jax.eval_shape(model.init, jax.random.key(0), x, mask))

    def probed(params, x):
        out = model.apply({"params": params}, x, mask)
        return (out * probe * mask[..., None]).sum(), out

    (_, out), (gradients, of_input) = jax.jit(
        jax.value_and_grad(probed, argnums=(0, 1), has_aux=True)
    )(golden.params, x)
    np.testing.assert_allclose(out, golden["output"], rtol=1e-5, atol=5e-6)
    np.testing.assert_allclose(of_input, golden["input_gradient"], rtol=1e-5, atol=5e-6)
    golden.check_gradients(gradients)


def test_masked_batch_norm_in_training_and_evaluation():
    golden = Golden("transformer_batch_norm")
    model, mask = BatchNorm(), golden.given("mask")
    params = golden.params["norm"]
    x = np.zeros((*mask.shape, 6), np.float32)
    stats = model.init(jax.random.key(0), x, mask)["batch_stats"]
    for step in range(2):
        x, probe = golden.given(f"features_{step}"), golden.given(f"probe_{step}")

        def probed(params, x, stats, probe):
            variables = {"params": params, "batch_stats": stats}
            out, updated = model.apply(variables, x, mask, train=True, mutable=["batch_stats"])
            return (out * probe * mask[..., None]).sum(), (out, updated["batch_stats"])

        (_, (out, stats)), (gradients, of_input) = jax.value_and_grad(
            probed, argnums=(0, 1), has_aux=True
        )(params, x, stats, probe)
        np.testing.assert_allclose(out[mask], golden[f"output_{step}"], rtol=1e-5, atol=2e-6)
        np.testing.assert_allclose(of_input, golden[f"input_gradient_{step}"], atol=1e-5)
        np.testing.assert_allclose(stats["mean"], golden[f"mean_{step}"], rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(stats["var"], golden[f"var_{step}"], rtol=1e-6)
        for name in ("scale", "bias"):
            expected = golden[f"norm/{name}_{step}"]
            np.testing.assert_allclose(gradients[name], expected, rtol=1e-5, atol=1e-5)
    evaluated = model.apply({"params": params, "batch_stats": stats}, x, mask)
    np.testing.assert_allclose(evaluated, golden["evaluated"], rtol=1e-5, atol=2e-6)


def test_sequence_model_whole():
    golden = Golden("transformer_sequence")
    features, mask, probe = golden.given("features"), golden.given("mask"), golden.given("probe")
    model = SequenceModel(16, 2, 2, mlp_width=24, head_width=8, outputs=3, positions="sincos")
    initial = jax.eval_shape(model.init, jax.random.key(0), features, mask)
    same_tree(golden.params, initial)
    stats = {"head": {"norm": {"mean": np.zeros(8, np.float32), "var": np.ones(8, np.float32)}}}

    def probed(params):
        variables = {"params": params, "batch_stats": stats}
        logits, updated = model.apply(
            variables, features, mask, train=True, mutable=["batch_stats"]
        )
        return (logits * probe * mask[..., None]).sum(), (logits, updated["batch_stats"])

    (_, (logits, updated)), gradients = jax.jit(jax.value_and_grad(probed, has_aux=True))(
        golden.params
    )
    np.testing.assert_allclose(logits[mask], golden["logits"], rtol=1e-5, atol=5e-6)
    np.testing.assert_allclose(updated["head"]["norm"]["mean"], golden["mean"], rtol=1e-5)
    np.testing.assert_allclose(updated["head"]["norm"]["var"], golden["var"], rtol=1e-5)
    # BatchNorm takes a constant away again: the gradients of the biases before it are zero, and
    # what both sides hold there is rounding.
    before_norm = [gradients["head"]["fc1"].pop("bias")]
    before_norm.append(gradients["encoder"]["layers_1"]["norm2"].pop("bias"))
    for name in ("head/fc1/bias", "encoder/layers_1/norm2/bias"):
        before_norm.append(golden.arrays.pop(f"gradients/{name}"))
    assert max(np.abs(gradient).max() for gradient in before_norm) < 5e-6
    golden.check_gradients(gradients)
