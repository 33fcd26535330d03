"""Vision transformers and masked autoencoders: names of their tensors, and what these tell.

Three ways of naming, each with its own: timm's, which is facebookresearch/mae's (and MAE-Face's)
too; transformers' ViT and ViTMAE as files have them; the same as its modules are called since
release 5. Files of that release name an autoencoder's decoder in a fourth way.
"""

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from abaw_jax.errors import InputError
from abaw_jax.interop.keymap import Rule, Shape
from abaw_jax.models.vit import SIZES


class Names(NamedTuple):
    """What a library calls the parts; a block's by our own names for them."""

    cls_token: str
    pos_embed: str
    patch_embed: str
    block: str
    norm: str
    fc_norm: str | None  # that of a mean of tokens; None: the library has no such model
    head: str
    decoder: str  # before the decoder's single tensors
    decoder_block: str
    parts: Mapping[str, str | tuple[str, ...]]
    decoder_parts: Mapping[str, str | tuple[str, ...]]


_TIMM = {
    "norm1": "norm1", "norm2": "norm2", "attn/qkv": "attn.qkv", "attn/proj": "attn.proj",
    "mlp/fc1": "mlp.fc1", "mlp/fc2": "mlp.fc2",
}  # fmt: skip
_FILES = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn/qkv": tuple(f"attention.attention.{part}" for part in ("query", "key", "value")),
    "attn/proj": "attention.output.dense",
    "mlp/fc1": "intermediate.dense",
    "mlp/fc2": "output.dense",
}
_MODULES = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn/qkv": tuple(f"attention.{part}_proj" for part in "qkv"),
    "attn/proj": "attention.o_proj",
    "mlp/fc1": "mlp.fc1",
    "mlp/fc2": "mlp.fc2",
}


def _transformers(prefix: str, block: str, parts: Mapping, decoder_block: str) -> Names:
    return Names(
        f"{prefix}embeddings.cls_token", f"{prefix}embeddings.position_embeddings",
        f"{prefix}embeddings.patch_embeddings.projection", f"{prefix}{block}",
        f"{prefix}layernorm", None, "classifier", "decoder.", f"decoder.{decoder_block}",
        parts, parts,
    )  # fmt: skip


# "bare" are those of models without anything on top, as ViTModel and ViTMAEModel.
NAMES = {
    "timm": Names(
        "cls_token", "pos_embed", "patch_embed.proj", "blocks.{i}.", "norm", "fc_norm", "head", "",
        "decoder_blocks.{i}.", _TIMM, _TIMM,
    ),
    "transformers": _transformers(
        "vit.", "encoder.layer.{i}.", _FILES, "decoder_layers.{i}."
    ),
    "transformers_5": _transformers(
        "vit.", "encoder.layer.{i}.", _FILES, "decoder_encoder.layer.{i}."
    ),
    "transformers_modules": _transformers(
        "vit.", "layers.{i}.", _MODULES, "decoder_layers.{i}."
    ),
    "transformers_bare": _transformers("", "encoder.layer.{i}.", _FILES, ""),
    "transformers_modules_bare": _transformers("", "layers.{i}.", _MODULES, ""),
}  # fmt: skip
# ViTModel's: a dense layer and tanh on the CLS token, which nothing here uses.
IGNORED = (r"(vit\.)?pooler\.dense\.(weight|bias)",)
HEAD = r"(head|classifier)\.(weight|bias)"
DECODER = r"(decoder[._]|mask_token).*"

_LAYOUTS = {
    "attn/qkv": ("dense", "flat"),
    "attn/proj": ("dense_heads", "same"),
    "mlp/fc1": ("dense", "same"),
    "mlp/fc2": ("dense", "same"),
}
_HEADS = {sizes["width"]: sizes["heads"] for sizes in SIZES.values()}


def _norm(theirs: str, ours: str) -> tuple[Rule, Rule]:
    return Rule(f"{theirs}.weight", f"{ours}/scale"), Rule(f"{theirs}.bias", f"{ours}/bias")


def _dense(
    theirs: str | tuple[str, ...], ours: str, kernel: str = "dense", bias: str = "same"
) -> tuple[Rule, Rule]:
    several = (theirs,) if isinstance(theirs, str) else theirs
    return (
        Rule(tuple(f"{name}.weight" for name in several), f"{ours}/kernel", kernel),
        Rule(tuple(f"{name}.bias" for name in several), f"{ours}/bias", bias),
    )


def _block(theirs: str, ours: str, parts: Mapping[str, str | tuple[str, ...]]) -> list[Rule]:
    found = []
    for part, names in parts.items():
        several = (names,) if isinstance(names, str) else names
        whole = tuple(f"{theirs}{name}" for name in several)
        if part in _LAYOUTS:
            found += _dense(whole, f"{ours}/{part}", *_LAYOUTS[part])
        else:
            found += _norm(whole[0], f"{ours}/{part}")
    return found


def _encoder(names: Names) -> list[Rule]:
    return [
        Rule(names.cls_token, "params/encoder/cls_token"),
        Rule(names.pos_embed, "params/encoder/pos_embed"),
        *_dense(names.patch_embed, "params/encoder/patch_embed", "patches"),
        *_block(names.block, "params/encoder/blocks_{i}", names.parts),
    ]


def vit_rules(form: str, pooling: str) -> list[Rule]:
    """Of `models.heads.FrameClassifier`. Raises InputError where the library has no such model."""
    names = NAMES[form]
    norm = names.fc_norm if pooling == "mean" else names.norm
    if norm is None:
        raise InputError(
            f"names as {form}: that library's ViT has no norm of the mean of tokens, which this "
            "model has (pooling 'mean'); write it with timm's names"
        )
    return [
        *_encoder(names),
        *_norm(norm, "params/fc_norm"),
        *_dense(names.head, "params/head"),
    ]


def mae_rules(form: str) -> list[Rule]:
    """Of `models.mae.MAE`, and of the decoder's fixed table of positions."""
    names = NAMES[form]
    decoder = names.decoder
    return [
        *_encoder(names),
        *_norm(names.norm, "params/norm"),
        *_dense(f"{decoder}decoder_embed", "params/decoder_embed"),
        Rule(f"{decoder}mask_token", "params/mask_token"),
        Rule(f"{decoder}decoder_pos_embed", "params/decoder_pos_embed"),
        *_block(names.decoder_block, "params/decoder_blocks_{i}", names.decoder_parts),
        *_norm(f"{decoder}decoder_norm", "params/decoder_norm"),
        *_dense(f"{decoder}decoder_pred", "params/decoder_pred"),
    ]


def vit_sizes(
    shapes: Mapping[str, Shape], form: str, config: Mapping[str, Any], source: str
) -> dict[str, Any]:
    """Sizes of a ViT from its tensors, and from `config` what they do not show.

    config: transformers' config.json, with heads, epsilon and pooling as the user gives them.
    Raises InputError, naming `source`, where a size cannot be found.
    """
    names = NAMES[form]
    needed = (f"{names.patch_embed}.weight", names.pos_embed)
    if absent := [name for name in needed if name not in shapes]:
        raise InputError(f"{source}: lacks {', '.join(absent)}, by which a ViT's size is known")
    kernel, table = (shapes[name] for name in needed)
    grid = math.isqrt(max(table[1] - 1, 0)) if len(table) == 3 else 0
    if len(kernel) != 4 or kernel[1] != 3 or kernel[2] != kernel[3]:
        raise InputError(f"{source}: {needed[0]} is {kernel}; expected (width, 3, patch, patch)")
    if not grid or table[1] != 1 + grid**2 or table[2] != kernel[0]:
        raise InputError(
            f"{source}: {needed[1]} is {table}; expected (1, 1 + a square, {kernel[0]}): a ViT "
            "with one CLS token and square images"
        )
    _check_config(config, source)
    width, hidden = kernel[0], shapes.get(_first(names.block, names.parts["mlp/fc1"]))
    return {
        "patch_size": kernel[2],
        "image_size": grid * kernel[2],
        "width": width,
        "depth": _count(names.block, shapes),
        "heads": _find_heads(width, config, "num_attention_heads", "heads", source),
        "mlp_ratio": (hidden[0] / width if hidden else 4.0),
        "epsilon": _find_epsilon(form, config, source),
        "positions": "learned",
        "pooling": _find_pooling(names, shapes, config, source),
        "outputs": (shapes.get(f"{names.head}.weight") or (0,))[0],
    }


def mae_sizes(
    shapes: Mapping[str, Shape], form: str, config: Mapping[str, Any], source: str
) -> dict[str, Any]:
    """The same of an autoencoder; its decoder's widths beside."""
    names, sizes = NAMES[form], vit_sizes(shapes, form, config, source)
    embed = f"{names.decoder}decoder_embed.weight"
    if embed not in shapes:
        raise InputError(f"{source}: lacks {embed}, by which a decoder's size is known")
    width = shapes[embed][0]
    heads = _find_heads(width, config, "decoder_num_attention_heads", "decoder_heads", source)
    sizes = {key: value for key, value in sizes.items() if key not in ("pooling", "outputs")}
    return sizes | {
        "decoder_width": width,
        "decoder_depth": _count(names.decoder_block, shapes),
        "decoder_heads": heads,
    }


def transformers_files(description: Mapping[str, Any]) -> dict[str, Any]:
    """What transformers makes the model of a description with, and prepares images by."""
    sizes, classes, image = description["model"], description["classes"], description["image"]
    mae = "decoder_width" in sizes
    config = {
        "architectures": [
            "ViTMAEForPreTraining"
            if mae
            else "ViTForImageClassification"
            if classes
            else "ViTModel"
        ],
        "model_type": "vit_mae" if mae else "vit",
        "hidden_size": sizes["width"],
        "num_hidden_layers": sizes["depth"],
        "num_attention_heads": sizes["heads"],
        "intermediate_size": round(sizes["width"] * sizes["mlp_ratio"]),
        "hidden_act": "gelu",
        "layer_norm_eps": sizes["epsilon"],
        "image_size": sizes["image_size"],
        "patch_size": sizes["patch_size"],
        "num_channels": 3,
        "qkv_bias": True,
    }
    if mae:
        config |= {
            "decoder_hidden_size": sizes["decoder_width"],
            "decoder_num_hidden_layers": sizes["decoder_depth"],
            "decoder_num_attention_heads": sizes["decoder_heads"],
            "decoder_intermediate_size": 4 * sizes["decoder_width"],
        }
    if classes:
        config["id2label"] = {str(i): name for i, name in enumerate(classes)}
        config["label2id"] = {name: i for i, name in enumerate(classes)}
    files = {"config.json": config}
    if "mean" in image:
        files["preprocessor_config.json"] = {
            "image_processor_type": "ViTImageProcessor",
            "do_resize": True,
            "do_rescale": True,
            "do_normalize": True,
            "size": {"height": image["size"], "width": image["size"]},
            "image_mean": image["mean"],
            "image_std": image["std"],
        }
    return files


def timm_files(description: Mapping[str, Any]) -> dict[str, Any]:
    """What timm.models.VisionTransformer is made with, and what timm says of pixels; MAE's code
    has no such file."""
    sizes, image = description["model"], description["image"]
    own = {key: sizes[key] for key in ("patch_size", "depth", "mlp_ratio")}
    config = {
        "model_args": {
            "img_size": sizes["image_size"], "embed_dim": sizes["width"],
            "num_heads": sizes["heads"], **own,
        },
        "num_classes": len(description["classes"]),
        "label_names": description["classes"],
        "num_attention_heads": sizes["heads"],
        "layer_norm_eps": sizes["epsilon"],
        "pretrained_cfg": {
            "input_size": [3, image["size"], image["size"]],
            **{key: image[key] for key in ("mean", "std") if key in image},
        },
    }  # fmt: skip
    return {"config.json": config}


def _first(block: str, part: Any) -> str:
    return f"{block.format(i=0)}{part}.weight"


def _count(template: str, shapes: Mapping[str, Shape]) -> int:
    """How many blocks there are: one more than the highest number."""
    pattern = re.escape(template).replace(r"\{i\}", r"(\d+)") + ".*"
    found = (re.fullmatch(pattern, name) for name in shapes)
    return max((1 + int(match[1]) for match in found if match), default=0)


def _find_heads(width: int, config: Mapping[str, Any], key: str, flag: str, source: str) -> int:
    """Heads cannot be seen in tensors: as the config says, or by the published widths."""
    known = {512: 16} if flag == "decoder_heads" else _HEADS
    heads = config.get(flag) or config.get(key) or known.get(width)
    if not heads or width % heads:
        raise InputError(
            f"{source}: {heads or 'no number of'} heads for a width of {width}, which tensors do "
            f"not show; give --{flag}"
        )
    return heads


def _find_epsilon(form: str, config: Mapping[str, Any], source: str) -> float:
    epsilon = config.get("epsilon") or config.get("layer_norm_eps")
    if epsilon is None and form == "timm":  # its code fixes it
        return 1e-6
    if epsilon is None:
        raise InputError(
            f"{source}: no layer_norm_eps, which tensors do not show; put the model's config.json "
            "beside it, or give --epsilon (1e-12 in transformers' defaults)"
        )
    return float(epsilon)


def _find_pooling(
    names: Names, shapes: Mapping[str, Shape], config: Mapping[str, Any], source: str
) -> str:
    """As asked for where the norm that the file has allows it; by default CLS, or with a norm of
    the mean that."""
    mean = f"{names.fc_norm}.weight" in shapes
    pooling = config.get("pooling") or ("mean" if mean else "cls")
    if (pooling == "mean") != mean:
        raise InputError(
            f"{source}: --pooling={pooling}, and its norm is "
            f"{'of the mean of tokens: mean' if mean else 'of single tokens: cls or norm_mean'}"
        )
    return pooling


def _check_config(config: Mapping[str, Any], source: str) -> None:
    """Raise InputError for a ViT that is another network."""
    for key, value in (("hidden_act", "gelu"), ("qkv_bias", True), ("num_channels", 3)):
        if config.get(key, value) != value:
            raise InputError(f"{source}: config.json has {key} {config[key]!r}; expected {value!r}")
