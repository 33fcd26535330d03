"""The modalities `wav2vec2` and `vggish`: a given encoder's states at rows, and of clips."""

import json
import shutil

import cv2
import jax
import ml_collections
import numpy as np
import pytest

from abaw_jax.data.acoustics import log_mel_patches
from abaw_jax.data.clips import average_rows
from abaw_jax.data.demo.container import write_container
from abaw_jax.data.features import FeatureStore, save_feature_settings, save_features
from abaw_jax.data.media import RATE, read_sound
from abaw_jax.data.records import Split, Video, write_corpus
from abaw_jax.errors import InputError
from abaw_jax.interop.architectures import ARCHITECTURES, make_shapes
from abaw_jax.interop.archive import content_hash, save_model
from abaw_jax.models import wav2vec2
from abaw_jax.models.wav2vec2 import count_frames, encode_long
from abaw_jax.recipe import Context
from abaw_jax.stages import modalities
from abaw_jax.stages.check import check_config
from abaw_jax.stages.disk import FOUND
from abaw_jax.stages.sources import load_encoder
from abaw_jax.training.partition import make_mesh
from configs import va
from tests.golden.sound_weights import draw_samples

# 1 is longer than a block of either encoder; 2 has no audio track, 3 is silent, of 4 there is none;
# of 6 there is not a patch, of 7 not a frame of sound.
SECONDS = {"1": 25.0, "2": None, "3": 1.0, "5": 3.0, "6": 0.5, "7": 0.02}
VIDEOS = {"train": ("1", "2", "3", "4"), "validation": ("5", "6", "7")}
ROWS = 27  # one a second, of which 1 has a picture less, and sound of all but the last two
SIZES = {
    "wav2vec2": {
        "width": 8, "depth": 1, "heads": 2, "extractor_norm": "layer", "conv_bias": True,
        "norm_first": True, "position_kernel": 4, "position_groups": 2, "mlp_ratio": 2.0,
        "conv_width": 4, "masking": False, "model_type": "hubert", "normalise": True,
    },
    "vggish": {"widths": [2, 3, 4, 5], "hidden": 6, "embedding": 7, "activate": True},
}  # fmt: skip
NAMES = tuple(SIZES)


def save_encoder(folder, name, seed=0):
    rng = np.random.default_rng(seed)
    shapes = make_shapes(ARCHITECTURES[name], SIZES[name])
    variables = jax.tree.map(lambda leaf: rng.normal(0, 0.5, leaf.shape).astype("f4"), shapes)
    description = {"kind": "converted", "architecture": name, "model": SIZES[name]}
    save_model(folder, variables, description)


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    """Records, recordings and encoders, as a user and `prepare` leave them."""
    workdir = tmp_path_factory.mktemp("hearing")
    image = cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    labels = {"va": np.zeros((ROWS, 2), np.float32)}
    splits = [
        Split(split, [Video(name, [(1, image)], ROWS, labels) for name in names])
        for split, names in VIDEOS.items()
    ]
    write_corpus(workdir / "prepare" / "records", "test", splits, progress=False)
    (workdir / "corpus" / "batch1").mkdir(parents=True)
    pictures = np.zeros((ROWS - 1, 16, 16, 3), np.uint8)
    for seed, (name, seconds) in enumerate(SECONDS.items()):
        sound = None if seconds is None else draw_samples(round(seconds * RATE), seed)
        sound = 0 * sound if name == "3" else sound
        write_container(workdir / "corpus" / "batch1" / f"{name}.avi", pictures, 1, sound)
    config = va.get_config("tiny").unlock()
    config.corpus.root = str(workdir / "corpus")
    config.sequence.modalities = ("face", *NAMES)
    for name in NAMES:
        save_encoder(workdir / name, name)
        config.extract[name] = str(workdir / name)
    mesh = make_mesh((1, 1, 1), jax.devices()[:1])
    check_config(config, mesh)
    return Context(ml_collections.FrozenConfigDict(config), workdir, mesh)


def changed(context, folder=None, **extract):
    """The same with other keys of `extract`, of clips where `steps` are given, in a new folder."""
    config = ml_collections.ConfigDict(context.config.to_dict())
    if "steps" in extract:
        config.track, config.sequence.model = "emi", "gru"
    config.extract.update(extract)
    config = ml_collections.FrozenConfigDict(config)
    other = Context(config, folder or context.workdir, context.mesh)
    if folder:
        other.folder("prepare").symlink_to(context.folder("prepare"))
    return other


def heard(context, video):
    return read_sound(context.workdir / "corpus" / "batch1" / f"{video}.avi").samples


def states(context, name, samples, **options):
    """All of an encoder's states."""
    model, variables, _ = load_encoder(context.config.extract[name], name, name)
    if name == "vggish":
        return np.asarray(jax.jit(model.apply)(variables, log_mel_patches(samples)))
    return np.concatenate(list(encode_long(model, variables["params"], samples, **options)))


def same(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(("name", "rate"), [("wav2vec2", 50), ("vggish", 1 / 0.96)])
def test_rows_have_the_state_in_whose_time_they_are_seen(context, name, rate):
    make, settings = modalities.MAKERS[name](context)
    found, whole = make("1", ROWS), states(context, name, heard(context, "1"))
    times = [*range(ROWS - 1), ROWS - 2]  # the last row stays with the last picture
    assert len(whole) == {"wav2vec2": 1249, "vggish": 26}[name]
    expected = whole[[min(int(time * rate), len(whole) - 1) for time in times]]
    assert found.shape == (ROWS, settings["width"]) and found.dtype == np.float32
    assert found[:, -1].tolist() == [1.0] * 25 + [0, 0] and not found[25:].any()
    same(found[:25, :-1], expected[:25])
    assert len({row.tobytes() for row in found[:25]}) == 25
    assert settings["encoder"] == content_hash(context.workdir / name)


def test_videos_of_which_nothing_is_heard_are_counted(context, tmp_path):
    other = changed(context, tmp_path)
    without = {"wav2vec2": "2347", "vggish": "23467"}
    for name, videos in without.items():
        found = modalities.extract_modality(other, name, ["train", "validation"])
        assert found == len(videos)
        for split, own in VIDEOS.items():
            store = FeatureStore(other.folder("extract") / name / split)
            assert [len(store.read(v)) for v in own] == [0 if v in videos else ROWS for v in own]
            assert len(store.settings["mean"]) == store.width


@pytest.mark.parametrize(("name", "steps"), [("wav2vec2", 9), ("wav2vec2", 700), ("vggish", 5)])
def test_clips_have_their_first_states_or_means_of_them(context, name, steps):
    """Of 12 s, in one block."""
    make, _ = modalities.MAKERS[name](changed(context, steps={name: steps}))
    whole = states(context, name, heard(context, "1")[: 12 * RATE], **(
        {"block": count_frames(12 * RATE)} if name == "wav2vec2" else {}
    ))  # fmt: skip
    found = make("1", 7)
    assert found.shape == (min(steps, len(whole)), whole.shape[1] + 1) and found[:, -1].all()
    same(found[:, :-1], average_rows(whole, steps))
    assert make("2", 7) is None and make("3", 7) is None and make("7", 7) is None


def test_one_program_does_for_all_recordings(context):
    make, _ = modalities.MAKERS["wav2vec2"](context)
    before = wav2vec2._encode_block._cache_size()
    assert all(make(video, ROWS) is not None for video in "156")
    assert wav2vec2._encode_block._cache_size() <= before + 1


def test_other_weights_are_another_encoder(context, tmp_path):
    looked = FOUND["extract"](context)
    folder = str(tmp_path / "wav2vec2")
    save_encoder(tmp_path / "wav2vec2", "wav2vec2", seed=1)
    other = changed(context, wav2vec2=folder)
    assert {context.config.extract.vggish, folder} <= FOUND["extract"](other).keys() - {
        context.config.extract.wav2vec2
    }
    assert context.config.extract.wav2vec2 in looked
    names = {modalities.MAKERS["wav2vec2"](c)[1]["encoder"] for c in (context, other)}
    assert len(names) == 2
    before = FOUND["extract"](other)[folder]
    save_encoder(tmp_path / "wav2vec2", "wav2vec2", seed=2)
    assert FOUND["extract"](other)[folder] != before


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", None, "config.extract.vggish: .* has no config.json; name a folder with"),
        ("config.json", {"architecture": "wav2vec2"}, "'wav2vec2'}; expected a vggish encoder"),
        ("config.json", {"model": {}}, "config.json: no vggish encoder can be made of it"),
        (
            "config.json",
            {"model": SIZES["vggish"] | {"embedding": 9}},
            "another architecture: params/dense_4/bias is",
        ),
        ("model.safetensors", "text", "model.safetensors: cannot be read"),
    ],
)
def test_what_is_no_encoder_is_refused_before_any_work(context, tmp_path, file, content, message):
    folder = tmp_path / "encoder"
    shutil.copytree(context.config.extract.vggish, folder)
    if isinstance(content, dict):
        content = json.dumps(json.loads((folder / "config.json").read_text()) | content)
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_text(content)
    with pytest.raises(InputError, match=message):
        check_config(changed(context, vggish=str(folder)).config, context.mesh)


def test_a_name_without_encoder_may_be_a_store(context, tmp_path):
    with pytest.raises(InputError, match=r"modalities: .*extract.vggish names the encoder of vgg"):
        check_config(changed(context, vggish="").config, context.mesh)
    save_features(tmp_path, "1", np.arange(1, ROWS), np.ones((ROWS - 1, 1)))
    save_feature_settings(tmp_path, encoder="mine", width=1, source_hash="x")
    stores = {"vggish": str(tmp_path)}
    check_config(changed(context, vggish="", stores=stores).config, context.mesh)
    with pytest.raises(InputError, match=r"extract.stores: 'vggish' is taken"):
        check_config(changed(context, stores=stores).config, context.mesh)
    config = ml_collections.ConfigDict(context.config.to_dict())
    config.extract.media = ("nowhere",)
    with pytest.raises(InputError, match=r"extract.media: no recording in .*leave 'wav2vec2' out"):
        check_config(config, context.mesh)
