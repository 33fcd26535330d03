"""What convolutional encoders share: rules of layers, what timm says of them; no family."""

from collections.abc import Mapping
from typing import Any

from abaw_jax.interop.keymap import Rule

# torch's BatchNorm counts its batches, which only a momentum of None would use.
COUNTERS = r"(.*\.)?num_batches_tracked"


def batch_norm(theirs: str, ours: str) -> tuple[Rule, ...]:
    """torch's BatchNorm `theirs` as the `layers.BatchNorm` at `ours`."""
    return (
        Rule(f"{theirs}.weight", f"params/{ours}/scale"),
        Rule(f"{theirs}.bias", f"params/{ours}/bias"),
        Rule(f"{theirs}.running_mean", f"batch_stats/{ours}/mean"),
        Rule(f"{theirs}.running_var", f"batch_stats/{ours}/var"),
    )


def conv(theirs: str, ours: str) -> tuple[Rule, ...]:
    """torch's Conv2d, with a bias or without, as the `convolution.Conv` at `ours`."""
    return (
        Rule(f"{theirs}.weight", f"params/{ours}/kernel", "conv"),
        Rule(f"{theirs}.bias", f"params/{ours}/bias"),
    )


def conv_norm(conv: str, norm: str, ours: str, prelu: str | None = None) -> tuple[Rule, ...]:
    """A convolution, its BatchNorm and its PReLU as the `convolution.ConvNorm` at `ours`."""
    rules = (Rule(f"{conv}.weight", f"params/{ours}/conv/kernel", "conv"),)
    rules += batch_norm(norm, f"{ours}/norm")
    if prelu:
        rules += (Rule(f"{prelu}.weight", f"params/{ours}/prelu/negative_slope"),)
    return rules


def dense(theirs: str, ours: str) -> tuple[Rule, ...]:
    """torch's Linear, with a bias or without, as the dense layer at `ours`."""
    return (
        Rule(f"{theirs}.weight", f"params/{ours}/kernel", "dense"),
        Rule(f"{theirs}.bias", f"params/{ours}/bias"),
    )


def timm_files(description: Mapping[str, Any]) -> dict[str, Any]:
    """What is said of pixels and classes in timm's words; other libraries have no such file."""
    image, classes = description["image"], description["classes"]
    pixels = {"input_size": [3, image["size"], image["size"]]}
    pixels |= {key: image[key] for key in ("mean", "std")}
    config = {"num_classes": len(classes), "label_names": classes, "pretrained_cfg": pixels}
    return {"config.json": config}
