"""VGGish in its public torch port: features.{0,3,6,8,11,13}, embeddings.{0,2,4}."""

from collections.abc import Mapping
from typing import Any

from abaw_jax.interop.keymap import Rule, Shape
from abaw_jax.models.vggish import VGGish

# The tensors whose first axes are the network's sizes.
WIDTHS = tuple(f"features.{i}.weight" for i in (0, 3, 6, 11))
DENSE = ("embeddings.0.weight", "embeddings.4.weight")
RULES = (
    Rule("features.{i}.weight", "params/conv_{i}/kernel", "conv"),
    Rule("features.{i}.bias", "params/conv_{i}/bias"),
    Rule("embeddings.{i}.weight", "params/dense_{i}/kernel", "dense"),
    Rule("embeddings.{i}.bias", "params/dense_{i}/bias"),
)
IGNORED = (r"pproc\..*",)  # the PCA behind the network


def sizes(
    shapes: Mapping[str, Shape], form: str, config: Mapping[str, Any], source: str
) -> dict[str, Any]:
    """Fields of `models.vggish.VGGish`. `activate` is as in the port where nothing else is said."""
    del form, source
    hidden, embedding = (shapes[name][0] for name in DENSE)
    return {
        "widths": [shapes[name][0] for name in WIDTHS],
        "hidden": hidden,
        "embedding": embedding,
        "activate": bool(config.get("activate", True)),
    }


def make_model(sizes: Mapping[str, Any]) -> VGGish:
    """Of what `sizes` gives."""
    return VGGish(**{**sizes, "widths": tuple(sizes["widths"])})
