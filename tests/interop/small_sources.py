"""Weights as other libraries publish them, as small as they come, drawn at random."""

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from abaw_jax.interop.architectures import ARCHITECTURES, make_shapes
from abaw_jax.interop.convert import to_tensors

_VIT = {
    "patch_size": 4, "image_size": 16, "width": 16, "depth": 2, "heads": 2, "mlp_ratio": 4.0,
    "epsilon": 1e-6, "positions": "learned",
}  # fmt: skip
# Sizes of every architecture that is read.
SIZES = {
    "mae": {**_VIT, "decoder_width": 8, "decoder_depth": 1, "decoder_heads": 2},
    "vit": {**_VIT, "pooling": "cls", "outputs": 3},
    # Of these there is no smaller one.
    "efficientnet": {"size": "B0", "image_size": 224, "outputs": 3},
    "mobilevit": {"size": "S", "image_size": 224, "outputs": 3},
    "mobilefacenet": {"size": "default", "image_size": 112, "outputs": 0},
    "ddamfn": {"size": "default", "image_size": 112, "outputs": 3},
    "wav2vec2": {
        "width": 16, "depth": 1, "heads": 2, "extractor_norm": "group", "conv_bias": False,
        "norm_first": False, "position_kernel": 4, "position_groups": 2, "mlp_ratio": 2.0,
        "conv_width": 4, "masking": True, "model_type": "hubert", "normalise": True,
    },
    "vggish": {"widths": [2, 3, 4, 5], "hidden": 6, "embedding": 7, "activate": True},
    "bert": {
        "vocabulary": 25, "width": 8, "depth": 1, "heads": 2, "mlp_width": 12, "positions": 14,
        "types": 2, "epsilon": 1e-5, "first_position": 0, "pooler": True,
    },
}  # fmt: skip
# What is asked for of what tensors do not show.
GIVEN = {
    "mae": {"normalise": "half", "heads": 2, "decoder_heads": 2, "epsilon": 1e-6},
    "vit": {"normalise": "half", "heads": 2, "epsilon": 1e-6, "classes": ["a", "b", "c"]},
    "efficientnet": {"classes": ["a", "b", "c"]},
    "mobilevit": {"normalise": "unit", "classes": ["a", "b", "c"]},
    "mobilefacenet": {},
    "ddamfn": {"classes": ["a", "b", "c"]},
    "wav2vec2": {
        "model_type": "hubert", "hidden_size": 16, "num_hidden_layers": 1, "hidden_act": "gelu",
        "num_attention_heads": 2, "intermediate_size": 32, "feat_extract_activation": "gelu",
        "feat_extract_norm": "group", "conv_kernel": [10, 3, 3, 3, 3, 2, 2], "conv_bias": False,
        "conv_stride": [5, 2, 2, 2, 2, 2, 2], "conv_dim": [4] * 7, "layer_norm_eps": 1e-5,
        "do_stable_layer_norm": False, "num_conv_pos_embeddings": 4,
        "num_conv_pos_embedding_groups": 2,
    },
    "vggish": {},
    "bert": {
        "model_type": "bert", "vocab_size": 25, "hidden_size": 8, "num_hidden_layers": 1,
        "num_attention_heads": 2, "intermediate_size": 12, "max_position_embeddings": 14,
        "type_vocab_size": 2, "layer_norm_eps": 1e-5,
    },
}  # fmt: skip
# Tensors that hold no weights, by the forms that have any.
FURTHER = {
    ("vit", "transformers_bare"): {
        "pooler.dense.weight": np.ones((16, 16), np.float32),
        "pooler.dense.bias": np.ones(16, np.float32),
    },
    ("efficientnet", "timm"): {"bn1.num_batches_tracked": np.array(7)},
    ("wav2vec2", "transformers_wav2vec2"): {"lm_head.bias": np.ones(9, np.float32)},
    ("vggish", "torchvggish"): {"pproc.pca_means": np.ones((7, 1), np.float32)},
    ("bert", "transformers_bert"): {
        "bert.embeddings.position_ids": np.arange(14)[None],
        "cls.predictions.bias": np.ones(25, np.float32),
    },
}


def small_source(key, form, kind=np.float32):
    """Tensors of an architecture by the names of a form, in a type."""
    architecture, sizes, rng = ARCHITECTURES[key], SIZES[key], np.random.default_rng(0)
    shapes = flatten_dict(make_shapes(architecture, sizes), sep="/")
    arrays = jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32), shapes)
    description = {"architecture": key, "model": sizes, "source": {"form": form}}
    tensors = to_tensors(arrays, description) | FURTHER.get((key, form), {})
    return {n: a if a.dtype == np.int64 else a.astype(kind) for n, a in tensors.items()}
