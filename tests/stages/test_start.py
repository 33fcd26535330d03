"""Fine-tuning that starts from converted public weights. Small, no recipe."""

import jax
import ml_collections
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from abaw_jax.errors import InputError
from abaw_jax.interop.architectures import ARCHITECTURES, make_shapes
from abaw_jax.interop.archive import load_model
from abaw_jax.interop.conventions import CLASSES
from abaw_jax.interop.convert import convert, to_tensors
from abaw_jax.interop.load import load
from abaw_jax.interop.tensors import save_tensors
from abaw_jax.recipe import Context
from abaw_jax.stages import disk, finetune
from abaw_jax.stages.check import check_config
from abaw_jax.stages.encoder import frames_track, is_pretrained
from abaw_jax.stages.parts import make_finetune_task
from abaw_jax.tracks import TRACKS
from abaw_jax.training.partition import make_mesh
from configs import va

SIZES = {
    "patch_size": 4, "image_size": 8, "width": 8, "depth": 1, "heads": 2, "mlp_ratio": 4.0,
    "epsilon": 1e-6, "positions": "learned", "pooling": "mean", "outputs": 0,
}  # fmt: skip


def make_public(folder, classes=(), outputs=0):
    """The folder of a converted encoder whose feature is the mean of its tokens."""
    sizes, rng = SIZES | {"outputs": outputs}, np.random.default_rng(0)
    shapes = flatten_dict(make_shapes(ARCHITECTURES["vit"], sizes), sep="/")
    arrays = {path: rng.normal(size=s.shape).astype(np.float32) for path, s in shapes.items()}
    form = {"architecture": "vit", "model": sizes, "source": {"form": "timm"}}
    save_tensors(folder / "vit.safetensors", to_tensors(arrays, form))
    options = {"heads": 2, "normalise": "imagenet", "classes": classes}
    convert(folder / "vit.safetensors", folder / "model", **options)
    return folder / "model"


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return make_public(tmp_path_factory.mktemp("start"))


def make_config(start, **encoder):
    config = va.get_config("tiny").unlock()
    config.image.size, config.finetune.start = 8, str(start)
    config.encoder.update(
        {"patch_size": 4, "width": 8, "depth": 1, "heads": 2, "positions": "learned"} | encoder
    )
    return config


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_the_encoder_has_the_given_weights(start, tmp_path, pooling):
    """And the norm of the feature, if it is the same feature; the head has its own."""
    config = make_config(start)
    config.finetune.pooling = pooling
    check_config(config, make_mesh((1, 1, 1), jax.devices()[:1]))
    config = ml_collections.FrozenConfigDict(config)
    assert config.pretrain.epochs and not is_pretrained(config)
    context = Context(config, tmp_path, make_mesh((1, 1, 1), jax.devices()[:1]))
    image = {"image": jax.ShapeDtypeStruct((1, 8, 8, 3), np.uint8)}
    shapes, _ = jax.eval_shape(
        make_finetune_task(config, TRACKS["va"]).init, jax.random.key(0), image
    )
    fresh = jax.tree.map(lambda shape: np.zeros(shape.shape, np.float32), shapes)
    found = flatten_dict(finetune.pretrained(context)(fresh), sep="/")
    assert found.keys() == flatten_dict(fresh, sep="/").keys()
    assert "encoder/pos_embed" in found
    taken = {path for path, array in found.items() if np.any(array)}
    norm = {"fc_norm/scale", "fc_norm/bias"} if pooling == "mean" else set()
    assert taken == {path for path in found if path.startswith("encoder/")} | norm
    assert list(disk.FOUND["finetune"](context)) == [str(start)]


@pytest.mark.parametrize(
    ("section", "changes", "named"),
    [
        ("encoder", {"width": 16}, "encoder.width is 16, its own 8"),
        ("encoder", {"positions": "sincos"}, "encoder.positions is sincos, its own learned"),
        ("encoder", {"epsilon": 1e-12}, "encoder.epsilon is 1e-12, its own 1e-06"),
        ("image", {"mean": (0.5, 0.5, 0.5)}, r"image.mean is \[0.5, 0.5, 0.5\], its own \["),
        ("finetune", {"start": "nowhere"}, "nowhere holds neither model.safetensors nor fin"),
        ("finetune", {"encoder": "x"}, "x holds neither"),
    ],
)
def test_weights_that_do_not_fit_are_refused_in_one_line(start, section, changes, named):
    config = make_config(start)
    config[section].update(changes)
    with pytest.raises(InputError, match=named) as caught:
        check_config(config, make_mesh((1, 1, 1), jax.devices()[:1]))
    assert "\n" not in str(caught.value) and str(caught.value).startswith("config.")


def test_a_run_that_is_started_from_is_another(start, tmp_path):
    """It may be named by its folder; this run's own would be gone when it is wanted."""
    (tmp_path / "other" / "finetune").mkdir(parents=True)
    model = tmp_path / "other" / "finetune" / "model"
    model.symlink_to(start)
    config, mesh = make_config(tmp_path / "other"), make_mesh((1, 1, 1), jax.devices()[:1])
    check_config(config, mesh)
    config = ml_collections.FrozenConfigDict(config)
    assert list(disk.FOUND["finetune"](Context(config, tmp_path / "run", mesh))) == [str(model)]
    own = Context(config, start.parent, mesh)
    with pytest.raises(InputError, match="^config.finetune.start: .* lies in this run's own"):
        disk.FOUND["finetune"](own)


def take(source, workdir):
    """The context of a run that takes an encoder, after its stage finetune."""
    config = make_config("")
    config.finetune.update(start="", encoder=str(source))
    check_config(config, make_mesh((1, 1, 1), jax.devices()[:1]))
    mesh = make_mesh((1, 1, 1), jax.devices()[:1])
    context = Context(ml_collections.FrozenConfigDict(config), workdir, mesh)
    return context, finetune.run(context)


def test_a_public_classifier_is_taken_by_the_names_of_its_outputs(tmp_path):
    """Here in alphabetical order, valence and arousal behind them: EXPR of seven, and VA."""
    source = make_public(tmp_path, ["alphabetical8", "valence", "arousal"], 10)
    context, found = take(source, tmp_path / "run")
    assert found["track"] is frames_track(context) is TRACKS["expr"] and "score" not in found
    model = load_model(context.folder("finetune") / "model")
    assert list(model[1]["outputs"]) == list(CLASSES["affectnet8"])
    images = np.random.default_rng(1).integers(0, 256, (3, 8, 8, 3), np.uint8)
    public, taken = load(source)(images), load(context.folder("finetune") / "model")(images)
    np.testing.assert_allclose(taken["features"], public["features"], atol=1e-5)
    both = [public[name] for name in ("valence", "arousal")]
    np.testing.assert_allclose(taken["probabilities_va"], np.stack(both, -1), atol=1e-5)
    names = list(CLASSES["alphabetical8"])
    shared = [name for name in TRACKS["expr"].classes if name in names]
    known = public["probabilities"][:, [names.index(name) for name in shared]]
    expected = np.append(known / known.sum(1, keepdims=True), np.zeros((3, 1)), 1)
    np.testing.assert_allclose(taken["probabilities"], expected, atol=1e-5)


def test_an_encoder_without_a_head_gives_features_alone(start, tmp_path):
    context, found = take(start, tmp_path)
    assert "track" not in found and frames_track(context) is None
    images = np.random.default_rng(1).integers(0, 256, (3, 8, 8, 3), np.uint8)
    public, taken = load(start)(images), load(context.folder("finetune") / "model")(images)
    assert set(taken) == {"features"}
    np.testing.assert_allclose(taken["features"], public["features"], atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"pooling": "cls"}, "finetune.pooling is cls, its own mean; set what differs"),
        ({"track": "expr"}, "is of no track, and config.finetune.track asks for expr; set that"),
    ],
)
def test_a_public_encoder_that_does_not_fit_is_refused(start, changes, named):
    config = make_config("")
    config.finetune.update({"start": "", "encoder": str(start)} | changes)
    with pytest.raises(InputError, match=f"^config.finetune.encoder: .*{named}"):
        check_config(config, make_mesh((1, 1, 1), jax.devices()[:1]))


def test_of_an_encoder_that_has_learnt_no_labels_there_are_no_scores(start):
    """Said before the features of all crops are extracted."""
    config = make_config("")
    config.finetune.update(start="", encoder=str(start))
    config.sequence.modalities = ("face", "scores")
    with pytest.raises(InputError, match="^config.sequence.modalities: 'scores' of an encoder"):
        check_config(config, make_mesh((1, 1, 1), jax.devices()[:1]))
