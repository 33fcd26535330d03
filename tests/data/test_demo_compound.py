"""The demo corpus of CE: its layout by the project's own readers, and what its videos show."""

import pathlib

import numpy as np
import pytest

from abaw_jax.data import demo
from abaw_jax.data.corpora import read_corpus
from abaw_jax.data.demo import expressions as ex
from abaw_jax.data.demo import layout, stills, story
from abaw_jax.data.demo.people import draw_person
from abaw_jax.data.demo.plan import ROOTS, plan_corpus
from abaw_jax.data.demo.streams import stream
from abaw_jax.errors import InputError
from abaw_jax.evaluation.submission import read_example
from abaw_jax.files import read_json
from abaw_jax.tracks import CE
from abaw_jax.tracks.annotations import read_annotation, read_labels

SEED = 5
EXAMPLE = "test_set_examples/CVPR_6th_ABAW_CE_test_set_example.txt"
FOLDERS = "6th ABAW Annotations/CE_Recognition_Challenge"


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> tuple[pathlib.Path, dict]:
    """A tiny corpus, and its summary."""
    out = tmp_path_factory.mktemp("demo") / "corpus"
    return out, demo.generate(out, "tiny", SEED, workers=1, progress=False, track="ce")


def test_annotations_hold_compounds_and_rest(tree):
    out, summary = tree
    assert tuple(ex.COMPOUNDS) == CE.classes
    for split, folder in (("train", "Train_Set"), ("validation", "Validation_Set")):
        labels, _ = read_labels(out / "6th ABAW Annotations", CE, folder)
        planned = [v for r in plan_corpus("tiny", SEED, "ce") if r.split == split for v in r.shown]
        assert {name: len(rows) for name, rows in labels.items()} == {
            video.name: video.rows for video in planned
        }
        rows = np.concatenate(list(labels.values()))[:, 0]
        counts = {name: int((rows == k).sum()) for k, name in enumerate(CE.classes)}
        assert counts == summary["splits"][split]["classes"]
        assert min(counts.values()) >= 3
        assert 0.2 < (rows == -1).mean() < 0.6
    first = next((out / FOLDERS / "Train_Set").glob("[!.]*.txt"))
    assert first.read_text().splitlines()[0] == ",".join(CE.classes)
    assert [p.name for p in (out / "6th ABAW Annotations").iterdir()] == [FOLDERS.split("/")[1]]


def test_the_corpus_reader_reads_it(tree):
    out, summary = tree
    splits = read_corpus(
        "affwild2",
        image_roots=[out / root for root in ROOTS],
        annotations=out / "6th ABAW Annotations",
        task="CE",
        test_list=out / "names_of_videos_in_each_test_set" / layout.LISTS["CE"],
        test_example=out / EXAMPLE,
    )
    assert [split.name for split in splits] == ["train", "validation", "test"]
    for split in splits:
        videos = [v for v in split.videos if v.frames]
        assert len(videos) == summary["splits"][split.name]["videos"]
        numbers = [[number for number, _ in video.frames] for video in videos]
        found = sum(map(len, numbers))  # crops beyond a video's rows are passed over
        assert 0 <= summary["splits"][split.name]["crops"] - found <= 6 * len(videos)
        if split.name == "train":
            assert any(np.diff(n).max() > 1 for n in numbers)
            assert any(n[0] > 3 for n in numbers)


def test_images_of_compounds_lie_beside_the_videos(tree):
    out, summary = tree
    train, validation, test = read_corpus(
        "cexpr",
        images=out / "rafdb_compound",
        image_roots=[out / root for root in ROOTS],
        test_example=out / EXAMPLE,
    )
    assert summary["stills"] == {"train": 66, "test": 33}
    assert summary["singles"] == {"train": 42, "test": 21}
    for split, count in ((train, 6), (validation, 3)):
        labels = split.videos[0].labels["ce"].ravel()
        classes, counts = np.unique(labels, return_counts=True)
        assert classes.tolist() == [-1, *range(7)] and counts.tolist() == [4 * count, *[count] * 7]
        assert (split.videos[0].labels["basic"].sum(axis=1) == 2).all()
    assert all(video.frames for video in test.videos)
    assert {**ex.COMPOUNDS, **ex.MORE_COMPOUNDS} == stills.CLASSES
    more, _ = read_corpus("cexpr", images=out / "rafdb_compound", singles=out / "rafdb")
    counts = more.videos[0].labels["basic"][66:].sum(axis=0)
    assert counts.tolist() == [6] * 6 and more.videos[0].rows == 66 + 42  # and six neutral ones
    images = [pathlib.Path(path).read_bytes() for _, path in more.videos[0].frames]
    assert len(set(images)) == 66 + 42


def test_the_test_set_has_its_truth_apart(tree):
    out, _ = tree
    example = read_example(out / EXAMPLE, CE)
    videos = [v for r in plan_corpus("tiny", SEED, "ce") if r.split == "test" for v in r.shown]
    assert list(example.lines) == [video.name for video in videos]
    for video in videos:
        assert not list((out / FOLDERS).rglob(f"{video.name}.txt"))
        truth = out / "test_truth" / "CE_Recognition_Challenge" / "Test_Set" / f"{video.name}.txt"
        assert len(read_annotation(truth, CE)) == video.rows == len(example.lines[video.name])


def test_names_are_numbers_and_people_are_in_one_split_and_corpus():
    people, planned = {}, plan_corpus("default", 0, "ce")
    for recording in planned:
        people.setdefault(recording.split, set()).update(v.person for v in recording.shown)
        assert recording.name.isdigit() and len(recording.name) >= 2
    assert not people["train"] & people["validation"]
    assert not (people["train"] | people["validation"]) & people["test"]
    others = {v.person for r in plan_corpus("default", 0) for v in r.shown}
    assert not others & set.union(*people.values())


def test_every_theme_shows_its_own_compound_most_and_no_look_alike():
    person = draw_person(stream(4, "p"))
    for name, (main, chances) in ex.COMPOUND_THEMES.items():
        assert main == chances.index(max(chances)) >= ex.COMPOUND
        assert np.isclose(sum(chances), 1)
        shown = {k for k, chance in enumerate(chances) if chance}
        assert not any(ex.LOOK_ALIKE[k] in shown for k in shown)
        told = story.tell_story(stream(4, name), person, 400, (name,) * 8)
        labels = told.labels[told.labels != ex.NEUTRAL]
        assert set(labels) <= shown
        assert np.bincount(labels).argmax() == main
        strong = (told.labels == main) & (told.felt.max(axis=1) > 0.5)
        felt = told.felt[strong].mean(axis=0)
        assert set(np.argsort(felt)[-2:]) == set(ex.PARTS[main])
    assert {main for main, _ in ex.COMPOUND_THEMES.values()} == set(range(8, 15))


def test_a_compound_moves_the_units_of_both_its_parts():
    assert ex.PROTOTYPES.shape == (15, 12)
    for number in range(ex.COMPOUND, 15):
        first, second = ex.PARTS[number]
        both = np.maximum(ex.PROTOTYPES[first], ex.PROTOTYPES[second])
        np.testing.assert_array_equal(ex.PROTOTYPES[number], both)
    assert len(np.unique(ex.PROTOTYPES[ex.COMPOUND :], axis=0)) == 7


def test_compounds_do_not_touch_the_other_corpus(tree, tmp_path):
    out, summary = tree
    assert read_json(out / "demo_corpus.json") == summary
    assert summary["track"] == "ce"
    with pytest.raises(InputError, match="holds the demo corpus.*'ce'"):
        demo.generate(out, "tiny", SEED, progress=False)  # of EXPR, whose stamp names no track
    again = demo.generate(tmp_path / "again", "tiny", SEED, workers=2, progress=False, track="ce")
    assert again["splits"] == summary["splits"]
    for path in (p for p in out.rglob("*.*") if p.suffix in (".jpg", ".txt")):
        assert (tmp_path / "again" / path.relative_to(out)).read_bytes() == path.read_bytes()
