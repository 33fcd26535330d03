"""CE: seven compound expressions of C-EXPR-DB, one a frame, from crops to submission.

    python -m abaw_jax.main --config=configs/ce.py                  the demo corpus
    python -m abaw_jax.main --config=configs/ce.py:fuxi,paper --config.corpus.root=DIR
    python -m abaw_jax.main --config=configs/ce.py:paper --config.corpus.root=DIR

The organisers publish 56 videos and no label. System `fuxi` (arXiv 2403.10825) learns RAF-DB's
eleven compounds from its images and predicts the videos: of the eleven probabilities CE's seven are
taken, and divided by their sum. System `fuxi_basic`, its successor of ABAW-7 (.6063 there), learns
six basic emotions, each on or off, from RAF-DB's compounds and its basic set, the single emotions
first; a compound's score is the sum of its two. `hsemotion` (2403.11590) learns the single images
alone: no label of a compound at all. docs/data.md says what DIR holds. None has a sequence model,
and nothing is smoothed: images do not follow on one another.

The other system needs labels of your own: as those of EXPR, in
`6th ABAW Annotations/CE_Recognition_Challenge/{Train_Set,Validation_Set}/<video>.txt`, a number
from 0 to 6 a row, -1 for none. The demo corpus has such labels.

System `mae_transformer`, as in configs/expr.py; box, Gaussian, median or majority smoothing chosen
on the validation set. The systems' papers train CE on single images or not at all: at paper scale
the encoder is tuned as `fuxi` does, and the windows are those of `ctyun` (2403.11440) for EXPR.

The argument names a system, a scale, or both as `fuxi,paper`:

    demo    default. Drawn faces at 48 pixels, a small ViT: minutes on two cores
    tiny    seconds; for tests. Its scores mean nothing
    paper   C-EXPR-DB, ViT-B/16 at 224 pixels: an accelerator

With the name of an ablation, as in `demo,plain_loss`, it is the system without one of its
parts; configs/ablations.py has them.

What is not set here is in configs/base.py.
"""

from ml_collections import ConfigDict

from configs import base
from configs.systems import fuxi


def get_config(arg: str = "") -> ConfigDict:
    """The config of a system at a scale. Raises ValueError for any other argument."""
    system, scale = base.parse(arg, "ce", tuple(SCALES))
    config = base.sections("ce", system, scale)
    # No list is known of: the example says which videos are to be predicted.
    config.corpus.test_example = "test_set_examples/CVPR_6th_ABAW_CE_test_set_example.txt"
    for section in (config.finetune, config.sequence):
        # Or focal, or soft_f1: this one without label_smoothing, mixup and cutmix.
        section.update(loss="cross_entropy", label_smoothing=0.1)
    config.ensemble.kinds = ("box", "gaussian", "median", "majority")
    SCALES[scale](config)
    if system in IMAGES:
        _images(config, scale)
        IMAGES[system](config)
    if system == "hsemotion":
        base.as_system(config, scale)
    base.ablate(config, arg, scale)
    return config.lock()


def _demo(config: ConfigDict) -> None:
    base.demo(config)
    config.finetune.class_weights = config.sequence.class_weights = "inverse_sqrt"


def _paper(config: ConfigDict) -> None:
    """Fine-tuning of `fuxi`; the rest is `base.paper`'s, none of it published for CE, nor are the
    schedule and the augmentation of fine-tuning."""
    base.paper(config)
    config.finetune.update(
        batch_size=64,  # paper
        optimizer=base.optimizer(
            1e-4,  # paper, as its name
            name="adam",
            weight_decay=0.0,  # not published
        ),
        frozen_blocks=11,  # paper: the last block and the head alone are tuned
    )
    config.sequence.epochs = 10.0  # not published


def _images(config: ConfigDict, scale: str) -> None:
    """Single labelled images; the optimiser is `_paper`'s where the scale is."""
    config.name = f"ce-{config.system}-{scale}"
    corpus = config.corpus
    config.corpus = ConfigDict(dict(
        kind="cexpr",
        root=corpus.root,  # the folder that holds the following
        images="rafdb_compound",  # {train,test}/<Class Name>/*.jpg
        singles="",  # RAF-DB's basic set
        image_roots=corpus.image_roots,  # crops of the videos: 01/00001.jpg; those that are there
        videos="videos",  # 01.mp4, of which whole frames are taken where a video has no crops
        test_example=corpus.test_example,
        max_damaged=corpus.max_damaged,
        max_unmatched=corpus.max_unmatched,
        demo_size=corpus.demo_size,
    ))  # fmt: skip
    config.sequence.epochs = 0.0
    config.ensemble.kinds = ()
    # Paper: the last block and the head are tuned. Of the norm between them, which is tuned here
    # too, it does not say.
    config.finetune.frozen_blocks = config.encoder.depth - 1
    if scale == "demo":
        config.pretrain.epochs = 20.0
        config.finetune.epochs = 20.0
    if scale == "paper":
        fuxi.pretraining(config)
        config.finetune.epochs = 30.0  # not published


def _compounds(config: ConfigDict) -> None:
    """`fuxi`: all of RAF-DB's compounds."""
    config.finetune.update(
        target="compounds",  # paper: 11 classes, of which 7 are CE's
        curriculum=0.0,  # of the target basic alone; see below
    )


def _basic(config: ConfigDict) -> None:
    """`fuxi_basic`: "paper" is the successor's here. The rest is as `fuxi` has it: not published
    of this one."""
    config.corpus.singles = "rafdb"  # single emotions: paper; which images: not published
    config.finetune.update(
        target="basic",  # paper: six sigmoids, a compound's score is the sum of two
        loss="binary_cross_entropy",  # not published, as the next two
        label_smoothing=0.0,
        class_weights="none",
        # Paper: single images, then compounds. Here the chance that an image drawn is a compound
        # rises from 0 to 1 over this share of the schedule: not published.
        curriculum=0.5,
        mixup=0.2,  # paper: there is mixup; its alpha is not published
    )


def _singles(config: ConfigDict) -> None:
    """`hsemotion`: no image of a compound is learnt from; zero-shot: paper."""
    config.corpus.singles = "rafdb"  # paper: AffectNet; of the demo corpus the single emotions
    config.finetune.update(target="singles", curriculum=0.0)


# Systems of single images -> what sets their targets.
IMAGES = {"fuxi": _compounds, "fuxi_basic": _basic, "hsemotion": _singles}
SCALES = {"demo": _demo, "tiny": base.tiny, "paper": _paper}
