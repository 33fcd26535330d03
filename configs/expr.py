"""EXPR: the eight expressions of Aff-Wild2, from crops to submission.

    python -m abaw_jax.main --config=configs/expr.py                 the demo corpus
    python -m abaw_jax.main --config=configs/expr.py:faces --config.corpus.root=DIR
    python -m abaw_jax.main --config=configs/expr.py:paper --config.corpus.root=DIR

System `mae_transformer`: a masked autoencoder pre-trained on the training crops, tuned on single
labelled frames, and a post-norm transformer over windows of its features; box, Gaussian, median or
majority smoothing chosen on the validation set. At paper scale its values are those of `ctyun`
(arXiv 2403.11440) without the temporal convolutions; what that paper does not publish says so.

The argument names a scale (or the system, or both as `mae_transformer,paper`):

    demo    default. Drawn faces at 48 pixels, a small ViT: minutes on two cores
    tiny    seconds; for tests. Its scores mean nothing
    faces   photographs of 48 pixels in Aff-Wild2's layout: half an hour on two cores
    paper   Aff-Wild2 itself, ViT-B/16 at 224 pixels: an accelerator

Results, hardware and hours: the table in README.md.
"""

from ml_collections import ConfigDict

SYSTEMS = ("mae_transformer",)
SCALES = ("demo", "tiny", "faces", "paper")


def optimizer(lr: float, **changes) -> ConfigDict:
    """AdamW with linear warm-up and cosine; `lr` is the peak, whatever the batch size."""
    values = dict(
        name="adamw",
        lr=lr,
        schedule="cosine",
        warmup_epochs=1.0,
        warmup_lr=0.0,
        final_lr=0.0,
        weight_decay=0.05,
        b1=0.9,
        b2=0.999,
        clip_norm=1.0,  # 0 = off
        layer_decay=1.0,  # 1 = off
    )
    if unknown := changes.keys() - values.keys():
        raise KeyError(f"optimizer has no {sorted(unknown)}")
    return ConfigDict(values | changes)


def get_config(arg: str = "") -> ConfigDict:
    """The config of a system at a scale. Raises ValueError for any other argument."""
    system, scale = SYSTEMS[0], SCALES[0]
    for word in filter(None, arg.split(",")):
        if word in SYSTEMS:
            system = word
        elif word in SCALES:
            scale = word
        else:
            raise ValueError(
                f"configs/expr.py:{arg}: {word!r} is neither a system ({', '.join(SYSTEMS)}) nor "
                f"a scale ({', '.join(SCALES)})"
            )
    config = ConfigDict()
    config.track = "expr"
    config.system = system
    config.name = f"expr-{scale}"
    config.seed = 0
    config.mesh = ConfigDict(dict(data=-1, fsdp=1, tensor=1))  # -1: all devices that are left
    config.threads = 2  # readers of images

    config.corpus = ConfigDict(dict(
        kind="affwild2",
        root="",  # the folder that holds the following; empty: the demo corpus, drawn on the spot
        image_roots=("cropped_aligned", "cropped_aligned_new_50_vids"),
        annotations="6th ABAW Annotations",
        test_list="names_of_videos_in_each_test_set/"
        "Expression_Recognition_Challenge_test_set_release.txt",  # empty: no test set
        test_example="test_set_examples/CVPR_6th_ABAW_Expr_test_set_example.txt",
        max_damaged=0.01,  # damaged images that a run accepts: a share, or a count from 1 up
        max_unmatched=1000,  # images without a row, or rows without one, a video may have
        demo_size="default",  # tiny, default or large; empty: `root` must be given
    ))  # fmt: skip
    config.image = ConfigDict(dict(
        size=48,
        normalise="channel",  # by `mean` and `std`; "image": by each image's own instead
        mean=(0.485, 0.456, 0.406),  # ImageNet's, as most public encoders take
        std=(0.229, 0.224, 0.225),
    ))  # fmt: skip
    config.encoder = ConfigDict(dict(
        patch_size=8,
        width=128,
        depth=4,
        heads=4,
        drop_path=0.05,
        dtype="float32",
        remat=False,
    ))  # fmt: skip
    config.pretrain = ConfigDict(dict(
        corpora=ConfigDict(),  # more image sets by name: {kind, ...} as `corpus`
        epochs=10.0,  # 0: no pre-training, the encoder starts from random weights
        batch_size=128,
        accumulate=1,
        optimizer=optimizer(1.5e-3, b2=0.95, warmup_epochs=1.0),
        mask_ratio=0.75,
        norm_pix_loss=True,
        decoder_width=64,
        decoder_depth=2,
        decoder_heads=4,
        crop_scale=(0.5, 1.0),
    ))  # fmt: skip
    config.finetune = ConfigDict(dict(
        epochs=8.0,
        batch_size=64,
        accumulate=1,
        optimizer=optimizer(1e-3, layer_decay=0.8),
        pooling="mean",
        dropout=0.1,
        loss="cross_entropy",  # or focal, soft_f1 (this one without mixup and cutmix)
        loss_options=ConfigDict(),  # what it takes besides, as gamma=2.0 of focal
        label_smoothing=0.1,
        mixup=0.0,
        cutmix=0.0,
        class_weights="none",  # inverse, inverse_sqrt, max, effective, share, or eight numbers
        crop_scale=(0.8, 1.0),
        rotation=10.0,  # degrees either way
        brightness=0.2,
        contrast=0.2,
        saturation=0.2,
        erase=0.25,
        ema_decay=0.0,  # 0 = off
        evaluations=4,  # on validation, evenly over the schedule; the best is kept
    ))  # fmt: skip
    config.extract = ConfigDict(dict(batch_size=256))
    config.sequence = ConfigDict(dict(
        length=64,
        stride=32,
        shift=32,  # a training window starts up to this many frames off its place
        epochs=30.0,
        batch_size=16,
        accumulate=1,
        optimizer=optimizer(1e-3, warmup_epochs=2.0),
        width=64,
        depth=2,
        heads=4,
        mlp_width=128,
        head_width=64,
        dropout=0.2,
        activation="relu",
        positions="alibi",  # none, sincos, alibi or directed
        feature_dropout=0.1,
        loss="cross_entropy",  # as the next three: see above
        loss_options=ConfigDict(),
        label_smoothing=0.1,
        class_weights="none",
        ema_decay=0.0,
        evaluations=10,
    ))  # fmt: skip
    config.ensemble = ConfigDict(dict(
        kinds=("box", "gaussian", "median", "majority"),
        gaps="linear",
    ))  # fmt: skip
    config.export = ConfigDict(dict(stablehlo=True))
    {"demo": _demo, "tiny": _tiny, "faces": _faces, "paper": _paper}[scale](config)
    return config.lock()


def _demo(config: ConfigDict) -> None:
    """Chosen on the drawn faces' training and validation set; no paper's values."""
    config.image.normalise = "image"
    config.pretrain.update(epochs=4.0, batch_size=64)
    config.pretrain.optimizer.update(warmup_epochs=0.3)
    config.finetune.update(
        epochs=3.0, dropout=0.0, class_weights="inverse_sqrt", crop_scale=(0.95, 1.0), rotation=3.0,
        brightness=0.1, contrast=0.1, saturation=0.1, erase=0.0, evaluations=2,
    )  # fmt: skip
    config.finetune.optimizer.update(layer_decay=1.0)
    config.sequence.update(epochs=16.0, class_weights="inverse_sqrt", positions="directed", heads=8)


def _tiny(config: ConfigDict) -> None:
    config.corpus.demo_size = "tiny"
    config.image.size = 32
    config.encoder.update(width=32, depth=2, heads=2)
    config.pretrain.update(epochs=1.0, batch_size=16, decoder_width=32, decoder_depth=1)
    config.finetune.update(epochs=1.0, batch_size=16, evaluations=2)
    config.sequence.update(
        length=32, stride=16, shift=8, epochs=4.0, batch_size=8, width=32, depth=1, mlp_width=32,
        head_width=32, evaluations=2,
    )  # fmt: skip


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


def _paper(config: ConfigDict) -> None:
    """`ctyun` without its TCN. "Not published" values are chosen here."""
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
        optimizer=optimizer(
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
        optimizer=optimizer(1e-4, layer_decay=0.65),  # 1e-4, AdamW: paper; decay not published
        dropout=0.0,  # not published
        label_smoothing=0.0,  # not published
    )
    config.sequence.update(
        length=300,  # paper
        stride=200,  # paper
        shift=0,
        epochs=10.0,  # paper, EXPR
        batch_size=32,  # paper
        optimizer=optimizer(
            3e-5,  # paper
            weight_decay=1e-5,  # paper
            warmup_lr=1e-8,  # paper
            warmup_epochs=1.0,  # not published
            clip_norm=0.0,
        ),
        width=512,  # paper, as the next five
        depth=8,
        heads=4,
        mlp_width=512,
        head_width=256,
        dropout=0.3,
        positions="none",  # paper
        feature_dropout=0.0,
        label_smoothing=0.0,  # paper: plain cross-entropy
        evaluations=10,
    )
