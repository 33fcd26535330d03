"""The system `fuxi` (arXiv 2403.10825) for VA, EXPR and AU: fusion of modalities by a transformer;
and for EMI: a recurrent network a modality.

A masked autoencoder, tuned on frames; its features and those of sound, frame by frame side by side,
through 1x1 convolutions into a small post-norm transformer over windows. Its second stage: that
model frozen, and beside it one of the same kind trained on hard examples, their outputs mixed
(abaw_jax/tasks/collaborate.py, which says what of it is published). sequence.scenes or scene_file
gives its ensemble of scenes, sequence.folds=5 its folds.

For EMI each modality of a clip has a time axis of its own and a two-layer bidirectional GRU over it
(abaw_jax/models/recurrent.py): 32 frames of the face, one of each equal part, sound, and words.

Origins of values: paper (or its authors' code; code, where that alone has it), or not published:
chosen here. Of CE the values stand in configs/ce.py; those of EMI's masked autoencoder and of its
encoder are configs/emi.py's at the same scale.
"""

from collections.abc import Callable

from ml_collections import ConfigDict

from configs import base

Scale = Callable[[ConfigDict], None]

# Paper. The rule "max" gives others on the counts of rows that are known, for AU24 24.5.
CLASS_WEIGHTS = {
    "expr": "1, 10.40, 16.23, 19.61, 1.856, 2.225, 5.611, 1.059",
    # Of the whole term, not of the positive rows alone.
    "au": "5.278, 12.427, 3.918, 2.371, 1.574, 1.820, 2.587, 22.660, 20.121, 22.105, 1.0, 8.265",
}


def _model(config: ConfigDict) -> None:
    """What all scales have of it, whatever the sizes."""
    config.sequence.update(
        # Paper: sound as wav2vec2 or HuBERT (768) and VGGish (128), text (768) optional. Here the
        # package's own log-mel features; who has the weights names them in extract.wav2vec2 and
        # extract.vggish, and these two here in place of "sound".
        modalities=("face", "sound"),
        apart=False,
        join_slope=0.1,  # paper
        project=False,  # paper: the last of `join` is the encoder's width
        positions="none",  # paper
        activation="relu",  # paper
        feature_dropout=0.0,  # not published
        label_smoothing=0.0,  # paper: none is named
    )
    config.sequence.collaborate.update(
        hard=0.25,  # not published
        beta=(5.0, 2.0),  # code, as the next
        share=0.8,
    )
    if config.track == "va":
        # Paper. Of the config's own track: beside EXPR or AU (`together`) VA has one head.
        config.sequence.head_each = True
        # Paper: outputs are clamped, in the loss too. That loss, the sum of the two 1 - CCC, is
        # twice the one here, which under AdamW changes nothing.
        config.sequence.output = "clip"
    else:
        config.sequence.class_weights = "max"  # paper: the rule; its numbers are in CLASS_WEIGHTS
    if config.track == "au":
        config.sequence.positive_weights = "none"  # paper


def demo(config: ConfigDict) -> None:
    """The demo's sizes; windows, rate and weights of classes were chosen on EXPR's validation set.
    Without positions only a short window tells near frames from far ones."""
    _model(config)
    config.sequence.update(
        length=16, stride=8, shift=8, join=(128, 64), width=64, mlp_width=64, heads=4,
        head_width=32, epochs=16.0, evaluations=10,
    )  # fmt: skip
    config.sequence.optimizer.lr = 3e-4
    config.sequence.collaborate.epochs = 8.0
    if config.track == "expr":
        config.sequence.class_weights = "inverse_sqrt"


def tiny(config: ConfigDict) -> None:
    """Seconds; for tests."""
    _model(config)
    config.sequence.update(
        join=(32, 16), width=16, mlp_width=16, heads=4, head_width=8, epochs=4.0, evaluations=2
    )
    config.sequence.collaborate.epochs = 2.0


def pretraining(config: ConfigDict) -> None:
    """The masked autoencoder at paper scale, for CE too."""
    config.pretrain.update(
        # Paper: 2 M faces of AffectNet, CASIA-WebFace, CelebA and IMDB-WIKI, which are those that
        # pretrain.corpora names; its schedule is not published.
        epochs=400.0,  # not published
        batch_size=1024,  # not published
        optimizer=base.optimizer(
            6e-4,  # not published, as the next two: the original MAE's
            warmup_epochs=40.0,
            b2=0.95,
            clip_norm=0.0,
        ),
        mask_ratio=0.75,  # paper
        norm_pix_loss=False,  # not published; MSE on the masked patches: paper
        decoder_width=512,  # paper, as the next two
        decoder_depth=8,
        decoder_heads=16,
        crop_scale=(0.2, 1.0),  # not published; the original MAE's
    )


def paper(config: ConfigDict) -> None:
    """As published, but for sound, and what costs a run for each: scenes, folds and the images of
    other corpora, which sequence.scenes, sequence.folds and pretrain.corpora add.
    """
    base.paper(config)  # image and encoder, of which width, depth, heads, drop path: paper
    _model(config)
    pretraining(config)
    config.finetune.update(  # paper: tuned for each task; how is not published
        epochs=5.0, batch_size=256, optimizer=base.optimizer(1e-4, layer_decay=0.65), dropout=0.0
    )  # fmt: skip
    config.sequence.update(
        length=100,  # paper
        stride=100,  # not published
        shift=0,
        epochs=50.0,  # paper
        batch_size=32,  # paper
        optimizer=base.optimizer(
            5e-5,  # paper, as the next three
            weight_decay=0.05,
            period_epochs=2.0,
            final_lr=1e-5,
            warmup_epochs=0.0,  # not published, as the next
            clip_norm=0.0,
        ),
        join=(256, 128),  # paper, as the next six
        width=128,
        depth=4,
        heads=4,
        mlp_width=128,
        head_width=64,
        dropout=0.3,
        ema_decay=0.0,  # paper: optional
        evaluations=50,  # paper: the best epoch is kept
    )
    # Not published; nor is the rest of its schedule, which is the first stage's here.
    config.sequence.collaborate.epochs = 50.0
    if config.track in CLASS_WEIGHTS:
        config.sequence.class_weights = CLASS_WEIGHTS[config.track]
    config.ensemble.kinds = ("gaussian",)  # paper; sigma is searched on validation
    if config.track == "au":
        config.ensemble.search_thresholds = False  # not published


def _clips(config: ConfigDict) -> None:
    """EMI: what all scales have of it, whatever the sizes."""
    config.sequence.update(
        model="gru",  # paper
        # Paper: sound as wav2vec2 (768, 50 rows a second), text as a language model's hidden states
        # of a transcript's tokens. Here the package's own features of both; who has the weights
        # names them in extract.wav2vec2 and extract.text, and these in extract.steps and here.
        modalities=("face", "sound", "words"),
        apart=False,
        loss="mse",  # paper
        label_smoothing=0.0,
    )


def demo_clips(config: ConfigDict) -> None:
    """The demo's sizes; rate, widths and epochs chosen on the drawn clips' validation set. Its test
    set was not looked at."""
    _clips(config)
    config.extract.steps = ConfigDict(dict(sound=32, words=32))
    config.sequence.update(
        length=32, epochs=14.0, width=32, mlp_width=32, head_width=32, dropout=0.5,
        feature_dropout=0.4,
    )  # fmt: skip
    config.sequence.optimizer.update(lr=3e-3, weight_decay=0.3)


def tiny_clips(config: ConfigDict) -> None:
    """Seconds; for tests."""
    _clips(config)
    config.extract.steps = ConfigDict(dict(sound=8, words=4))
    config.sequence.update(length=4, width=4, mlp_width=6, head_width=5, epochs=2.0)


def paper_clips(config: ConfigDict) -> None:
    """As published, but for sound and text, and the encoder (paper: AU-tuned encoder; here tuned on
    EMI)."""
    _clips(config)
    config.extract.steps = ConfigDict(dict(
        sound=320,  # paper
        words=128,  # paper: tokens
    ))  # fmt: skip
    config.sequence.update(
        length=32,  # paper
        batch_size=16,  # paper
        epochs=30.0,  # not published
        optimizer=base.optimizer(
            1e-4,  # not published, as the next and the cosine schedule
            warmup_epochs=0.0,
            weight_decay=0.0,  # paper: Adam
            clip_norm=0.0,
        ),
        width=256,  # not published, as the next two
        mlp_width=256,
        head_width=256,
        dropout=0.5,  # paper
        feature_dropout=0.0,  # not published
        evaluations=30,  # paper: the best is kept; how often it is looked for is not published
        output="linear",  # paper
    )


def _by_labels(frames: Scale, clips: Scale) -> Scale:
    """A scale's function, by what the track's labels are of."""
    return lambda config: (clips if config.track == "emi" else frames)(config)


SCALES = {
    "demo": _by_labels(demo, demo_clips),
    "tiny": _by_labels(tiny, tiny_clips),
    "paper": _by_labels(paper, paper_clips),
}
