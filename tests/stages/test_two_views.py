"""Two views of a face through the stages: an encoder each, their features, one model."""

import cv2
import jax
import ml_collections
import numpy as np
import pytest

from abaw_jax.data.records import (
    Split,
    Video,
    decode_record,
    load_index,
    open_records,
    write_corpus,
)
from abaw_jax.data.transforms import make_eval_transform
from abaw_jax.data.views import VIEWS
from abaw_jax.errors import InputError
from abaw_jax.evaluation.predictions import load_predictions
from abaw_jax.files import write_json
from abaw_jax.interop.archive import content_hash, load_model
from abaw_jax.interop.export import load_predict, make_task
from abaw_jax.recipe import Context
from abaw_jax.stages import ensemble, export, extract, finetune, sequence
from abaw_jax.stages.check import check_config
from abaw_jax.stages.modalities import open_stores
from abaw_jax.tracks import EXPR
from abaw_jax.training.partition import make_mesh
from configs import expr

ROWS, OTHER = 12, "eyes_mouth"
VIDEOS = {"train": ("1", "2"), "validation": ("3",)}


def make_video(name, rng):
    frames = [
        (n, cv2.imencode(".png", rng.integers(0, 256, (16, 16, 3), np.uint8))[1].tobytes())
        for n in range(1, ROWS + 1)
    ]
    return Video(name, frames, ROWS, {"expr": np.arange(ROWS, dtype=np.int32)[:, None] % 8})


def make_config():
    config = expr.get_config("tiny").unlock()
    config.image.size, config.pretrain.epochs = 8, 0.0
    config.encoder.update(width=8, depth=1, heads=2)
    config.finetune.update(batch_size=8, evaluations=1, views=("face", OTHER))
    config.export.stablehlo, config.ensemble.kinds = False, ()
    config.sequence.update(
        modalities=("face", OTHER), length=1, stride=1, shift=0, batch_size=8, evaluations=1,
        epochs=2.0, fuse="attention", fuse_width=16, width=16, depth=0, project=False,
        positions="none", head_width=8, head_between="relu",
    )  # fmt: skip
    return config


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    workdir, rng = tmp_path_factory.mktemp("views"), np.random.default_rng(0)
    mesh = make_mesh((1, 1, 1), jax.devices()[:1])
    context = Context(ml_collections.FrozenConfigDict(make_config()), workdir, mesh)
    splits = [Split(s, [make_video(v, rng) for v in videos]) for s, videos in VIDEOS.items()]
    write_corpus(context.folder("prepare") / "records", "test", splits, progress=False)
    tuned = finetune.run(context)
    extract.run(context)
    return context, tuned, sequence.run(context)


def test_each_view_has_an_encoder_and_a_score(done):
    context, tuned, _ = done
    folders = [context.folder("finetune"), context.folder("finetune") / OTHER]
    assert tuned["content"] == [content_hash(folder / "model") for folder in folders]
    assert len(set(tuned["content"])) == 2
    assert tuned["score"] == tuned["metrics"]["macro_f1"]
    assert 0 <= tuned["metrics"][f"{OTHER}_macro_f1"] <= 1
    assert load_model(folders[1] / "model")[1]["view"] == OTHER


def test_features_are_those_of_the_views_own_encoder(done):
    context, *_ = done
    records = open_records(context.folder("prepare") / "records", "validation")
    index = load_index(context.folder("prepare") / "records", "validation")
    stores = list(open_stores(context, "validation").values())
    assert len(records) == len(index.frames) == ROWS
    crops = [decode_record(records[i])["image"] for i in range(ROWS)]
    for view, store, place in zip(
        VIEWS, stores, (context.folder("finetune"), context.folder("finetune") / OTHER), strict=True
    ):
        variables, config = load_model(place / "model")
        task, _ = make_task(config, place)
        images = np.stack([make_eval_transform(8, VIEWS[view])(crop) for crop in crops])
        found = jax.jit(task.predict)(variables["params"], {}, {"image": images})
        np.testing.assert_allclose(store.read("3"), found["features"], rtol=1e-4, atol=1e-5)
        name = "predictions" if view == "face" else f"predictions_{OTHER}"
        kept = load_predictions(context.folder("extract") / name / "validation", EXPR)["3"]
        np.testing.assert_allclose(kept.values, found["probabilities"], rtol=1e-4, atol=1e-5)
    assert np.abs(stores[0].read("3") - stores[1].read("3")).max() > 0.1


def test_one_model_sees_both(done):
    context, _, learnt = done
    assert learnt["samples"] == 2 * ROWS and 0 <= learnt["score"] <= 1
    variables, config = load_model(context.folder("sequence") / "model")
    assert config["features"]["width"] == 16
    assert list(config["features"]["modalities"]) == ["face", OTHER]
    assert variables["params"].keys() == {"fuse", "head"}
    found = load_predictions(context.folder("sequence") / "predictions" / "validation", EXPR)
    assert found["3"].values.shape == (ROWS, 8)


def test_each_views_classifier_is_exported_with_its_boxes(done):
    context, tuned, _ = done
    for name in ("prepare", "pretrain", "finetune", "extract", "sequence"):
        results = {"track": "EXPR", "seconds": 1.0, "score": None, "metrics": tuned["metrics"]}
        write_json(context.folder(name) / "results.json", results)
    decided = ensemble.run(context)["metrics"]
    write_json(context.folder("ensemble") / "results.json", {"metrics": decided})
    export.run(context)
    folder = context.folder("export")
    models = {path.name for path in folder.iterdir() if path.is_dir()}
    assert models == {"frames", f"frames_{OTHER}", "sequence"}
    config = load_model(folder / f"frames_{OTHER}")[1]
    assert config["view"] == OTHER and config["crop"]["boxes"]["eyes"] == [0.2, 0.35, 0.8, 0.55]
    assert "smoothing" in load_model(folder / "frames")[1] and "smoothing" not in config
    score = tuned["metrics"][f"{OTHER}_macro_f1"]
    card = (folder / f"frames_{OTHER}" / "README.md").read_text()
    assert f"the view `{OTHER}`" in card and f"validation set: {score:.4f}." in card
    assert "`frames_eyes_mouth` model's" in (folder / "sequence" / "README.md").read_text()
    images = np.zeros((1, 8, 8, 3), np.uint8)
    found = [load_predict(folder / name)({"image": images}) for name in sorted(models)[:2]]
    assert np.abs(found[0]["features"] - found[1]["features"]).max() > 0.01


@pytest.mark.parametrize(
    ("section", "changes", "named"),
    [
        ("finetune", {"views": (OTHER,)}, "finetune.views: .* expected 'face', and after it any"),
        ("finetune", {"views": ("face", "nose")}, "finetune.views"),
        (
            "finetune",
            {"views": ("face",)},
            "sequence.modalities: .*; expected one or more of face,",
        ),
        ("sequence", {"fuse": "max"}, "sequence.fuse: 'max'; expected one of attention, .* or ''"),
        ("sequence", {"modalities": ("face",)}, "sequence.fuse: .* of modalities .'face',."),
        ("sequence", {"apart": True}, "sequence.fuse: .* and config.sequence.apart set to False"),
        ("sequence", {"fuse": "concatenation"}, "sequence.width: 16; expected 32, twice config"),
        ("sequence", {"fuse_width": 8}, "sequence.width: 16; expected 8, config.sequence.fuse_w"),
        ("sequence", {"fuse": "", "width": 8}, "sequence.width: 8; expected 16, .* of 2 views"),
        ("sequence", {"head_between": "tanh"}, "sequence.head_between: 'tanh'; expected one of"),
    ],
)
def test_views_that_do_not_go_together_are_named(section, changes, named):
    config = make_config()
    check_config(config, make_mesh())
    config[section].update(changes)
    with pytest.raises(InputError, match=f"^config.{named}"):
        check_config(config, make_mesh())
