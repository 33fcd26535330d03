"""From config sections to models, tasks and optimisers: the one place that knows both.

The values are taken as they are; `stages.check` says which cannot be.
"""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from abaw_jax.data.transforms import Transform, make_pretrain_transform, make_train_transform
from abaw_jax.models.heads import FrameClassifier
from abaw_jax.models.mae import MAE
from abaw_jax.models.sequence import SequenceModel
from abaw_jax.models.vit import ViT
from abaw_jax.tasks.frames import make_frames_task
from abaw_jax.tasks.reconstruct import make_reconstruct_task
from abaw_jax.tasks.sequences import make_sequences_task
from abaw_jax.tasks.task import Normalise, Task, normalise_by_channel, normalise_by_image
from abaw_jax.tracks.track import Track
from abaw_jax.training.loop import TrainResult
from abaw_jax.training.optim import Optimizer, make_optimizer

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
NORMALISATIONS = {
    "channel": lambda section: normalise_by_channel(section.mean, section.std),
    "image": lambda section: normalise_by_image,
}
CLASS_WEIGHTS = {"none": 0.0, "inverse": 1.0, "inverse_sqrt": 0.5}  # rule -> power of 1 / count


def make_encoder(config: Any) -> ViT:
    """The ViT of the sections `encoder` and `image`."""
    section = config.encoder
    return ViT(
        image_size=config.image.size,
        patch_size=section.patch_size,
        width=section.width,
        depth=section.depth,
        heads=section.heads,
        drop_path=section.drop_path,
        remat=section.remat,
        dtype=DTYPES[section.dtype],
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


def make_finetune_task(config: Any, track: Track, class_weights=None) -> Task:
    """Labels of frames as the section `finetune` says."""
    section = config.finetune
    model = FrameClassifier(make_encoder(config), track.outputs, section.pooling, section.dropout)
    return make_frames_task(
        model,
        track,
        normalise=make_normalise(config),
        class_weights=class_weights,
        label_smoothing=section.label_smoothing,
        mixup=section.mixup,
        cutmix=section.cutmix,
    )


def make_sequence_task(config: Any, track: Track, class_weights=None) -> Task:
    """Labels of sequences as the section `sequence` says."""
    section = config.sequence
    model = SequenceModel(
        width=section.width,
        depth=section.depth,
        heads=section.heads,
        mlp_width=section.mlp_width,
        head_width=section.head_width,
        outputs=track.outputs,
        dropout=section.dropout,
        activation=section.activation,
        positions=section.positions,
        feature_dropout=section.feature_dropout,
    )
    return make_sequences_task(
        model, track, class_weights=class_weights, label_smoothing=section.label_smoothing
    )


def count_steps(section: Any, examples: int) -> tuple[int, float]:
    """(steps of the whole schedule, steps of an epoch): an epoch sees as many as there are."""
    epoch = examples / section.batch_size
    return math.ceil(section.epochs * epoch), epoch


def make_schedule_optimizer(section: Any, examples: int) -> Optimizer:
    """The optimiser of a training section, its epochs turned into steps; see `make_optimizer`."""
    options = section.optimizer.to_dict()
    steps, epoch = count_steps(section, examples)
    warmup = min(round(options.pop("warmup_epochs") * epoch), steps)
    options["clip_norm"] = options["clip_norm"] or None
    options["layer_decay"] = None if options["layer_decay"] == 1.0 else options["layer_decay"]
    return make_optimizer(steps=steps, warmup_steps=warmup, **options)


def make_class_weights(rule: str, labels: np.ndarray, classes: int) -> tuple[float, ...] | None:
    """Weights of the classes from the training labels (n, 1), None for the rule 'none'.

    'inverse': 1 / count; 'inverse_sqrt': its square root; scaled so that the mean over the training
    frames is 1. A class that never occurs weighs 0.
    """
    if rule == "none":
        return None
    counts = np.bincount(labels[labels >= 0], minlength=classes)
    weights = np.where(counts > 0, np.maximum(counts, 1.0) ** -CLASS_WEIGHTS[rule], 0.0)
    return tuple(weights * counts.sum() / (weights * counts).sum())


def make_transforms(config: Any) -> dict[str, Transform]:
    """Augmentation of the two training stages on images."""
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
        ),
    }


def training_figures(result: TrainResult) -> dict[str, float]:
    """What a stage reports of its training, beside its score."""
    return {
        **result.metrics,
        "step": result.step,
        "examples_per_second": round(result.examples_per_second, 1),
        "input_wait_share": round(result.input_wait_share, 4),
        "compiles": result.compiles,
        "compile_seconds": round(result.compile_seconds, 2),
    }
