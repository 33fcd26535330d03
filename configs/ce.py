"""CE: seven compound expressions of C-EXPR-DB, one a frame, from crops to submission.

    python -m abaw_jax.main --config=configs/ce.py                  the demo corpus
    python -m abaw_jax.main --config=configs/ce.py:images,paper --config.corpus.root=DIR
    python -m abaw_jax.main --config=configs/ce.py:paper --config.corpus.root=DIR

The organisers publish 56 videos and no label. System `images` learns from RAF-DB's compound images
and predicts the videos, as `fuxi` does; docs/data.md says what DIR holds. There is no sequence
model, and nothing is smoothed: images do not follow on one another. Of RAF-DB's eleven classes the
paper's head has all, this one CE's seven.

The other system needs labels of your own: as those of EXPR, in
`6th ABAW Annotations/CE_Recognition_Challenge/{Train_Set,Validation_Set}/<video>.txt`, a number
from 0 to 6 a row, -1 for none. The demo corpus has such labels.

System `mae_transformer`, as in configs/expr.py; box, Gaussian, median or majority smoothing chosen
on the validation set. The systems' papers train CE on single images or not at all (`fuxi`, arXiv
2403.10825; `hsemotion`, 2403.11590): at paper scale the encoder is tuned as `fuxi` does, and the
windows are those of `ctyun` (2403.11440) for EXPR.

The argument names a system, a scale, or both as `images,paper`:

    demo    default. Drawn faces at 48 pixels, a small ViT: minutes on two cores
    tiny    seconds; for tests. Its scores mean nothing
    paper   C-EXPR-DB, ViT-B/16 at 224 pixels: an accelerator

With the name of an ablation, as in `demo,plain_loss`, it is the system without one of its
parts; configs/ablations.py has them.

What is not set here is in configs/base.py.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(arg: str = "") -> ConfigDict:
    """The config of a system at a scale. Raises ValueError for any other argument."""
    system, scale = base.parse(arg, "ce", tuple(SCALES), SYSTEMS)
    config = base.sections("ce", system, scale)
    # No list is known of: the example says which videos are to be predicted.
    config.corpus.test_example = "test_set_examples/CVPR_6th_ABAW_CE_test_set_example.txt"
    for section in (config.finetune, config.sequence):
        # Or focal, or soft_f1: this one without label_smoothing, mixup and cutmix.
        section.update(loss="cross_entropy", label_smoothing=0.1)
    config.ensemble.kinds = ("box", "gaussian", "median", "majority")
    SCALES[scale](config)
    if system == "images":
        _images(config, scale)
    base.ablate(config, arg, scale, SYSTEMS)
    return config.lock()


def _demo(config: ConfigDict) -> None:
    base.demo(config)
    config.finetune.class_weights = config.sequence.class_weights = "inverse_sqrt"


def _paper(config: ConfigDict) -> None:
    """Fine-tuning of `fuxi`; the rest is `base.paper`'s, none of it published for CE."""
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
    config.name = f"ce-images-{scale}"
    corpus = config.corpus
    config.corpus = ConfigDict(dict(
        kind="cexpr",
        root=corpus.root,  # the folder that holds the following
        images="rafdb_compound",  # {train,test}/<Class Name>/*.jpg
        image_roots=corpus.image_roots,  # crops of the videos: 01/00001.jpg; those that are there
        videos="videos",  # 01.mp4, of which whole frames are taken where a video has no crops
        test_example=corpus.test_example,
        max_damaged=corpus.max_damaged,
        max_unmatched=corpus.max_unmatched,
        demo_size=corpus.demo_size,
    ))  # fmt: skip
    config.sequence.epochs = 0.0
    config.ensemble.kinds = ()
    if scale == "demo":
        config.pretrain.epochs = 20.0
        config.finetune.epochs = 20.0


SYSTEMS = base.SYSTEMS | {"images": ("ce",)}
SCALES = {"demo": _demo, "tiny": base.tiny, "paper": _paper}
