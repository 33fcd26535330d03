"""wav2vec 2.0 and HuBERT in transformers: Wav2Vec2Model, HubertModel, and the models with heads."""

from collections.abc import Collection, Mapping
from typing import Any

from abaw_jax.data.media import RATE
from abaw_jax.errors import InputError
from abaw_jax.interop.keymap import Rule, Shape
from abaw_jax.models.wav2vec2 import KERNELS, STRIDES, Wav2Vec2

PREFIXES = ("wav2vec2.", "hubert.")  # of the encoder in a model with a head
# The names of the positional kernel's scale and direction, by torch's two forms of weight norm.
WEIGHT_NORMS = (
    ("weight_g", "weight_v"),
    ("parametrizations.weight.original0", "parametrizations.weight.original1"),
)
# What stands beside the encoder: heads of tasks, and what pre-training needs.
IGNORED = (
    r"(quantizer|project_q|project_hid|lm_head|projector|classifier|tdnn|objective)\..*",
    r"feature_extractor\.(weight|bias)",  # a head of speakers
    r"layer_weights",
)
# Their key -> our field, where these are the same.
_FIELDS = {
    "hidden_size": "width",
    "num_hidden_layers": "depth",
    "num_attention_heads": "heads",
    "feat_extract_norm": "extractor_norm",
    "conv_bias": "conv_bias",
    "do_stable_layer_norm": "norm_first",
    "num_conv_pos_embeddings": "position_kernel",
    "num_conv_pos_embedding_groups": "position_groups",
}


def rules(names: Collection[str]) -> tuple[Rule, ...]:
    """The rules of tensors of these names: with or without the prefix of a model with a head, and
    with either form of weight norm."""
    found = [prefix for prefix in PREFIXES if any(name.startswith(prefix) for name in names)]
    before = found[0] if found else ""
    convolution = f"{before}encoder.pos_conv_embed.conv."
    older, newer = WEIGHT_NORMS
    scale, direction = older if convolution + older[0] in names else newer
    layer, block = f"{before}encoder.layers.{{i}}.", "params/layers_{i}/"
    parts = [f"{layer}attention.{part}_proj." for part in "qkv"]
    return (
        Rule(f"{before}masked_spec_embed", "params/mask_embed"),
        *_layer(f"{before}feature_extractor.conv_layers.{{i}}.conv", "params/extractor/conv_{i}",
                "conv1d"),
        *_norm(f"{before}feature_extractor.conv_layers.{{i}}.layer_norm",
               "params/extractor/norm_{i}"),
        *_norm(f"{before}feature_projection.layer_norm", "params/project_norm"),
        *_layer(f"{before}feature_projection.projection", "params/project", "dense"),
        Rule(convolution + scale, "params/positions/scale", "conv1d"),
        Rule(convolution + direction, "params/positions/kernel", "conv1d"),
        Rule(f"{convolution}bias", "params/positions/bias"),
        *_norm(f"{before}encoder.layer_norm", "params/norm"),
        Rule(tuple(f"{part}weight" for part in parts), f"{block}attn/qkv/kernel", "dense"),
        Rule(tuple(f"{part}bias" for part in parts), f"{block}attn/qkv/bias", "flat"),
        *_layer(f"{layer}attention.out_proj", f"{block}attn/proj", "dense_heads"),
        *_norm(f"{layer}layer_norm", f"{block}norm1"),
        *_layer(f"{layer}feed_forward.intermediate_dense", f"{block}mlp/fc1", "dense"),
        *_layer(f"{layer}feed_forward.output_dense", f"{block}mlp/fc2", "dense"),
        *_norm(f"{layer}final_layer_norm", f"{block}norm2"),
    )  # fmt: skip


def _layer(theirs: str, ours: str, layout: str) -> tuple[Rule, Rule]:
    return Rule(f"{theirs}.weight", f"{ours}/kernel", layout), Rule(
        f"{theirs}.bias", f"{ours}/bias"
    )


def _norm(theirs: str, ours: str) -> tuple[Rule, Rule]:
    return Rule(f"{theirs}.weight", f"{ours}/scale"), Rule(f"{theirs}.bias", f"{ours}/bias")


def settings(config: Mapping[str, Any], names: Collection[str], source: str) -> dict[str, Any]:
    """The fields of `Wav2Vec2` for tensors of these names, from transformers' config.json.

    Raises InputError, with `source` in it, for a value that is missing and for an architecture that
    `Wav2Vec2` is not.
    """
    required = {
        "model_type": ("wav2vec2", "hubert"),
        "hidden_act": ("gelu",),
        "feat_extract_activation": ("gelu",),
        "feat_extract_norm": ("group", "layer"),
        "conv_kernel": (list(KERNELS),),
        "conv_stride": (list(STRIDES),),
        "layer_norm_eps": (1e-5,),
    }
    absent = {"add_adapter": False, "adapter_attn_dim": None, "conv_pos_batch_norm": False}
    fixed = required | {key: (value,) for key, value in absent.items()}
    fixed["feat_proj_layer_norm"] = (True,)
    whole = absent | {"feat_proj_layer_norm": True, **config}
    for key, values in fixed.items():
        if (value := whole.get(key)) not in values:
            expected = " or ".join(map(repr, values))
            raise InputError(f"{source}: {key} is {value!r}; expected {expected}")
    try:
        widths = set(config["conv_dim"])
        found = {ours: config[key] for key, ours in _FIELDS.items()} | {
            "mlp_ratio": config["intermediate_size"] / config["hidden_size"],
            "conv_width": config["conv_dim"][0],
            "masking": any(name.endswith("masked_spec_embed") for name in names),
        }
    except KeyError as error:
        raise InputError(
            f"{source}: has no {error.args[0]}; expected transformers' config"
        ) from None
    if len(widths) > 1:
        raise InputError(f"{source}: conv_dim is {config['conv_dim']}; expected one width")
    return found


def sizes(
    shapes: Mapping[str, Shape], form: str, config: Mapping[str, Any], source: str
) -> dict[str, Any]:
    """`settings`, `model_type`, and whether samples are normalised: transformers' default is so.

    Raises InputError as `settings`, and for another rate than 16 kHz.
    """
    del form
    sound = config.get("preprocessor") or {}
    if (rate := sound.get("sampling_rate", RATE)) != RATE:
        raise InputError(f"{source}: sound of {rate} samples a second; expected {RATE}")
    found = settings(config, shapes.keys(), source)
    normalise = bool(sound.get("do_normalize", True))
    return found | {"model_type": config["model_type"], "normalise": normalise}


def make_model(sizes: Mapping[str, Any]) -> Wav2Vec2:
    """Of what `sizes` gives."""
    further = ("model_type", "normalise")
    return Wav2Vec2(**{key: value for key, value in sizes.items() if key not in further})


def transformers_files(description: Mapping[str, Any]) -> dict[str, Any]:
    """config.json and preprocessor_config.json, of which `sizes` makes the same."""
    sizes = description["model"]
    layers = len(KERNELS)
    config = {
        "model_type": sizes["model_type"],
        "architectures": ["HubertModel" if sizes["model_type"] == "hubert" else "Wav2Vec2Model"],
        **{key: sizes[ours] for key, ours in _FIELDS.items()},
        "intermediate_size": round(sizes["width"] * sizes["mlp_ratio"]),
        "num_feat_extract_layers": layers,
        "conv_dim": [sizes["conv_width"]] * layers,
        "conv_kernel": list(KERNELS),
        "conv_stride": list(STRIDES),
        "hidden_act": "gelu",
        "feat_extract_activation": "gelu",
        "layer_norm_eps": 1e-5,
    }
    if not sizes["masking"]:
        config |= {"mask_time_prob": 0.0, "mask_feature_prob": 0.0}
    sound = {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "feature_size": 1,
        "sampling_rate": RATE,
        "padding_value": 0.0,
        "do_normalize": sizes["normalise"],
        "return_attention_mask": sizes["extractor_norm"] == "layer",
    }
    return {"config.json": config, "preprocessor_config.json": sound}
