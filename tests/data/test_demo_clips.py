"""The demo corpus of EMI: its layout by the project's own readers, and what its clips convey."""

import pathlib

import av
import cv2
import numpy as np
import pytest

from abaw_jax.data import demo
from abaw_jax.data.demo import clips, corpus, footage, mimicry, settings
from abaw_jax.data.demo.people import AUS, draw_person
from abaw_jax.data.demo.plan import plan_clips
from abaw_jax.data.demo.streams import stream
from abaw_jax.errors import InputError
from abaw_jax.evaluation.submission import read_example
from abaw_jax.tracks import EMI
from abaw_jax.tracks.annotations import read_clip_table, read_labels

SEED = 5


def generate(out: pathlib.Path, workers: int = 1) -> dict:
    return demo.generate(out, "tiny", SEED, workers=workers, progress=False, track="emi")


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> tuple[pathlib.Path, dict]:
    """A tiny corpus, and its summary."""
    out = tmp_path_factory.mktemp("demo") / "corpus"
    return out, generate(out)


def contents(out: pathlib.Path) -> dict[str, bytes]:
    """Every file but the stamp, whose seconds differ."""
    files = (path for path in out.rglob("*") if path.is_file() and path.name != corpus.STAMP)
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


def samples(path: pathlib.Path) -> tuple[np.ndarray, int]:
    """Decoded sound (n,) and its rate."""
    with av.open(str(path)) as file:
        parts = [frame.to_ndarray().astype(float) for frame in file.decode(audio=0)]
        return np.concatenate(parts, axis=1)[0], file.streams.audio[0].rate


def test_tables_parse_and_number_the_clips_in_two_ways(tree):
    out, summary = tree
    assert mimicry.EMOTIONS == EMI.classes
    planned = plan_clips("tiny", SEED)
    for split, folder in (("train", "Train_Set"), ("validation", "Validation_Set")):
        labels, _ = read_labels(out, EMI, folder)
        wanted = {clip.name: clip.shares for clip in planned if clip.split == split}
        assert list(labels) == list(wanted)
        for name, shares in wanted.items():
            np.testing.assert_allclose(labels[name][0], shares, atol=1e-6)
        assert summary["splits"][split]["clips"] == len(wanted)
    train, validation, test = (
        (out / name).read_text().splitlines()
        for name in ("train_split.csv", "valid_split.csv", "test_split.csv")
    )
    assert train[0] == test[0] == EMI.header
    assert validation[0] == EMI.header.lower()
    assert train[1].startswith("0,") and test[1] == "32,0,0,0,0,0,0"
    assert validation[1].startswith("00020,")


def test_test_clips_have_an_example_and_their_truth_apart(tree):
    out, _ = tree
    names = [clip.name for clip in plan_clips("tiny", SEED) if clip.split == "test"]
    assert list(read_example(out / "test_split.csv", EMI).frames) == names
    truth = read_clip_table(out / "test_truth" / "test_split.csv", EMI)
    assert list(truth) == names
    assert max(row.max() for row in truth.values()) > 0
    assert {p.name for p in (out / "test" / "face_images").iterdir()} <= set(names)


def test_every_clip_has_the_files_that_it_is_planned_to_have(tree):
    out, summary = tree
    crops = dict.fromkeys(summary["splits"], 0)
    for clip in plan_clips("tiny", SEED):
        root = out / "test" if clip.split == "test" else out
        folder = root / "face_images" / clip.name
        assert folder.is_dir() == (clip.faces != "absent")
        faces = sorted(folder.glob("[!.]*")) if folder.is_dir() else []
        crops[clip.split] += len(faces)
        assert bool(faces) == (clip.faces == "some")
        numbers = [int(face.stem) for face in faces]
        assert [face.name for face in faces] == [f"{number}.jpg" for number in numbers]
        assert set(numbers) <= set(range(1, clip.frames + 1))
        assert all(cv2.imread(str(face)).shape == (112, 112, 3) for face in faces[:1])
        sound = root / "audio" / f"{clip.name}.mp3"
        words = root / "transcripts" / f"{clip.name}.txt"
        assert sound.is_file() == words.is_file() == (clip.sound != "none")
        if clip.sound == "none":
            continue
        heard, rate = samples(sound)
        assert rate == settings.SOUND_RATE
        # What an encoder adds at both ends is dropped by some decoders.
        assert abs(len(heard) / rate - clip.frames / settings.CLIP_RATE) < 0.2
        assert (np.abs(heard).max() < 1e-3) == (clip.sound == "silent")
        if clip.sound == "silent":
            assert words.read_bytes() == b""
    assert crops == {split: part["crops"] for split, part in summary["splits"].items()}


def test_irregularities_of_the_layout_are_there(tree):
    out, _ = tree
    planned = plan_clips("tiny", SEED)
    assert {clip.faces for clip in planned} == {"some", "none", "absent"}
    assert {clip.sound for clip in planned} == {"voice", "silent", "none"}
    assert min(clip.frames for clip in planned) == 2
    numbers = [
        sorted(int(face.stem) for face in (out / "face_images" / clip.name).glob("[!.]*"))
        for clip in planned
    ]
    assert any(n and len(n) < n[-1] for n in numbers)  # a gap or a late first face
    assert any(n and n[-1] >= 10 for n in numbers)  # where the order of names is not theirs
    spoken = [clip.name for clip in planned if clip.sound == "voice" and clip.split != "test"]
    texts = [(out / "transcripts" / f"{name}.txt").read_text() for name in spoken]
    assert "" in texts and any(len(text.split()) > 3 for text in texts)
    assert (out / "face_images" / ".DS_Store").is_file()
    assert list((out / "face_images").glob("._*"))


def test_votes_are_shares_of_two_or_three_and_mostly_none():
    shares = np.array([clip.shares for clip in plan_clips("default", 0)])
    assert shares.shape == (sum(settings.CLIP_SIZES["default"][0]), 6)
    assert set(np.unique(shares)) == {0, 0.333, 0.5, 0.667, 1}
    assert (shares == 0).mean() > 0.5
    assert (shares > 0).sum(axis=0).min() > 60
    assert set(settings.CLIP_SIZES) == set(settings.SIZES)


def test_splits_share_no_person():
    people = {}
    for clip in plan_clips("default", 0):
        people.setdefault(clip.split, set()).add(clip.person)
    train, validation, test = people.values()
    assert not train & validation and not (train | validation) & test
    assert len(train) == settings.CLIP_SIZES["default"][0][0] / settings.CLIPS_PER_PERSON


def test_same_seed_same_files_whatever_the_processes(tree, tmp_path):
    out, summary = tree
    again = generate(tmp_path / "again", workers=2)
    assert contents(tmp_path / "again") == contents(out)
    assert {**again, "seconds": 0} == {**summary, "seconds": 0}
    assert plan_clips("tiny", SEED) != plan_clips("tiny", SEED + 1)


def test_an_interrupted_corpus_is_finished_and_a_whole_one_kept(tree, tmp_path, monkeypatch):
    out, real, begun = tmp_path / "corpus", clips.put, []

    def failing(*arguments):
        begun.append(arguments[1])
        if len(begun) == 5:  # when its sound is there and its faces are not
            raise KeyboardInterrupt
        real(*arguments)

    monkeypatch.setattr(clips, "put", failing)
    with pytest.raises(KeyboardInterrupt):
        generate(out)
    assert not (out / corpus.STAMP).exists()
    assert not (out / "face_images" / begun[-1]).exists()
    finished, write = [], clips.write
    monkeypatch.setattr(clips, "put", real)
    monkeypatch.setattr(clips, "write", lambda job: finished.append(job[2].name) or write(job))
    generate(out)
    planned = [clip.name for clip in plan_clips("tiny", SEED)]
    assert finished == planned[planned.index(begun[-1]) :]
    assert contents(out) == contents(tree[0])
    assert not (out / footage.PARTS).exists()
    finished.clear()
    generate(out)
    assert not finished


def test_refuses_the_folder_of_another_corpus(tree):
    with pytest.raises(InputError, match="holds the demo corpus.*'emi'.*expected.*'ce'"):
        demo.generate(tree[0], "tiny", SEED, progress=False, track="ce")
    with pytest.raises(InputError, match="holds the demo corpus.*'emi'"):
        demo.generate(tree[0], "tiny", SEED, progress=False)


def told(emotion: int) -> list:
    """Thirty people's clips that all voters took for one emotion alone, and their words."""
    shares = tuple(float(k == emotion) for k in range(6))
    out = []
    for number in range(30):
        rng = stream(1, emotion, number)
        story = mimicry.tell_clip(rng, draw_person(rng), 24, shares)
        out.append((story, mimicry.transcribe_clip(rng, story, shares).split()))
    return out


def test_face_voice_and_words_follow_the_votes():
    clips_of = {name: told(k) for k, name in enumerate(mimicry.EMOTIONS)}
    units = {
        name: np.mean([story.expressed[8:16].mean(axis=0) for story, _ in part], axis=0)
        for name, part in clips_of.items()
    }
    assert units["Joy"][AUS.index(12)] > 3 * units["Empathic Pain"][AUS.index(12)]
    assert units["Empathic Pain"][AUS.index(10)] > 3 * units["Joy"][AUS.index(10)]
    assert units["Excitement"][AUS.index(2)] > 2 * units["Amusement"][AUS.index(2)]
    arousal = {n: np.mean([s.arousal.mean() for s, _ in part]) for n, part in clips_of.items()}
    assert arousal["Excitement"] > arousal["Joy"] > arousal["Admiration"]
    for k, name in enumerate(mimicry.EMOTIONS):
        said = [word for _, words in clips_of[name] for word in words]
        shares = [np.mean([word in bank.split() for word in said]) for bank in mimicry.WORDS]
        assert np.argmax(shares) == k


def test_each_modality_hides_clips_that_another_tells():
    mouth = AUS.index(12)
    joy = told(mimicry.EMOTIONS.index("Joy"))
    smile = np.array([story.expressed[8:16, mouth].mean() for story, _ in joy])
    valence = np.array([story.valence[8:16].mean() for story, _ in joy])
    bank = set(mimicry.WORDS[mimicry.EMOTIONS.index("Joy")].split())
    said = np.array([any(word in bank for word in words) for _, words in joy])
    assert (smile < 0.3).any() and (valence[smile < 0.3] > 0.4).any()
    assert (valence < 0.3).any() and (smile[valence < 0.3] > 0.4).any()
    assert (~said).any() and (smile[~said] > 0.4).any()


def test_a_clip_begins_and_ends_at_rest():
    story, _ = told(5)[0]
    course = story.felt[:, 5]
    assert course[0] < 0.2 and course[-1] < 0.3 and course[8:16].min() > 0.6
    assert story.labels is None
    assert len(story.shown) == len(story.arousal) == len(story.pose) == 24
    assert 0 <= story.shown.min() and story.shown.max() <= 1
