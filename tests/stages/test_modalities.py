"""Stores of sound, words and supplied features: what they hold, resuming, what readers see."""

import contextlib
import shutil

import cv2
import jax
import ml_collections
import numpy as np
import pytest

from abaw_jax.data import sound
from abaw_jax.data.demo.container import write_container
from abaw_jax.data.features import FeatureStore, save_feature_settings, save_features
from abaw_jax.data.media import RATE
from abaw_jax.data.records import Split, Video, load_index, write_corpus
from abaw_jax.data.windows import make_feature_reader
from abaw_jax.errors import InputError
from abaw_jax.interop.archive import save_model
from abaw_jax.recipe import Context
from abaw_jax.stages import modalities
from abaw_jax.stages.check import check_config, check_prepared
from abaw_jax.stages.stores import make_supplied
from abaw_jax.training.partition import make_mesh
from configs import va

VIDEOS = {"train": ("1_left", "1_right", "2", "3", "4"), "validation": ("5", "6")}
ROWS = 12
SAID = {"1_left": "stop it", "2": "stop now", "3": "stop it now", "4": "", "5": "it", "6": "huh"}
WIDTH = sound.width(whole=False)
ALL = ("face", "sound", "words", "extra")


def tone(pitch):
    wave = np.sin(2 * np.pi * pitch * np.arange(RATE) / RATE)
    return (9000 * wave * np.linspace(0.2, 1, RATE)).astype(np.int16)


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    """Records, recordings, transcripts and a supplied store, as a user and `prepare` leave them."""
    workdir = tmp_path_factory.mktemp("modalities")
    config, root = va.get_config("tiny").unlock(), workdir / "corpus"
    config.corpus.root = str(root)
    config.extract.stores = ml_collections.ConfigDict({"extra": "extra"})
    config.sequence.modalities = ALL
    config.encoder.width = 4
    image = cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    frames = [(number, image) for number in range(1, ROWS)]
    labels = np.zeros((ROWS, 2), np.float32)
    splits = [
        Split(split, [Video(name, frames, ROWS, {"va": labels}) for name in names])
        for split, names in VIDEOS.items()
    ]
    records = workdir / "prepare" / "records"
    write_corpus(records, "test", splits, progress=False)
    (root / "batch1").mkdir(parents=True)
    pictures = np.zeros((ROWS - 1, 16, 16, 3), np.uint8)
    for name, pitch in {"1": 120, "2": 200, "3": None, "5": 150, "6": 0}.items():
        heard = None if pitch is None else tone(pitch)
        write_container(root / "batch1" / f"{name}.avi", pictures, 12, heard)
    (root / "transcripts").mkdir()
    for name, text in SAID.items():
        (root / "transcripts" / f"{name}.txt").write_text(text)
    for name in ("1_left", "2", "5"):
        save_features(root / "extra", name, np.array([3, 5]), np.array([[1.0, 7], [3, 7]]))
    save_feature_settings(root / "extra", encoder="mine", width=2, source_hash="x")
    save_model(workdir / "finetune" / "model", {"params": {"w": np.ones(1)}}, {})
    mesh = make_mesh((1, 1, 1), jax.devices()[:1])
    check_config(config, mesh)
    return Context(ml_collections.FrozenConfigDict(config), workdir, mesh)


@pytest.fixture(scope="module")
def without(context):
    splits = ["validation", "train"]
    return {name: modalities.extract_modality(context, name, splits) for name in ALL[1:]}


def store(context, name, split="train"):
    return FeatureStore(context.folder("extract") / name / split)


def test_what_lacks_is_counted(without):
    assert without == {"sound": 3, "words": 2, "extra": 4}  # 6 is silent, 3 without track, 4 absent


def test_sound_and_words_have_a_row_a_row(context, without):
    assert store(context, "sound").read("1_left").shape == (ROWS, WIDTH)
    assert store(context, "words").read("2").shape == (ROWS, 2)  # "stop", in three texts, and 1
    assert store(context, "sound").read("3").shape == (0, WIDTH)
    one, two = (store(context, "sound").read(v) for v in ("1_left", "1_right"))
    np.testing.assert_array_equal(one, two)
    vocabulary = store(context, "words", "validation").settings["vocabulary"]
    assert vocabulary["words"] == ["stop"]


@pytest.mark.parametrize("name", ["mfcc", "prosody"])
def test_further_features_of_sound(context, name):
    make, settings = modalities.MAKERS[name](context)
    values = make("1_left", ROWS)
    assert values.shape == (ROWS, settings["width"]) and values[:, -1].all()
    assert make("3", ROWS) is None and make("6", ROWS) is None
    config = ml_collections.ConfigDict(context.config.to_dict())
    config.extract.steps = ml_collections.ConfigDict({name: 3})
    other = Context(ml_collections.FrozenConfigDict(config), context.workdir, context.mesh)
    assert modalities.MAKERS[name](other)[0]("1_left", ROWS).shape == (3, settings["width"])


def test_supplied_rows_are_of_the_frame_before(context, without):
    values = store(context, "extra").read("2")
    assert values[:, 0].tolist() == [1] * 4 + [3] * 8 and values[:, -1].tolist() == [1] * ROWS


@pytest.mark.parametrize(("last", "fits"), [(1, False), (10, True), (16, True), (40, False)])
def test_a_store_of_other_frames_is_refused(context, tmp_path, last, fits):
    """Of 12 rows half may be without features, or as many features without rows."""
    save_features(tmp_path, "2", np.array([last]), np.ones((1, 1)))
    save_feature_settings(tmp_path, encoder="mine", width=1, source_hash="x")
    config = ml_collections.ConfigDict(context.config.to_dict())
    config.extract.stores, config.corpus.max_unmatched = {"extra": str(tmp_path)}, 2
    other = Context(ml_collections.FrozenConfigDict(config), context.workdir, context.mesh)
    make, _ = make_supplied(other, "extra")
    if fits:
        assert make("2", ROWS).shape == (ROWS, 2)
        return
    with pytest.raises(InputError, match=rf"2.npz: its last frame is {last}, .* 12 rows; number"):
        make("2", ROWS)
    config.extract.steps = ml_collections.ConfigDict({"extra": 3})  # rows that are no frames
    other = Context(ml_collections.FrozenConfigDict(config), context.workdir, context.mesh)
    make, _ = make_supplied(other, "extra")
    assert make("2", ROWS).tolist() == [[1, 1]]


def test_a_store_without_any_training_video_is_refused(context, tmp_path):
    save_features(tmp_path, "5", np.array([1]), np.ones((1, 1)))
    save_feature_settings(tmp_path, encoder="mine", width=1, source_hash="x")
    config = ml_collections.ConfigDict(context.config.to_dict())
    config.extract.stores = {"extra": str(tmp_path)}
    other = Context(ml_collections.FrozenConfigDict(config), tmp_path / "run", context.mesh)
    other.workdir.mkdir()
    other.folder("prepare").symlink_to(context.folder("prepare"))
    with pytest.raises(InputError, match="no training video has any extra; leave it out of"):
        modalities.extract_modality(other, "extra", ["validation", "train"])


def timed(context, folder, rate, counts, track="va"):
    """A context whose store has `rate` rows a second: video -> how many, counted from 1."""
    for name, count in counts.items():
        save_features(folder, name, np.arange(1, count + 1), np.arange(1.0, count + 1)[:, None])
    save_feature_settings(folder, encoder="mine", width=1, source_hash="x", rate=rate)
    config = ml_collections.ConfigDict(context.config.to_dict())
    config.track, config.extract.stores = track, ml_collections.ConfigDict({"timed": str(folder)})
    other = Context(ml_collections.FrozenConfigDict(config), folder / "run", context.mesh)
    other.workdir.mkdir()
    other.folder("prepare").symlink_to(context.folder("prepare"))
    return other


def test_rows_a_second_lie_at_their_time(context, tmp_path):
    """Recording 2 has 11 pictures, 12 a second; of 4 there is none; 1 is covered whole."""
    other = timed(context, tmp_path, 4.0, {"2": 2, "4": 2, "1_left": 9})
    assert modalities.extract_modality(other, "timed", ["train"]) == 2
    found = store(other, "timed")
    assert found.read("2").tolist() == [[1, 1]] * 3 + [[2, 1]] * 5 + [[0, 0]] * 4
    assert found.read("4").tolist() == [[1, 1]] * 6 + [[2, 1]] * 6
    assert found.read("1_left")[:, 0].tolist() == [1] * 3 + [2] * 3 + [3] * 3 + [4] * 3
    there = np.concatenate([found.read(video) for video in ("2", "4", "1_left")])
    there = there[there[:, 1] == 1, 0]
    assert found.settings["mean"] == [pytest.approx(there.mean()), 0]
    assert found.settings["deviation"] == [pytest.approx(there.std()), 1]
    seen = make_feature_reader(["2"], [found])(0, np.arange(ROWS), None)["features"]
    assert not seen[8:].any() and seen[:8].all()


def test_a_clip_that_outlasts_its_store_is_not_stretched_over(context, tmp_path):
    """Rows of a clip share out what its sound lasts, of which 3 has none; 6 is silent."""
    other = timed(context, tmp_path, 4.0, {"2": 2, "3": 2, "6": 2}, "emi")
    modalities.extract_modality(other, "timed", ["train", "validation"])
    expected = [1] * 3 + [2] * 4 + [0] * 5
    assert store(other, "timed").read("2")[:, 0].tolist() == expected
    assert store(other, "timed", "validation").read("6")[:, 0].tolist() == expected
    assert store(other, "timed").read("3")[:, 0].tolist() == [1] * 6 + [2] * 6


@pytest.mark.parametrize("rate", [0, -50.0, "fast"])
def test_a_rate_that_is_none_is_refused(context, tmp_path, rate):
    other = timed(context, tmp_path, rate, {"2": 2})
    with pytest.raises(InputError, match=r"features.json: rate is .*; expected rows a second"):
        modalities.extract_modality(other, "timed", ["train"])


def stepped(context, folder, steps, track="emi"):
    """A context whose modalities have time axes of their own."""
    config = ml_collections.ConfigDict(context.config.to_dict())
    config.track, config.sequence.model = track, "gru"
    config.extract.steps = ml_collections.ConfigDict(steps)
    other = Context(ml_collections.FrozenConfigDict(config), folder / "run", context.mesh)
    other.workdir.mkdir()
    other.folder("prepare").symlink_to(context.folder("prepare"))
    return other


def test_modalities_with_steps_have_rows_of_their_own(context, tmp_path):
    """One a word, the first ones; every 20 ms of sound and as supplied, averaged to so many."""
    other = stepped(context, tmp_path, {"words": 2, "sound": 3, "extra": 2})
    for name, lacking in (("words", 2), ("sound", 2), ("extra", 3)):
        assert modalities.extract_modality(other, name, ["train"]) == lacking
    words = store(other, "words")
    assert [len(words.read(v)) for v in ("1_left", "3", "1_right")] == [2, 2, 0]
    np.testing.assert_array_equal(words.read("1_left"), [[1, 1], [1, 1]])
    np.testing.assert_array_equal(store(other, "extra").read("2"), [[1, 7, 1], [3, 7, 1]])
    heard = store(other, "sound").read("1_left")
    assert heard.shape == (3, sound.width(whole=True)) and heard[:, -1].all()
    whole = sound.sound_features(tone(120), (np.arange(50) + 0.5) / 50, whole=True)
    parts = [whole[a:b].mean(0) for a, b in ((0, 16), (16, 33), (33, 50))]
    np.testing.assert_allclose(heard, parts, rtol=0.02, atol=0.02)
    for name, steps in (("words", 2), ("sound", 3), ("extra", 2)):
        assert store(other, name).settings["steps"] == steps


def test_rows_of_no_known_time_are_not_averaged(context, tmp_path):
    other = stepped(context, tmp_path, {"extra": 1})
    with pytest.raises(InputError, match=r"extra/1_left.npz: 2 rows, .*extract.steps.extra = 1"):
        modalities.extract_modality(other, "extra", ["train"])
    folder = tmp_path / "timed"
    save_features(folder, "2", np.arange(1, 5), np.array([[1.0], [2], [3], [6]]))
    save_feature_settings(folder, encoder="mine", width=1, source_hash="x", rate=50.0)
    config = ml_collections.ConfigDict(other.config.to_dict())
    config.extract.update(stores={"timed": str(folder)}, steps={"timed": 2})
    other = Context(ml_collections.FrozenConfigDict(config), other.workdir, context.mesh)
    assert modalities.extract_modality(other, "timed", ["train"]) == len(VIDEOS["train"]) - 1
    np.testing.assert_array_equal(store(other, "timed").read("2"), [[1.5, 1], [4.5, 1]])


def test_readers_see_training_statistics_and_zeros(context, without):
    names = ALL[1:]
    index = load_index(context.folder("prepare") / "records", "train")
    stores = [store(context, name) for name in names]
    read, rows = make_feature_reader(index.videos, stores), np.arange(ROWS)
    seen = [read(v, rows, None)["features"] for v in range(len(index.videos))]
    heard = np.concatenate([s[:, : WIDTH - 1] for s in seen if s[0, WIDTH - 1]])
    np.testing.assert_allclose(heard.mean(0), 0, atol=1e-4)
    assert set(np.round(heard.std(0), 3)) <= {0.0, 1.0} and heard.std(0).max() > 0.9
    assert not seen[3][:, :WIDTH].any() and not seen[4].any()
    validation = store(context, "sound", "validation").settings
    assert validation["mean"] == stores[0].settings["mean"]


def test_an_interrupted_pass_ends_with_the_same_files(context, without, tmp_path):
    other = Context(context.config, tmp_path, context.mesh)
    other.folder("prepare").symlink_to(context.folder("prepare"))
    shutil.copytree(context.folder("extract") / "sound", other.folder("extract") / "sound")
    files = {p.name: p for p in (other.folder("extract") / "sound" / "train").iterdir()}
    for name in ("features.json", "2.npz", "4.npz"):
        files[name].unlink()
    kept = files["3.npz"].stat().st_mtime_ns
    assert modalities.extract_modality(other, "sound", ["train", "validation"]) == without["sound"]
    for name, path in files.items():
        whole = context.folder("extract") / "sound" / "train" / name
        assert path.read_bytes() == whole.read_bytes(), name
    assert files["3.npz"].stat().st_mtime_ns == kept


def test_models_are_told_of_every_store(context, without):
    encoder = modalities.content_hash(context.folder("finetune") / "model")
    index = load_index(context.folder("prepare") / "records", "train")
    folder = context.folder("extract") / "features" / "train"
    settings = {"encoder": encoder, "width": 4, "source_hash": index.content_hash()}
    save_feature_settings(folder, **settings)
    described = modalities.describe_features(context)
    assert list(described["modalities"]) == list(ALL)
    assert described["width"] == 4 + WIDTH + 2 + 3
    assert len(described["modalities"]["sound"]["mean"]) == WIDTH
    config = ml_collections.ConfigDict(context.config.to_dict())
    config.sequence.modalities = ("face",)
    alone = Context(ml_collections.FrozenConfigDict(config), context.workdir, context.mesh)
    assert modalities.describe_features(alone) == {"encoder": encoder, "width": 4}


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        (
            "media",
            ("nowhere",),
            r"config.extract.media: no recording in .*nowhere; .* leave 'sound'",
        ),
        (
            "transcripts",
            ("nowhere",),
            r"config.extract.transcripts: no transcript in .* leave 'words' out",
        ),
    ],
)
def test_a_modality_that_nothing_is_of_is_refused(context, key, value, words, tmp_path):
    config = ml_collections.ConfigDict(context.config.to_dict())
    config.extract[key] = value
    other = Context(ml_collections.FrozenConfigDict(config), tmp_path, context.mesh)
    other.folder("prepare").symlink_to(context.folder("prepare"))
    name = {"media": "sound", "transcripts": "words"}[key]
    with pytest.raises(InputError, match=words):
        modalities.extract_modality(other, name, ["train"])


@pytest.mark.parametrize("name", ["sound", "all", "sequence", "fold2", "scene_x", "members_va"])
def test_a_store_named_as_something_else_is_refused(context, name):
    config = ml_collections.ConfigDict(context.config.to_dict())
    config.extract.stores = {name: "extra"}
    config.sequence.modalities = ("face",)
    with pytest.raises(InputError, match=rf"config.extract.stores: '{name}' is taken"):
        check_config(config, context.mesh)
    config.extract.stores = {"folded_scene": "extra"}
    config.sequence.modalities = ("folded_scene",)
    check_config(config, context.mesh)
    config.sequence.apart = True
    with pytest.raises(InputError, match=r"config.sequence.apart: .* beside one of folded_scene"):
        check_config(config, context.mesh)


def test_what_a_modality_is_made_from_is_looked_for_before_any_work(context):
    config = ml_collections.ConfigDict(context.config.to_dict())
    config.extract.transcripts = ("nowhere",)
    with pytest.raises(InputError, match=r"config.extract.transcripts: no transcript in .*nowhere"):
        check_config(config, context.mesh)
    config.sequence.modalities = ("face", "sound")
    check_config(config, context.mesh)


def test_a_store_that_is_none_is_refused_at_once(context):
    config = ml_collections.ConfigDict(context.config.to_dict())
    config.extract.stores.extra = "elsewhere"
    with pytest.raises(InputError, match=r"extract.stores.extra: .*elsewhere has no features.json"):
        check_config(config, context.mesh)
    config.sequence.modalities = ("face",)
    check_config(config, context.mesh)


@pytest.mark.parametrize(
    ("file", "steps", "message"),
    [
        ("2", {}, None),
        ("9", {}, "no training video has any mine"),
        ("2", {"mine": 1}, "2.npz: 2 rows, of no known `rate` a second; expected at most"),
        ("text", {}, "2.npz: is no feature file"),
        ("wide", {}, "2.npz: values are 3 wide, features.json says 2"),
        ("late", {}, "2.npz: its last frame is 90, and the video has 12 rows"),
    ],
)
def test_a_store_is_held_against_the_prepared_videos(context, tmp_path, file, steps, message):
    path = tmp_path / f"{file if file == '9' else '2'}.npz"
    numbers = np.array([3, 90 if file == "late" else 8])
    save_features(tmp_path, path.stem, numbers, np.ones((2, 3 if file == "wide" else 2)))
    if file == "text":
        path.write_text("text")
    save_feature_settings(tmp_path, encoder="mine", width=2, source_hash="x")
    config = ml_collections.ConfigDict(context.config.to_dict())
    config.corpus.max_unmatched = 2
    config.sequence.modalities = ("face", "mine")
    config.extract.update(stores={"mine": str(tmp_path)}, steps=steps)
    other = Context(ml_collections.FrozenConfigDict(config), context.workdir, context.mesh)
    with pytest.raises(InputError, match=message) if message else contextlib.nullcontext():
        check_prepared(other)


def test_a_store_beside_the_demo_corpus_is_looked_for_where_that_is_drawn(context, tmp_path):
    config = ml_collections.ConfigDict(context.config.to_dict())
    config.corpus.root, config.sequence.modalities = "", ("face", "extra")
    check_config(config, context.mesh)
    other = Context(ml_collections.FrozenConfigDict(config), tmp_path, context.mesh)
    place = other.folder("prepare")
    place.mkdir()
    (place / "records").symlink_to(context.folder("prepare") / "records")
    with pytest.raises(InputError, match=rf"{place}/demo/extra has no features.json"):
        check_prepared(other)


@pytest.mark.parametrize("names", [(), ("face", "face"), ("face", "smell")])
def test_unknown_modalities_are_named(context, names):
    config = ml_collections.ConfigDict(context.config.to_dict())
    config.sequence.modalities = names
    with pytest.raises(
        InputError, match=r"sequence.modalities: .*sound, mfcc, prosody, words, extra"
    ):
        check_config(config, context.mesh)
