"""The system `hsemotion` (arXiv 2403.11590): light convolutional encoders, small heads on frozen
features, filters over time; for all five tracks.

An encoder learns eight expressions, valence and arousal of single faces, and stays as it is. On its
feature, or on these ten outputs (the modality `scores`), a head of one or two dense layers learns a
track from single frames; no model sees time, which a box filter brings in. Of EXPR a second head
learns from sound and the two are weighted (sequence.apart). Of EMI a dense layer learns from the
statistics of a clip's scores and of its sound (abaw_jax/models/clips.py), weighted for each target.
Of CE nothing is learnt: a compound's score is the mean of the probabilities of its two expressions
(configs/ce.py, python -m abaw_jax.compound).

The paper trains its encoders on AffectNet, as configs/affectnet.py does; finetune.encoder takes
such a run's. Without it each run tunes its own on the frames of its corpus, EXPR and VA together,
of EMI on clips' labels.

Origins of values: paper (or its authors' code), or not published: chosen here.
"""

from ml_collections import ConfigDict

from configs import base

SHARED = base.SHARED


def _adam(lr: float, **changes) -> ConfigDict:
    """Adam at a constant rate, as none other is named."""
    plain = dict(
        name="adam", schedule="constant", weight_decay=0.0, warmup_epochs=0.0, clip_norm=0.0
    )
    return base.optimizer(lr, **plain | changes)


def _encoder(config: ConfigDict, family: str) -> None:
    """One of the paper's, or a small one; nothing is pre-trained as a masked autoencoder."""
    config.encoder.update(family=family, drop_path=0.0, remat=False)  # not published
    config.pretrain.epochs = 0.0
    config.finetune.update(pooling="none", frozen_blocks=0)
    config.finetune.optimizer.layer_decay = 1.0
    if config.track not in SHARED:
        return
    config.corpus.also = tuple(key for key in ("va", "expr") if key != config.track)
    if config.track == "va":
        config.finetune.output = ""  # EXPR's
    if config.track == "au":
        config.finetune.positive_weights = "none"
    config.finetune.update(
        track="expr",
        loss="cross_entropy",  # paper
        class_weights="max",  # paper: the largest count over the class's
    )
    config.finetune.also.va = ConfigDict(dict(
        loss="ccc",  # paper
        weight=2.0,  # paper: the sum of the two 1 - CCC, of which `ccc` is the mean
        output="linear",  # paper: plain outputs
    ))  # fmt: skip


def _heads(config: ConfigDict) -> None:
    """What all scales have of the heads, whatever the sizes."""
    track, section = config.track, config.sequence
    if track == "ce":
        return
    section.update(
        model="frames",
        modalities=("face",),
        apart=False,
        length=1,
        stride=1,
        shift=0,
        head_width=128,  # paper
        dropout=0.0,  # paper: none is named
        feature_dropout=0.0,
        label_smoothing=0.0,
    )
    config.ensemble.kinds = ("box",)  # paper
    if track == "va":
        section.update(
            modalities=("scores",),  # paper
            head_width=0,  # paper: one dense layer
            output="tanh",  # paper
            loss="ccc",  # paper: 1 - mean CCC
        )
        config.ensemble.widths = (50,)  # paper
    if track == "expr":
        section.update(
            modalities=("face", "sound"),  # paper; see `paper`
            apart=True,  # paper: late fusion
            loss="cross_entropy",
            class_weights="inverse",  # paper: 1 / count
        )
        # Paper: 0.6 to 0.7 of the face; here searched on validation, of each class.
        config.ensemble.members = ("face", "sound")
        config.ensemble.widths = (101,)  # paper
    if track == "au":
        # Paper: N / 2 negatives where a unit is off, N / 2 positives where it is on.
        section.update(
            loss="binary_cross_entropy", class_weights="negative", positive_weights="ratio"
        )
        config.ensemble.widths = (3, 4, 5)  # paper: 3 to 5
        config.ensemble.search_thresholds = True  # paper: of each unit, on validation
    if track == "emi":
        _clips(config)


def _clips(config: ConfigDict) -> None:
    section = config.sequence
    section.update(
        model="statistics",  # paper
        modalities=("scores", "sound"),  # paper: scores or embeddings; of sound see `paper`
        apart=True,  # paper: late fusion
        loss="pearson",  # paper: 1 - mean Pearson
        output="sigmoid",  # paper
    )
    config.extract.steps = ConfigDict(dict(sound=1024))  # more than 12 seconds have
    # Paper: 0.1 of the face, of Joy 0.4; here searched on validation, of each target.
    config.ensemble.members = ("scores", "sound")
    config.ensemble.kinds = ()


def demo(config: ConfigDict) -> None:
    """The demo's sizes; not tuned. The encoder is trained from nothing on the drawn crops."""
    _encoder(config, "efficientnet_tiny")
    _heads(config)
    if config.track == "ce":
        return
    config.finetune.epochs = 4.0
    config.sequence.update(
        batch_size=256, epochs=5.0, evaluations=5, optimizer=_adam(1e-3, warmup_epochs=0.5)
    )
    if config.track == "emi":
        config.sequence.update(length=32, batch_size=64, epochs=30.0, evaluations=10)
        config.sequence.optimizer.lr = 3e-3


def tiny(config: ConfigDict) -> None:
    """Seconds; for tests."""
    _encoder(config, "efficientnet_tiny")
    _heads(config)
    if config.track == "ce":
        return
    config.sequence.update(batch_size=64, epochs=1.0, evaluations=1)
    if config.track == "emi":
        config.sequence.update(length=8, batch_size=8)
        config.extract.steps.sound = 32


def paper(config: ConfigDict) -> None:
    """As published, but for the encoder, unless finetune.encoder names one of AffectNet, and sound,
    which is the package's own (paper: wav2vec2-base's last states, 768 numbers a frame); who has
    the weights names them in extract.wav2vec2, and that in place of `sound` in sequence.modalities
    and ensemble.members, of EMI in extract.steps too.
    """
    # Of VA: paper. It compares five; which of them is best elsewhere is not known here.
    family, size = ("ddamfn", 112) if config.track == "va" else ("efficientnet_b0", 224)
    config.corpus.demo_size = ""
    config.image.update(
        size=size,  # paper
        normalise="channel",
        mean=(0.485, 0.456, 0.406),  # ImageNet's, as the public weights of both take
        std=(0.229, 0.224, 0.225),
    )
    config.encoder.dtype = "bfloat16"
    _encoder(config, family)
    config.finetune.update(
        epochs=6.0,  # paper; before them 3 of the head alone, which here would be on nothing learnt
        batch_size=64,  # not published
        optimizer=_adam(
            1e-4,  # paper
            sam_rho=0.05,  # SAM around Adam: paper; rho: not published, Foret et al.'s
        ),
        dropout=0.0,  # not published, as the next
        label_smoothing=0.0,
        evaluations=6,
    )
    _heads(config)
    if config.track == "ce":
        config.finetune.class_weights = "max"  # paper: as of its encoders
        return
    config.sequence.update(
        batch_size=1024 if config.track == "va" else 256,  # paper; of AU and EMI not published
        epochs=5.0 if config.track == "va" else 10.0,  # the same
        optimizer=_adam(1e-3),  # paper; of AU and EMI not published
        ema_decay=0.0,
        evaluations=10,  # not published
    )
    if config.track == "va":
        config.sequence.evaluations = 5
        # Paper: L2 1 / batch, here as c sum w^2 in the loss, whose gradient is 2 c w.
        config.sequence.optimizer.weight_decay = 2 / 1024
    if config.track == "emi":
        config.sequence.update(
            every=5,  # paper
            length=128,  # not published: of longer clips these are drawn
            epochs=50.0,  # not published
        )


SCALES = {"demo": demo, "tiny": tiny, "paper": paper}
