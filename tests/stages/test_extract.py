"""The extract stage: batches run across videos, files are per video, a kill changes nothing."""

import shutil

import cv2
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from abaw_jax.data.features import FeatureStore
from abaw_jax.data.records import Split, Video, load_index, write_corpus
from abaw_jax.errors import InputError
from abaw_jax.evaluation.predictions import load_predictions
from abaw_jax.interop.archive import content_hash, save_model
from abaw_jax.recipe import Context
from abaw_jax.stages import extract
from abaw_jax.stages.parts import make_finetune_task
from abaw_jax.tracks.expr import EXPR
from abaw_jax.training.partition import make_mesh
from configs import expr

LENGTHS = {"train": [7, 0, 3, 1, 12, 0], "validation": [9, 2]}  # batches of 5 end within videos


def make_video(name, length, rng):
    frames = []
    for number in range(2, length + 2):  # no crop of the first frame
        image = cv2.imencode(".png", rng.integers(0, 256, (16, 16, 3), np.uint8))[1].tobytes()
        frames.append((number, image))
    rows = length + 2
    return Video(name, frames, rows, {"expr": np.arange(rows, dtype=np.int32)[:, None] % 8})


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    """Records and a frame classifier, as the stages before leave them."""
    workdir, rng = tmp_path_factory.mktemp("extract"), np.random.default_rng(0)
    config = expr.get_config("tiny").unlock()
    config.image.size = 16
    config.encoder.update(width=16, depth=1, heads=2)
    config.extract.batch_size = 5
    mesh = make_mesh((1, 1, 1), jax.devices()[:1])
    context = Context(ml_collections.FrozenConfigDict(config), workdir, mesh)
    splits = [
        Split(split, [make_video(f"{split}_{i}", n, rng) for i, n in enumerate(lengths)], {})
        for split, lengths in LENGTHS.items()
    ]
    write_corpus(context.folder("prepare") / "records", "test", splits, progress=False)
    task = make_finetune_task(context.config, EXPR)
    shapes = jax.eval_shape(
        task.init, jax.random.key(0), {"image": jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.uint8)}
    )
    params = jax.tree.map(lambda s: rng.normal(0, 0.3, s.shape).astype(np.float32), shapes[0])
    described = {"kind": "frame_classifier", "track": "EXPR", "classes": list(EXPR.classes)}
    described |= context.section("image", "encoder", "finetune")
    save_model(context.folder("finetune") / "model", {"params": params}, described)
    return context


@pytest.fixture(scope="module")
def whole(context):
    """(what an undisturbed run returned, its files)."""
    result = extract.run(context)
    return result, contents(context)


def contents(context):
    folder = context.folder("extract")
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_every_frame_has_features_and_probabilities(context, whole):
    result, _ = whole
    assert result["samples"] == sum(map(sum, LENGTHS.values()))
    assert result["split"] == "validation" and 0 <= result["score"] <= 1
    for split, lengths in LENGTHS.items():
        folder = context.folder("extract")
        index = load_index(context.folder("prepare") / "records", split)
        store = FeatureStore(
            folder / "features" / split,
            encoder=content_hash(context.folder("finetune") / "model"),
            width=16,
            source_hash=index.content_hash(),
        )
        predictions = load_predictions(folder / "predictions" / split, EXPR)
        assert list(predictions) == list(index.videos)
        for video, length in zip(index.videos, lengths, strict=True):
            frames = np.arange(2, length + 2)
            np.testing.assert_array_equal(store.frames(video), frames)
            np.testing.assert_array_equal(predictions[video].frames, frames)
            assert store.read(video).shape == (length, 16)
            np.testing.assert_allclose(predictions[video].values.sum(1), 1, atol=1e-5)


def test_values_do_not_depend_on_the_batches(context, whole, tmp_path):
    config = ml_collections.ConfigDict(context.config.to_dict())
    config.extract.batch_size = 3
    other = Context(ml_collections.FrozenConfigDict(config), tmp_path, context.mesh)
    for stage in ("prepare", "finetune"):
        other.folder(stage).symlink_to(context.folder(stage))
    extract.run(other)
    for split in LENGTHS:
        stores = [FeatureStore(c.folder("extract") / "features" / split) for c in (context, other)]
        for path in stores[0].folder.glob("*.npz"):
            one, two = (store.read(path.stem) for store in stores)
            np.testing.assert_allclose(one, two, atol=1e-5)
            assert not len(one) or np.ptp(one) > 0.1


@pytest.mark.parametrize("kept", [0, 1, 3, 4, 6])
def test_an_interrupted_run_ends_with_the_same_files(context, whole, kept, tmp_path):
    """Killed in the training split after `kept` videos, one of them without its predictions."""
    other = Context(context.config, tmp_path, context.mesh)
    for stage in ("prepare", "finetune"):
        other.folder(stage).symlink_to(context.folder(stage))
    result, files = whole
    shutil.copytree(context.folder("extract"), other.folder("extract"))
    shutil.rmtree(other.folder("extract") / "features" / "validation")
    shutil.rmtree(other.folder("extract") / "predictions" / "validation")
    (other.folder("extract") / "features" / "train" / "features.json").unlink()
    for video in range(kept, 6):
        (other.folder("extract") / "predictions" / "train" / f"train_{video}.npz").unlink()
        if video > kept:
            (other.folder("extract") / "features" / "train" / f"train_{video}.npz").unlink()
    done = other.folder("extract") / "features" / "train" / "train_0.npz"
    before = done.stat().st_mtime_ns
    assert extract.run(other) == result
    assert contents(other) == files
    assert (done.stat().st_mtime_ns == before) == (kept > 0)


def test_an_absent_model_is_named(context, tmp_path):
    other = Context(context.config, tmp_path, context.mesh)
    with pytest.raises(InputError, match=r"finetune/model/config.json: cannot be read"):
        extract.run(other)
