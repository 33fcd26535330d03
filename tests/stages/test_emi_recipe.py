"""The recipe of a track whose labels are of clips, whole, on a small tree written here."""

import json

import jax
import ml_collections
import numpy as np
import pytest
import simplejpeg

from abaw_jax import recipe, score
from abaw_jax.data.features import FeatureStore, save_feature_settings, save_features
from abaw_jax.data.records import load_index
from abaw_jax.data.windows import window_epoch
from abaw_jax.evaluation.predictions import load_predictions
from abaw_jax.evaluation.submission import check_submission
from abaw_jax.interop.archive import load_model
from abaw_jax.interop.export import example_inputs
from abaw_jax.recipe import STAGES, Context
from abaw_jax.stages import extract, modalities, sequence
from abaw_jax.stages.check import check_config
from abaw_jax.stages.parts import make_sequence_task
from abaw_jax.tracks import EMI
from abaw_jax.training.partition import make_mesh
from configs import emi

# Images of each clip: fewer and more than a window's 8 rows, one, none.
CLIPS = {
    "train": [5, 12, 1, 9, 0, 20, 8, 7],
    "valid": [6, 30, 0, 8, 3],
    "test": [4, 0, 17],
}


def write_tree(root):
    """Faces that are the brighter the more joy there is; one training clip is unlabelled."""
    rng, number = np.random.default_rng(0), 0
    for split, counts in CLIPS.items():
        lines = [EMI.header]
        for count in counts:
            number += 1
            label = np.round(rng.uniform(0, 1, 6), 3)
            row = ["-5"] * 6 if number == 4 else [f"{value:g}" for value in label]
            lines.append(",".join([str(number), *row]))
            place = "test/face_images" if split == "test" else "face_images"
            folder = root / place / f"{number:05d}"
            folder.mkdir(parents=True)
            for frame in range(1, count + 1):
                noise = rng.uniform(-20, 20, (32, 32, 3))
                image = np.clip(40 + 180 * label[5] + noise, 0, 255).astype(np.uint8)
                (folder / f"{2 * frame}.jpg").write_bytes(simplejpeg.encode_jpeg(image))
        (root / f"{split}_split.csv").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(context of a finished run, its results)."""
    folder = tmp_path_factory.mktemp("emi")
    write_tree(folder / "corpus")
    config = emi.get_config("tiny").unlock()
    config.corpus.update(root=str(folder / "corpus"), test_example="test_split.csv")
    config.encoder.update(width=16, depth=1)
    config.pretrain.update(epochs=0.5, decoder_width=16)
    config.sequence.update(length=8, stride=8, batch_size=4, epochs=3.0)
    mesh = make_mesh((1, 1, 1), jax.devices()[:1])
    results = recipe.run(config.lock(), folder / "run", mesh)
    return Context(config, folder / "run", mesh), results


def predictions(context, stage, split="validation"):
    return load_predictions(context.folder(stage) / "predictions" / split, EMI)


def labels(context):
    index = load_index(context.folder("prepare") / "records", "validation")
    return np.concatenate(list(extract.video_labels(index, EMI).values()))


def test_all_stages_finish(whole):
    context, results = whole
    assert list(results["stages"]) == list(STAGES)
    assert results["track"] == "EMI" and results["samples"] == len(CLIPS["valid"])
    assert -1 <= results["score"] <= 1 and results["score"] == results["metrics"]["sequence"]
    assert (context.folder("ensemble") / "report.html").stat().st_size > 3000
    stage = json.loads((context.folder("sequence") / "results.json").read_text())
    assert stage["samples"] == len(CLIPS["train"]) - 1
    parity = json.loads((context.folder("export") / "parity.json").read_text())
    assert len(parity) == 4 and max(parity.values()) <= 1e-5


@pytest.mark.parametrize("stage", ["extract", "sequence", "ensemble"])
def test_a_clip_is_one_row_and_scored_once(whole, stage):
    context, results = whole
    for split, name in (("train", "train"), ("validation", "valid"), ("test", "test")):
        found = predictions(context, stage, split)
        assert len(found) == len(CLIPS[name])
        for prediction in found.values():
            assert prediction.frames.tolist() == [1] and prediction.values.shape == (1, 6)
            assert (prediction.values >= 0).all() and (prediction.values <= 1).all()
    values = np.concatenate([p.values for p in predictions(context, stage).values()])
    truth = labels(context)
    expected = np.mean([np.corrcoef(values[:, k], truth[:, k])[0, 1] for k in range(6)])
    assert results["stages"][stage]["score"] == pytest.approx(expected, abs=1e-5)


def test_the_frame_stage_scores_the_means_of_clips(whole):
    context, results = whole
    found, truth = predictions(context, "extract"), labels(context)
    seen = [i for i, count in enumerate(CLIPS["valid"]) if count]  # clips without a crop have none
    values = np.concatenate([p.values for p in found.values()])[seen]
    statistics = EMI.evaluate(EMI.decode(values), truth[seen])
    expected = EMI.summary(statistics).score
    assert results["stages"]["finetune"]["score"] == pytest.approx(expected, abs=1e-4)


def test_a_clip_without_crops_takes_the_mean_label_of_training(whole):
    context, _ = whole
    index = load_index(context.folder("prepare") / "records", "train")
    rows = np.concatenate(list(extract.video_labels(index, EMI).values()))
    mean = rows[EMI.valid(rows)].astype(np.float64).mean(0)
    for split, name in (("validation", "00011"), ("test", "00015")):
        store = FeatureStore(context.folder("extract") / "features" / split)
        assert not len(store.frames(name))
        np.testing.assert_allclose(predictions(context, "extract", split)[name].values[0], mean)


def test_features_are_of_frames(whole):
    context, _ = whole
    store = FeatureStore(context.folder("extract") / "features" / "validation")
    np.testing.assert_array_equal(store.frames("00010"), np.arange(2, 61, 2))


def test_the_score_command_agrees(whole, capsys):
    context, results = whole
    command = ["score", "--track=EMI", "--json", f"--annotations={context.config.corpus.root}"]
    assert not score.main(
        [*command, f"--predictions={context.folder('ensemble')}/predictions/validation"]
    )
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert printed["score"] == pytest.approx(results["score"], abs=1e-12)
    assert printed["frames"] == len(CLIPS["valid"])


def test_the_submission_has_every_line(whole):
    context, results = whole
    example = f"{context.config.corpus.root}/test_split.csv"
    checked = check_submission(context.folder("ensemble") / "submission.txt", example, EMI)
    assert checked["lines"] == len(CLIPS["test"]) == results["metrics"]["submission_lines"]


def test_a_second_run_skips_everything(whole, capsys):
    context, results = whole
    again = recipe.run(context.config, context.workdir, context.mesh)
    assert again == results
    assert capsys.readouterr().out.count("finished before, skipped") == len(STAGES)


def test_a_recurrent_network_a_modality_takes_clips_as_they_are(whole, tmp_path):
    """More rows of sound than of faces, or fewer, or none: of two clips there is neither."""
    context, _ = whole
    heard = {1: 2, 2: 40, 3: 5, 4: 1, 7: 12, 8: 3, 9: 30, 12: 4, 14: 9}
    rng = np.random.default_rng(0)
    for number, rows in heard.items():
        values = rng.standard_normal((rows, 3))
        save_features(tmp_path / "store", f"{number:05d}", np.arange(1, rows + 1), values)
    settings = {"encoder": "mine", "width": 3, "source_hash": "x", "rate": 50.0}
    save_feature_settings(tmp_path / "store", **settings)
    config = ml_collections.ConfigDict(context.config.to_dict())
    config.extract.update(stores={"heard": str(tmp_path / "store")}, steps={"heard": 10})
    config.sequence.update(
        model="gru", modalities=("face", "heard"), width=4, mlp_width=6, head_width=5, epochs=1.0
    )
    check_config(config, context.mesh)
    run = Context(ml_collections.FrozenConfigDict(config), tmp_path / "run", context.mesh)
    run.folder("extract").mkdir(parents=True)
    for folder in ("prepare", "finetune", "extract/features"):
        run.folder(folder).symlink_to(context.folder(folder))
    splits = extract.splits(run)
    assert modalities.extract_modality(run, "heard", splits) == sum(map(len, CLIPS.values())) - 9
    results = sequence.run(run)
    assert -1 <= results["score"] <= 1 and results["samples"] == len(CLIPS["train"]) - 1
    for split, name in (("train", "train"), ("validation", "valid"), ("test", "test")):
        found = predictions(run, "sequence", split)
        assert len(found) == len(CLIPS[name])
        values = np.concatenate([prediction.values for prediction in found.values()])
        assert ((values > 0) & (values < 1)).all() and np.ptp(values, axis=0).min() > 0
    # What is exported is told of everything that it is given.
    variables, saved = load_model(run.folder("sequence") / "model")
    assert set(variables["params"]) == {"encoder_frames", "encoder_heard", "head"}
    windows, reader = sequence.split_windows(run, "validation")
    batch = next(window_epoch(windows, reader, batch_size=5, threads=0))
    for key, expected in example_inputs(saved, 5).items():
        assert (batch[key].shape, batch[key].dtype) == (expected.shape, expected.dtype)
    assert batch["features"].shape == (5, 8, 17) and batch["features/heard"].shape == (5, 10, 4)


@pytest.mark.parametrize("scale", ["", "tiny", "paper", "mae_transformer,paper"])
def test_every_scale_builds_at_full_size(scale):
    config = emi.get_config(scale)
    recipe.check_sections(config)
    check_config(config, make_mesh((1, 1, 1), jax.devices()[:1]))
    length, width = config.sequence.length, config.encoder.width
    clips = {
        "features": jax.ShapeDtypeStruct((2, length, width), np.float32),
        "mask": jax.ShapeDtypeStruct((2, length), np.bool_),
    }
    task = make_sequence_task(config, EMI)
    params, state = jax.eval_shape(task.init, jax.random.key(0), clips)
    assert jax.eval_shape(task.predict, params, state, clips)["probabilities"].shape == (2, 6)


def test_unknown_arguments_are_named():
    with pytest.raises(ValueError, match=r"configs/emi.py:faces: 'faces' is neither a system"):
        emi.get_config("faces")
