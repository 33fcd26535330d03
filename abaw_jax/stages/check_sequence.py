"""Values of the section `sequence` that no model, or no window, can be made of."""

import math
from collections.abc import Callable
from typing import Any

from abaw_jax.errors import InputError, within
from abaw_jax.models import fusion
from abaw_jax.models.families import VIT
from abaw_jax.models.heads import BETWEEN
from abaw_jax.models.layers import MASKED
from abaw_jax.models.sequence import HEADS, POSITIONS
from abaw_jax.stages.parts import (
    CLIP_MODELS,
    SEQUENCE_MODELS,
    make_encoder,
    make_second_task,
)
from abaw_jax.tracks import TRACKS

CHOICES = {
    "model": SEQUENCE_MODELS,
    "activation": ("relu", "gelu"),
    "positions": POSITIONS,
    "mask_unit": MASKED,
    "head": HEADS,
    "head_between": BETWEEN,
}


def check_sequence(config: Any) -> None:
    """Raise InputError for parts of the sequence model, or windows, that do not go together."""
    section, track = config.sequence, TRACKS[config.track]

    def refuse(key: str, what: str) -> None:
        raise InputError(f"config.sequence.{key}: {section[key]!r}{what}")

    for key, known in CHOICES.items():
        if section[key] not in known:
            refuse(key, f"; expected one of {', '.join(known)}")
    lowest = {"head_width": 0 if section.model == "frames" else 1, "every": 1}
    for key in ("depth", "patience", "shift", *lowest):
        if section[key] < (least := lowest.get(key, 0)):
            refuse(key, f"; expected at least {least}")
    if section.every > 1 and not track.per_clip:
        refuse("every", f": labels of {track.name} are of frames, each of which is predicted; "
               "expected 1")  # fmt: skip
    if section.shift and track.per_clip:
        refuse("shift", f": a window of {track.name} is a whole clip; expected 0")
    if section.head == "last" and track.per_clip:
        refuse("head", f": labels of {track.name} are of clips, not of a last frame; expected "
               "'frames'")  # fmt: skip
    if section.head == "frames" and not track.per_clip and section.stride > section.length:
        refuse("stride", f"; expected at most config.sequence.length = {section.length}, or frames "
               "would be left out")  # fmt: skip
    if section.optimizer.layer_decay != 1 and not section.pixels:
        raise InputError(
            f"config.sequence.optimizer.layer_decay: {section.optimizer.layer_decay}; expected 1: "
            "only an image encoder has blocks of layers to tell apart (config.sequence.pixels)"
        )
    if section.model in CLIP_MODELS and not track.per_clip:
        refuse("model", f": it says one thing of a clip, and labels of {track.name} are of "
               "frames; expected 'transformer' or 'frames'")  # fmt: skip
    if section.model == "transformer":
        _check_parts(config, refuse)
        _check_width(config)
    else:
        if section.head == "last":
            refuse("head", f" with config.sequence.model {section.model!r}; expected 'frames'")
        for key in ("mask_rate", "fuse", "join", "tcn"):
            if section[key]:
                refuse(key, f" has no effect with config.sequence.model {section.model!r}; "
                       "expected none")  # fmt: skip
    if section.model in ("transformer", "tokens"):
        _check_heads(section, refuse)
    if section.modality_dropout and section.pixels:
        refuse("modality_dropout", " with pixels; expected 0, or config.sequence.pixels set to "
               "False")  # fmt: skip
    _check_collaborate(config)


def _check_heads(section: Any, refuse: Callable[[str, str], None]) -> None:
    """Refuse a width that cannot be shared out among the heads, or by sines and cosines."""
    if section.heads < 1 or section.width < 1 or section.width % section.heads:
        refuse("width", f"; expected a multiple of config.sequence.heads = {section.heads}")
    if section.width % 2 and (section.model == "tokens" or section.positions == "sincos"):
        refuse("width", " with positions 'sincos'; expected an even number")


def _check_parts(config: Any, refuse: Callable[[str, str], None]) -> None:
    """Refuse parts of a `SequenceModel` that do not go together."""
    section = config.sequence
    for key in ("join", "tcn"):
        if not all(isinstance(width, int) and width > 0 for width in section[key]):
            refuse(key, "; expected widths of at least 1, or () for none")
    if section.fuse:
        if section.fuse not in fusion.METHODS:
            refuse("fuse", f"; expected one of {', '.join(fusion.METHODS)}, or '' for none")
        views = config.finetune.views
        if len(section.modalities) != 2 or set(section.modalities) - set(views) or section.apart:
            refuse("fuse", f" of modalities {tuple(section.modalities)}; expected two of "
                   "config.finetune.views, and config.sequence.apart set to False")  # fmt: skip
    if len(section.join) == 1 and section.project and not section.tcn:
        refuse("join", " has no effect: two dense layers with nothing between are one; give two "
               "widths, or set project to False")  # fmt: skip
    if not section.depth and section.positions != "none":
        refuse("positions", " without an encoder, as config.sequence.depth is 0; expected 'none'")


def _check_collaborate(config: Any) -> None:
    """Raise InputError for a second branch that cannot be, or what cannot be mixed so."""
    found = config.sequence.collaborate

    def refuse(key: str, what: str) -> None:
        raise InputError(f"config.sequence.collaborate.{key}: {found[key]!r}; expected {what}")

    if not 0 <= found.epochs < math.inf:
        refuse("epochs", "a number of at least 0")
    if found.epochs and not config.sequence.epochs:
        refuse("epochs", "0: there is no first branch, as config.sequence.epochs is 0")
    if not 0 < found.hard <= 1:
        refuse("hard", "a share from above 0 up to 1")
    if len(found.beta) != 2 or not all(0 < number < math.inf for number in found.beta):
        refuse("beta", "two numbers above 0")
    if not 0 <= found.share <= 1:
        refuse("share", "a share from 0 up to 1")
    if found.epochs:
        with within("config.sequence.collaborate.epochs"):
            make_second_task(config, TRACKS[config.track])


def _check_width(config: Any) -> None:
    """Raise InputError where nothing brings what enters the encoder to its width."""
    section = config.sequence
    if section.project:
        return
    if section.tcn or section.join:
        last = "tcn" if section.tcn else "join"
        width, name = section[last][-1], f"the last of config.sequence.{last}"
    elif section.fuse:
        width, name = section.fuse_width, "config.sequence.fuse_width"
        if section.fuse == "concatenation":
            width, name = 2 * width, f"twice {name}"
    elif set(section.modalities) <= set(config.finetune.views):
        width = make_encoder(config).width
        name = "config.encoder.width" if config.encoder.family == VIT else "that of its features"
        if (views := len(section.modalities)) > 1:
            width, name = views * width, f"{name} of {views} views"
    else:
        raise InputError(
            "config.sequence.project: False with several modalities, or one that is not the face; "
            "set it to True, or give config.sequence.join"
        )
    if width != section.width:
        raise InputError(
            f"config.sequence.width: {section.width}; expected {width}, {name}, or "
            "config.sequence.project set to True"
        )
