"""The stage `sequence` on crops: against that on their features, what is trained, what stays."""

import dataclasses
import shutil

import cv2
import jax
import ml_collections
import numpy as np
import pytest
import test_sequence_members as members_test
from test_sequence_members import ROWS, VIDEOS, make_context, with_section

from abaw_jax.data.features import save_feature_settings, save_features
from abaw_jax.data.records import Video, load_index
from abaw_jax.data.windows import window_batches
from abaw_jax.errors import InputError
from abaw_jax.interop.archive import load_model, save_model
from abaw_jax.stages import export, extract, pixels, sequence
from abaw_jax.stages.check import check_config
from abaw_jax.stages.parts import make_finetune_task, make_sequence_task
from abaw_jax.tracks import EXPR
from abaw_jax.training.loop import TrainResult
from abaw_jax.training.partition import make_mesh
from abaw_jax.training.state import named_leaves
from configs import expr

SIZE, WIDTH = 16, 8
UNSEEN, GAPS = "4", ("3", "5")  # a video without a crop; those that lack the first, and others


def draw_video(video, labels):
    rng, rows = np.random.default_rng(int(video[0])), len(labels)
    frames = [] if video == UNSEEN else range(1, rows + 1)
    frames = [f for f in frames if video not in GAPS or (f > 3 and f % 4)]
    noise = rng.integers(0, 256, (rows, 12, 12, 3), np.uint8)
    crops = [(f, cv2.imencode(".png", noise[f - 1])[1].tobytes()) for f in frames]
    return Video(video, crops, rows, {"expr": labels})


def drawn(shapes):
    """Parameters far from small."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: np.float32(rng.normal(0, 0.3, x.shape)), shapes)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """As the stages before leave the work directory, of a config without pixels."""
    workdir = tmp_path_factory.mktemp("pixels")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(members_test, "draw_video", draw_video)
        made = make_context(workdir, 0, shift=4, epochs=1.0)
    config = ml_collections.ConfigDict(made.config)
    config.image.size = SIZE
    config.encoder.update(patch_size=8, width=WIDTH, depth=2, heads=2, drop_path=0.5)
    config.extract.batch_size = 64
    config.sequence.optimizer.update(lr=1e-2, warmup_epochs=0.0, layer_decay=0.5)
    context = dataclasses.replace(made, config=ml_collections.FrozenConfigDict(config))
    batch = {"image": np.zeros((1, SIZE, SIZE, 3), np.uint8)}
    task = make_finetune_task(context.config, context.track)
    shapes, _ = jax.eval_shape(task.init, jax.random.key(0), batch)
    params = drawn(shapes)
    shutil.rmtree(context.folder("extract"))
    described = {"kind": "frame_classifier", "track": "EXPR", "classes": list(EXPR.classes)}
    described |= context.section("image", "encoder", "finetune")
    save_model(context.folder("finetune") / "model", {"params": params}, described)
    extract.run(context)
    return context


def of_pixels(context, **section):
    return with_section(context, pixels=True, **section)


def frozen_whole(context, **section):
    return of_pixels(context, frozen_blocks=context.config.encoder.depth, **section)


def tuned(context):
    """Parameters of the encoder and the norm above it, as fine-tuning left them, by path."""
    params = load_model(context.folder("finetune") / "model")[0]["params"]
    return named_leaves({name: params[name] for name in ("encoder", "fc_norm")})


def test_an_encoder_that_stays_predicts_as_its_features_do(base):
    """With the same weights, every row of every video: of gaps, and where no crop is seen."""
    context = frozen_whole(base)
    [(task, predict)], [(_, of_features)] = (
        sequence.make_branches(kind, {}) for kind in (context, base)
    )
    shapes, state = jax.eval_shape(task.init, jax.random.key(0), example(base))
    params = pixels.make_initial(context)(drawn(shapes))
    state = jax.tree.map(lambda x: np.ones(x.shape, x.dtype), state)
    inner = {name: of["sequence"] for name, of in state.items()}
    for split, videos in VIDEOS.items():
        found = predict(*sequence.split_windows(context, split), params, state)
        want = of_features(*sequence.split_windows(base, split), params["sequence"], inner)
        assert found.keys() == want.keys() == set(videos)
        for video, values in want.items():
            np.testing.assert_allclose(found[video], values, rtol=1e-5, atol=1e-6)
            assert np.ptp(values, axis=0).max() > (0 if video == UNSEEN else 1e-3)


def test_windows_are_augmented_in_training_alone_and_depend_on_the_step(base):
    windows, reader = sequence.split_windows(of_pixels(base), "train")
    plain, again = (reader(0, np.arange(4), None)["image"] for _ in range(2))
    drawn = [reader(0, np.arange(4), np.random.default_rng(seed))["image"] for seed in (0, 0, 1)]
    np.testing.assert_array_equal(plain, again)
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert (drawn[0] != plain).any() and (drawn[0] != drawn[2]).any()
    options = {"batch_size": 4, "seed": 3, "threads": 0, "shift": 4}
    run, later = (window_batches(windows, reader, start_step=s, **options) for s in (0, 1))
    next(run)
    jax.tree.map(np.testing.assert_array_equal, next(run), next(later))


@pytest.fixture(scope="module")
def done(base, tmp_path_factory):
    """(context, what the stage gives) with the first of two blocks and what is below it frozen."""
    context = of_pixels(moved(base, tmp_path_factory.mktemp("done")), frozen_blocks=1)
    context = with_section(context, collaborate={"epochs": 1.0})
    return context, sequence.run(context)


def moved(context, workdir):
    """The same in a work directory of its own."""
    shutil.copytree(context.workdir, workdir, dirs_exist_ok=True)
    return dataclasses.replace(context, workdir=workdir)


def test_frozen_blocks_stay_and_the_others_start_as_tuned(done):
    """In both branches; one step at 1e-2 moves a number by about that."""
    context, outcome = done
    variables, saved = load_model(context.folder("sequence") / "model")
    assert saved["kind"] == "two_branches" and saved["features"]["width"] == 0
    start, stays = tuned(context), ("encoder/blocks_0/", "encoder/patch_embed", "encoder/cls_token")
    rate, steps = 1e-2, 2 * -(-len(sequence.split_windows(context, "train")[0]) // 8)
    for branch in ("frozen", "trained"):
        after = named_leaves(variables["params"][branch])
        for path, was in start.items():
            moved = np.abs(after[path] - was).max()
            if path.startswith(stays):
                assert moved == 0, path
            else:
                assert 0 < moved < 2 * rate * steps, path
    assert set(outcome["metrics"]) > {"first_branch", context.track.score_name}
    for split, videos in VIDEOS.items():
        kept = {p.stem for p in (context.folder("sequence") / "predictions" / split).iterdir()}
        assert kept == set(videos)


def test_finished_stage_is_read_and_not_trained_again(done, monkeypatch):
    context, outcome = done
    compiled, real = [], sequence.train

    def count(task, **options):
        compiled.append(real(task, **options))
        return compiled[-1]

    monkeypatch.setattr(sequence, "train", count)
    again = sequence.run(context)
    assert [result.compiles for result in compiled] == [0, 0]
    assert again["content"] == outcome["content"] and again["score"] == outcome["score"]


def test_the_whole_is_exported_and_its_card_says_what_it_is(done):
    config = load_model(done[0].folder("sequence") / "model")[1]
    inputs = export._inputs(done[0], "sequence", config)
    assert inputs["image"].shape[1:] == (16, SIZE, SIZE, 3) and inputs["seen"].shape[1:] == (16,)
    assert "features" not in inputs
    card = export._card(done[0], "sequence", {"classes": [], "crop": {}}, {"sequence": 0.5})
    assert "features: those that its own vision transformer makes of face crops;" in card


def test_what_stays_of_a_whole_encoder(base):
    config = frozen_whole(base).config
    frozen, of_two = (pixels.make_frozen(config, second=second) for second in (False, True))
    for path in ("encoder/blocks_1/norm1/scale", "encoder/cls_token", "fc_norm/bias"):
        assert frozen(path) and of_two(f"trained/{path}") and of_two(f"frozen/{path}")
    for path in ("sequence/encoder/layers_0/norm1/scale", "sequence/project/kernel"):
        assert not frozen(path) and not of_two(f"trained/{path}") and of_two(f"frozen/{path}")
    task = make_sequence_task(config, base.track)
    assert set(named_leaves(tuned(base))) == {
        path
        for path in named_leaves(jax.eval_shape(task.init, jax.random.key(0), example(base))[0])
        if frozen(path)
    }


def example(context):
    windows, reader = sequence.split_windows(of_pixels(context), "train")
    return next(window_batches(windows, reader, batch_size=1, seed=0, threads=0))


def test_it_may_start_from_the_pre_trained_encoder(base):
    context = of_pixels(base, encoder_from="pretrain")
    pre = jax.tree.map(lambda x: x + 1, load_model(base.folder("finetune") / "model")[0]["params"])
    save_model(base.folder("pretrain") / "model", {"params": pre}, {})
    norm = {"scale": np.ones(WIDTH)}
    fresh = {"encoder": pre["encoder"], "fc_norm": norm, "sequence": {}}
    given = pixels.make_initial(context)(fresh)
    jax.tree.map(np.testing.assert_array_equal, given["encoder"], pre["encoder"])
    assert given["fc_norm"] is norm
    assert pixels.make_initial(base) is None


def test_a_member_of_another_modality_sees_no_crop(base, tmp_path, monkeypatch):
    context = of_pixels(moved(base, tmp_path), modalities=("face", "sound"), apart=True)
    for split, videos in VIDEOS.items():
        folder = context.folder("extract") / "sound" / split
        for v in videos:
            save_features(folder, v, np.array([1], np.int32), np.full((1, 3), 7, np.float32))
        source = load_index(context.folder("prepare") / "records", split).content_hash()
        save_feature_settings(folder, encoder="log_mel", width=3, source_hash=source)
    seen = {}

    def train_member(context, task, folder, windows, reader, evaluate, *, seed, label):
        window = reader(0, np.arange(4), None)
        batch = {name: values[None] for name, values in window.items()}
        shapes = jax.eval_shape(
            task.init, jax.random.key(seed), batch | {"mask": np.ones((1, 4), bool)}
        )
        seen[label] = {name: values.shape[1:] for name, values in window.items()}
        ones = jax.tree.map(lambda x: np.ones(x.shape, x.dtype), shapes)
        return TrainResult(*ones, 1, {"macro_f1": 0.0}, 1, 1)

    monkeypatch.setattr(sequence, "train_member", train_member)
    monkeypatch.setattr(sequence, "make_windows_predict", lambda context, task: no_predictions)
    monkeypatch.setattr(sequence, "score_videos", lambda *given: {"macro_f1": 0.0})
    sequence.run(context)
    image, sound = {"image": (SIZE, SIZE, 3), "seen": ()}, {"features": (3,)}
    assert seen == {
        "sequence": image | sound, "sequence face": image, "sequence sound": sound,
    }  # fmt: skip
    for member, section in (("", True), ("face", True), ("sound", False)):
        _, saved = load_model(context.folder("sequence") / member / "model")
        assert saved["sequence"]["pixels"] is section and ("encoder" in saved) is section
        assert saved["features"]["width"] == (0 if member == "face" else 3)


def no_predictions(windows, reader, params, model_state):
    return {
        windows.videos[v]: np.full((ROWS, 8), 1 / 8, np.float32) for v in np.unique(windows.video)
    }


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"pixels": False, "frozen_blocks": 1}, "frozen_blocks: 1 without an encoder to train"),
        ({"frozen_blocks": 3}, "frozen_blocks: 3; expected 0 to config.encoder.depth = 2"),
        ({"frozen_blocks": -1}, "frozen_blocks: -1; expected 0 to"),
        ({"encoder_from": "scratch"}, "encoder_from: 'scratch'; expected one of finetune, pre"),
        ({"modalities": ("sound", "face")}, r"modalities: \('sound', 'face'\) with pixels; .* fir"),
        ({"modalities": ("face", "eyes_mouth")}, "modalities: .* of further views of it none, or"),
        ({"modalities": ("sound",)}, "modalities: .* with pixels; expected 'face' as the first"),
    ],
)
def test_values_that_cannot_be_are_named(changes, named):
    config = expr.get_config("tiny").unlock()
    config.finetune.views = ("face", "eyes_mouth")
    config.sequence.pixels = True
    config.sequence.optimizer.layer_decay = 0.8
    check_config(config, make_mesh())
    config.sequence.update(changes)
    with pytest.raises(InputError, match=f"^config.sequence.{named}"):
        check_config(config, make_mesh())


def test_there_is_nothing_to_start_from_without_pre_training():
    config = expr.get_config("tiny").unlock()
    config.sequence.update(pixels=True, encoder_from="pretrain")
    config.pretrain.epochs = 0.0
    with pytest.raises(InputError, match="^config.sequence.encoder_from: 'pretrain': nothing is"):
        check_config(config, make_mesh())
