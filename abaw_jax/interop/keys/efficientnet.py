"""timm's EfficientNet as a `FrameClassifier` on `models.efficientnet.EfficientNet`.

timm's names number the norms of a block by their order, which differs where there is no expansion:
in the first stage, the only such one of B0 to B7. Established against timm 1.0.
"""

from abaw_jax.interop.keys.convolution import COUNTERS, conv, conv_norm, dense

_FIRST = ("blocks.0.{k}", "encoder/blocks_0/layers_{k}")
_BLOCK = ("blocks.{i}.{k}", "encoder/blocks_{i}/layers_{k}")
RULES = (
    *conv_norm("conv_stem", "bn1", "encoder/stem"),
    *conv_norm(f"{_FIRST[0]}.conv_dw", f"{_FIRST[0]}.bn1", f"{_FIRST[1]}/depthwise"),
    *conv_norm(f"{_FIRST[0]}.conv_pw", f"{_FIRST[0]}.bn2", f"{_FIRST[1]}/project"),
    *conv_norm(f"{_BLOCK[0]}.conv_pw", f"{_BLOCK[0]}.bn1", f"{_BLOCK[1]}/expand"),
    *conv_norm(f"{_BLOCK[0]}.conv_dw", f"{_BLOCK[0]}.bn2", f"{_BLOCK[1]}/depthwise"),
    *conv_norm(f"{_BLOCK[0]}.conv_pwl", f"{_BLOCK[0]}.bn3", f"{_BLOCK[1]}/project"),
    *conv(f"{_BLOCK[0]}.se.conv_reduce", f"{_BLOCK[1]}/se/reduce"),
    *conv(f"{_BLOCK[0]}.se.conv_expand", f"{_BLOCK[1]}/se/expand"),
    *conv_norm("conv_head", "bn2", "encoder/last"),
    *dense("classifier", "head"),
)
IGNORED = (COUNTERS,)
# What else to ignore where the classifier is dropped.
HEAD = (r"classifier\..*",)
