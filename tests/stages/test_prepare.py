"""The prepare stage: what it finds on disk, what it makes of it, how it fails."""

import errno
import os
import pathlib
import shutil

import cv2
import ml_collections
import numpy as np
import pytest

from abaw_jax.data.records import load_index
from abaw_jax.errors import InputError
from abaw_jax.recipe import Context
from abaw_jax.stages import prepare
from abaw_jax.training.partition import make_mesh
from configs import emi, expr

ROWS = 4


def draw(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((16, 16, 3), value, np.uint8))


def make_tree(root):
    """A corpus of one training and one validation video; everything is a minute old."""
    for split, video in (("Train_Set", "a"), ("Validation_Set", "b")):
        folder = root / "6th ABAW Annotations" / "EXPR_Recognition_Challenge" / split
        folder.mkdir(parents=True)
        rows = "\n".join(str(i % 8) for i in range(ROWS))
        (folder / f"{video}.txt").write_text(f"Neutral,Anger\n{rows}\n")
        for frame in range(1, ROWS + 1):
            draw(root / "cropped_aligned" / video / f"{frame:05d}.jpg", 20 * frame)
    (root / "cropped_aligned_new_50_vids").mkdir()
    for path in [root, *root.rglob("*")]:
        os.utime(path, (1.7e9, 1.7e9))
    return root


def make_context(workdir, root, **changes):
    config = expr.get_config("tiny").unlock()
    config.corpus.update(root=str(root), test_list="", test_example="")
    config.corpus.update(changes.pop("corpus", {}))
    config.pretrain.corpora = ml_collections.ConfigDict(changes.pop("corpora", {}))
    assert not changes
    return Context(ml_collections.FrozenConfigDict(config), workdir, make_mesh())


@pytest.fixture
def tree(tmp_path):
    return make_tree(tmp_path / "corpus")


@pytest.fixture
def context(tmp_path, tree):
    return make_context(tmp_path / "run", tree)


def test_located_joins_paths(context, tree):
    corpus = context.config.corpus.to_dict() | {"annotations": "/else/where", "test_list": "x.txt"}
    found = prepare.located(corpus)
    assert found == {
        "image_roots": [str(tree / n) for n in ("cropped_aligned", "cropped_aligned_new_50_vids")],
        "annotations": "/else/where",
        "test_list": str(tree / "x.txt"),
        "test_example": "",
    }


def test_located_wants_a_root(context):
    with pytest.raises(InputError, match=r"config.corpus.root is empty.*--config.corpus.root=DIR"):
        prepare.located(context.config.corpus.to_dict() | {"root": ""})


def label_file(tree):
    return next((tree / "6th ABAW Annotations").rglob("a.txt"))


def video_folder(tree):
    return tree / "cropped_aligned" / "a"


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        (lambda tree: None, False),
        (lambda tree: label_file(tree).write_text("Neutral\n0\n0\n0\n1\n"), True),
        (lambda tree: shutil.copy(label_file(tree), label_file(tree).with_name("c.txt")), True),
        (lambda tree: label_file(tree).unlink(), True),
        (lambda tree: draw(video_folder(tree) / "00005.jpg", 0), True),
        (lambda tree: (video_folder(tree) / "00002.jpg").unlink(), True),
        (lambda tree: draw(tree / "cropped_aligned_new_50_vids" / "c" / "00001.jpg", 0), True),
        (lambda tree: shutil.rmtree(tree / "cropped_aligned"), True),
        (lambda tree: (tree / "notes.txt").write_text("beside the corpus"), False),
    ],
    ids=[
        "nothing", "label file", "new label file", "label file gone", "new image", "image gone",
        "new video", "root gone", "file beside",
    ],
)  # fmt: skip
def test_a_change_on_disk_is_noticed(context, tree, change, seen):
    before = prepare.inputs(context)
    assert prepare.inputs(context) == before
    change(tree)
    assert (prepare.inputs(context) != before) == seen


def test_image_sets_are_looked_at(tmp_path, tree):
    draw(tmp_path / "faces" / "x" / "1.png", 9)
    os.utime(tmp_path / "faces" / "x", (1.7e9, 1.7e9))
    sets = {"web": {"kind": "image_folder", "root": str(tmp_path / "faces")}}
    context = make_context(tmp_path / "run", tree, corpora=sets)
    before = prepare.inputs(context)
    assert str(tmp_path / "faces") in before
    draw(tmp_path / "faces" / "x" / "2.png", 9)
    assert prepare.inputs(context) != before


@pytest.mark.parametrize("section", [{"root": "faces"}, 7, "faces"])
def test_image_sets_without_kind_are_named(tmp_path, tree, section):
    context = make_context(tmp_path / "run", tree, corpora={"web": section})
    with pytest.raises(InputError, match=r"config.pretrain.corpora.web: .*expected \{'kind'"):
        prepare.inputs(context)


def test_a_dangling_link_is_no_crash(context, tree):
    label_file(tree).with_name("gone.txt").symlink_to("nowhere.txt")
    (video_folder(tree) / "link").symlink_to("nowhere")
    assert prepare.inputs(context) == prepare.inputs(context)


def test_absent_root_is_one_line(tmp_path):
    context = make_context(tmp_path / "run", tmp_path / "none")
    assert set(prepare.inputs(context).values()) == {"absent"}
    with pytest.raises(InputError) as caught:
        prepare.run(context)
    assert str(tmp_path / "none" / "cropped_aligned") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_makes_records_and_image_sets(tmp_path, tree):
    draw(tmp_path / "faces" / "1.png", 9)
    sets = {"web": {"kind": "image_folder", "root": str(tmp_path / "faces"), "max_damaged": 3}}
    context = make_context(tmp_path / "run", tree, corpora=sets)
    made = prepare.run(context)
    assert made["metrics"] == {"train_images": ROWS, "validation_images": ROWS}
    assert made["samples"] == 2 * ROWS
    folder = context.folder("prepare")
    assert load_index(folder / "records", "validation").videos == ("b",)
    assert len(load_index(folder / "images" / "web", "train").frames) == 1
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
    assert prepare.run(context) == made
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()} == before


def test_an_absent_image_set_shows_before_anything_is_written(tmp_path, tree):
    sets = {"fer": {"kind": "fer2013", "path": str(tmp_path / "fer2013.csv")}}
    context = make_context(tmp_path / "run", tree, corpora=sets)
    with pytest.raises(InputError, match=r"fer2013.csv: does not exist"):
        prepare.run(context)
    assert not context.folder("prepare").exists()


def test_a_split_that_is_missing_is_named(context, tree):
    shutil.rmtree(label_file(tree).parent.with_name("Validation_Set"))
    with pytest.raises(InputError, match=r"6th ABAW Annotations: has no validation set; expected"):
        prepare.run(context)


@pytest.mark.parametrize(
    ("limit", "accepted"), [(0.0, False), (0.05, False), (0.2, True), (1.0, True)]
)
def test_limit_of_damaged_images(tmp_path, tree, limit, accepted):
    (video_folder(tree) / "00002.jpg").write_bytes(b"\xff\xd8\xff\xe0cut")  # one of eight
    context = make_context(tmp_path / "run", tree, corpus={"max_damaged": limit})
    if accepted:
        assert prepare.run(context)["metrics"]["train_images"] == ROWS - 1
    else:
        with pytest.raises(InputError, match=r"00002.jpg .*raise max_damaged"):
            prepare.run(context)


def test_limit_must_be_a_number():
    with pytest.raises(InputError, match=r"max_damaged: '5%'; expected"):
        prepare._damage_limit({"max_damaged": "5%"})


def test_full_disk_is_one_line_and_mends(context, monkeypatch):
    def full(fd):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(InputError, match=r"cannot be written \(No space left.*free space"):
            prepare.run(context)
    records = context.folder("prepare") / "records"
    assert not [p for p in records.rglob("*") if p.is_file()]
    assert prepare.run(context)["samples"] == 2 * ROWS


def with_persons(workdir, tree, text):
    (tree / "persons.csv").write_text(f"video,person\n{text}\n")
    return make_context(workdir, tree, corpus={"persons": "persons.csv"})


def test_persons_of_both_sides_are_kept(context, tmp_path, tree):
    assert prepare.read_persons(context) is None
    plain = prepare.run(context)
    given = with_persons(tmp_path / "given", tree, "a,p\nb,q\ntest,p\nelsewhere,r")
    made = prepare.run(given)
    assert prepare.read_persons(given) == {"a": "p", "b": "q"}
    assert made["content"] == [*plain["content"], {"a": "p", "b": "q"}]
    assert made["metrics"] == plain["metrics"]
    before = prepare.inputs(given)
    os.utime(tree / "persons.csv", (1.7e9, 1.7e9))
    assert prepare.inputs(given) != before
    assert prepare.inputs(given).keys() - prepare.inputs(context) == {str(tree / "persons.csv")}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,p\nb,p", "person p lies in train (a) and in validation (b); take them out of one"),
        ("a,p\nc,q", "has no person of video b (1 of 1 validation videos lack one); give each"),
        ("a,p\nb", "csv:3: 'b'; expected video,person"),
    ],
)
def test_persons_that_cannot_be_are_named_before_anything_is_written(tmp_path, tree, text, message):
    context = with_persons(tmp_path / "run", tree, text)
    with pytest.raises(InputError) as error:
        prepare.run(context)
    assert str(error.value).startswith(str(tree / "persons.csv")) and message in str(error.value)
    assert not (tmp_path / "run").exists()


def test_an_absent_table_of_persons_shows_before_a_demo_is_drawn(tmp_path):
    context = make_context(tmp_path / "run", "", corpus={"persons": str(tmp_path / "nobody.csv")})
    with pytest.raises(InputError, match="nobody.csv: cannot be read"):
        prepare.run(context)
    assert not (tmp_path / "run").exists()


def test_example_is_below_the_root(context):
    assert prepare.test_example(context) == ""
    config = expr.get_config("tiny")
    demo = Context(ml_collections.FrozenConfigDict(config), pathlib.Path("run"), context.mesh)
    assert prepare.test_example(demo) == f"run/prepare/demo/{config.corpus.test_example}"


def clip_context(workdir, root, **corpus):
    config = emi.get_config("tiny").unlock()
    config.corpus.update(root=str(root), test_example="", **corpus)
    return Context(ml_collections.FrozenConfigDict(config), workdir, make_mesh())


def make_clips(root):
    """A tree of one training and one validation clip; everything is a minute old."""
    row = "0,0.5,0,0,0,1"
    for split, clip in (("train", 1), ("valid", 2)):
        draw(root / "face_images" / f"{clip:05d}" / "1.jpg", 9)
        header = "Filename,Admiration,Amusement,Determination,Empathic Pain,Excitement,Joy"
        (root / f"{split}_split.csv").write_text(f"{header}\n{clip},{row}\n")
    (root / "test" / "face_images").mkdir(parents=True)
    for path in [root, *root.rglob("*")]:
        os.utime(path, (1.7e9, 1.7e9))
    return root


def test_each_kind_of_corpus_is_read_with_its_own_keys(context, tmp_path):
    found = prepare.reader_arguments(context.config.corpus.to_dict(), context.track)
    assert found["task"] == "EXPR" and found["max_unmatched"] == 1000
    assert not found.keys() & set(prepare.OWN)
    root = make_clips(tmp_path / "clips")
    clips = clip_context(tmp_path / "clips_run", root)
    found = prepare.reader_arguments(clips.config.corpus.to_dict(), clips.track)
    assert found == {
        "train_table": str(root / "train_split.csv"),
        "validation_table": str(root / "valid_split.csv"),
        "test_table": "",
        "test_example": "",
        "face_images": [str(root / "face_images"), str(root / "test/face_images")],
    }
    assert prepare.run(clips)["metrics"] == {"train_images": 1, "validation_images": 1}


def test_a_key_that_the_corpus_lacks_is_named(tmp_path):
    root = make_clips(tmp_path / "clips")
    context = clip_context(tmp_path / "run", root, max_unmatched=3)
    with pytest.raises(InputError, match="corpus vidmimic2: unknown key 'max_unmatched'"):
        prepare.run(context)


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "valid_split.csv").write_text("Filename\n2\n"),
        lambda root: draw(root / "face_images" / "00001" / "2.jpg", 9),
        lambda root: draw(root / "test" / "face_images" / "00003" / "1.jpg", 9),
    ],
    ids=["table", "image", "test clip"],
)
def test_a_change_of_clips_is_noticed(tmp_path, change):
    root = make_clips(tmp_path / "clips")
    context = clip_context(tmp_path / "run", root)
    before = prepare.inputs(context)
    assert prepare.inputs(context) == before
    change(root)
    assert prepare.inputs(context) != before


def test_the_demo_corpus_is_that_of_the_track(tmp_path, monkeypatch):
    drawn = []

    def generate(folder, size, track):
        drawn.append((folder, size, track))
        make_clips(folder)

    monkeypatch.setattr(prepare, "generate", generate)
    context = clip_context(tmp_path / "run", "")
    assert prepare.run(context)["samples"] == 2
    assert drawn == [(tmp_path / "run" / "prepare" / "demo", "tiny", "emi")]


def test_cleaned_crops_are_named_in_the_result(tmp_path, tree, context):
    assert set(prepare.run(context)["metrics"]) == {"train_images", "validation_images"}
    changes = {"clean": {"min_side": 0, "min_contrast": 1.0, "min_sharpness": 0.0}}
    image = cv2.resize(np.arange(4, dtype=np.uint8).reshape(2, 2) * 60, (16, 16))
    assert cv2.imwrite(str(tree / "cropped_aligned" / "a" / "00002.jpg"), image)
    metrics = prepare.run(make_context(tmp_path / "cleaned", tree, corpus=changes))["metrics"]
    assert metrics == {
        "train_images": 1, "validation_images": 4, "train_cleaned_unreadable": 0,
        "train_cleaned_all": 3, "train_cleaned_small": 0, "train_cleaned_blank": 3,
        "train_cleaned_blurred": 0,
    }  # fmt: skip
