"""An encoder of another track: tuned on that, or taken from a finished run. Small, no recipe."""

import json
import pathlib

import cv2
import jax
import ml_collections
import numpy as np
import pytest

from abaw_jax.data.features import FeatureStore
from abaw_jax.data.records import Split, Video, write_corpus
from abaw_jax.errors import InputError
from abaw_jax.evaluation.predictions import load_predictions
from abaw_jax.files import read_json
from abaw_jax.interop.archive import content_hash, load_model, save_model
from abaw_jax.recipe import Context
from abaw_jax.stages import extract, finetune, members, modalities, pretrain, sequence
from abaw_jax.stages.check import check_config, check_prepared
from abaw_jax.stages.disk import FOUND
from abaw_jax.stages.encoder import frames_track
from abaw_jax.stages.start import check_fit, given_folder
from abaw_jax.tracks import EXPR, VA
from abaw_jax.training.partition import make_mesh
from configs import au, emi, expr, va

ROWS = 12
VIDEOS = {"train": ("1", "2", "3"), "validation": ("4", "5")}


def make_video(name, rng):
    image = cv2.imencode(".png", rng.integers(0, 256, (8, 8, 3), np.uint8))[1].tobytes()
    labels = {
        "va": rng.uniform(-1, 1, (ROWS, 2)).astype(np.float32),
        "expr": np.arange(ROWS, dtype=np.int32)[:, None] % 8,
    }
    if name == "3":  # of EXPR's training set alone
        labels["va"][:] = -5
    if name == "2":
        labels["expr"][:] = -1
    return Video(name, [(n, image) for n in range(1, ROWS)], ROWS, labels)


def make_config(module=va, argument="ctyun,tiny", **tuned):
    config = module.get_config(argument).unlock()
    config.image.size, config.pretrain.epochs = 8, 0.0
    config.encoder.update(width=8, depth=1, heads=2)
    config.finetune.update(batch_size=8, evaluations=1)
    config.finetune.update(tuned)
    config.extract.batch_size = 8
    config.sequence.update(length=8, stride=4, shift=2)
    return config


def as_context(config, workdir):
    mesh = make_mesh((1, 1, 1), jax.devices()[:1])
    return Context(ml_collections.FrozenConfigDict(config), workdir, mesh)


def check(config):
    check_config(config, make_mesh())


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """(context of VA whose encoder has learnt EXPR, what finetune and extract returned)."""
    context, rng = (
        as_context(make_config(), tmp_path_factory.mktemp("va")),
        np.random.default_rng(0),
    )
    splits = [Split(s, [make_video(v, rng) for v in videos]) for s, videos in VIDEOS.items()]
    write_corpus(context.folder("prepare") / "records", "test", splits, progress=False)
    return context, finetune.run(context), extract.run(context)


@pytest.fixture(scope="module")
def taken(tuned, tmp_path_factory):
    """config module -> the same of a run of its config that takes the encoder."""

    def run(module):
        workdir = tmp_path_factory.mktemp("taken")
        config = make_config(module, encoder=str(tuned[0].workdir))
        config.pretrain.epochs = 1.0
        check(config)
        context = as_context(config, workdir)
        context.folder("prepare").symlink_to(tuned[0].folder("prepare"))
        assert pretrain.run(context) == {"metrics": {}, "samples": 0}
        return context, finetune.run(context), extract.run(context)

    return run


def test_the_encoder_learns_and_is_scored_by_the_other_track(tuned):
    context, found, _ = tuned
    assert found["track"] is frames_track(context) is EXPR and context.track is VA
    assert found["score"] == found["metrics"]["macro_f1"] and found["samples"] == 2 * (ROWS - 1)
    config = load_model(context.folder("finetune") / "model")[1]
    assert config["track"] == "EXPR" and config["classes"] == list(EXPR.classes)


def test_single_frames_have_features_and_no_predictions(tuned):
    context, _, found = tuned
    assert "score" not in found and found["samples"] == 5 * (ROWS - 1)
    folder = context.folder("extract")
    assert {path.name for path in folder.iterdir()} == {"features"}
    store = FeatureStore(folder / "features" / "validation")
    assert store.read("4").shape == (ROWS - 1, 8) and np.isfinite(store.read("4")).all()
    assert not found["metrics"]


def test_the_sequence_model_sees_no_video_of_the_encoders_track_alone(tuned):
    context, _, _ = tuned
    windows, _ = sequence.split_windows(context, "train")
    assert {windows.videos[v] for v in windows.video} == set(VIDEOS["train"])
    kept = members.labelled_windows(context, windows)
    assert {kept.videos[v] for v in kept.video} == {"1", "2"} and kept.videos == windows.videos


def test_a_taken_encoder_is_the_same_and_is_not_trained(tuned, taken):
    context, found, _ = taken(va)
    source, folder = (c.folder("finetune") / "model" for c in (tuned[0], context))
    assert {path.name for path in context.folder("finetune").iterdir()} == {"model"}
    assert found["content"] == content_hash(source) and read_json(
        folder / "config.json"
    ) == read_json(source / "config.json")
    assert found["track"] is EXPR and "score" not in found and found["samples"] == 0
    for split in VIDEOS:
        for path in sorted((tuned[0].folder("extract") / "features" / split).iterdir()):
            other = context.folder("extract") / "features" / split / path.name
            assert other.read_bytes() == path.read_bytes()
    assert not (context.folder("extract") / "predictions").exists()


def test_one_of_the_configs_own_track_predicts_single_frames(taken):
    context, found, extracted = taken(expr)
    assert found["track"] is context.track is EXPR
    assert extracted["score"] == extracted["metrics"]["macro_f1"]
    predictions = load_predictions(context.folder("extract") / "predictions" / "validation", EXPR)
    assert set(predictions) == set(VIDEOS["validation"])


def test_features_of_another_encoder_are_refused(tuned, tmp_path):
    context = as_context(make_config(), tmp_path)
    for stage in ("prepare", "extract"):
        context.folder(stage).symlink_to(tuned[0].folder(stage))
    variables, config = load_model(tuned[0].folder("finetune") / "model")
    variables["params"]["head"]["bias"] += 1
    save_model(context.folder("finetune") / "model", variables, config)
    with pytest.raises(InputError, match=r"encoder is '\w+', expected '\w+'; extract the features"):
        modalities.open_stores(context, "train")


def test_a_taken_encoder_enters_what_stages_were_made_from(tuned, tmp_path):
    source = tmp_path / "run" / "finetune" / "model"
    variables, config = load_model(tuned[0].folder("finetune") / "model")
    save_model(source, variables, config)
    context = as_context(make_config(encoder=str(tmp_path / "run")), tmp_path / "other")
    assert given_folder(context.config, "encoder") == source
    assert FOUND["finetune"](tuned[0]) == FOUND["pretrain"](tuned[0]) == {}
    before = FOUND["finetune"](context)
    assert before == FOUND["pretrain"](context) == {str(source): content_hash(source)}
    variables["params"]["head"]["bias"] += 1
    save_model(source, variables, config)
    assert FOUND["finetune"](context) != before
    own = as_context(make_config(encoder=str(source)), tmp_path / "run")
    with pytest.raises(InputError, match="lies in this run's own folder"):
        FOUND["finetune"](own)


@pytest.mark.parametrize(
    ("section", "changes", "named"),
    [
        ("image", {"size": 16}, r"does not fit: config.image.size is 16, its own 8; set"),
        ("image", {"mean": (0.5, 0.5, 0.5)}, r"config.image.mean is \[0.5, 0.5, 0.5\], its own \["),
        ("encoder", {"width": 16, "patch_size": 4}, "patch_size is 4, .*width is 16, its own 8"),
        ("encoder", {"depth": 2, "heads": 4}, "depth is 2, its own 1; .*heads is 4, its own 2"),
        ("encoder", {"positions": "learned"}, "positions is learned, its own sincos; set"),
        ("finetune", {"pooling": "cls"}, "finetune.pooling is cls, its own mean; set"),
        ("finetune", {"track": "va"}, "is of EXPR, and config.finetune.track asks for va"),
        ("finetune", {"views": ("face", "eyes_mouth")}, r"expected \('face',\)"),
        ("finetune", {"encoder": "nowhere"}, "nowhere holds neither model.safetensors nor"),
    ],
)
def test_an_encoder_that_does_not_fit_is_refused_in_one_line(tuned, section, changes, named):
    config = make_config(encoder=str(tuned[0].workdir))
    check(config)
    config[section].update(changes)
    with pytest.raises(InputError, match=f"^config.finetune.encoder: .*{named}") as caught:
        check(config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"kind": "sequence_model"}, "kind 'sequence_model'; expected a 'frame_classifier'"),
        ({"view": "eyes_mouth"}, "kind 'frame_classifier' of the view 'eyes_mouth'; expected"),
        ({"classes": ["Joy"]}, r"classes \['Joy'\]; this version has"),
        ({"image": {}}, "no frame_classifier can be made of it"),
    ],
)
def test_a_model_of_another_kind_is_refused(tuned, tmp_path, changes, named):
    variables, config = load_model(tuned[0].folder("finetune") / "model")
    save_model(tmp_path, variables, config | changes)
    with pytest.raises(InputError, match=named):
        check(make_config(encoder=str(tmp_path)))


def test_weights_that_are_not_the_models_are_refused(tuned, tmp_path):
    variables, config = load_model(tuned[0].folder("finetune") / "model")
    del variables["params"]["head"]
    save_model(tmp_path, variables, config)
    with pytest.raises(InputError, match=r"weights of another architecture: lacks params/head"):
        finetune.run(as_context(make_config(encoder=str(tmp_path)), tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"finetune.track": "exprs"}, "config.finetune.track: 'exprs' is not a track; .* 'expr'"),
        ({"finetune.track": "emi"}, "config.finetune.track: tracks VA, EMI: labels of EMI are of"),
        ({"corpus.also": ()}, r"track: labels of expr are not read; name it in .* which is \(\)"),
        ({"finetune.loss": "ccc"}, "config.finetune: loss 'ccc': EXPR has no such loss"),
        ({"sequence.epochs": 0.0}, "track: single frames are predicted of EXPR, and without a"),
        ({"ensemble.members": ("all", "frames")}, "members: frames are predicted of EXPR"),
    ],
)
def test_what_another_track_cannot_be_or_do_is_named(changes, named):
    config = make_config()
    for path, value in changes.items():
        section, key = path.split(".")
        config[section][key] = value
    with pytest.raises(InputError, match=named):
        check(config)


def test_a_set_without_labels_of_the_other_track_is_named_before_training(tuned, tmp_path):
    check_prepared(tuned[0])
    context, rng = as_context(make_config(), tmp_path), np.random.default_rng(1)
    videos = {"train": ("1",), "validation": ("2",)}
    splits = [Split(s, [make_video(v, rng) for v in names]) for s, names in videos.items()]
    write_corpus(context.folder("prepare") / "records", "test", splits, progress=False)
    with pytest.raises(InputError, match="no validation crop has a valid EXPR label, of which"):
        check_prepared(context)


@pytest.mark.parametrize("scale", ["demo", "tiny", "paper"])
def test_the_papers_encoders_fit_where_they_are_taken(scale):
    """Of ctyun that of EXPR, for VA and AU; of fuxi that of AU, for EMI."""
    for source, taker in (
        (expr.get_config(f"ctyun,{scale}"), va.get_config(f"ctyun,{scale}")),
        (expr.get_config(f"ctyun,{scale}"), au.get_config(f"ctyun,{scale}")),
        (au.get_config(f"fuxi,{scale}"), emi.get_config(scale)),
    ):
        found = json.loads(json.dumps({"kind": "frame_classifier", **source.to_dict()}))
        check_fit(taker, "encoder", pathlib.Path("source"), found)


def test_without_another_track_all_is_as_it_was():
    config = make_config(argument="tiny")
    check(config)
    context = as_context(config, pathlib.Path("run"))
    assert frames_track(context) is VA and finetune.learnt(context) == [VA]
