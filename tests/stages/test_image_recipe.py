"""The recipe of single images, whole, on a small tree written here: no sequences, no smoothing.

`fuxi` to its end, `fuxi_basic` to its tuned encoder.
"""

import json

import jax
import ml_collections
import numpy as np
import pytest
import simplejpeg

from abaw_jax import recipe
from abaw_jax.data.records import IMAGE_SET
from abaw_jax.errors import InputError
from abaw_jax.evaluation.predictions import load_predictions
from abaw_jax.evaluation.submission import read_submission
from abaw_jax.files import read_json
from abaw_jax.interop.archive import load_model
from abaw_jax.interop.export import make_task
from abaw_jax.recipe import Context
from abaw_jax.stages import finetune, parts
from abaw_jax.stages.check import check_config, check_prepared
from abaw_jax.tracks import CE
from abaw_jax.tracks.targets import BASIC, COMPOUNDS
from abaw_jax.training.partition import make_mesh
from abaw_jax.training.state import named_leaves
from configs import ce

ROWS = {"01": 5, "02": 3}
SEEN = {"01": [2, 3, 5, 6], "02": [1]}  # 6 is beyond the rows


def write_tree(root):
    rng = np.random.default_rng(0)

    def put(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(simplejpeg.encode_jpeg(rng.integers(0, 256, (32, 32, 3), np.uint8)))

    names = [f"{split}_{n:05d}" for split in ("train", "test") for n in range(1, 11)]
    for name in names:
        put(root / "rafdb" / "aligned" / f"{name}_aligned.jpg")
    rows = [f"{name}.jpg {n % 7 + 1}\n" for n, name in enumerate(names)]
    (root / "rafdb" / "list_patition_label.txt").write_text("".join(rows))
    for name in COMPOUNDS.classes:
        for split, count in (("train", 3), ("test", 2)):
            for i in range(count):
                folder = root / "rafdb_compound" / split / name.replace("_", " ")
                put(folder / f"{split}_{i:05d}_aligned.jpg")
    for video, frames in SEEN.items():
        for frame in frames:
            put(root / "cropped_aligned" / video / f"{frame:05d}.jpg")
    lines = [f"{v}/{n:05d}.jpg,0" for v, count in ROWS.items() for n in range(1, count + 1)]
    (root / "example.txt").write_text("\n".join([CE.header, *lines, ""]))


def small_config(system, folder):
    config = ce.get_config(f"{system},tiny").unlock()
    config.corpus.update(root=str(folder / "corpus"), test_example="example.txt")
    config.encoder.update(width=16, depth=1)
    config.pretrain.epochs = 0.0
    config.finetune.frozen_blocks = 0  # nothing is trained before
    config.export.stablehlo = False
    return config


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(context of a finished run, its results)."""
    folder = tmp_path_factory.mktemp("images")
    mesh = make_mesh((1, 1, 1), jax.devices()[:1])
    write_tree(folder / "corpus")
    config = small_config("fuxi", folder)
    results = recipe.run(config.lock(), folder / "run", mesh)
    return Context(config, folder / "run", mesh), results


def test_the_final_predictions_are_those_of_frames(whole):
    context, results = whole
    assert results["system"] == "fuxi" and results["samples"] == 2 * len(CE.classes)
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


def test_eleven_classes_are_learnt_and_seven_predicted(whole):
    context, _ = whole
    variables, config = load_model(context.folder("finetune") / "model")
    assert variables["params"]["head"]["kernel"].shape == (16, 11)
    assert tuple(config["classes"]) == CE.classes
    assert read_json(context.folder("finetune") / "results.json")["samples"] == 3 * 11
    values = load_predictions(context.folder("extract") / "predictions" / "train", CE)
    assert values[IMAGE_SET].values.shape == (3 * 11, 7)
    np.testing.assert_allclose(values[IMAGE_SET].values.sum(axis=1), 1, rtol=1e-5)


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


@pytest.mark.parametrize(
    ("section", "key", "value"), [("sequence", "epochs", 1.0), ("ensemble", "kinds", ("box",))]
)
def test_what_looks_at_neighbours_is_refused_of_images(whole, section, key, value):
    """They lie in the order of their classes: a neighbour tells the label."""
    context, _ = whole
    check_prepared(context)
    config = ml_collections.ConfigDict(context.config.to_dict())
    config[section][key] = value
    other = Context(ml_collections.FrozenConfigDict(config), context.workdir, context.mesh)
    with pytest.raises(InputError, match=f"^config.{section}.{key}: .* do not follow on one ano"):
        check_prepared(other)


def test_frames_alone_are_exported(whole):
    context, _ = whole
    parity = json.loads((context.folder("export") / "parity.json").read_text())
    assert list(parity) == ["frames_archive_difference"]
    assert not (context.folder("export") / "sequence").exists()


def test_six_emotions_are_learnt_singles_first(whole):
    workdir = whole[0].workdir.parent / "basic"
    config = small_config("fuxi_basic", workdir.parent)
    stages = ("prepare", "pretrain", "finetune")
    results = recipe.run(config.lock(), workdir, whole[0].mesh, stages=stages)
    variables, described = load_model(workdir / "finetune" / "model")
    assert variables["params"]["head"]["kernel"].shape == (16, 6)
    assert described["outputs"] == list(BASIC.classes)
    with pytest.raises(InputError, match="outputs .*; this version has"):
        make_task({**described, "outputs": described["outputs"][::-1]}, "model")
    assert read_json(workdir / "finetune" / "results.json")["samples"] == 3 * 11 + 10
    assert np.isfinite(results["stages"]["finetune"]["score"])
    context = Context(config, workdir, whole[0].mesh)
    assert finetune.late_examples(context).tolist() == [True] * 33 + [False] * 10
    records, indices, labels = finetune.labelled(context, "train")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetune, "labelled", lambda *_: (records, indices[:33], labels))
        with pytest.raises(InputError, match="of 33 training images 33 are .*corpus.singles"):
            check_prepared(context)
    # Scored by what is predicted: the seven classes of the images of pairs.
    assert len(finetune.labelled(context, "validation")[1]) == 2 * 7


@pytest.mark.parametrize("scale", ce.SCALES)
@pytest.mark.parametrize("system", ["fuxi", "fuxi_basic"])
def test_every_scale_passes_the_check(system, scale):
    config = ce.get_config(f"{system},{scale}")
    check_config(config, make_mesh())
    assert config.name == f"ce-{system}-{scale}" and config.corpus.kind == "cexpr"
    assert config.finetune.frozen_blocks == config.encoder.depth - 1


@pytest.mark.parametrize(("system", "outputs"), [("fuxi", 11), ("fuxi_basic", 6)])
def test_at_full_size_the_last_block_norm_and_head_alone_are_tuned(system, outputs):
    config = ce.get_config(f"{system},paper")
    task = parts.make_finetune_task(config, CE)
    images = {"image": jax.ShapeDtypeStruct((2, 224, 224, 3), np.uint8)}
    params, state = jax.eval_shape(task.init, jax.random.key(0), images)
    frozen = parts.make_schedule_optimizer(config.finetune, 1000).frozen
    tuned = {path: leaf for path, leaf in named_leaves(params).items() if not frozen(path)}
    parents = {"/".join(path.split("/")[:2]) for path in tuned}
    assert {parent.split("/")[0] for parent in parents} == {"encoder", "fc_norm", "head"}
    assert {parent for parent in parents if "encoder" in parent} == {"encoder/blocks_11"}
    block = 4 * (768 * 768 + 768) + 2 * 4 * 768 * 768 + 5 * 768 + 2 * 2 * 768
    head = 768 * outputs + outputs
    assert sum(leaf.size for leaf in tuned.values()) == block + 2 * 768 + head
    values = jax.eval_shape(task.predict, params, state, images)["probabilities"]
    assert values.shape == (2, 7)


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("target", "basics", "CE has no such; expected one of compounds, basic, singles, ''"),
        ("target", "", "curriculum: 0.5 with target ''"),
        ("target", "compounds", "curriculum: 0.5 with target 'compounds'"),
        ("curriculum", 1.5, "curriculum: 1.5; expected a share from 0 to 1"),
        ("loss", "soft_f1", "judges rows together"),
        ("loss", "cross_entropy", "no such loss"),
    ],
)
def test_what_cannot_be_learnt_is_named(key, value, named):
    config = ce.get_config("fuxi_basic,tiny").unlock()
    config.finetune[key] = value
    with pytest.raises(InputError, match=f"^config.finetune.*{named}"):
        check_config(config, make_mesh())
