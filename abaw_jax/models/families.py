"""The convolutional encoders of faces by the names that a config gives them."""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn

from abaw_jax.models import ddamfn, efficientnet, mobilefacenet, mobilevit
from abaw_jax.models.convolution import Pixels

VIT = "vit"  # the family that is none of these


class Family(NamedTuple):
    """A convolutional encoder. It pools by itself: images (B, S, S, 3) -> features (B, width).

    make: (dtype, and drop_path where `drops`) -> the module.
    blocks: how many parts it has, `blocks_0` on, for layer decay and freezing.
    drops: whether it has residuals that drop path leaves out.
    pixels: what its public weights take; None of one without any, which takes what comes.
    public: (key of `interop.architectures.ARCHITECTURES`, name of the size there), or None.
    """

    make: Callable[..., nn.Module]
    blocks: int
    drops: bool
    pixels: Pixels | None = None
    public: tuple[str, str] | None = None


def _efficientnet(size: str) -> Family:
    def make(**given) -> nn.Module:
        return efficientnet.EfficientNet(**efficientnet.SIZES[size], **given)

    public = ("efficientnet", size)
    return Family(make, len(efficientnet.STAGES), True, efficientnet.PIXELS[size], public)


def _own(sizes: dict) -> Family:
    def make(**given) -> nn.Module:
        return efficientnet.EfficientNet(**sizes, **given)

    return Family(make, len(sizes["stages"]), True)


def _mobilevit(size: str) -> Family:
    def make(**given) -> nn.Module:
        return mobilevit.MobileViT(**mobilevit.SIZES[size], **given)

    public = ("mobilevit", size)
    blocks = len(mobilevit.SIZES[size]["stages"])
    return Family(make, blocks, True, mobilevit.PIXELS[size], public)


FAMILIES = {
    "efficientnet_b0": _efficientnet("B0"),
    "efficientnet_b2": _efficientnet("B2"),
    "efficientnet_small": _own(efficientnet.SMALL),
    "efficientnet_tiny": _own(efficientnet.TINY),
    "mobilevit_s": _mobilevit("S"),
    "mobilefacenet": Family(
        mobilefacenet.MobileFaceNet,
        2 + 2 * len(mobilefacenet.STAGES),
        False,
        mobilefacenet.PIXELS["default"],
        ("mobilefacenet", "default"),
    ),
    "ddamfn": Family(
        ddamfn.DDAMFN,
        3 + 2 * len(ddamfn.STAGES),
        False,
        ddamfn.PIXELS["default"],
        ("ddamfn", "default"),
    ),
}
