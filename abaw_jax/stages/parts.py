"""From config sections to models, tasks and optimisers: the one place that knows both.

The values are taken as they are; `stages.check` says which cannot be.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from abaw_jax.data.transforms import Transform, make_pretrain_transform, make_train_transform
from abaw_jax.data.views import FACE, VIEWS
from abaw_jax.errors import InputError
from abaw_jax.models.clips import ClipStatistics, ClipTransformer
from abaw_jax.models.families import FAMILIES, VIT
from abaw_jax.models.heads import FrameClassifier, FrameHeads
from abaw_jax.models.mae import MAE
from abaw_jax.models.pixels import PixelSequenceModel
from abaw_jax.models.recurrent import ClipModel
from abaw_jax.models.sequence import SequenceModel
from abaw_jax.models.vit import ViT
from abaw_jax.stages.class_weights import WEIGHT_RULES, Weights, make_class_weights
from abaw_jax.tasks.collaborate import make_collaborate_task
from abaw_jax.tasks.frames import make_encoding_task, make_frames_task
from abaw_jax.tasks.goals import Goal, make_goal
from abaw_jax.tasks.reconstruct import make_reconstruct_task
from abaw_jax.tasks.sequences import make_pixel_inputs, make_sequences_task
from abaw_jax.tasks.task import Normalise, Task, normalise_by_channel, normalise_by_image
from abaw_jax.tracks import TRACKS
from abaw_jax.tracks.targets import find_target
from abaw_jax.tracks.together import split_labels
from abaw_jax.tracks.track import Track
from abaw_jax.training.optim import Optimizer, freeze_blocks, make_optimizer

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
NORMALISATIONS = {
    "channel": lambda section: normalise_by_channel(section.mean, section.std),
    "image": lambda section: normalise_by_image,
}

# Of a section `optimizer`; configs/base.py says what they are.
OPTIMIZER_KEYS = {
    "name", "lr", "schedule", "period_epochs", "step_factor", "warmup_epochs", "warmup_lr",
    "final_lr", "weight_decay", "b1", "b2", "clip_norm", "layer_decay", "sam_rho",
}  # fmt: skip
# Say one thing of a whole clip, whose modalities each have a time axis of their own.
CLIP_MODELS = ("gru", "statistics", "tokens")
SEQUENCE_MODELS = ("transformer", "frames", *CLIP_MODELS)
# Of the section `sequence`.
COMMON = ("width", "head_width", "dropout")
# Models that were exported before there were these do without.
SEQUENCE_OPTIONS = (
    "mask_rate", "mask_unit", "join", "join_slope", "tcn", "tcn_kernel", "project", "head",
    "head_each", "fuse", "fuse_width", "head_between",
)  # fmt: skip


def make_encoder(config: Any) -> nn.Module:
    """The encoder of the sections `encoder` and `image`; its `width` is that of a feature."""
    section = config.encoder
    if (name := section.get("family", VIT)) != VIT:
        family = FAMILIES[name]
        drop = {"drop_path": section.drop_path} if family.drops else {}
        return family.make(dtype=DTYPES[section.dtype], **drop)
    return ViT(
        image_size=config.image.size,
        patch_size=section.patch_size,
        width=section.width,
        depth=section.depth,
        heads=section.heads,
        drop_path=section.drop_path,
        remat=section.remat,
        dtype=DTYPES[section.dtype],
        positions=section.get("positions", "sincos"),
        epsilon=section.get("epsilon", 1e-6),
    )


def make_normalise(config: Any) -> Normalise:
    """How the section `image` scales pixels."""
    section = config.image
    return NORMALISATIONS[section.normalise](section)


def make_pretrain_task(config: Any) -> Task:
    """Masked reconstruction as the section `pretrain` says; no drop path, as in MAE."""
    section = config.pretrain
    model = MAE(
        encoder=make_encoder(config).clone(drop_path=0.0),
        decoder_width=section.decoder_width,
        decoder_depth=section.decoder_depth,
        decoder_heads=section.decoder_heads,
        mask_ratio=section.mask_ratio,
    )
    return make_reconstruct_task(
        model, normalise=make_normalise(config), norm_pix_loss=section.norm_pix_loss
    )


def section_tracks(section: Any, track: Track) -> list[Track]:
    """The tracks that a training section learns: the config's own, or what its `target` names,
    then those of its `also`."""
    target = find_target(track, section.get("target"))
    own = target.track if target else track
    return [own, *(TRACKS[key] for key in sorted(section.get("also") or {}))]


def output_classes(section: Any, track: Track) -> dict[str, Any]:
    """What files say of a model's outputs beside its track's classes: of further heads {'also':
    {key: classes}}, of a target {'outputs': classes}, in whose order its head has them."""
    own, *further = section_tracks(section, track)
    found = {"also": {other.key: list(other.classes) for other in further}} if further else {}
    return found if own is track else {"outputs": list(own.classes), **found}


def make_finetune_task(
    config: Any, track: Track, weights: Mapping[str, Weights] | None = None
) -> Task:
    """Labels of frames as the section `finetune` says; weights: those of `make_loss_weights`."""
    section = config.finetune
    learnt, *further = section_tracks(section, track)
    target = find_target(track, section.get("target"))
    model = FrameClassifier(
        make_encoder(config),
        learnt.outputs,
        section.pooling,
        section.dropout,
        also=tuple((other.key, other.outputs) for other in further),
    )
    return make_frames_task(
        model,
        learnt,
        normalise=make_normalise(config),
        read=target.read if target else None,
        mixup=section.mixup,
        cutmix=section.cutmix,
        also=make_further_goals(section, further, weights),
        **make_loss_arguments(section, (weights or {}).get(learnt.key)),
    )


def make_encoder_task(config: Any) -> Task:
    """What the encoder makes of images, pooled as the section `finetune` says, without a head."""
    model = FrameClassifier(make_encoder(config), 0, config.finetune.pooling)
    return make_encoding_task(model, normalise=make_normalise(config))


def make_sequence_task(
    config: Any, track: Track, weights: Mapping[str, Weights] | None = None
) -> Task:
    """Labels of sequences as the section `sequence` says; weights as above."""
    model, options = _sequence_parts(config, track, weights)
    return make_sequences_task(model, track, **options)


def make_second_task(
    config: Any, track: Track, weights: Mapping[str, Weights] | None = None
) -> Task:
    """The same by two branches, as `sequence.collaborate` says."""
    model, options = _sequence_parts(config, track, weights)
    section = config.sequence.collaborate
    mixture = {"beta": tuple(section.beta), "hard": section.hard, "share": section.share}
    return make_collaborate_task(model, track, **mixture, **options)


def _sequence_parts(
    config: Any, track: Track, weights: Mapping[str, Weights] | None
) -> tuple[nn.Module, dict[str, Any]]:
    """(model, what a task of it takes besides the track). An encoder that stays whole makes the
    same of a crop in training as elsewhere."""
    section = config.sequence
    loss = make_loss_arguments(section, (weights or {}).get(track.key))
    if section.get("model") in CLIP_MODELS:
        return _clip_model(section, track.outputs), {"clips": True, **loss}
    further = section_tracks(section, track)[1:]
    model = _frames_model(section, track.outputs, [(o.key, o.outputs) for o in further])
    options = {
        "last": section.get("head") == "last",
        "also": make_further_goals(section, further, weights),
        **loss,
    }
    if section.get("pixels"):
        encoder = make_encoder(config)
        if section.frozen_blocks == encoder.depth:
            encoder = encoder.clone(drop_path=0.0)
        model = PixelSequenceModel(encoder, model, config.finetune.pooling)
        options["inputs"] = make_pixel_inputs(make_normalise(config))
    return model, options


def _clip_model(section: Any, outputs: int) -> ClipModel | ClipStatistics | ClipTransformer:
    """One of CLIP_MODELS."""
    if section.model == "statistics":
        return ClipStatistics(outputs, section.feature_dropout)
    common = {key: section[key] for key in (*COMMON, "feature_dropout")}
    if section.model == "gru":
        return ClipModel(vector=section.mlp_width, outputs=outputs, **common)
    sizes = {key: section[key] for key in ("depth", "heads", "mlp_width")}
    return ClipTransformer(outputs=outputs, **sizes, **common)


def _frames_model(
    section: Any, outputs: int, also: Sequence[tuple[str, int]]
) -> SequenceModel | FrameHeads:
    """One that says something of every frame; also: names and outputs of further heads."""
    if section.get("model") == "frames":
        return FrameHeads(section.head_width, outputs, section.dropout, tuple(also))
    return SequenceModel(
        depth=section.depth,
        heads=section.heads,
        mlp_width=section.mlp_width,
        outputs=outputs,
        activation=section.activation,
        positions=section.positions,
        feature_dropout=section.feature_dropout,
        also=tuple(also),
        **{key: section[key] for key in COMMON},
        **{key: section[key] for key in SEQUENCE_OPTIONS if key in section},
    )


def make_further_goals(
    section: Any, tracks: Sequence[Track], weights: Mapping[str, Weights] | None
) -> list[Goal]:
    """The goals of a section's further tracks, as its `also` says: a section of a loss for each."""
    return [
        make_goal(
            track,
            weight=section.also[track.key].get("weight", 1.0),
            **make_loss_arguments(section.also[track.key], (weights or {}).get(track.key)),
        )
        for track in tracks
    ]


def make_loss_arguments(section: Any, weights: Weights | None) -> dict[str, Any]:
    """What a training section says of its loss, as a task takes it.

    Keys that a section may leave out: loss, output (the track's defaults), label_smoothing and
    loss_options (none).
    """
    return {
        "loss": section.get("loss"),
        "activation": section.get("output"),
        "label_smoothing": section.get("label_smoothing") or None,
        **(section.get("loss_options") or {}),
        **(weights or {}),
    }


def make_loss_weights(section: Any, labels: np.ndarray, track: Track) -> dict[str, Weights]:
    """Weights of a training section's losses from the training labels (n, W) of all its tracks.

    By track key, then by option: the keys class_weights and positive_weights of the section, and of
    its parts in `also`, hold rules or numbers where there are any.
    """
    tracks = section_tracks(section, track)
    sections = [section, *(section.also[other.key] for other in tracks[1:])]
    return {
        track.key: _track_weights(part, rows, track)
        for part, rows, track in zip(sections, split_labels(labels, tracks), tracks, strict=True)
    }


def _track_weights(section: Any, labels: np.ndarray, track: Track) -> Weights:
    weights = {
        option: make_class_weights(rule, labels, track.outputs, option)
        for option in WEIGHT_RULES
        if (rule := section.get(option)) is not None
    }
    return {option: numbers for option, numbers in weights.items() if numbers is not None}


def count_steps(section: Any, examples: int) -> tuple[int, float]:
    """(steps of the whole schedule, steps of an epoch): an epoch sees as many as there are."""
    epoch = examples / section.batch_size
    return math.ceil(section.epochs * epoch), epoch


def second_section(section: Any) -> ConfigDict:
    """The section `sequence` as it trains a second branch: for epochs of its own."""
    changed = ConfigDict(section)
    changed.epochs = section.collaborate.epochs
    return changed


def head_config(config: Any) -> ConfigDict:
    """A config as its section `finetune` trains the head alone: for epochs and at a rate of its
    own, below it an encoder that makes the same of an image as elsewhere."""
    changed = ConfigDict(config.to_dict())
    section = changed.finetune
    section.epochs, section.optimizer.lr = section.head_epochs, section.head_lr
    changed.encoder.drop_path = 0.0
    return changed


def make_schedule_optimizer(
    section: Any, examples: int, frozen: Callable[[str], bool] | None = None
) -> Optimizer:
    """The optimiser of a training section, its epochs turned into steps; see `make_optimizer`.

    A section may have `frozen_blocks`, how many of the encoder's blocks stay as they are; or
    `frozen` says which parameters do. Raises InputError for keys that are missing or too many, for
    a period that cannot be, and as `make_optimizer`.
    """
    options = section.optimizer.to_dict()
    if odd := sorted(OPTIMIZER_KEYS ^ options.keys()):
        raise InputError(
            f"optimizer: {odd[0]!r} is {'too many' if odd[0] in options else 'missing'}; expected "
            f"the keys {', '.join(sorted(OPTIMIZER_KEYS))}: set each by a flag of its own"
        )
    steps, epoch = count_steps(section, examples)
    period, schedule = options.pop("period_epochs"), options["schedule"]
    if not {"step": period > 0, "constant": period == 0}.get(schedule, period >= 0):
        raise InputError(
            f"optimizer.period_epochs: {period} with schedule {schedule!r}; expected 0 with "
            "'constant', above 0 with 'step', either with 'cosine'"
        )
    options["period_steps"] = max(round(period * epoch), 1) if period else None
    warmup = min(round(options.pop("warmup_epochs") * epoch), steps)
    options["clip_norm"] = options["clip_norm"] or None
    options["layer_decay"] = None if options["layer_decay"] == 1.0 else options["layer_decay"]
    frozen = frozen or freeze_blocks(section.get("frozen_blocks", 0))
    return make_optimizer(steps=steps, warmup_steps=warmup, frozen=frozen, **options)


def make_transforms(config: Any, view: str = FACE) -> dict[str, Transform]:
    """Augmentation of the two training stages on images; of a view where an encoder is tuned."""
    size, tuned = config.image.size, config.finetune
    return {
        "pretrain": make_pretrain_transform(size, scale=tuple(config.pretrain.crop_scale)),
        "finetune": make_train_transform(
            size,
            crop=tuple(tuned.crop_scale),
            rotation=tuned.rotation,
            brightness=tuned.brightness,
            contrast=tuned.contrast,
            saturation=tuned.saturation,
            erase=tuned.erase,
            view=VIEWS[view],
        ),
    }
