"""insightface's MobileFaceNet as the encoder of a `FrameClassifier`.

Names as its public code declares its layers (arcface_torch, backbones/mobilefacenet.py): a block is
`layers`, numbered, its convolution, norm and PReLU 0, 1 and 2. Read from that code, not tried on
published weights. It holds no classifier; and by what names `hsemotion` (arXiv 2403.11590) saved
its own could not be established.
"""

from abaw_jax.interop.keymap import Rule
from abaw_jax.interop.keys.convolution import COUNTERS, batch_norm, conv_norm


def _numbered(theirs: str, ours: str, prelu: bool = True) -> tuple[Rule, ...]:
    """A convolution, its norm and its PReLU."""
    conv, norm, slope = (f"{theirs}.layers.{n}" for n in range(3))
    return conv_norm(conv, norm, f"encoder/{ours}", slope if prelu else None)


def _bottleneck(theirs: str, ours: str) -> tuple[Rule, ...]:
    return (
        *_numbered(f"{theirs}.layers.0", f"{ours}/expand"),
        *_numbered(f"{theirs}.layers.1", f"{ours}/depthwise"),
        *_numbered(f"{theirs}.layers.2", f"{ours}/project", prelu=False),
    )


RULES = (
    *_numbered("layers.{i}", "blocks_{i}"),
    *_bottleneck("layers.{i}", "blocks_{i}"),
    *_bottleneck("layers.{i}.layers.{k}", "blocks_{i}/layers_{k}"),
    *_numbered("conv_sep", "last"),
    *_numbered("features.layers.0", "pool", prelu=False),
    Rule("features.layers.2.weight", "params/encoder/embed/kernel", "dense"),
    *batch_norm("features.layers.3", "encoder/norm"),
)
IGNORED = (COUNTERS,)
