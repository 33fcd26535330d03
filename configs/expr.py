"""EXPR: the eight expressions of Aff-Wild2, from crops to submission.

    python -m abaw_jax.main --config=configs/expr.py                 the demo corpus
    python -m abaw_jax.main --config=configs/expr.py:faces --config.corpus.root=DIR
    python -m abaw_jax.main --config=configs/expr.py:paper --config.corpus.root=DIR

System `mae_transformer`: a masked autoencoder pre-trained on the training crops, tuned on single
labelled frames, and a post-norm transformer over windows of its features; box, Gaussian, median or
majority smoothing chosen on the validation set. At paper scale its values are those of `ctyun`
(arXiv 2403.11440) without the temporal convolutions; what that paper does not publish says so.

The argument names a system, a scale, or both as `ctyun,paper`. The systems `ctyun`, `fuxi`,
`masked_vit`, `emotic_mae` and `hsemotion` are in configs/systems, at the scales demo, tiny, paper
and, but for `fuxi` and `hsemotion`, faces. Scales:

    demo    default. Drawn faces at 48 pixels, a small ViT: minutes on two cores
    tiny    seconds; for tests. Its scores mean nothing
    faces   photographs of 48 pixels in Aff-Wild2's layout: half an hour on two cores
    paper   Aff-Wild2 itself, ViT-B/16 at 224 pixels: an accelerator

With the word `together`, as in `demo,together`, VA, EXPR and AU are learnt by one model; this track
decides which parameters are kept, and its predictions go on. Of `ctyun` that holds for the sequence
model: its encoder learns EXPR alone.

With the name of an ablation, as in `ctyun,without_tcn`, it is the system without one of its
parts; configs/ablations.py has them.

What is not set here is in configs/base.py. Results, hardware and hours: the table in README.md.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(arg: str = "") -> ConfigDict:
    """The config of a system at a scale. Raises ValueError for any other argument."""
    system, scale = base.parse(arg, "expr", tuple(SCALES))
    config = base.sections("expr", system, scale)
    config.corpus.update(
        test_list="names_of_videos_in_each_test_set/"
        "Expression_Recognition_Challenge_test_set_release.txt",
        test_example="test_set_examples/CVPR_6th_ABAW_Expr_test_set_example.txt",
    )
    for section in (config.finetune, config.sequence):
        # Or focal, or soft_f1: this one without label_smoothing, mixup and cutmix.
        section.update(loss="cross_entropy", label_smoothing=0.1)
    config.ensemble.kinds = ("box", "gaussian", "median", "majority")
    SCALES[scale](config)
    base.as_system(config, scale)
    base.together(config, arg, scale)
    base.ablate(config, arg, scale)
    return config.lock()


def _demo(config: ConfigDict) -> None:
    base.demo(config)
    config.finetune.class_weights = config.sequence.class_weights = "inverse_sqrt"


def _faces(config: ConfigDict) -> None:
    """Chosen on these photographs' training and validation set; no paper's values."""
    config.corpus.demo_size = ""
    config.image.update(mean=(0.507, 0.507, 0.507), std=(0.255, 0.255, 0.255))
    config.encoder.update(width=192, depth=6, heads=3, drop_path=0.05)
    config.pretrain.update(
        epochs=16.0, decoder_width=96, decoder_depth=2, decoder_heads=3, crop_scale=(0.6, 1.0)
    )
    config.finetune.update(epochs=10.0, batch_size=128, evaluations=5)
    config.finetune.optimizer.update(layer_decay=0.9)
    config.sequence.update(length=100, stride=50, shift=50, class_weights="inverse_sqrt")


SCALES = {"demo": _demo, "tiny": base.tiny, "faces": _faces, "paper": base.paper}
