"""An encoder as `hsemotion` (arXiv 2403.11590) has them: a light convolutional network that learns
AffectNet's eight expressions, valence and arousal of single faces.

    python -m abaw_jax.convert WEIGHTS --to=START
    python -m abaw_jax.main --config=configs/affectnet.py:mobilefacenet --workdir=RUN \\
        --config.corpus.root=DIR --config.finetune.start=START

START holds public weights of the family, which have learnt to tell persons or things apart; the
head learns first, and then everything. --config.finetune.head_epochs=0 starts from nothing. Then
--config.finetune.encoder=RUN takes the encoder in configs/<track>.py:hsemotion, whose scores are
its eight logits, in AffectNet's order, valence and arousal.

The argument names a family of abaw_jax/models/families.py; efficientnet_b0 is the default, and
efficientnet_small and _tiny, for faces of 48 pixels, are none of the paper's. Both layouts of
AffectNet are read (docs/data.md). The score is EXPR's macro F1, in which Other has no example and
counts as 0, so that it is at most .875.

Origins of values: paper, code (its authors'), or not published: chosen here.
"""

from ml_collections import ConfigDict

from configs import base

IMAGENET = dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
HALF = dict(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
# Family -> pixels. Sizes: paper, but for the last. Scaling: paper of MobileFaceNet; of the others
# not published, here as public weights have it, but for MobileViT-S: timm's were trained on 256
# pixels from 0 to 1, and START of these needs image.size, mean and std set so.
IMAGES = {
    "efficientnet_b0": dict(size=224, **IMAGENET),
    "efficientnet_b2": dict(size=260, **IMAGENET),
    "mobilevit_s": dict(size=224, **IMAGENET),
    "mobilefacenet": dict(size=112, **HALF),
    "ddamfn": dict(size=112, **IMAGENET),
    "efficientnet_small": dict(size=48, **IMAGENET),
    "efficientnet_tiny": dict(size=48, **IMAGENET),
}


def get_config(arg: str = "") -> ConfigDict:
    """The config of a family. Raises ValueError for any other argument."""
    family = arg or next(iter(IMAGES))
    if family not in IMAGES:
        raise ValueError(
            f"configs/affectnet.py:{arg}: {arg!r} is no family; name one of {', '.join(IMAGES)}"
        )
    config = base.sections("expr", "hsemotion", "paper")
    config.name = f"affectnet-{family}"
    config.corpus = ConfigDict(dict(
        kind="affectnet",
        root="",  # the folder that holds the csv files, or train_set and val_set
        max_missing=1000,  # rows of a csv file that may be without their image
        max_damaged=0.01,  # damaged images that a run accepts: a share, or a count from 1 up
        also=("va",),
        demo_size="",
    ))  # fmt: skip
    config.image.update(IMAGES[family], normalise="channel")
    config.encoder.update(family=family, drop_path=0.0)  # not published
    config.pretrain.epochs = 0.0
    config.finetune.update(
        target="affectnet",  # paper
        pooling="none",
        head_epochs=3.0,  # paper
        head_lr=1e-3,  # paper
        epochs=6.0,  # paper
        batch_size=64,  # not published
        optimizer=base.optimizer(
            1e-4,  # paper
            name="adam",  # paper
            sam_rho=0.05,  # paper: SAM; its radius is not published: Foret et al.'s
            schedule="constant",  # not published, as the rest
            weight_decay=0.0,
            warmup_epochs=0.0,
            clip_norm=0.0,
        ),
        loss="cross_entropy",  # paper
        class_weights="max",  # paper
        label_smoothing=0.1,  # not published
        dropout=0.0,  # not published
        evaluations=6,  # not published: once an epoch, the best is kept
    )
    # Paper: the sum of both 1 - CCC, of which `ccc` is the mean. Plain outputs: not published.
    config.finetune.also.va = ConfigDict(dict(loss="ccc", weight=2.0, output="linear"))
    config.sequence.epochs = 0.0
    config.ensemble.kinds = ()
    return config.lock()
