"""Sequence models that see crops: with `sequence.pixels` a window holds crops of the face in place
of their features, and the encoder is trained with the sequence model.

The encoder starts as the stage that `sequence.encoder_from` names left it; `sequence.frozen_blocks`
says how much of it stays so. Crops of a training window are augmented as in `finetune`, all alike.
Features of other modalities follow those of the crops. Frames without a crop repeat the one before,
and a video without any has features of zeros, both as the stage `extract` has it.

Windows overlap, and each encodes its crops anew: with the head "last", where every frame is
predicted, each crop as often as a window has frames.

A member of a single other modality sees no crop: its model is one of features.
"""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict

from abaw_jax.data.clips import make_clip_reader
from abaw_jax.data.records import load_index, open_records
from abaw_jax.data.transforms import make_eval_transform
from abaw_jax.data.views import FACE
from abaw_jax.data.windows import Reader, join_readers, make_feature_reader, make_frame_reader
from abaw_jax.errors import InputError
from abaw_jax.interop.archive import check_variables, load_model
from abaw_jax.recipe import Context
from abaw_jax.stages.encoder import is_pretrained
from abaw_jax.stages.finetune import pretrained
from abaw_jax.stages.modalities import open_stores
from abaw_jax.stages.parts import CLIP_MODELS, make_transforms
from abaw_jax.stages.views import tuning_folder
from abaw_jax.tasks.collaborate import is_frozen
from abaw_jax.training.optim import freeze_blocks

# Stage -> what the model takes over of its parameters.
ENCODERS = {"finetune": ("encoder", "fc_norm"), "pretrain": ("encoder",)}


def check_pixels(config: Any) -> None:
    """Raise InputError for an encoder that cannot be trained with the sequence model so."""
    section, depth = config.sequence, config.encoder.depth

    def refuse(key: str, what: str) -> None:
        raise InputError(f"config.sequence.{key}: {section[key]!r}{what}")

    if section.encoder_from not in ENCODERS:
        refuse("encoder_from", f"; expected one of {', '.join(ENCODERS)}")
    if not section.pixels:
        for key, without in (("frozen_blocks", 0), ("encoder_from", "finetune")):
            if section[key] != without:
                refuse(key, f" without an encoder to train; expected {without!r}, or "
                       "config.sequence.pixels set to True")  # fmt: skip
        return
    if section.model != "transformer":
        refuse("pixels", f" with config.sequence.model {section.model!r}; expected False, or the "
               "model 'transformer'")  # fmt: skip
    if not 0 <= section.frozen_blocks <= depth:
        refuse("frozen_blocks", f"; expected 0 to config.encoder.depth = {depth}")
    if section.encoder_from == "pretrain" and not is_pretrained(config):
        refuse("encoder_from", ": nothing is pre-trained, as config.pretrain.epochs is 0 or "
               "config.finetune.encoder is given; expected 'finetune'")  # fmt: skip
    if section.modalities[0] != FACE or set(section.modalities[1:]) & set(config.finetune.views):
        refuse("modalities", f" with pixels; expected {FACE!r} as the first, and of further views "
               "of it none, or config.sequence.pixels set to False")  # fmt: skip


def as_seen(context: Context, only: str | None) -> Context:
    """What a member that sees all modalities, or only one, is given: without pixels where that is
    not the face."""
    if only in (None, FACE) or not context.config.sequence.pixels:
        return context
    config = ConfigDict(context.config)
    config.sequence.update(pixels=False, frozen_blocks=0)
    return dataclasses.replace(context, config=FrozenConfigDict(config))


def make_reader(context: Context, split: str, only: str | None = None) -> Reader:
    """Reads windows of a split, or clips: of features, and of crops where the model sees them,
    augmented where a window is drawn in training."""
    config, folder = context.config, context.folder("prepare") / "records"
    index, stores = load_index(folder, split), open_stores(context, split, only)
    if config.sequence.model in CLIP_MODELS:
        return make_clip_reader(index.videos, stores, config.sequence.modality_dropout)
    absent = config.sequence.modality_dropout
    readers = [make_feature_reader(index.videos, list(stores.values()), absent)] if stores else []
    if config.sequence.pixels:
        augment, plain = make_transforms(config)["finetune"], make_eval_transform(config.image.size)

        def transform(data: bytes, rng: np.random.Generator | None) -> np.ndarray:
            return plain(data) if rng is None else augment(data, rng)

        readers.insert(0, make_frame_reader(open_records(folder, split), index, transform))
    return join_readers(*readers)


def make_initial(context: Context) -> Callable[[Any], Any] | None:
    """Puts the encoder that `sequence.encoder_from` names into fresh parameters; None of a model
    without one."""
    section = context.config.sequence
    if not section.pixels:
        return None
    if section.encoder_from == "pretrain":
        return pretrained(context)
    folder = tuning_folder(context, FACE) / "model"
    params = load_model(folder)[0]["params"]
    taken = {name: params[name] for name in ENCODERS["finetune"]}

    def initial(params: Any) -> Any:
        check_variables(taken, {name: params[name] for name in taken}, folder)
        return {**params, **jax.tree.map(jnp.asarray, taken)}

    return initial


def make_frozen(config: Any, *, second: bool) -> Callable[[str], bool] | None:
    """What `make_optimizer` takes as `frozen`: the blocks that `sequence.frozen_blocks` says, with
    all blocks the norm above them too; of two branches (`second`) all of the first besides."""
    count = config.sequence.frozen_blocks
    of_encoder = freeze_blocks(count)
    if of_encoder is None:
        return is_frozen if second else None
    norm = re.compile(r"(?:^|/)fc_norm/")

    def frozen(path: str) -> bool:
        whole = count == config.encoder.depth and bool(norm.search(path))
        return whole or of_encoder(path) or (second and is_frozen(path))

    return frozen
