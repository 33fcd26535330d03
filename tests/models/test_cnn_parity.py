"""The convolutional encoders equal timm's and PyTorch's, under the names of public weights.

The golden files are written by tests/golden/make_golden_cnns.py. Weights come in by the tables of
interop/keys, and gradients and statistics are compared under the names these give them back.
"""

import re
from pathlib import Path

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from named_weights import draw_images, draw_weights, sample

from abaw_jax.interop.keymap import read_tensors, write_tensors
from abaw_jax.interop.keys import ddamfn as ddamfn_keys
from abaw_jax.interop.keys import efficientnet as efficientnet_keys
from abaw_jax.interop.keys import mobilefacenet as mobilefacenet_keys
from abaw_jax.interop.keys import mobilevit as mobilevit_keys
from abaw_jax.models import ddamfn, efficientnet, mobilefacenet, mobilevit
from abaw_jax.models.heads import FrameClassifier
from abaw_jax.training.partition import param_specs

GOLDEN = Path(__file__).parents[1] / "golden"
OUTPUTS = 10
B0 = efficientnet.EfficientNet(**efficientnet.SIZES["B0"])
B2 = efficientnet.EfficientNet(**efficientnet.SIZES["B2"])
S = mobilevit.MobileViT(**mobilevit.SIZES["S"])
MOBILEFACENET = mobilefacenet.MobileFaceNet(**mobilefacenet.SIZES["default"])
DDAMFN = ddamfn.DDAMFN(
    **ddamfn.SIZES["default"], stages=tuple(stage._replace(blocks=1) for stage in ddamfn.STAGES)
)
# Encoder, names of its tensors, size of the images; below also the form.
WHOLE = {
    "efficientnet_b0": (B0, efficientnet_keys, 64),
    "efficientnet_b2": (B2, efficientnet_keys, 64),
    "mobilevit_s": (S, mobilevit_keys, 96),
    "mobilefacenet": (MOBILEFACENET, mobilefacenet_keys, 112),
    "ddamfn": (DDAMFN, ddamfn_keys, 112),
}
SMALL = {
    "efficientnet": (
        efficientnet.EfficientNet(
            0.25, stages=(efficientnet.Stage(1, 3, 1, 1, 32), efficientnet.Stage(2, 5, 2, 6, 64))
        ),
        efficientnet_keys,
        16,
        "shifted",
    ),
    "mobilevit": (
        mobilevit.MobileViT(32, (mobilevit.Stage(2, 1, 8), mobilevit.Stage(1, 2, 16, 8, 1))),
        mobilevit_keys,
        20,
        "grouped",
    ),
    "mobilefacenet": (
        mobilefacenet.MobileFaceNet(stages=(mobilefacenet.Stage(16, 16, 1, 16),)),
        mobilefacenet_keys,
        16,
        "shifted",
    ),
    "ddamfn": (
        ddamfn.DDAMFN(
            32,
            stages=(ddamfn.Stage(ddamfn.Mixed(8, (16, 8, 8)), 1, ddamfn.Mixed(8, (16, 16))),),
        ),
        ddamfn_keys,
        16,
        "grouped",
    ),
}  # fmt: skip


class Encoded:
    """An encoder with weights drawn by the names of its tensors, and its golden file.

    With the head of the file's model; insightface's has none.
    """

    def __init__(self, file, encoder, keys, size, form):
        with np.load(GOLDEN / f"cnn_{file}.npz", allow_pickle=False) as arrays:
            self.golden = dict(arrays)
        self.keys, self.size = keys, size
        self.headless = keys is mobilefacenet_keys
        self.model = FrameClassifier(encoder.clone(form=form), OUTPUTS, "none")
        shapes = jax.eval_shape(self.model.init, jax.random.key(0), draw_images(size))
        self.shapes = {path: leaf.shape for path, leaf in flatten_dict(shapes, sep="/").items()}
        if self.headless:
            self.shapes = {p: s for p, s in self.shapes.items() if not p.startswith("params/head/")}
        theirs = write_tensors({p: np.zeros(s) for p, s in self.shapes.items()}, keys.RULES)
        gain = float(self.golden["gain"])
        self.tensors = {name: draw_weights(name, a.shape, gain) for name, a in theirs.items()}
        found = read_tensors(self.tensors, keys.RULES, self.shapes, file, keys.IGNORED)
        self.variables = unflatten_dict(found, sep="/")

    def apply(self, variables, images, **options):
        """As the model's, but of what the encoder gives where there is no head."""
        if not self.headless:
            out = self.model.apply(variables, images, **options)
            return (out[0][0], out[1]) if "mutable" in options else out[0]
        bare = {collection: tree["encoder"] for collection, tree in variables.items()}
        out = self.model.encoder.apply(bare, images, **options)
        if "mutable" not in options:
            return out
        return out[0], {"batch_stats": {"encoder": out[1]["batch_stats"]}}

    def names_of(self, tree, collection):
        """Arrays of a collection under the names of their tensors."""
        arrays = flatten_dict({collection: tree}, sep="/")
        return write_tensors(arrays, self.keys.RULES)


def same(found, expected, message=""):
    """To 1e-5 of the largest number."""
    atol = 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol, err_msg=message)


@pytest.mark.parametrize("name", WHOLE)
def test_whole_encoders_equal_the_published_ones(name):
    case = Encoded(name, *WHOLE[name], form="grouped")
    ignored = [n for n in case.golden["names"] if n not in case.tensors]
    assert all(any(re.fullmatch(p, n) for p in case.keys.IGNORED) for n in ignored)
    assert len(ignored) + len(case.tensors) == len(case.golden["names"])
    out = jax.jit(case.apply)(case.variables, draw_images(case.size))
    same(out, case.golden["output"])
    written = write_tensors(flatten_dict(case.variables, sep="/"), case.keys.RULES)
    assert written.keys() == case.tensors.keys()
    assert all(written[n].tobytes() == a.tobytes() for n, a in case.tensors.items())


@pytest.mark.parametrize("name", SMALL)
def test_training_equals_torch(name):
    case = Encoded(f"small_{name}", *SMALL[name])
    param_specs(case.variables["params"])  # each has a rule of how it lies on devices
    golden, images = case.golden, draw_images(case.size, 8)

    def probed(params):
        variables = {**case.variables, "params": params}
        out, state = case.apply(variables, images, train=True, mutable=["batch_stats"])
        return (out * golden["probe"]).sum(), (out, state["batch_stats"])

    gradient_of = jax.jit(jax.value_and_grad(probed, has_aux=True))
    (_, (out, statistics)), gradients = gradient_of(case.variables["params"])
    same(out, golden["trained"])
    statistics = case.names_of(statistics, "batch_stats")
    assert statistics.keys() == {name for name in case.tensors if ".running_" in name}
    for tensor, found in statistics.items():
        same(sample(found), golden[f"statistics/{tensor}"], tensor)
    gradients = case.names_of(gradients, "params")
    assert gradients.keys() == {name[10:] for name in golden if name.startswith("gradients/")}
    # Of what a norm takes away again there is no gradient but rounding.
    least = 0.1 * max(golden[f"largest/{tensor}"] for tensor in gradients)
    for tensor, found in gradients.items():
        # They pass through each layer twice: another vector width moves them by over 1e-5.
        atol = 1e-4 * max(golden[f"largest/{tensor}"], least)
        expected = golden[f"gradients/{tensor}"]
        np.testing.assert_allclose(sample(found), expected, rtol=0, atol=atol, err_msg=tensor)


@pytest.mark.parametrize(
    ("encoder", "size", "count"), [(B0, 224, 5_288_548), (B2, 260, 9_109_994), (S, 224, 5_578_632)]
)
def test_as_many_parameters_as_timm_with_1000_classes(encoder, size, count):
    model = FrameClassifier(encoder.clone(form="grouped"), 1000, "none")
    images = jax.ShapeDtypeStruct((1, size, size, 3), np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == count
