"""The demo corpus: layout, irregularities, determinism, resumption, and what its parts claim."""

import hashlib
import pathlib
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

from abaw_jax.data import demo
from abaw_jax.data.corpora import affwild2, mtl
from abaw_jax.data.demo import (
    camera,
    corpus,
    face,
    footage,
    layout,
    recordings,
    settings,
    sound,
    story,
)
from abaw_jax.data.demo import expressions as ex
from abaw_jax.data.demo.people import AUS, draw_person, draw_scene
from abaw_jax.data.demo.plan import ROOTS, plan_corpus
from abaw_jax.data.demo.streams import stream
from abaw_jax.errors import InputError
from abaw_jax.tracks import TRACKS

SEED = 3


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> tuple[pathlib.Path, dict]:
    """A tiny corpus written by two processes, and its summary."""
    out = tmp_path_factory.mktemp("demo") / "corpus"
    return out, demo.generate(out, "tiny", SEED, workers=2, progress=False)


def digests(out: pathlib.Path) -> dict[str, str]:
    """Content of all files whose bytes the seed decides (containers carry encoder state)."""
    skipped = (corpus.STAMP, corpus.BEGUN)
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name not in skipped and path.suffix not in (".mp4", ".avi")
    }


def annotation(out: pathlib.Path, task: str, split: str, name: str) -> list[str]:
    """Lines of one annotation file."""
    root = layout.TRUTH if split == "test" else layout.ANNOTATIONS
    path = out / root / layout.TASKS[task][0] / layout.FOLDERS[split] / f"{name}.txt"
    return path.read_text().splitlines()


def test_every_video_has_crops_annotations_and_transcript(tree):
    out, summary = tree
    videos = [(r, v) for r in plan_corpus("tiny", SEED) for v in r.shown]
    assert [part["videos"] for part in summary["splits"].values()] == [8, 4, 2]
    assert sum(1 for root in ROOTS for p in (out / root).iterdir() if p.is_dir()) == len(videos)
    widths = {"VA": 2, "EXPR": 1, "AU": 12}
    for recording, video in videos:
        crops = sorted(p.name for p in (out / recording.root / video.name).glob("[!.]*"))
        frames = [int(name[:5]) for name in crops]
        assert crops == [f"{frame:05d}.jpg" for frame in frames]
        assert frames[0] == video.late + 1
        assert 0.6 * recording.frames < len(frames) <= recording.frames
        image = cv2.imread(str(out / recording.root / video.name / crops[0]))
        assert image.shape == (112, 112, 3)
        assert (out / "transcripts" / f"{video.name}.txt").is_file()
        for task, width in widths.items():
            header, *rows = annotation(out, task, recording.split, video.name)
            assert header == layout.TASKS[task][1]
            assert len(rows) == video.rows
            assert {len(row.split(",")) for row in rows} == {width}


def test_every_class_in_train_and_validation(tree):
    for split in ("train", "validation"):
        assert min(tree[1]["splits"][split]["classes"].values()) >= 3


def test_irregularities_of_the_layout_are_there(tree):
    out, _ = tree
    planned = plan_corpus("tiny", SEED)
    videos = [(r, v) for r in planned for v in r.shown]
    assert {r.root for r in planned} == set(ROOTS)
    assert {r.ending for r in planned} == {"mp4", "avi"}
    assert any(v.name.endswith(("_left", "_right")) for _, v in videos)
    assert {1, -6, 9} <= {v.rows - r.frames for r, v in videos}
    assert any(v.late for _, v in videos)
    numbers = [
        sorted(int(p.stem) for p in (out / r.root / v.name).glob("[!.]*.jpg")) for r, v in videos
    ]
    assert any(np.diff(n).max() > 1 for n in numbers)
    assert any(n[-1] > v.rows for n, (_, v) in zip(numbers, videos, strict=True))
    for root in ROOTS:
        assert (out / root / ".DS_Store").is_file()
        assert list((out / root).glob("._*"))
    assert (out / planned[0].root / planned[0].shown[0].name / "._00001.jpg").is_file()


def test_the_multi_task_files_say_what_the_annotation_folders_say(tree):
    out, _ = tree
    roots = [out / root for root in ROOTS]
    apart = affwild2.read(roots, out / layout.ANNOTATIONS, "VA", also=("expr", "au"))
    together = mtl.read(roots, out / layout.MULTI_TASK)
    assert [split.name for split in together] == [split.name for split in apart]
    valid = dict.fromkeys(("va", "expr", "au"), 0)
    for one, other in zip(together, apart, strict=True):
        videos = {video.name: video for video in other.videos}
        assert {video.name for video in one.videos} == set(videos)
        for video in one.videos:
            same = videos[video.name]
            # All crops but those beyond the last row, which both leave out.
            assert video.frames == same.frames
            rows = np.array([number for number, _ in video.frames]) - 1
            for key in valid:
                np.testing.assert_array_equal(video.labels[key][rows], same.labels[key][rows])
                valid[key] += int(TRACKS[key].valid(video.labels[key][rows]).sum())
    assert min(valid.values()) > 100 and len(set(valid.values())) == 3


def test_invalid_rows_of_each_task():
    person = draw_person(stream(0, "p"))
    told = story.tell_story(stream(0, "s"), person, 3000, ("talk",) * 20)
    rows = layout.annotation_rows(stream(0, "rows"), told, 3001)
    assert "-1" in rows["EXPR"]
    assert set(rows["EXPR"]) == {str(k) for k in range(-1, 8)} - {
        str(k) for k in range(8) if k not in np.unique(told.labels)
    }
    affect = np.array([[float(v) for v in row.split(",")] for row in rows["VA"]])
    assert ((affect == -5).sum(axis=1) == 1).any()
    assert ((affect == -5).sum(axis=1) == 2).any()
    assert np.abs(affect[affect != -5]).max() <= 1
    units = np.array([[int(v) for v in row.split(",")] for row in rows["AU"]])
    partly = (units == -1).sum(axis=1)
    assert ((partly > 0) & (partly < 12)).any()
    assert (partly == 12).any()
    assert len(rows["EXPR"]) == len(affect) == len(units) == 3001


def test_test_split_has_lists_and_templates_but_no_annotations(tree):
    out, _ = tree
    videos = [v for r in plan_corpus("tiny", SEED) if r.split == "test" for v in r.shown]
    names = (out / "names_of_videos_in_each_test_set" / layout.LISTS["EXPR"]).read_text().split()
    assert names == [v.name for v in videos]
    lines = (out / "test_set_examples" / layout.EXAMPLES["EXPR"][0]).read_text().splitlines()
    assert lines[0] == "image_location," + ",".join(ex.EXPRESSIONS)
    assert lines[1] == f"{videos[0].name}/00001.jpg,0"
    assert len(lines) == 1 + sum(v.rows for v in videos)
    found = {p.stem for p in (out / layout.ANNOTATIONS).rglob("*.txt")}
    assert not found & {v.name for v in videos}


def test_splits_share_no_person():
    people = {}
    for recording in plan_corpus("default", 0):
        people.setdefault(recording.split, set()).update(v.person for v in recording.shown)
    assert not people["train"] & people["validation"]
    assert not (people["train"] | people["validation"]) & people["test"]
    names = [v.name for r in plan_corpus("default", 0) for v in r.shown]
    assert len(names) == len(set(names)) == sum(settings.SIZES["default"][0])


def test_containers_have_the_rate_the_count_and_the_sound(tree):
    out, _ = tree
    seen = set()
    for recording in plan_corpus("tiny", SEED):
        path = out / recording.batch / f"{recording.name}.{recording.ending}"
        with av.open(str(path)) as file:
            video = file.streams.video[0]
            assert abs(Fraction(video.average_rate) - recording.rate) < Fraction(1, 50)
            assert sum(1 for _ in file.decode(video=0)) == recording.frames
        with av.open(str(path)) as file:
            assert bool(file.streams.audio) == (recording.sound != "none")
            seen.add(recording.sound)
            if recording.sound == "none":
                continue
            parts = [frame.to_ndarray().astype(float) for frame in file.decode(audio=0)]
            rate = file.streams.audio[0].rate
        samples = np.concatenate(parts, axis=1)[0]
        assert rate == settings.SOUND_RATE
        assert abs(len(samples) / rate - recording.frames / recording.rate) < 0.2
        assert (np.abs(samples).max() < 1e-3) == (recording.sound == "silent")
    assert seen == {"voice", "silent", "none"}


def test_same_seed_same_files_whatever_the_processes(tree, tmp_path):
    out, _ = tree
    demo.generate(tmp_path / "again", "tiny", SEED, workers=1, progress=False)
    assert digests(tmp_path / "again") == digests(out)
    assert plan_corpus("tiny", SEED) != plan_corpus("tiny", SEED + 1)


def test_an_interrupted_corpus_is_finished_and_a_whole_one_kept(tmp_path, monkeypatch):
    out = tmp_path / "corpus"
    real, done = recordings.write, []

    def failing(job):
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append(job[2].name)
        return real(job)

    monkeypatch.setattr(recordings, "write", failing)
    with pytest.raises(KeyboardInterrupt):
        demo.generate(out, "tiny", SEED, workers=1, progress=False)
    assert not (out / corpus.STAMP).exists()
    again = []
    monkeypatch.setattr(recordings, "write", lambda job: again.append(job[2].name) or real(job))
    summary = demo.generate(out, "tiny", SEED, workers=1, progress=False)
    assert sorted(done + again) == sorted(r.name for r in plan_corpus("tiny", SEED))
    assert not (out / footage.PARTS).exists()
    again.clear()
    assert demo.generate(out, "tiny", SEED, workers=1, progress=False) == summary
    assert not again


def test_refuses_what_it_would_overwrite(tree, tmp_path):
    out, _ = tree
    with pytest.raises(InputError, match="holds the demo corpus"):
        demo.generate(out, "tiny", SEED + 1, progress=False)
    (tmp_path / "mine.txt").write_text("data")
    with pytest.raises(InputError, match="no demo corpus"):
        demo.generate(tmp_path, "tiny", progress=False)
    with pytest.raises(InputError, match="is a file"):
        demo.generate(tmp_path / "mine.txt", "tiny", progress=False)
    with pytest.raises(InputError, match="expected one of tiny, default, large"):
        demo.generate(tmp_path / "new", "huge", progress=False)
    with pytest.raises(InputError, match="'mtl': expected one of va, expr, au, ce, emi"):
        demo.generate(tmp_path / "new", "tiny", progress=False, track="mtl")
    assert not (tmp_path / "new").exists()


def test_three_tracks_share_a_corpus_and_the_stamp_it_has_always_had(tree):
    out, summary = tree
    for track in ("va", "expr", "au"):
        assert demo.generate(out, "tiny", SEED, progress=False, track=track) == summary
    assert list(summary)[:4] == ["corpus", "size", "seed", "version"]
    for track in ("ce", "emi"):
        with pytest.raises(InputError, match=f"holds the demo corpus.*expected.*'{track}'"):
            demo.generate(out, "tiny", SEED, progress=False, track=track)


def test_each_action_unit_moves_the_face():
    person, scene = draw_person(stream(1, "p")), draw_scene(stream(1, "s"))
    still = np.zeros(6, np.float32)
    rest = face.draw_face(person, scene, np.zeros(12), still).astype(int)
    assert rest.shape == (112, 112, 3)
    upper = {1, 2, 4, 6, 7}
    for i, unit in enumerate(AUS):
        moved = face.draw_face(person, scene, np.eye(12)[i] * 0.9, still).astype(int)
        change = np.abs(moved - rest).sum(axis=(1, 2))
        assert change.sum() > 1500, unit
        where = (change * np.arange(112)).sum() / change.sum()
        assert (where < 62) == (unit in upper), unit
        slight = face.draw_face(person, scene, np.eye(12)[i] * 0.3, still).astype(int)
        assert 0 < np.abs(slight - rest).sum(), unit
        if unit not in (23, 24):  # their lines fade into the thinner lips
            assert np.abs(slight - rest).sum() < change.sum(), unit


def test_hidden_things_and_camera_change_the_crop():
    person, scene = draw_person(stream(2, "p")), draw_scene(stream(2, "s"))
    clean = face.draw_face(person, scene, person.rest, np.zeros(6, np.float32))
    things = [t for t in camera.draw_hidden(stream(2, "h"), 2000) if t is not None]
    assert 0.03 < len(things) / 2000 < 0.3
    assert {t["kind"] for t in things} == {"hand", "cup", "bar"}
    covered = camera.cover(clean.copy(), things[0], person, 0)
    assert 100 < np.any(covered != clean, axis=2).sum() < 112 * 112
    filmed, data = camera.film(stream(2, "f"), clean, scene, 2.0)
    read = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert np.abs(read.astype(int) - filmed).mean() < 12
    assert not np.array_equal(filmed, clean)


def test_affect_follows_the_expression_and_stays_in_range():
    person = draw_person(stream(3, "p"))
    told = story.tell_story(stream(3, "s"), person, 4000, tuple(ex.THEMES) * 6)
    assert max(np.abs(told.valence).max(), np.abs(told.arousal).max()) <= 1
    mean = [told.valence[told.labels == k].mean() for k in range(8)]
    assert mean[ex.HAPPINESS] > mean[ex.NEUTRAL] > mean[ex.FEAR]
    assert told.arousal[told.labels == ex.FEAR].mean() > told.arousal[told.labels == 5].mean()
    assert told.shown.min() >= 0
    assert told.shown.max() <= 1
    at_rest = told.shown[told.felt.max(axis=1) == 0]
    quiet = [i for i, unit in enumerate(AUS) if unit not in (1, 2, 25, 26)]
    assert np.abs(np.median(at_rest, axis=0) - person.rest)[quiet].max() < 0.1


def voiced(told: story.Story, person, arousal: float, valence: float) -> np.ndarray:
    """The loudest half second of the voice at a constant affect."""
    flat = np.ones_like(told.arousal)
    state = {**vars(told), "arousal": arousal * flat, "valence": valence * flat}
    samples = sound.speak(stream(5, "v"), person, story.Story(**state), 30.0)
    assert samples.dtype == np.float32
    return samples


def test_voice_is_louder_and_higher_with_arousal():
    person = draw_person(stream(5, "p"))
    told = story.tell_story(stream(5, "s"), person, 300, ("quarrel",) * 4)
    assert len(told.syllables) > 10
    low, high = voiced(told, person, -0.3, 0.0), voiced(told, person, 0.7, 0.0)
    assert len(low) == len(high) == 160000
    assert high.std() > 1.5 * low.std()

    def brightness(samples: np.ndarray) -> float:
        power = np.abs(np.fft.rfft(samples)) ** 2
        return float((power * np.arange(len(power))).sum() / power.sum())

    assert brightness(high) > brightness(low)
    mixed = sound.mix(stream(5, "m"), [high], 0.01)
    assert mixed.dtype == np.int16
    words = sound.transcribe(stream(5, "t"), told).split()
    assert len(words) == len(told.syllables)


def test_breath_is_louder_and_faster_with_arousal_and_gives_way_to_words():
    told = story.tell_story(stream(6, "s"), draw_person(stream(6, "p")), 300, ("talk",) * 4)
    assert 0.1 < told.voice.mean() < 0.9

    def breath(arousal: float) -> np.ndarray:
        state = {**vars(told), "arousal": np.full_like(told.arousal, arousal)}
        samples = sound.breathe(stream(6, "b"), story.Story(**state), 25.0)
        assert samples.dtype == np.float32 and len(samples) == 192000
        return samples.reshape(300, -1).std(axis=1)  # of each frame

    low, high = breath(-0.3), breath(0.7)
    assert not low[told.voice].any() and not high[told.voice].any()
    quiet = ~told.voice
    assert high[quiet].mean() > 2 * low[quiet].mean()

    def breaths(level: np.ndarray) -> int:
        return np.count_nonzero(np.diff((level > level[quiet].mean())[quiet]))

    assert breaths(high) > 1.5 * breaths(low)


def test_speech_opens_the_mouth_with_the_syllables():
    person = draw_person(stream(6, "p"))
    told = story.tell_story(stream(6, "s"), person, 300, ("talk",) * 4)
    opened = story.aperture(told.syllables, 300)
    assert opened[told.voice].mean() > 5 * opened[~told.voice].mean()
    assert np.array_equal(story.aperture(np.zeros((0, 3), np.float32), 5), np.zeros(5))
