"""DDAMFN's public state dict as a `FrameClassifier` on `models.ddamfn.DDAMFN`.

Names as the public code of the second version, DDAMFN++, declares its layers (networks/DDAM.py and
MixedFeatureNet.py); its checkpoints hold them under `model_state_dict`. Read from that code, not
tried on published weights. The first version's heads are others, which attend in one direction
each. What the code declares and its forward pass never calls is among `IGNORED`: norms and PReLUs
behind the mixed convolutions, a `Linear` of each head, a norm of the logits.
"""

from abaw_jax.interop.keymap import Rule
from abaw_jax.interop.keys.convolution import COUNTERS, batch_norm, conv, conv_norm, dense


def _named(theirs: str, ours: str, prelu: bool = True) -> tuple[Rule, ...]:
    """A convolution, its norm and its PReLU."""
    slope = f"{theirs}.prelu" if prelu else None
    return conv_norm(f"{theirs}.conv", f"{theirs}.bn", f"encoder/{ours}", slope)


def _attention(theirs: str, ours: str) -> tuple[Rule, ...]:
    return (
        *conv(f"{theirs}.conv1", f"encoder/{ours}/reduce"),
        *batch_norm(f"{theirs}.bn1", f"encoder/{ours}/norm"),
        *conv(f"{theirs}.conv2", f"encoder/{ours}/expand_rows"),
        *conv(f"{theirs}.conv3", f"encoder/{ours}/expand_columns"),
    )


def _bottleneck(theirs: str, ours: str) -> tuple[Rule, ...]:
    return (
        *_named(f"{theirs}.conv", f"{ours}/expand"),
        *conv(f"{theirs}.conv_dw.mixed_depthwise_conv.{{n}}", f"encoder/{ours}/conv_{{n}}"),
        *_attention(f"{theirs}.CA", f"{ours}/attend"),
        *_named(f"{theirs}.project", f"{ours}/project", prelu=False),
    )


_HEAD = ("cat_head{i}.CoordAtt", "heads_{i}")
RULES = (
    *_named("features.{i}", "blocks_{i}"),
    *_bottleneck("features.{i}", "blocks_{i}"),
    *_bottleneck("features.{i}.model.{k}", "blocks_{i}/layers_{k}"),
    *_attention(*_HEAD),
    *_named(f"{_HEAD[0]}.Linear_h", f"{_HEAD[1]}/rows", prelu=False),
    *_named(f"{_HEAD[0]}.Linear_w", f"{_HEAD[1]}/columns", prelu=False),
    *_named("Linear", "pool", prelu=False),
    *dense("fc", "head"),
)
IGNORED = (
    COUNTERS,
    r"features\.\d+(\.model\.\d+)?\.conv_dw\.(bn|prelu)\..*",
    r"cat_head\d+\.CoordAtt\.Linear\..*",
    r"bn\..*",
)
# What else to ignore where the classifier is dropped.
HEAD = (r"fc\..*",)
