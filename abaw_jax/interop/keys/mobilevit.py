"""timm's `mobilevit_s` as a `FrameClassifier` on `models.mobilevit.MobileViT`.

Established against timm 1.0. A stage with a transformer has one inverted residual before it, as all
of timm's have.
"""

from abaw_jax.interop.keymap import Rule
from abaw_jax.interop.keys.convolution import COUNTERS, conv, conv_norm, dense


def _named(theirs: str, ours: str):
    """A convolution and its norm, which timm calls conv and bn."""
    return conv_norm(f"{theirs}.conv", f"{theirs}.bn", f"encoder/{ours}")


def _layer_norm(theirs: str, ours: str):
    return (
        Rule(f"{theirs}.weight", f"params/encoder/{ours}/scale"),
        Rule(f"{theirs}.bias", f"params/encoder/{ours}/bias"),
    )


_BLOCK = ("stages.{i}.{k}", "blocks_{i}/layers_{k}")
_ATTEND = ("stages.{i}.1", "blocks_{i}/attend")
_LAYER = ("stages.{i}.1.transformer.{k}", "blocks_{i}/attend/layers_{k}")
_QKV = (f"{_LAYER[0]}.attn.qkv", f"params/encoder/{_LAYER[1]}/attn/qkv")
_PROJ = (f"{_LAYER[0]}.attn.proj", f"params/encoder/{_LAYER[1]}/attn/proj")
RULES = (
    *_named("stem", "stem"),
    *_named(f"{_BLOCK[0]}.conv1_1x1", f"{_BLOCK[1]}/expand"),
    *_named(f"{_BLOCK[0]}.conv2_kxk", f"{_BLOCK[1]}/depthwise"),
    *_named(f"{_BLOCK[0]}.conv3_1x1", f"{_BLOCK[1]}/project"),
    *_named(f"{_ATTEND[0]}.conv_kxk", f"{_ATTEND[1]}/local"),
    *conv(f"{_ATTEND[0]}.conv_1x1", f"encoder/{_ATTEND[1]}/widen"),
    *_layer_norm(f"{_LAYER[0]}.norm1", f"{_LAYER[1]}/norm1"),
    Rule(f"{_QKV[0]}.weight", f"{_QKV[1]}/kernel", "dense"),
    Rule(f"{_QKV[0]}.bias", f"{_QKV[1]}/bias", "flat"),
    Rule(f"{_PROJ[0]}.weight", f"{_PROJ[1]}/kernel", "dense_heads"),
    Rule(f"{_PROJ[0]}.bias", f"{_PROJ[1]}/bias"),
    *_layer_norm(f"{_LAYER[0]}.norm2", f"{_LAYER[1]}/norm2"),
    *dense(f"{_LAYER[0]}.mlp.fc1", f"encoder/{_LAYER[1]}/mlp/fc1"),
    *dense(f"{_LAYER[0]}.mlp.fc2", f"encoder/{_LAYER[1]}/mlp/fc2"),
    *_layer_norm(f"{_ATTEND[0]}.norm", f"{_ATTEND[1]}/norm"),
    *_named(f"{_ATTEND[0]}.conv_proj", f"{_ATTEND[1]}/narrow"),
    *_named(f"{_ATTEND[0]}.conv_fusion", f"{_ATTEND[1]}/fuse"),
    *_named("final_conv", "last"),
    *dense("head.fc", "head"),
)
IGNORED = (COUNTERS,)
# What else to ignore where the classifier is dropped.
HEAD = (r"head\.fc\..*",)
