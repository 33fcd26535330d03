"""The recipe of single images, whole, on a small tree written here: no sequences, no smoothing."""

import json

import jax
import numpy as np
import pytest
import simplejpeg

from abaw_jax import recipe
from abaw_jax.data.records import IMAGE_SET
from abaw_jax.evaluation.predictions import load_predictions
from abaw_jax.evaluation.submission import read_submission
from abaw_jax.recipe import Context
from abaw_jax.stages.check import check_config
from abaw_jax.tracks import CE
from abaw_jax.training.partition import make_mesh
from configs import ce

ROWS = {"01": 5, "02": 3}
SEEN = {"01": [2, 3, 5, 6], "02": [1]}  # 6 is beyond the rows


def write_tree(root):
    rng = np.random.default_rng(0)

    def put(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(simplejpeg.encode_jpeg(rng.integers(0, 256, (32, 32, 3), np.uint8)))

    for name in (*CE.classes, "Sadly_Disgusted"):
        for split, count in (("train", 3), ("test", 2)):
            for i in range(count):
                folder = root / "rafdb_compound" / split / name.replace("_", " ")
                put(folder / f"{split}_{i:05d}_aligned.jpg")
    for video, frames in SEEN.items():
        for frame in frames:
            put(root / "cropped_aligned" / video / f"{frame:05d}.jpg")
    lines = [f"{v}/{n:05d}.jpg,0" for v, count in ROWS.items() for n in range(1, count + 1)]
    (root / "example.txt").write_text("\n".join([CE.header, *lines, ""]))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(context of a finished run, its results)."""
    folder = tmp_path_factory.mktemp("images")
    write_tree(folder / "corpus")
    config = ce.get_config("images,tiny").unlock()
    config.corpus.update(root=str(folder / "corpus"), test_example="example.txt")
    config.encoder.update(width=16, depth=1)
    config.pretrain.epochs = 0.0
    config.export.stablehlo = False
    mesh = make_mesh((1, 1, 1), jax.devices()[:1])
    results = recipe.run(config.lock(), folder / "run", mesh)
    return Context(config, folder / "run", mesh), results


def test_the_final_predictions_are_those_of_frames(whole):
    context, results = whole
    assert results["system"] == "images" and results["samples"] == 2 * len(CE.classes)
    assert results["score"] == results["metrics"]["frames"] == results["stages"]["extract"]["score"]
    assert results["stages"]["sequence"]["score"] is None
    assert not [key for key in results["metrics"] if key.startswith("sequence")]
    smoothing = json.loads((context.folder("ensemble") / "smoothing.json").read_text())
    assert list(smoothing) == ["frames"] and smoothing["frames"]["kind"] == "none"
    for split in ("train", "validation"):
        found = [
            load_predictions(context.folder(stage) / "predictions" / split, CE)
            for stage in ("extract", "ensemble")
        ]
        assert list(found[0]) == list(found[1]) == [IMAGE_SET]
        np.testing.assert_array_equal(*(part[IMAGE_SET].values for part in found))
    assert "over time" not in (context.folder("ensemble") / "report.html").read_text()


def test_the_submission_has_the_rows_of_the_example(whole):
    context, results = whole
    assert results["metrics"]["submission_lines"] == sum(ROWS.values())
    submitted = read_submission(context.folder("ensemble") / "submission.txt", CE)
    frames = load_predictions(context.folder("extract") / "predictions" / "test", CE)
    for video, (numbers, rows) in submitted.items():
        assert numbers.tolist() == list(range(1, ROWS[video] + 1))
        found, decoded = frames[video].frames, CE.decode(frames[video].values)
        assert found.tolist() == [frame for frame in SEEN[video] if frame <= ROWS[video]]
        np.testing.assert_array_equal(rows[found - 1], decoded)
        assert rows[0] == decoded[0]  # before the first known frame that one holds


def test_frames_alone_are_exported(whole):
    context, _ = whole
    parity = json.loads((context.folder("export") / "parity.json").read_text())
    assert list(parity) == ["frames_archive_difference"]
    assert not (context.folder("export") / "sequence").exists()


@pytest.mark.parametrize("scale", ce.SCALES)
def test_every_scale_passes_the_check(scale):
    config = ce.get_config(f"images,{scale}")
    check_config(config, make_mesh())
    assert config.name == f"ce-images-{scale}" and config.corpus.kind == "cexpr"
