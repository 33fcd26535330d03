"""EMI: the intensity of six mimicked emotions in clips of Hume-Vidmimic2, from faces to submission.

    python -m abaw_jax.main --config=configs/emi.py                 the demo corpus
    python -m abaw_jax.main --config=configs/emi.py:paper --config.corpus.root=DIR
    python -m abaw_jax.main --config=configs/emi.py:fuxi,paper --config.corpus.root=DIR

System `mae_transformer`, as for EXPR: a masked autoencoder pre-trained on the training faces, tuned
on single faces that bear their clip's label (weak labels), and a post-norm transformer over a
clip's features whose outputs are averaged over the clip. At demo scale these are features of the
face, of sound and of words; --config.sequence.modalities='("face",)' takes the face alone. A clip
is one window; of a longer one a frame is drawn from each of `sequence.length` equal parts. There is
nothing to smooth: a clip is one row. At paper scale its values are those of `fuxi` (arXiv
2403.10825), without sound and transcripts, with a transformer in place of the recurrent network,
and with an encoder tuned on EMI in place of AU, unless --config.finetune.encoder=RUN takes that of
a finished run of configs/au.py:fuxi,paper; what that paper does not publish says so.

System `fuxi`, in configs/systems/fuxi.py: that paper's recurrent network over each of face, sound
and words on a time axis of its own. Its encoder is the one of this file, tuned on EMI. `hsemotion`,
in configs/systems/hsemotion.py: a dense layer on the statistics of a clip's scores and its sound.

The argument names a system, a scale, or both as `fuxi,paper`; each system has all scales:

    demo    default. Drawn faces at 48 pixels, a small ViT: minutes on two cores
    tiny    seconds; for tests. Its scores mean nothing
    paper   Hume-Vidmimic2 itself, ViT-B/16 at 224 pixels: an accelerator

With the name of an ablation, as in `demo,without_sound`, it is the system without one of its
parts; configs/ablations.py has them.

What is not set here is in configs/base.py.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(arg: str = "") -> ConfigDict:
    """The config of a system at a scale. Raises ValueError for any other argument."""
    system, scale = base.parse(arg, "emi", tuple(SCALES))
    config = base.sections("emi", system, scale)
    config.corpus = ConfigDict(dict(
        kind="vidmimic2",
        root="",  # the folder that holds the following; empty: the demo corpus, drawn on the spot
        train_table="train_split.csv",
        validation_table="valid_split.csv",
        test_table="",  # names the test clips where there is no example; empty: none
        test_example="test_split.csv",  # the example submission, as the archive calls it
        face_images=("face_images", "test/face_images"),
        persons="",  # csv video,person of training and validation clips; empty: they are not known
        max_damaged=0.01,  # damaged images that a run accepts: a share, or a count from 1 up
        demo_size="default",  # tiny, default or large; empty: `root` must be given
    ))  # fmt: skip
    config.extract.update(
        media=("audio", "raw", "test/audio", "test/raw"),  # <clip>.mp3, .mp4
        transcripts=("transcripts", "test/transcripts"),  # <clip>.txt
    )
    for section in (config.finetune, config.sequence):
        section.update(
            loss="mse",  # or pearson, ccc; these judge the rows of a batch together
            output="sigmoid",  # or linear, which clips predictions alone
        )
    config.ensemble.kinds = ()  # a clip is one row
    SCALES[scale](config)
    base.as_system(config, scale)
    # A window is a whole clip: neither places it, and a shift is refused.
    config.sequence.update(shift=0, stride=config.sequence.length)
    base.ablate(config, arg, scale)
    return config.lock()


def _demo(config: ConfigDict) -> None:
    """Chosen on the drawn clips' training and validation set, as `base.demo`; its test set was not
    looked at. 400 clips are few: the frame model learns who is who unless faces are mixed, and
    squared errors of a small model over all modalities did better than the correlation itself."""
    base.demo(config)
    config.finetune.update(
        epochs=5.0, mixup=0.8, crop_scale=(0.8, 1.0), rotation=8.0, evaluations=4
    )
    config.finetune.optimizer.weight_decay = 0.3
    config.sequence.update(
        modalities=("face", "sound", "words"), length=32, epochs=30.0, positions="alibi", width=32,
        depth=1, heads=4, mlp_width=32, head_width=32, dropout=0.3, feature_dropout=0.4,
    )  # fmt: skip
    config.sequence.optimizer.weight_decay = 0.3


def _tiny(config: ConfigDict) -> None:
    base.tiny(config)
    config.sequence.update(loss="pearson", length=16, positions="alibi")


def _paper(config: ConfigDict) -> None:
    """`fuxi`, faces alone; the rest is `base.paper`'s. "Not published" values are chosen here."""
    base.paper(config)
    config.pretrain.update(
        epochs=400.0,  # not published
        batch_size=1024,  # not published
        optimizer=base.optimizer(
            6e-4,  # not published, as all of the schedule: the original MAE's, 1.5e-4 x batch / 256
            warmup_epochs=40.0,
            b2=0.95,
            clip_norm=0.0,
        ),
        norm_pix_loss=False,  # not published; MSE on the masked patches: paper
    )
    # Not published: the paper tunes its encoder on AU, see finetune.encoder. The other values are
    # those of EXPR.
    config.finetune.epochs = 2.0
    config.sequence.update(
        length=32,  # paper: a frame of each of 32 equal parts
        epochs=30.0,  # not published
        batch_size=16,  # paper
        optimizer=base.optimizer(
            1e-4,  # not published
            weight_decay=0.0,  # paper: Adam
            clip_norm=0.0,
        ),
        width=256,  # not published, as the next five
        depth=2,
        heads=4,
        mlp_width=256,
        head_width=128,
        positions="sincos",
        dropout=0.5,  # paper: before its head; here in every block
        loss="mse",  # paper
        output="linear",  # paper: Linear(6)
    )


SCALES = {"demo": _demo, "tiny": _tiny, "paper": _paper}
