"""Ablations: a system without one of its parts, or with another in its place, as papers compare
them or a reader would; a word of a config's argument.

    python -m abaw_jax.main --config=configs/va.py:ctyun,demo,without_tcn

Each changes a config as its system's scale has made it; `base.ablate` refuses one that changes
nothing. Others are one key: sequence.mask_rate (`masked_vit` compares .2, .5 and .8),
sequence.mask_unit, sequence.head, finetune.pooling, sequence.collaborate.epochs, sequence.scenes,
sequence.folds.

Figures beside them are the papers': VA / EXPR / AU on the official validation set. Where there are
none, they are not known to us.
"""

from collections.abc import Callable, Sequence

from ml_collections import ConfigDict

FACE, COMPOSITE, SOUND = "face", "eyes_mouth", "sound"
# The losses of tracks with classes that weigh no row by its class or by how hard it is.
PLAIN = {"expr": "cross_entropy", "au": "binary_cross_entropy", "ce": "cross_entropy"}


def _without_finetuning(config: ConfigDict) -> None:
    """The encoder stays as pre-trained: its last norm and the head of single frames alone learn."""
    if config.pretrain.epochs:
        config.finetune.frozen_blocks = config.encoder.depth


def _without_tcn(config: ConfigDict) -> None:
    config.sequence.tcn = ()


def _without_transformer(config: ConfigDict) -> None:
    if config.sequence.model != "transformer":
        return
    config.sequence.update(depth=0, positions="none")


def _without_masking(config: ConfigDict) -> None:
    config.sequence.mask_rate = 0.0


def _plain_loss(config: ConfigDict) -> None:
    """Of the sequence model, whose features stay the same."""
    for track, part in {config.track: config.sequence, **config.sequence.also}.items():
        if track not in PLAIN:
            continue
        part.update(loss=PLAIN[track], class_weights="none")
        part.loss_options = ConfigDict()
        if "positive_weights" in part:
            part.positive_weights = "none"


def _learn_from(config: ConfigDict, modalities: Sequence[str]) -> None:
    """These modalities, and nothing to fuse where there is one. All views' encoders are tuned, as
    of the whole system, whose run may lend them."""
    sequence = config.sequence
    sequence.modalities = tuple(modalities)
    if len(modalities) > 1:
        return
    sequence.apart, config.ensemble.members = False, ()
    if sequence.fuse:
        sequence.update(fuse="", project=True)


def _without_sound(config: ConfigDict) -> None:
    _learn_from(config, [name for name in config.sequence.modalities if name != SOUND])


def _face_alone(config: ConfigDict) -> None:
    if FACE in config.sequence.modalities:
        _learn_from(config, [FACE])


def _eyes_mouth_alone(config: ConfigDict) -> None:
    if COMPOSITE in config.sequence.modalities:
        _learn_from(config, [COMPOSITE])


def _fuse(method: str, widths: int = 1) -> Callable[[ConfigDict], None]:
    """Two views made one by a method whose outcome has so many times `fuse_width` numbers."""

    def change(config: ConfigDict) -> None:
        if config.sequence.fuse:
            config.sequence.update(fuse=method, width=widths * config.sequence.fuse_width)

    return change


ABLATIONS = {
    # Of ctyun, whose whole scores .5805 / .4561 / .5762.
    "without_finetuning": _without_finetuning,  # .5038 / .4014 / .5194
    "without_tcn": _without_tcn,  # .5675 / .4372 / .5519
    "without_transformer": _without_transformer,  # .5734 / .4428 / .5612
    # Of the others.
    "without_sound": _without_sound,  # fuxi, hsemotion
    "without_masking": _without_masking,  # masked_vit
    "plain_loss": _plain_loss,  # masked_vit: focal; the others: weighted
    "face_alone": _face_alone,  # emotic_mae, as the next four: views, fusions
    "eyes_mouth_alone": _eyes_mouth_alone,
    "fuse_mean": _fuse("mean"),
    "fuse_concatenation": _fuse("concatenation", widths=2),
    "fuse_attention_local": _fuse("attention_local"),
}
