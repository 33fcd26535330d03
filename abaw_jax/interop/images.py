"""The architectures that see images: vision transformers and convolutional encoders."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from abaw_jax.errors import InputError
from abaw_jax.interop.forms import Architecture, Arrays, Form, Sizes
from abaw_jax.interop.keymap import Shape
from abaw_jax.interop.keys import convolution, ddamfn, efficientnet, mobilefacenet, mobilevit, vit
from abaw_jax.interop.positions import resize_positions
from abaw_jax.models.ddamfn import DDAMFN
from abaw_jax.models.ddamfn import PIXELS as DDAMFN_PIXELS
from abaw_jax.models.efficientnet import PIXELS as EFFICIENTNET_PIXELS
from abaw_jax.models.efficientnet import SIZES as EFFICIENTNETS
from abaw_jax.models.efficientnet import EfficientNet
from abaw_jax.models.heads import FrameClassifier
from abaw_jax.models.layers import sincos_2d
from abaw_jax.models.mae import MAE
from abaw_jax.models.mobilefacenet import PIXELS as MOBILEFACENET_PIXELS
from abaw_jax.models.mobilefacenet import MobileFaceNet
from abaw_jax.models.mobilevit import PIXELS as MOBILEVIT_PIXELS
from abaw_jax.models.mobilevit import SIZES as MOBILEVITS
from abaw_jax.models.mobilevit import MobileViT
from abaw_jax.models.vit import ViT


def _make_vit(sizes: Sizes) -> ViT:
    keys = ("image_size", "patch_size", "width", "depth", "heads", "mlp_ratio", "positions")
    return ViT(**{key: sizes[key] for key in keys}, epsilon=sizes["epsilon"])


def _make_mae(sizes: Sizes) -> MAE:
    keys = ("decoder_width", "decoder_depth", "decoder_heads")
    return MAE(_make_vit(sizes), **{key: sizes[key] for key in keys})


def _example_image(sizes: Sizes) -> tuple[jax.ShapeDtypeStruct, ...]:
    return (jax.ShapeDtypeStruct((1, sizes["image_size"], sizes["image_size"], 3), jnp.float32),)


def _example_mae(sizes: Sizes) -> tuple[jax.ShapeDtypeStruct, ...]:
    patches = (sizes["image_size"] // sizes["patch_size"]) ** 2
    return (*_example_image(sizes), jax.ShapeDtypeStruct((1, patches), jnp.float32))


def _classify(module: nn.Module, variables: Any, images: jax.Array) -> dict[str, jax.Array]:
    logits, features = module.apply(variables, images)
    return {"features": features, "logits": logits}


def _encode(module: MAE, variables: Any, images: jax.Array) -> dict[str, jax.Array]:
    """The whole image through the encoder and its norm: tokens, and the mean of the patches'."""
    encoder = FrameClassifier(module.encoder, 0, "norm_mean")
    params = variables["params"]
    given = {"encoder": params["encoder"], "fc_norm": params["norm"]}
    return {"features": encoder.apply({"params": given}, images)[1]}


def _vit_fixed(sizes: Sizes) -> Arrays:
    if sizes["positions"] != "sincos":
        return {}
    grid = sizes["image_size"] // sizes["patch_size"]
    return {"params/encoder/pos_embed": sincos_2d(grid, sizes["width"])[None]}


def _mae_fixed(sizes: Sizes) -> Arrays:
    grid = sizes["image_size"] // sizes["patch_size"]
    table = sincos_2d(grid, sizes["decoder_width"])[None]
    return {**_vit_fixed(sizes), "params/decoder_pos_embed": table}


def _resize_vit(arrays: Arrays, sizes: Sizes, size: int) -> tuple[Arrays, Sizes]:
    """The table of positions becomes a learned one, as fixed ones are resized too."""
    patch, path = sizes["patch_size"], "params/encoder/pos_embed"
    if size % patch:
        raise InputError(f"--image_size={size}: no multiple of the patches' {patch} pixels")
    table = (arrays | _vit_fixed(sizes))[path]
    resized = {**arrays, path: resize_positions(table, size // patch)}
    return resized, {**sizes, "image_size": size, "positions": "learned"}


def _resize_mae(arrays: Arrays, sizes: Sizes, size: int) -> tuple[Arrays, Sizes]:
    raise InputError(
        f"--image_size={size}: an autoencoder's decoder is of {sizes['image_size']} pixels; leave "
        "it out with --drop_head"
    )


def _block_mark(name: str) -> tuple[str, ...]:
    names = vit.NAMES[name]
    part = names.parts["attn/qkv"]
    first = part if isinstance(part, str) else part[0]
    return names.cls_token, f"{names.block.format(i=0)}{first}.weight"


def _vit_files(name: str) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    return vit.timm_files if name == "timm" else vit.transformers_files


def _vit_form(name: str) -> Form:
    return Form(
        _block_mark(name),
        lambda sizes: vit.vit_rules(name, sizes["pooling"]),
        vit.IGNORED,
        _vit_files(name),
    )


def _mae_form(name: str) -> Form:
    names = vit.NAMES[name]
    decoder = f"{names.decoder_block.format(i=0)}{names.decoder_parts['norm1']}.weight"
    marks = (*_block_mark(name), decoder)
    return Form(marks, lambda sizes: vit.mae_rules(name), files=_vit_files(name))


def _outputs(shapes: Mapping[str, Shape], head: str) -> int:
    """Of a classifier's weight; 0 where it is not there."""
    return (shapes.get(head) or (0,))[0]


def _efficientnet_sizes(
    shapes: Mapping[str, Shape], form: str, config: Mapping[str, Any], source: str
) -> Sizes:
    """B0 or B2, by the width of the last convolution."""
    widths = {EfficientNet(**factors).width: name for name, factors in EFFICIENTNETS.items()}
    width = shapes["conv_head.weight"][0]
    if width not in widths:
        known = ", ".join(f"{w} ({name})" for w, name in widths.items())
        raise InputError(f"{source}: conv_head.weight is {width} wide; expected {known}")
    size, name = EFFICIENTNET_PIXELS[widths[width]].size, "classifier.weight"
    return {"size": widths[width], "image_size": size, "outputs": _outputs(shapes, name)}


def _fixed_sizes(size: str, image_size: int, head: str) -> Callable[..., Sizes]:
    """Of an architecture that is known in one size."""

    def sizes(shapes, form, config, source):
        del form, config, source
        return {"size": size, "image_size": image_size, "outputs": _outputs(shapes, head)}

    return sizes


def _convolutional(
    make: Callable[[str], nn.Module],
    sizes: Callable[..., Sizes],
    keys: Any,
    marks: tuple[str, ...],
    form: str,
    normalise: str = "",
) -> Architecture:
    """An encoder that pools by itself; keys: its module of names."""
    return Architecture(
        sizes=sizes,
        module=lambda found: FrameClassifier(make(found["size"]), found["outputs"], "none"),
        example=_example_image,
        apply=_classify,
        forms={form: Form(marks, lambda found: keys.RULES, keys.IGNORED, convolution.timm_files)},
        head="|".join(getattr(keys, "HEAD", (r"(?!)",))),
        normalise=normalise,
    )


# What is tried first stands first.
IMAGES = {
    "mae": Architecture(
        sizes=vit.mae_sizes,
        module=_make_mae,
        example=_example_mae,
        apply=_encode,
        forms={name: _mae_form(name) for name in vit.NAMES if not name.endswith("bare")},
        head=vit.DECODER,
        fixed=_mae_fixed,
        resize=_resize_mae,
    ),
    "vit": Architecture(
        sizes=vit.vit_sizes,
        module=lambda sizes: FrameClassifier(
            _make_vit(sizes), sizes["outputs"], sizes["pooling"]
        ),
        example=_example_image,
        apply=_classify,
        forms={name: _vit_form(name) for name in vit.NAMES if name != "transformers_5"},
        head=vit.HEAD,
        fixed=_vit_fixed,
        resize=_resize_vit,
    ),
    "efficientnet": _convolutional(
        lambda size: EfficientNet(**EFFICIENTNETS[size]),
        _efficientnet_sizes,
        efficientnet,
        ("conv_stem.weight", "blocks.0.0.conv_pw.weight", "conv_head.weight"),
        "timm",
        "imagenet",
    ),
    # timm's own weights are of pixels from 0 to 1, hsemotion's way is not published: asked for.
    "mobilevit": _convolutional(
        lambda size: MobileViT(**MOBILEVITS[size]),
        _fixed_sizes("S", MOBILEVIT_PIXELS["S"].size, "head.fc.weight"),
        mobilevit,
        ("stem.conv.weight", "stages.0.0.conv1_1x1.conv.weight", "final_conv.conv.weight"),
        "timm",
    ),
    "mobilefacenet": _convolutional(
        lambda size: MobileFaceNet(),
        _fixed_sizes("default", MOBILEFACENET_PIXELS["default"].size, ""),
        mobilefacenet,
        ("conv_sep.layers.0.weight", "features.layers.2.weight"),
        "insightface",
        "half",
    ),
    "ddamfn": _convolutional(
        lambda size: DDAMFN(),
        _fixed_sizes("default", DDAMFN_PIXELS["default"].size, "fc.weight"),
        ddamfn,
        ("cat_head0.CoordAtt.conv1.weight", "features.0.conv.weight", "Linear.conv.weight"),
        "ddamfn",
        "imagenet",
    ),
}  # fmt: skip
