"""What the recipes share: every section with its default values, and what each scale sets.

A recipe is configs/<track>.py: it takes `sections`, sets what is its track's own, then calls the
function of the scale that its argument names, `as_system` and `ablate`. The system
`mae_transformer` is a masked autoencoder pre-trained on the training crops, tuned on single
labelled frames, and a post-norm transformer over windows of its features. What the others have of
their own stands in configs/systems/<system>.py, with a function a scale.
"""

import importlib
from collections.abc import Sequence

from ml_collections import ConfigDict

from configs.ablations import ABLATIONS

TOGETHER = "together"  # a word of a config's argument
SHARED = ("va", "expr", "au")  # tracks that are labels of the same videos
# System -> the tracks that it covers. The first is the default.
SYSTEMS = {
    "mae_transformer": (*SHARED, "ce", "emi"),
    "ctyun": SHARED,
    "fuxi": (*SHARED, "ce", "emi"),
    "masked_vit": SHARED,
    "emotic_mae": ("expr",),
    "hsemotion": (*SHARED, "ce", "emi"),
    "fuxi_basic": ("ce",),
}
LOSS_KEYS = (
    "loss", "output", "loss_options", "label_smoothing", "class_weights", "positive_weights",
)  # fmt: skip


def parse(arg: str, track: str, scales: Sequence[str]) -> tuple[str, str]:
    """(system, scale) of a config's argument: a name of either kind, both, or nothing.

    The first of each is the default. Raises ValueError for any other word but an ablation's, for
    two of a kind, and for a system that does not cover the track.
    """
    covering = [name for name, tracks in SYSTEMS.items() if track in tracks]
    system, scale = covering[0], scales[0]
    words = list(filter(None, arg.split(",")))
    for kind, names in (("system", covering), ("scale", scales), ("ablation", ABLATIONS)):
        if len(named := [word for word in words if word in names]) > 1:
            raise ValueError(
                f"configs/{track}.py:{arg}: {' and '.join(named)}; name one {kind} at most"
            )
    for word in words:
        if word in covering:
            system = word
        elif word in SYSTEMS:
            raise ValueError(
                f"configs/{track}.py:{arg}: system {word!r} is for {', '.join(SYSTEMS[word])}; "
                f"name one of {', '.join(covering)}"
            )
        elif word in scales:
            scale = word
        elif word in ABLATIONS or (word == TOGETHER and track in SHARED):
            continue
        else:
            shared = f" nor {TOGETHER!r}" if track in SHARED else ""
            raise ValueError(
                f"configs/{track}.py:{arg}: {word!r} is neither a system ({', '.join(covering)}) "
                f"nor a scale ({', '.join(scales)}){shared} nor an ablation "
                f"({', '.join(ABLATIONS)})"
            )
    return system, scale


def as_system(config: ConfigDict, scale: str) -> None:
    """Set what the config's system has of its own at this scale; nothing of the default system.

    Raises ValueError for a scale that the system does not have.
    """
    if config.system == next(iter(SYSTEMS)):
        return
    module = importlib.import_module(f"configs.systems.{config.system}")
    if scale not in module.SCALES:
        raise ValueError(
            f"configs/{config.track}.py: system {config.system!r} has no scale {scale!r}; name one "
            f"of {', '.join(module.SCALES)}"
        )
    config.name = f"{config.track}-{config.system}-{scale}"
    module.SCALES[scale](config)


def together(config: ConfigDict, arg: str, scale: str) -> None:
    """With the word `together` in the argument: VA, EXPR and AU from one model, in both stages; in
    the second alone where the system's encoder learns a track of its own choice.

    The losses of the further tracks are those of their own configs at this scale, each with a
    weight of 1.
    """
    if TOGETHER not in arg.split(","):
        return
    if scale == "faces":
        raise ValueError(
            f"configs/{config.track}.py:{arg}: the photographs have labels of EXPR alone; leave "
            f"{TOGETHER!r} or 'faces' out"
        )
    config.name += f"-{TOGETHER}"
    config.corpus.also = tuple(key for key in SHARED if key != config.track)
    for key in config.corpus.also:
        if key not in SYSTEMS[config.system]:
            raise ValueError(
                f"configs/{config.track}.py:{arg}: {config.system} does not cover {key}; leave "
                f"{TOGETHER!r} out, or name a system of {', '.join(SHARED)}"
            )
        own = importlib.import_module(f"configs.{key}").get_config(f"{config.system},{scale}")
        for section in ("sequence",) if config.finetune.track else ("finetune", "sequence"):
            loss = {name: own[section][name] for name in LOSS_KEYS if name in own[section]}
            config[section].also[key] = ConfigDict({"weight": 1.0, **loss})


def ablate(config: ConfigDict, arg: str, scale: str) -> None:
    """With a name of ABLATIONS in the argument: the system so changed, and named.

    Raises ValueError where the system has no such part at this scale; it names those that have.
    """
    for name in filter(ABLATIONS.__contains__, arg.split(",")):
        if not _changes(config, name):
            covering = [key for key, tracks in SYSTEMS.items() if config.track in tracks]
            found = [key for key in covering if _has_part(config.track, key, scale, name)]
            raise ValueError(
                f"configs/{config.track}.py:{arg}: {name!r} changes nothing of {config.system} at "
                f"scale {scale!r}; it is for {', '.join(found) or 'no system of this track'}"
            )
        config.whole, config.name = config.name, f"{config.name}-{name}"


def _has_part(track: str, system: str, scale: str, ablation: str) -> bool:
    """Whether an ablation changes anything of a system, if it has the scale."""
    module = importlib.import_module(f"configs.{track}")
    try:
        config = module.get_config(f"{system},{scale}").unlock()
    except ValueError:  # it has not
        return False
    return _changes(config, ablation)


def _changes(config: ConfigDict, name: str) -> bool:
    """Make an ablation of the config; whether that changes anything that is run."""
    before = config.to_dict()
    ABLATIONS[name](config)
    changed = {section for section, values in config.to_dict().items() if values != before[section]}
    return bool(changed if config.sequence.epochs else changed - {"sequence"})


def optimizer(lr: float, **changes) -> ConfigDict:
    """AdamW with linear warm-up and cosine; `lr` is the peak, whatever the batch size."""
    values = dict(
        name="adamw",
        lr=lr,
        schedule="cosine",  # or step, constant
        period_epochs=0.0,  # after which the cosine starts anew, or a step is taken; 0 = never
        step_factor=0.1,  # of the rate, with the schedule step
        warmup_epochs=1.0,
        warmup_lr=0.0,
        final_lr=0.0,
        weight_decay=0.05,
        b1=0.9,
        b2=0.999,
        clip_norm=1.0,  # 0 = off
        layer_decay=1.0,  # 1 = off
        sam_rho=0.0,  # of sharpness-aware minimisation (Foret et al. 2021), e.g. 0.05; 0 = off
    )
    if unknown := changes.keys() - values.keys():
        raise KeyError(f"optimizer has no {sorted(unknown)}")
    return ConfigDict(values | changes)


def sections(track: str, system: str, scale: str) -> ConfigDict:
    """All sections, for the demo's sizes; a track adds its test files, loss and class weights."""
    config = ConfigDict()
    config.track = track
    config.system = system
    config.name = f"{track}-{scale}"
    config.whole = ""  # of an ablation, the name of the whole system's config
    config.seed = 0
    config.mesh = ConfigDict(dict(data=-1, fsdp=1, tensor=1))  # -1: all devices that are left
    config.threads = 2  # readers of images

    config.corpus = ConfigDict(dict(
        kind="affwild2",
        root="",  # the folder that holds the following; empty: the demo corpus, drawn on the spot
        image_roots=("cropped_aligned", "cropped_aligned_new_50_vids"),
        annotations="6th ABAW Annotations",
        test_list="",  # names of the test videos, one a line
        test_example="",  # the submission to fill in; both empty: no test set
        persons="",  # csv video,person of training and validation videos; empty: they are not known
        max_damaged=0.01,  # damaged images that a run accepts: a share, or a count from 1 up
        max_unmatched=1000,  # images without a row, or rows without one, a video may have
        # What a training crop must have, not to be left out; 0 asks nothing. See data/cleaning.py.
        clean=ConfigDict(dict(min_side=0, min_contrast=0.0, min_sharpness=0.0)),
        also=(),  # further tracks, whose labels are read as well: "va", "expr", "au"
        demo_size="default",  # tiny, default or large; empty: `root` must be given
    ))  # fmt: skip
    config.image = ConfigDict(dict(
        size=48,
        normalise="channel",  # by `mean` and `std`; "image": by each image's own instead
        mean=(0.485, 0.456, 0.406),  # ImageNet's, as most public encoders take
        std=(0.229, 0.224, 0.225),
    ))  # fmt: skip
    config.encoder = ConfigDict(dict(
        # Or a convolutional one, as `abaw_jax/models/families.py` names them: efficientnet_b0,
        # or b2, small or tiny, mobilevit_s, mobilefacenet, ddamfn. Of what follows only dtype is
        # theirs, and drop_path but for the last two, which want 0. They pool by themselves
        # (finetune.pooling "none") and there is no pre-training (pretrain.epochs 0).
        family="vit",
        patch_size=8,
        width=128,
        depth=4,
        heads=4,
        drop_path=0.05,
        dtype="float32",
        remat=False,
        positions="sincos",  # MAE's fixed table; learned: as most public ViTs
        epsilon=1e-6,  # of the layer norms; 1e-12 in transformers' ViTs
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
        head_epochs=0.0,  # before all is tuned, the head alone is, at a rate of its own
        head_lr=1e-3,
        frozen_blocks=0,  # these, and what is below them, stay as pre-trained; 0: all is tuned
        balanced=False,  # True: images are drawn so that each class is as frequent as any other
        # One encoder is tuned on each: face, and after it eyes_mouth; names in sequence.modalities.
        views=("face",),
        track="",  # the one that it learns; empty: the config's own; or a key of corpus.also
        # The folder of a finished run, of its finetune/model, or of converted public weights
        # (`python -m abaw_jax.convert`): that encoder is taken as it is, and neither pre-training
        # nor fine-tuning takes place. Of any track and corpus.
        encoder="",
        # The same, but that the encoder starts from those weights; there is no pre-training.
        start="",
        pooling="mean",
        dropout=0.1,
        also=ConfigDict(),  # further tracks by key, each with the loss that it has; see `together`
        loss="",  # the track's; as the next three
        loss_options=ConfigDict(),  # what the loss takes besides, as gamma=2.0 of focal
        label_smoothing=0.0,
        class_weights="none",  # inverse, inverse_sqrt, max, effective, share, or a number each
        mixup=0.0,
        cutmix=0.0,
        crop_scale=(0.8, 1.0),
        rotation=10.0,  # degrees either way
        brightness=0.2,
        contrast=0.2,
        saturation=0.2,
        erase=0.25,
        ema_decay=0.0,  # 0 = off
        evaluations=4,  # on validation, evenly over the schedule; the best is kept
    ))  # fmt: skip
    config.extract = ConfigDict(dict(
        batch_size=256,
        # Below `corpus.root`, for `sequence.modalities`; folders that are absent hold nothing.
        media=("batch1", "batch2", "new_vids"),  # <recording>.mp4, .avi
        transcripts=("transcripts",),  # <video>.txt; for `text` also .csv, .vtt, .srt
        # The folder of a text encoder and its tokenizer, which make the modality `text`; it does
        # not start from `corpus.root`. tiny: one is trained on the transcripts; `stages/text.py`.
        text="",
        # Folders of converted weights that make the modalities `wav2vec2` (wav2vec 2.0 or HuBERT)
        # and `vggish` of the recordings; they do not start from `corpus.root` either.
        wav2vec2="",
        vggish="",
        stores=ConfigDict(),  # feature stores by name, each a modality more
        # For sequence.model "gru", "statistics" and "tokens": how many rows at most a modality
        # that is not of the face's frames has of a clip, by name; see `stages/modalities.py`.
        steps=ConfigDict(),
    ))  # fmt: skip
    config.sequence = ConfigDict(dict(
        # Of finetune.views, scores (what the frame classifier's heads say of a crop), sound, mfcc,
        # prosody, wav2vec2, vggish, words, text and the names in `extract.stores`.
        modalities=("face",),
        modality_dropout=0.0,  # chance that a training example does without one of them
        # True: windows hold crops in place of features of the face, and the encoder is trained with
        # the sequence model; what follows is for this alone, and optimizer.layer_decay may be set.
        pixels=False,
        encoder_from="finetune",  # or pretrain: the stage whose encoder it starts from
        frozen_blocks=0,  # these, and what is below them, stay so; encoder.depth: all of it does
        length=64,
        stride=32,  # with the head "last" of training windows alone: every frame is predicted
        # A training window starts up to this many frames off its place; with the head "last" it is
        # another frame that is predicted then.
        shift=32,
        every=1,  # of clips: only every so many-th row is seen
        epochs=30.0,  # 0: no sequence model, the final predictions are those of frames
        batch_size=16,
        accumulate=1,
        optimizer=optimizer(1e-3, warmup_epochs=2.0),
        # Or frames, each through dense layers (of `head_width`, unless 0, and the outputs). Or of
        # clips: gru, recurrent networks with states of `width` each way, `mlp_width` numbers out
        # and then `head_width`; tokens, a transformer over all rows; statistics of each number. See
        # `models/heads.py`, `models/recurrent.py`, `models/clips.py`.
        model="transformer",
        width=64,
        depth=2,
        heads=4,
        mlp_width=128,
        head_width=64,
        dropout=0.2,
        activation="relu",
        # What stands before the encoder, in this order; see `models/sequence.py`.
        mask_rate=0.0,  # share of frames, or of single values, that are zeroed in training
        mask_unit="frames",  # or values
        feature_dropout=0.1,
        # Two modalities that are views made one: attention, attention_local, mean, concatenation.
        fuse="",
        fuse_width=64,
        join=(),  # widths of dense layers over all modalities' features; empty: none
        join_slope=0.1,  # of the LeakyReLU between them
        tcn=(),  # widths of causal convolutions over time; empty: none
        tcn_kernel=5,
        project=True,  # to `width`; False: what comes is as wide already
        positions="alibi",  # none, sincos, alibi or directed
        head="frames",  # every frame of a window is predicted; or last: the one at which it ends
        head_each=False,  # a head of its own for each output of the track
        head_between="norm",  # its two dense layers: BatchNorm, or relu
        also=ConfigDict(),  # see above
        loss="",  # as the next three: see above
        loss_options=ConfigDict(),
        label_smoothing=0.0,
        class_weights="none",
        ema_decay=0.0,
        evaluations=10,
        patience=0,  # evaluations in a row without a gain after which training stops; 0: none
        folds=0,  # more models, each trained without a fold of the training recordings; 0 or from 2
        scenes=0,  # more models, each trained on one cluster of backgrounds; 0 or from 2
        scene_file="",  # csv video,scene[,probability] of all videos, in place of clusters
        apart=False,  # more models, each of one of the modalities alone
        # A second branch beside each model, which is frozen then; see `tasks/collaborate.py`.
        collaborate=ConfigDict(dict(
            epochs=0.0,  # 0: none; all else of its training is as above
            hard=0.25,  # share of a batch's windows that are hard ones, with which all are mixed
            beta=(5.0, 2.0),  # of the distribution of the frozen branch's share in training
            share=0.8,  # of the frozen branch in predictions
        )),
    ))  # fmt: skip
    config.ensemble = ConfigDict(dict(
        # How several members are made one: average, weights, rank, stacking, vote or scenes (in
        # which a member of no scene counts in every video); empty: weights where members are of
        # single modalities and three folds of recordings are there to find them on, scenes where
        # members are of such, else average.
        method="",
        # Names: all, fold1, ..., scene1, ..., a modality's, frames; empty: all but frames.
        members=(),
        others=ConfigDict(),  # more by name: a folder of predictions with validation/ and test/
        kinds=("box", "gaussian", "median"),  # and, for one class a frame, majority
        widths=(),  # of these, in frames; empty: those of `evaluation/smoothing.py`
        gaps="linear",
        # Validation videos that the report shows over time, 12 at most; empty: the one whose labels
        # change most often and the one that scores worst.
        report_videos=(),
    ))  # fmt: skip
    config.export = ConfigDict(dict(stablehlo=True))
    return config


def demo(config: ConfigDict) -> None:
    """Minutes on two cores. Chosen for EXPR on the drawn faces' training and validation set; no
    paper's values."""
    config.image.normalise = "image"
    config.pretrain.update(epochs=4.0, batch_size=64)
    config.pretrain.optimizer.update(warmup_epochs=0.3)
    config.finetune.update(
        epochs=3.0, dropout=0.0, crop_scale=(0.95, 1.0), rotation=3.0, brightness=0.1,
        contrast=0.1, saturation=0.1, erase=0.0, evaluations=2,
    )  # fmt: skip
    config.finetune.optimizer.update(layer_decay=1.0)
    config.sequence.update(epochs=16.0, positions="directed", heads=8)


def tiny(config: ConfigDict) -> None:
    """Seconds; for tests."""
    config.corpus.demo_size = "tiny"
    config.image.size = 32
    config.encoder.update(width=32, depth=2, heads=2)
    config.pretrain.update(epochs=1.0, batch_size=16, decoder_width=32, decoder_depth=1)
    config.finetune.update(epochs=1.0, batch_size=16, evaluations=2)
    config.sequence.update(
        length=32, stride=16, shift=8, epochs=4.0, batch_size=8, width=32, depth=1, mlp_width=32,
        head_width=32, evaluations=2,
    )  # fmt: skip


def paper(config: ConfigDict) -> None:
    """`ctyun` (arXiv 2403.11440) without its TCN; origins of values: configs/systems/ctyun.py."""
    importlib.import_module("configs.systems.ctyun").without_convolutions(config)
