"""The system `emotic_mae` (arXiv 2403.13039) for EXPR: two views of a face, fused by attention.

One encoder is tuned on the whole face, another on its eyes and mouth alone (data/views.py), each
from the same masked autoencoder. What the two say of a frame is fused by attention, its positions
the numbers of their projections; a window is one frame, and time enters by smoothing alone.
sequence.fuse is the paper's comparison: attention (code), attention_local, which adds the paper's
local attention in a form chosen here (models/fusion.py), mean and concatenation (of twice the
width: sequence.width=2048).

The paper starts from public face-MAE weights; here the autoencoder is pre-trained on the crops and
what pretrain.corpora names. A training row whose crop is cleaned away stays a row of the fusion's,
with the features of the crop before it.

Origins of values: paper, code (its authors'), or not published: chosen here.
"""

from ml_collections import ConfigDict

from configs import base


def _model(config: ConfigDict) -> None:
    """What all scales have of it, whatever the sizes."""
    # Paper: corrupted, non-face and low-resolution crops are removed; not published: how. Of the
    # demo's training crops 265 in 21,334 are left out, all as blurred.
    config.corpus.clean.update(min_side=32, min_contrast=10.0, min_sharpness=3.0)
    views = ("face", "eyes_mouth")  # paper
    config.finetune.views = config.sequence.modalities = views
    for section in (config.finetune, config.sequence):
        # Weighted cross-entropy: paper, of the encoders, plain in the code; which weights, and
        # whether the fusion's is weighted: not published.
        section.update(loss="cross_entropy", label_smoothing=0.0, class_weights="inverse")
    config.sequence.update(
        apart=False,
        length=1,  # paper: single frames
        stride=1,
        shift=0,
        fuse="attention",  # code
        depth=0,  # paper: no encoder over time is named
        project=False,
        positions="none",
        feature_dropout=0.0,  # not published
        dropout=0.0,  # not published
        head_between="relu",  # not published
    )
    config.ensemble.kinds = ("box",)  # paper: a sliding window; its width is searched on validation


def demo(config: ConfigDict) -> None:
    """The demo's sizes; not tuned."""
    _model(config)
    config.sequence.update(
        fuse_width=128, width=128, head_width=64, batch_size=256, epochs=6.0, evaluations=6
    )


def tiny(config: ConfigDict) -> None:
    """Seconds; for tests."""
    _model(config)
    config.sequence.update(
        fuse_width=32, width=32, head_width=16, batch_size=64, epochs=2.0, evaluations=2
    )


def faces(config: ConfigDict) -> None:
    """The photographs' sizes; not tuned."""
    _model(config)
    config.finetune.epochs = 6.0
    config.sequence.update(
        fuse_width=192, width=192, head_width=96, batch_size=256, epochs=6.0, evaluations=6
    )


def paper(config: ConfigDict) -> None:
    """As published, but for the pre-training."""
    base.paper(config)  # image and encoder, of which width, depth, heads, drop path: paper
    _model(config)
    adam = dict(name="adam", weight_decay=0.0, warmup_epochs=0.0, clip_norm=0.0)  # Adam: paper
    config.finetune.update(
        epochs=20.0,  # paper: up to 20
        batch_size=288,  # paper
        optimizer=base.optimizer(
            1e-4,  # paper
            schedule="step",  # paper; its period and factor: not published
            period_epochs=5.0,
            step_factor=0.5,
            **adam,
        ),
        dropout=0.0,  # not published
        crop_scale=(0.8, 1.0),  # paper; a flip, too
        rotation=0.0,  # paper names no other, as the next four
        brightness=0.0,
        contrast=0.0,
        saturation=0.0,
        erase=0.0,
        evaluations=20,  # not published: once an epoch, the best is kept
    )
    config.sequence.update(
        fuse_width=1024,  # paper, as the next two
        width=1024,
        head_width=512,
        batch_size=1024,  # paper
        epochs=20.0,  # not published
        optimizer=base.optimizer(1e-5, schedule="constant", **adam),  # 1e-5: paper; not published
        ema_decay=0.0,
        evaluations=20,  # not published
    )


SCALES = {"demo": demo, "tiny": tiny, "faces": faces, "paper": paper}
