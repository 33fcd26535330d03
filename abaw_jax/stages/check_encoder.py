"""Values of a config that do not go with its encoder's family."""

import math
from typing import Any

from abaw_jax.errors import InputError
from abaw_jax.models.families import FAMILIES, VIT
from abaw_jax.models.heads import POOLINGS
from abaw_jax.stages.encoder import is_pretrained
from abaw_jax.tracks.track import Track


def check_family(config: Any) -> None:
    """Raise InputError for what a ViT has and convolutional encoders have not, or the reverse."""
    name, section = config.encoder.family, config.finetune

    def refuse(key: str, value: Any, expected: str) -> None:
        raise InputError(
            f"config.{key}: {value!r} with config.encoder.family {name!r}; expected {expected}"
        )

    if name == VIT:
        if section.pooling not in POOLINGS:
            refuse("finetune.pooling", section.pooling, f"one of {', '.join(POOLINGS)}")
        return
    family = FAMILIES[name]
    if section.pooling != "none":
        refuse("finetune.pooling", section.pooling, "'none': it pools by itself")
    if is_pretrained(config):
        refuse("pretrain.epochs", config.pretrain.epochs, "0: it has no patches to mask")
    if config.encoder.remat:
        refuse("encoder.remat", True, "False")
    if config.encoder.drop_path and not family.drops:
        refuse("encoder.drop_path", config.encoder.drop_path, "0: it leaves no residual out")
    if config.sequence.pixels:
        # Rows without a crop would enter the statistics of its norms.
        refuse("sequence.pixels", True, "False: it is trained on single crops alone")
    if section.encoder or section.get("start"):
        return  # these say what pixels they take
    _check_pixels(config, name)


def _check_pixels(config: Any, name: str) -> None:
    """Raise InputError for other pixels than the encoder was made for."""
    pixels, image = FAMILIES[name].pixels, config.image
    if pixels is None:
        return
    wanted = {**pixels._asdict(), "normalise": "channel"}
    differing = [
        f"config.image.{key} is {image[key]}, its own {value}"
        for key, value in wanted.items()
        if image[key] != value
    ]
    if differing:
        raise InputError(
            f"config.encoder.family: {name!r} takes other pixels: {'; '.join(differing)}; set what "
            "differs as it has it, or take 'efficientnet_small', which takes any"
        )


def find_blocks(config: Any) -> int:
    """How many blocks the encoder has, of which the first may stay as they are."""
    name = config.encoder.family
    return config.encoder.depth if name == VIT else FAMILIES[name].blocks


def check_frozen(config: Any) -> None:
    """Raise InputError for frozen blocks that the encoder lacks, or that nothing has trained, and
    for a head that cannot be trained first."""
    section, blocks = config.finetune, find_blocks(config)
    count, name = section.frozen_blocks, config.encoder.family
    if not 0 <= count <= blocks:
        of = "config.encoder.depth =" if name == VIT else f"the blocks of {name},"
        raise InputError(f"config.finetune.frozen_blocks: {count}; expected 0 to {of} {blocks}")
    trained = config.pretrain.epochs or section.encoder or section.start
    if not 0 <= section.head_epochs < math.inf:
        raise InputError(
            f"config.finetune.head_epochs: {section.head_epochs}; expected a number of at least 0"
        )
    if not 0 < section.head_lr < math.inf:
        raise InputError(f"config.finetune.head_lr: {section.head_lr}; expected a number above 0")
    if section.head_epochs and not trained:
        raise InputError(
            f"config.finetune.head_epochs: {section.head_epochs} on an encoder that nothing has "
            "trained; set it to 0, or give finetune.start"
        )
    if count and not trained:
        raise InputError(
            f"config.finetune.frozen_blocks: {count} blocks that nothing has trained; set it to 0, "
            "or " + ("config.pretrain.epochs above 0" if name == VIT else "give finetune.start")
        )


def check_balance(section: Any, track: Track) -> None:
    """Raise InputError for balanced sampling of what has no classes to balance. track: the first
    that the section learns."""
    if not section.balanced:
        return
    if track.label_type != "int32" or track.label_width != 1:
        raise InputError(
            f"config.finetune.balanced: a row of {track.name} is not of one class; expected False"
        )
    if section.get("curriculum"):
        raise InputError("config.finetune: balanced and a curriculum; expected one of the two")
