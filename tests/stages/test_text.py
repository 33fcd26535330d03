"""The modality `text`: a given encoder's states at rows, and of clips; what is refused."""

import json
import shutil

import cv2
import jax
import ml_collections
import numpy as np
import pytest

from abaw_jax.data.demo.container import write_container
from abaw_jax.data.features import FeatureStore, save_feature_settings, save_features
from abaw_jax.data.media import RATE
from abaw_jax.data.records import Split, Video, write_corpus
from abaw_jax.data.tokens import FITTED, fit_tokenizer
from abaw_jax.errors import InputError
from abaw_jax.interop.archive import save_model
from abaw_jax.interop.keys.bert import read_architecture
from abaw_jax.models.bert import BertEncoder
from abaw_jax.recipe import Context
from abaw_jax.stages import modalities, text_training
from abaw_jax.stages.check import check_config, check_prepared
from abaw_jax.stages.disk import FOUND
from abaw_jax.stages.text import count_cut, open_text_encoder
from abaw_jax.training.partition import make_mesh
from configs import va
from tests.golden import bert_inputs

VIDEOS = {"train": ("1", "2", "3", "4"), "validation": ("5",)}
ROWS = 12
LONG = "stop it please joys x unstoppable it stop 7 naïve stop it x"
SAID = {
    "1.csv": "word,start,end\nunstoppable,0.08,0.3\n\u200b,0.4,0.5\njoys,0.5,0.6\n",
    "2.srt": "1\n00:00:01,000 --> 00:00:02,000\nStop it\n",  # without recording
    "3.txt": LONG,
    "4.txt": " ",
    "5.txt": "please",
}
SIZES = read_architecture(bert_inputs.size("bert") | {"vocab_size": 25}, "a")
DESCRIPTION = {"kind": "converted", "architecture": "bert", "model": SIZES}
MODEL = BertEncoder(**SIZES)
APPLY = jax.jit(MODEL.apply)
MOST = 10  # tokens at once, of 12 positions


@pytest.fixture(scope="module")
def variables():
    ids = np.zeros((1, 1), np.int32)
    return jax.jit(MODEL.init)(jax.random.key(0), ids, ids == 0)


@pytest.fixture(scope="module")
def context(tmp_path_factory, variables):
    """Records, a recording, transcripts and an encoder, as a user and `prepare` leave them."""
    workdir = tmp_path_factory.mktemp("text")
    root, encoder = workdir / "corpus", workdir / "encoder"
    image = cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    labels = {"va": np.zeros((ROWS, 2), np.float32)}
    splits = [
        Split(split, [Video(name, [(1, image)], ROWS, labels) for name in names])
        for split, names in VIDEOS.items()
    ]
    write_corpus(workdir / "prepare" / "records", "test", splits, progress=False)
    (root / "batch1").mkdir(parents=True)
    pictures, sound = np.zeros((ROWS - 1, 16, 16, 3), np.uint8), np.ones(RATE, np.int16)
    write_container(root / "batch1" / "1.avi", pictures, 12, sound)
    (root / "transcripts").mkdir()
    for name, text in SAID.items():
        (root / "transcripts" / name).write_text(text, encoding="utf-8")
    save_model(encoder, variables, DESCRIPTION)
    bert_inputs.write_pieces(encoder)
    config = va.get_config("tiny").unlock()
    config.corpus.root, config.extract.text = str(root), str(encoder)
    config.sequence.modalities = ("face", "text")
    mesh = make_mesh((1, 1, 1), jax.devices()[:1])
    check_config(config, mesh)
    return Context(ml_collections.FrozenConfigDict(config), workdir, mesh)


def changed(context, folder=None, **extract):
    """The same with other keys of `extract`, of clips where `steps` are given, in a new folder."""
    config = ml_collections.ConfigDict(context.config.to_dict())
    if "steps" in extract:
        config.track, config.sequence.model = "emi", "gru"
    config.extract.update(extract)
    other = Context(
        ml_collections.FrozenConfigDict(config), folder or context.workdir, context.mesh
    )
    if folder:
        other.folder("prepare").symlink_to(context.folder("prepare"))
    return other


def states(variables, *pieces):
    """The last states of these pieces, alone: (n, width)."""
    ids = [bert_inputs.PIECES.index(piece) for piece in ("[CLS]", *pieces, "[SEP]")]
    ids = np.array([ids], np.int32)
    found, _ = APPLY(variables, ids, ids >= 0)
    return np.asarray(found[-1][0, 1:-1])


PIECES = ("un", "##stop", "##pa", "##ble", "joy", "##s")
LONG_PIECES = ("stop", "it", "please", "joy", "##s", "x", *PIECES[:4], "it", "stop", "7", "nai",
               "##ve", "stop", "it", "x")  # fmt: skip


def same(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


def test_rows_have_the_word_that_is_being_said(context, variables):
    check_prepared(context)
    assert modalities.extract_modality(context, "text", ["train", "validation"]) == 1
    store = FeatureStore(context.folder("extract") / "text" / "train")
    found = store.read("1")  # rows are seen every 1/12 s; one more than there are pictures
    one, two = np.split(states(variables, *PIECES), [4])
    assert found[:, -1].tolist() == [0, 1, 1, 1, 0, 0, 1, 1, 0, 0, 0, 0]
    same(found[1:4, :-1], np.tile(one.mean(0), (3, 1)))
    same(found[6:8, :-1], np.tile(two.mean(0), (2, 1)))
    assert not found[found[:, -1] == 0].any()
    found = store.read("2")  # without a recording its times mean nothing
    same(found[:, :-1], np.repeat(states(variables, "stop", "it"), 6, axis=0))
    assert store.read("4").shape == (0, SIZES["width"] + 1)
    assert len(store.settings["mean"]) == SIZES["width"] + 1


def test_a_long_text_of_a_video_is_encoded_in_parts(context, variables):
    make, settings = modalities.MAKERS["text"](context)
    parts = LONG_PIECES[:MOST], LONG_PIECES[MOST:]
    whole = np.concatenate([states(variables, *part) for part in parts])
    found = make("3", 13)[:, :-1]  # a row a word
    same(found[[0, 1, 2, 4]], whole[[0, 1, 2, 5]])
    same(found[5], whole[6:10].mean(0))
    same(found[9], whole[13:15].mean(0))
    same(found[12], whole[17])
    assert settings["width"] == SIZES["width"] + 1


def test_clips_have_their_mean_or_a_row_a_token(context, variables, tmp_path):
    first = states(variables, *LONG_PIECES[:MOST])
    mean, _ = modalities.MAKERS["text"](changed(context, steps={}))
    same(mean("3", 7), [[*first.mean(0), 1]])
    assert mean("4", 7) is None and mean("9", 7) is None
    for steps, count, cut in ((128, MOST, 1), (4, 4, 2), (18, MOST, 1)):
        other = changed(context, steps={"text": steps})
        rows, _ = modalities.MAKERS["text"](other)
        expected = states(variables, *LONG_PIECES[:count])
        same(rows("3", 7), np.pad(expected, ((0, 0), (0, 1)), constant_values=1))
        assert count_cut(other, ["train", "validation"]) == cut
    assert count_cut(context, ["train"]) == 0
    other = changed(context, tmp_path, steps={"text": 8})
    modalities.extract_modality(other, "text", ["train"])
    store = FeatureStore(other.folder("extract") / "text" / "train")
    assert store.settings["steps"] == 8 and len(store.read("3")) == 8


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("1.csv", "word,start,end\nstop,1500,1600\n", "1.csv: its first word is at 1500 s, the"),
        ("1.csv", "word,start,end\nstop,1,0\n", "1.csv:2: from 1 to 0 s; expected an end"),
        ("5.txt", b"gr\xfc\xdf", "5.txt: byte 2 is not UTF-8"),
        (None, None, "nothing is said in any training video; name other folders, or leave 'text'"),
    ],
)
def test_transcripts_that_cannot_be_are_refused(context, tmp_path, name, text, message):
    for file, said in ((SAID | {name: text}) if name else {"1.txt": "", "5.txt": "a"}).items():
        said = said.encode() if isinstance(said, str) else said
        (tmp_path / file).write_bytes(said)
    other = changed(context, transcripts=(str(tmp_path),))
    with pytest.raises(InputError, match=message):
        check_prepared(other)
        modalities.MAKERS["text"](other)[0]("1", ROWS)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", None, "config.extract.text: .* has no config.json; name a folder with"),
        ("config.json", {"kind": "mae"}, "config.json: .*'mae'.*; expected a text encoder"),
        ("config.json", {"model": {"width": 3}}, "config.json: no text encoder can be made of it"),
        ("config.json", {"model": SIZES | {"depth": 2}}, "another architecture: has params/layers"),
        ("vocab.txt", None, "has no tokenizer; expected tokenizer.json"),
        (
            "vocab.txt",
            "\n".join(bert_inputs.PIECES[:-1]),
            "tokenizer has 24 tokens, .* of 25; take",
        ),
        ("model.safetensors", "text", "model.safetensors: cannot be read"),
    ],
)
def test_what_is_no_encoder_is_refused_before_any_work(context, tmp_path, file, content, message):
    folder = tmp_path / "encoder"
    shutil.copytree(context.config.extract.text, folder)
    if isinstance(content, dict):
        content = json.dumps(DESCRIPTION | content)
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_text(content)
    with pytest.raises(InputError, match=message):
        check_config(changed(context, text=str(folder)).config, context.mesh)


def test_text_may_be_a_store_where_no_encoder_is_given(context, tmp_path):
    save_features(tmp_path, "1", np.arange(1, ROWS), np.ones((ROWS - 1, 1)))
    save_feature_settings(tmp_path, encoder="mine", width=1, source_hash="x")
    stores = {"text": str(tmp_path)}
    other = changed(context, text="", stores=stores)
    check_config(other.config, context.mesh)
    check_prepared(other)
    with pytest.raises(InputError, match=r"extract.stores: 'text' is taken"):
        check_config(changed(context, stores=stores).config, context.mesh)
    with pytest.raises(InputError, match=r"sequence.modalities: .*extract.text names the encoder"):
        check_config(changed(context, text="").config, context.mesh)


def test_padding_and_length_change_no_state(context, variables):
    encoder = open_text_encoder(context.config.extract.text)
    ids = encoder.tokenizer.cut(LONG.split()).ids
    assert encoder.most == MOST and len(ids) == len(LONG_PIECES)
    for count in (1, 3, MOST):
        same(encoder.states(ids[:count]), states(variables, *LONG_PIECES[:count]))


def test_what_the_stage_reads_is_looked_at(context):
    found = FOUND["extract"](context)
    assert {"batch1", "transcripts", context.config.extract.text} <= found.keys()


def test_a_small_encoder_is_trained_where_none_is_given(context, tmp_path, monkeypatch):
    """It is made of the training transcripts, once, and the same again after an interruption."""
    monkeypatch.setattr(text_training, "STEPS", 3)
    monkeypatch.setattr(text_training, "BATCH", 4)
    monkeypatch.setattr(text_training, "SIZES", {"tiny": SIZES | {"positions": 12}})
    other = changed(context, tmp_path, text="tiny")
    check_config(other.config, other.mesh)
    check_prepared(other)
    assert set(FOUND["extract"](other)) == {"batch1", "batch2", "new_vids", "transcripts"}
    other = changed(other, steps={"text": 8})
    modalities.extract_modality(other, "text", ["train", "validation"])
    store = FeatureStore(other.folder("extract") / "text" / "train")
    folder = other.folder("extract") / "text" / "encoder"
    encoder = open_text_encoder(folder)
    words = set(encoder.tokenizer.backend.get_vocab()) - set(FITTED)
    assert words == {"stop", "it"}  # said three times in the training set
    assert store.settings["encoder"] == encoder.name and len(store.read("3")) == 8
    assert count_cut(other, ["train"]) == 1
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "config.json").unlink()
    modalities.extract_modality(other, "text", ["train"])
    assert (folder / "model.safetensors").read_bytes() == weights


def test_batches_of_texts_follow_from_the_step(monkeypatch):
    monkeypatch.setattr(text_training, "BATCH", 6)
    tokenizer = fit_tokenizer(["a b c"], least=1)
    ids = [tokenizer.cut(text.split()).ids for text in ("a b c a b c a b c", "b", "c a")]
    given = dict(most=6, seed=0)
    whole = text_training.draw_texts(tokenizer, ids, **given, start_step=0, process=(0, 1))
    first, second = next(whole), next(whole)
    again = next(text_training.draw_texts(tokenizer, ids, **given, start_step=1, process=(1, 2)))
    assert first["tokens"].shape == (6, 6)
    for key in ("tokens", "seen"):
        np.testing.assert_array_equal(again[key], second[key][1::2])
    lengths = set(first["seen"].sum(axis=1).tolist() + second["seen"].sum(axis=1).tolist())
    assert lengths <= {3, 4, 6} and (first["tokens"][~first["seen"]] == tokenizer.padding).all()


def test_transcripts_without_a_word_said_again_train_nothing(context, tmp_path):
    with pytest.raises(InputError, match=r"config.extract.text: no word is said several times"):
        text_training.train_text_encoder(context, [["a"], ["b", "c"]], tmp_path)
