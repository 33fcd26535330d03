"""The system `ctyun` (arXiv 2403.11440) for VA, EXPR and AU: MAE, TCN and transformer.

A masked autoencoder, tuned on frames; causal temporal convolutions over its features, then a
post-norm transformer over windows of them. Of the paper's five models, one on the official split
and four of folds, sequence.folds=4 adds the folds (its own are of train and validation videos).

The encoder of every track is tuned on the labels of EXPR alone. Each run tunes its own, on the
training set of its track and what EXPR's has besides (abaw_jax/data/corpora/affwild2.py); that of a
finished run of EXPR, as the paper's one encoder is, is taken by finetune.encoder. With the word
`together` the sequence model alone learns all tracks.

Origins of values: paper, code (its authors' published configs), or not published: chosen here.
"""

from ml_collections import ConfigDict

from configs import base

EPOCHS = {"va": 40.0, "expr": 10.0, "au": 30.0}  # paper


def _model(config: ConfigDict) -> None:
    """What all scales have of it, whatever the sizes."""
    config.sequence.update(
        modalities=("face",),  # paper
        apart=False,
        tcn_kernel=5,  # paper; dilation 1, 2, 4
        positions="none",  # paper
        activation="relu",  # paper
        feature_dropout=0.0,  # not published
    )
    # Paper: the sequence model's losses are plain and unweighted; the encoder's: not published.
    for section in (config.finetune, config.sequence):
        section.update(label_smoothing=0.0, class_weights="none")
        if config.track == "va":
            # Paper: predictions are clipped, the loss sees them unclipped. That loss, the sum of
            # the two 1 - CCC, is twice the one here, which under AdamW changes nothing.
            section.output = "linear"
        if config.track == "au":
            section.positive_weights = "none"


def _tune_on_expr(config: ConfigDict) -> None:
    """Paper: the encoder learns EXPR, whatever the track; its loss: not published."""
    if config.track != "expr":
        config.corpus.also = ("expr",)
    if config.track == "va":
        config.finetune.output = ""  # EXPR's
    config.finetune.update(track="expr", loss="cross_entropy")


def demo(config: ConfigDict) -> None:
    """The demo's sizes; not tuned, but for the widths of the convolutions, on VA's and AU's
    validation sets: narrower ones lose what these need of an encoder that learns EXPR."""
    _model(config)
    _tune_on_expr(config)
    config.sequence.update(tcn=(128, 128, 64), epochs=16.0, evaluations=10)


def tiny(config: ConfigDict) -> None:
    """Seconds; for tests."""
    _model(config)
    _tune_on_expr(config)
    config.sequence.update(tcn=(16, 8), epochs=4.0, evaluations=2)


def faces(config: ConfigDict) -> None:
    """The photographs' sizes; not tuned. The encoder is that of `mae_transformer`, tuned alike."""
    smoothing = config.finetune.label_smoothing
    _model(config)
    config.finetune.label_smoothing = smoothing
    config.sequence.update(tcn=(192, 128, 64), epochs=20.0, evaluations=10)


def paper(config: ConfigDict) -> None:
    """As published, but for the four models of folds and the images of other corpora in
    pre-training, which sequence.folds and pretrain.corpora add."""
    without_convolutions(config)
    _tune_on_expr(config)
    config.sequence.tcn = (768, 256, 128)  # paper
    # Paper: a majority filter of width 40 for EXPR, here searched on validation; else no filter.
    config.ensemble.kinds = ("majority",) if config.track == "expr" else ()


def without_convolutions(config: ConfigDict) -> None:
    """All but the encoder's labels, the TCN and the filter: the paper scale of `mae_transformer`,
    too.

    The paper's images for pre-training (AffectNet, RAF-DB, FER2013, FER+) are those that
    pretrain.corpora names, beside Aff-Wild2's crops.
    """
    _model(config)
    config.corpus.demo_size = ""
    config.image.update(
        size=224,
        # The public face-MAE weights' statistics; the paper's own: not published.
        mean=(0.49895147, 0.41043906, 0.36561476),
        std=(0.29708471, 0.26990031, 0.26525996),
    )
    config.encoder.update(  # ViT-B/16: paper
        patch_size=16, width=768, depth=12, heads=12, dtype="bfloat16", remat=True,
        drop_path=0.1,  # not published
    )  # fmt: skip
    config.pretrain.update(
        epochs=500.0,  # paper
        batch_size=1024,  # paper
        optimizer=base.optimizer(
            5e-4,  # paper
            warmup_epochs=40.0,  # not published; the original MAE's
            b2=0.95,  # not published; the original MAE's
            clip_norm=0.0,
        ),
        mask_ratio=0.75,  # paper
        norm_pix_loss=False,  # paper: pixel L2
        decoder_width=512,  # not published, as the next three: the original MAE's
        decoder_depth=8,
        decoder_heads=16,
        crop_scale=(0.2, 1.0),
    )
    config.finetune.update(
        epochs=5.0,  # not published
        batch_size=256,  # paper
        optimizer=base.optimizer(1e-4, layer_decay=0.65),  # 1e-4, AdamW: paper; decay not published
        dropout=0.0,  # not published
    )
    config.sequence.update(
        length=300,  # paper
        stride=200,  # paper
        shift=0,
        epochs=EPOCHS.get(config.track, config.sequence.epochs),
        batch_size=32,  # paper
        optimizer=base.optimizer(
            3e-5,  # paper
            weight_decay=1e-5,  # paper
            warmup_lr=1e-8,  # paper
            warmup_epochs=1.0,  # not published, as the next
            clip_norm=0.0,
        ),
        width=512,  # paper, as the next five
        depth=8,
        heads=4,
        mlp_width=512,
        head_width=256,
        dropout=0.3,  # 0.0 in the code
        evaluations=10,  # not published
    )
    if config.track == "au":
        config.ensemble.search_thresholds = False  # paper: 0.5


SCALES = {"demo": demo, "tiny": tiny, "faces": faces, "paper": paper}
