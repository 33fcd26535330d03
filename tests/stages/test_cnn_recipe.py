"""A convolutional encoder in a recipe: tuned, its features extracted, a sequence model on them."""

import jax
import ml_collections
import numpy as np
import pytest
from test_encoder import VIDEOS, make_config, make_video

from abaw_jax.data.features import FeatureStore
from abaw_jax.data.records import Split, write_corpus
from abaw_jax.errors import InputError
from abaw_jax.interop.archive import load_model
from abaw_jax.interop.convert import describe
from abaw_jax.interop.export import load_predict, load_program, make_task, save_export
from abaw_jax.models import families
from abaw_jax.models.efficientnet import EfficientNet, Stage
from abaw_jax.recipe import Context
from abaw_jax.stages import extract, finetune, sequence
from abaw_jax.stages.check import check_config
from abaw_jax.stages.start import check_fit
from abaw_jax.tracks import EXPR
from abaw_jax.training.checkpoint import load_params
from abaw_jax.training.partition import make_mesh
from configs import expr, va

NAME, WIDTH = "efficientnet_small", 24
STAGES = (Stage(1, 3, 1, 1, 8), Stage(1, 3, 2, 2, 8))


def make_tiny(**given):
    return EfficientNet(stages=STAGES, last=WIDTH, **given)


def of_family(config, name=NAME):
    config.encoder.update(family=name, drop_path=0.0)
    config.finetune.pooling = "none"
    return config


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """(context, what finetune, extract and sequence returned)."""
    config = of_family(make_config(expr, "tiny"))
    config.finetune.batch_size = 16
    config.sequence.epochs = 1.0
    context = Context(
        ml_collections.FrozenConfigDict(config),
        tmp_path_factory.mktemp("cnn"),
        make_mesh((1, 1, 1), jax.devices()[:1]),
    )
    rng = np.random.default_rng(0)
    splits = [Split(s, [make_video(v, rng) for v in videos]) for s, videos in VIDEOS.items()]
    write_corpus(context.folder("prepare") / "records", "test", splits, progress=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(families.FAMILIES, NAME, families.Family(make_tiny, len(STAGES), True))
        check_config(config, context.mesh)
        yield context, finetune.run(context), extract.run(context), sequence.run(context)


def test_it_goes_through_the_stages(done):
    context, tuned, extracted, of_sequences = done
    variables, config = load_model(context.folder("finetune") / "model")
    assert config["encoder"]["family"] == NAME
    assert np.abs(variables["batch_stats"]["encoder"]["stem"]["norm"]["mean"]).max() > 0
    assert 0 < tuned["score"] < 1 and 0 < extracted["score"] < 1
    store = FeatureStore(context.folder("extract") / "features" / "validation", width=WIDTH)
    assert store.read("4").shape[1] == WIDTH and np.ptp(store.read("4")) > 0
    assert np.isfinite(of_sequences["score"])


def test_what_is_exported_predicts_the_same(done, tmp_path):
    """By the program too, whose convolutions are the one operation."""
    variables, config = load_model(done[0].folder("finetune") / "model")
    save_export(tmp_path, variables, config, "card")
    images = {"image": np.random.default_rng(1).integers(0, 256, (3, 8, 8, 3), np.uint8)}
    found = [load(tmp_path)(images)["probabilities"] for load in (load_predict, load_program)]
    np.testing.assert_allclose(*found, atol=1e-5)
    assert (tmp_path / "model.stablehlo").stat().st_size and np.ptp(found[0])


def test_tuning_starts_from_another_runs_encoder(done, tmp_path):
    """With its running statistics; of several heads too, which are not taken."""
    source = done[0].folder("finetune") / "model"
    variables, saved = load_model(source)
    config = ml_collections.ConfigDict(done[0].config)
    config.finetune.start = str(source)
    check_config(config, done[0].mesh)
    context = Context(ml_collections.FrozenConfigDict(config), tmp_path, done[0].mesh)
    shapes = make_task(saved, source)[1]
    fresh = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    params = finetune.pretrained(context)(fresh["params"])
    state = finetune.started_state(context)({"batch_stats": fresh["batch_stats"]})
    jax.tree.map(np.testing.assert_array_equal, params["encoder"], variables["params"]["encoder"])
    jax.tree.map(np.testing.assert_array_equal, state["batch_stats"], variables["batch_stats"])
    assert not np.any(params["head"]["kernel"]) and finetune.started_state(done[0]) is None
    config.encoder.family, config.finetune.pooling = "vit", "mean"
    with pytest.raises(InputError, match="holds efficientnet_small; expected vit, as config.enc"):
        check_config(config, done[0].mesh)


def test_the_head_learns_first_and_then_everything(done, tmp_path):
    """Classes and valence and arousal at once; drawn so that classes come equally often."""
    source = done[0].folder("finetune") / "model"
    config = ml_collections.ConfigDict(done[0].config.to_dict())
    config.corpus.also = ("va",)
    config.finetune.update(
        start=str(source), head_epochs=1.0, head_lr=0.1, balanced=True, class_weights="max",
        also=ml_collections.ConfigDict({"va": {"weight": 2.0, "loss": "ccc", "output": "clip"}}),
    )  # fmt: skip
    config.finetune.optimizer.update(name="adam", sam_rho=0.05, weight_decay=0.0, warmup_epochs=0.0)
    check_config(config, done[0].mesh)
    context = Context(ml_collections.FrozenConfigDict(config), tmp_path, done[0].mesh)
    context.folder("prepare").symlink_to(done[0].folder("prepare"))
    found = finetune.run(context)
    before, _ = load_model(source)
    params, state, _ = load_params(context.folder("finetune") / "head" / "checkpoints")
    jax.tree.map(np.testing.assert_array_equal, params["encoder"], before["params"]["encoder"])
    jax.tree.map(np.testing.assert_array_equal, dict(state), {"batch_stats": before["batch_stats"]})
    assert params["head_va"]["kernel"].shape == (WIDTH, 2) and np.abs(params["head"]["bias"]).max()
    after, saved = load_model(context.folder("finetune") / "model")
    assert saved["also"] == {"va": ["valence", "arousal"]} and "va_mean_ccc" in found["metrics"]
    for collection in ("params", "batch_stats"):
        one, other = (jax.tree.leaves(of[collection]["encoder"]) for of in (before, after))
        assert all((a != b).any() for a, b in zip(one, other, strict=True)), collection
    _, indices, labels = finetune.labelled(context, "train")
    drawn, classes = finetune.balanced_examples(context, indices, labels)
    assert len(drawn) < len(indices)  # video 2 has valence and arousal alone
    np.testing.assert_array_equal(labels[drawn, 0], classes)


def test_public_weights_are_of_a_family_and_say_what_pixels_they_take(tmp_path):
    config = of_family(make_config(expr, "tiny"), "mobilevit_s")
    unit = {"size": 256, "normalise": "channel", "mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}
    found = {
        "kind": "converted", "architecture": "mobilevit", "image": unit,
        "model": {"size": "S", "image_size": 256, "outputs": 0},
    }  # fmt: skip
    config.image.update({k: tuple(v) if isinstance(v, list) else v for k, v in unit.items()})
    check_fit(config, "start", tmp_path, found)
    config.image.size = 224
    with pytest.raises(InputError, match=r"image.size is 224, its own 256; set what differs"):
        check_fit(config, "start", tmp_path, found)
    config.encoder.family = "mobilefacenet"
    with pytest.raises(InputError, match="holds mobilevit_s; expected mobilefacenet, as config"):
        check_fit(config, "start", tmp_path, found)


@pytest.mark.parametrize(
    ("name", "changes", "named"),
    [
        (NAME, {"finetune.pooling": "mean"}, "finetune.pooling: 'mean' with .* expected 'none'"),
        (NAME, {"pretrain.epochs": 1.0}, "pretrain.epochs: 1.0 .* expected 0: it has no patches"),
        (NAME, {"sequence.pixels": True}, "sequence.pixels: True .* expected False"),
        (NAME, {"encoder.remat": True}, "encoder.remat: True .* expected False"),
        (NAME, {"finetune.frozen_blocks": 9}, "expected 0 to the blocks of efficientnet_small, "),
        (NAME, {"finetune.frozen_blocks": 1}, "nothing has trained; .* or give finetune.start"),
        (NAME, {"finetune.head_epochs": 1.0}, "head_epochs: 1.0 on an encoder that nothing has"),
        (NAME, {"finetune.head_epochs": -1.0}, "head_epochs: -1.0; expected a number of at"),
        (NAME, {"finetune.head_lr": 0.0}, "head_lr: 0.0; expected a number above 0"),
        ("ddamfn", {"encoder.drop_path": 0.1}, "drop_path: 0.1 with .*'ddamfn'; expected 0"),
        ("mobilefacenet", {}, r"image.size is 8, its own 112; config.image.mean is \(0.485"),
        ("vit", {}, "finetune.pooling: 'none' with config.encoder.family 'vit'; expected one of"),
        ("resnet", {}, "encoder.family: 'resnet'; expected one of vit, efficientnet_b0"),
    ],
)
def test_what_a_family_cannot_be_or_do_is_named_in_one_line(name, changes, named):
    config = of_family(make_config(expr, "tiny"), name)
    for path, value in changes.items():
        section, key = path.split(".")
        config[section][key] = value
    with pytest.raises(InputError, match=f"^config.*{named}") as caught:
        check_config(config, make_mesh())
    assert "\n" not in str(caught.value)


def test_one_trained_here_has_its_familys_public_names():
    config = {
        "kind": "frame_classifier", "classes": list(EXPR.classes), "image": {"size": 224},
        "encoder": {"family": "mobilevit_s"}, "finetune": {"pooling": "none"},
    }  # fmt: skip
    found = describe(config, "folder")
    assert (found["architecture"], found["source"]) == ("mobilevit", {"form": "timm"})
    assert found["model"] == {"size": "S", "image_size": 224, "outputs": 8}
    with pytest.raises(InputError, match="folder: of family 'efficientnet_small', for which other"):
        describe(config | {"encoder": {"family": NAME}}, "folder")


def test_what_has_no_classes_is_not_balanced():
    config = make_config(va, "tiny", balanced=True)
    with pytest.raises(InputError, match="finetune.balanced: a row of VA is not of one class"):
        check_config(config, make_mesh())


def test_every_family_is_as_wide_as_it_says():
    for name, family in families.FAMILIES.items():
        if name == "efficientnet_b2":  # as the one before, and more of it
            continue
        size = family.pixels.size if family.pixels else 48
        module = family.make()
        image = jax.ShapeDtypeStruct((2, size, size, 3), np.float32)
        features, variables = jax.eval_shape(module.init_with_output, jax.random.key(0), image)
        assert features.shape == (2, module.width), name
        blocks = {part for part in variables["params"] if part.startswith("blocks_")}
        assert blocks == {f"blocks_{i}" for i in range(family.blocks)}, name
