"""The system `masked_vit` (arXiv 2403.13731) for VA, EXPR and AU: random frame masking, focal loss.

A transformer over the frames that end at the predicted one, some of them zeroed in training; what
all of them hold goes through one dense layer. head="frames" is the paper's other form, with which
windows need not end at a frame.

The paper's features are those of a frozen ViT-B/16 trained on ImageNet-21k. Here they are
those of the system `mae_transformer`: an encoder of the same form, pre-trained as a masked
autoencoder on the crops and tuned on the track's frames; finetune.frozen_blocks, set to
encoder.depth, tunes its last norm alone. Whose own are the paper's names their store in
extract.stores and sequence.modalities, and sets sequence.project=True, as a store has one number
more.

Origins of values: paper, code (its authors'), or not published: chosen here.
"""

from ml_collections import ConfigDict

from configs import base


def _model(config: ConfigDict) -> None:
    """What all scales have of it, whatever the sizes."""
    config.sequence.update(
        modalities=("face",),  # paper
        apart=False,
        mask_rate=0.2,  # paper: .2, .5 and .8 are compared
        mask_unit="frames",  # paper; values in the code
        feature_dropout=0.0,  # not published
        project=False,  # paper: features are as wide as the encoder
        positions="sincos",  # paper
        activation="relu",  # not published; torch's default
        head="last",  # paper
        label_smoothing=0.0,  # paper: none is named
        patience=3,  # paper
    )
    if config.track == "va":
        config.sequence.output = "tanh"  # paper
    else:
        # Paper. The code feeds probabilities into a loss that takes logits; here it gets logits.
        config.sequence.loss = "focal"
        config.sequence.loss_options.update(alpha=0.25, gamma=2.0)  # paper
        config.sequence.class_weights = "share"  # paper: 1 - n_k / sum n
    if config.track == "au":
        config.sequence.positive_weights = "none"  # paper: none is named


def demo(config: ConfigDict) -> None:
    """The demo's sizes; not tuned, but for the epochs, on AU's validation set."""
    _model(config)
    config.sequence.update(
        length=32, stride=8, shift=8, epochs=16.0, batch_size=32, width=128, heads=8, mlp_width=256,
        head_width=64, evaluations=8,
    )  # fmt: skip
    config.sequence.optimizer.lr = 5e-4


def tiny(config: ConfigDict) -> None:
    """Seconds; for tests."""
    _model(config)
    config.sequence.update(length=8, stride=8, shift=8, epochs=1.0, evaluations=2)


def faces(config: ConfigDict) -> None:
    """The photographs' sizes; not tuned. The encoder is that of `mae_transformer`, tuned alike."""
    _model(config)
    config.sequence.update(
        length=64, stride=8, shift=8, epochs=10.0, batch_size=32, width=192, heads=8, mlp_width=384,
        head_width=96, evaluations=10,
    )  # fmt: skip
    config.sequence.optimizer.lr = 5e-4


def paper(config: ConfigDict) -> None:
    """As published, but for the features."""
    base.paper(config)  # of the encoder, in place of ImageNet's
    _model(config)
    config.sequence.update(
        length=100,  # paper
        stride=1,  # paper: the model predicts frame i
        shift=0,
        epochs=20.0,  # not published; training stops before
        batch_size=512,  # paper: 268 or 512
        optimizer=base.optimizer(
            5e-5 if config.track == "au" else 1e-4,  # paper
            schedule="constant",  # not published, as the rest
            weight_decay=0.01,
            warmup_epochs=0.0,
            clip_norm=0.0,
        ),
        width=768,  # paper, as the next five
        depth=6,
        heads=8,
        mlp_width=2048,
        dropout=0.5,
        head_width=1024,
        evaluations=20,  # not published: once an epoch
    )
    config.ensemble.update(
        kinds=(),  # not published: no filter is named
        # Paper. It is of predictions frame by frame; the windows fill a missing crop with the frame
        # before it, so that they leave no gap.
        gaps="nearest",
    )
    if config.track == "au":
        config.ensemble.search_thresholds = False  # not published


SCALES = {"demo": demo, "tiny": tiny, "faces": faces, "paper": paper}
