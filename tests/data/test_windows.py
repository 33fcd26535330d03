"""Windows: where they start, what fills them, their batches, and merging them back."""

import dataclasses
import itertools

import numpy as np
import pytest
import simplejpeg

from abaw_jax.data import features, records, transforms, windows
from abaw_jax.errors import InputError

# Per video: frames that have a crop, and annotation rows. Gaps, a late start, more images than
# rows, label-only rows at the end, a video shorter than a window, one of exactly its length.
VIDEOS = {
    "video10_1": ([3, 4, 7, 8, 9, 15], 20),
    "video10_1_left": ([1, 2, 3], 3),
    "28-30-1280x720-4": (list(range(1, 12)), 8),
    "late": ([9], 11),
}
ROWS = np.cumsum([0, *(rows for _, rows in VIDEOS.values())])
LABELS = (np.arange(ROWS[-1], dtype=np.int32) % 9 - 1)[:, None]


def vector(video: int, frame: int) -> list[float]:
    return [100 * video + frame, -frame]


def filled_by_hand(video: int) -> np.ndarray:
    """What each row of a video should hold, by walking along it."""
    frames, rows = list(VIDEOS.values())[video]
    last, found = frames[0], []
    for row in range(rows):
        last = row + 1 if row + 1 in frames else last
        found.append(vector(video, last))
    return np.array(found, np.float32)


@pytest.fixture
def reader(tmp_path):
    for v, (name, (frames, _)) in enumerate(VIDEOS.items()):
        found = np.array([vector(v, frame) for frame in frames], np.float32)
        features.save_features(tmp_path, name, np.array(frames), found)
    features.save_feature_settings(tmp_path, encoder="e", width=2, source_hash="s")
    return windows.make_feature_reader(list(VIDEOS), [features.FeatureStore(tmp_path)])


def cut(length=8, stride=5, **options) -> windows.Windows:
    return windows.make_windows(list(VIDEOS), ROWS, LABELS, length=length, stride=stride, **options)


@pytest.mark.parametrize(
    ("rows", "length", "stride", "expected"),
    [
        (10, 4, 2, [0, 2, 4, 6]),
        (11, 4, 2, [0, 2, 4, 6, 7]),
        (10, 4, 4, [0, 4, 6]),
        (4, 4, 4, [0]),
        (5, 4, 4, [0, 1]),
        (3, 4, 2, [0]),
        (1, 100, 100, [0]),
        (0, 4, 2, []),
    ],
)
def test_window_starts(rows, length, stride, expected):
    np.testing.assert_array_equal(windows.window_starts(rows, length, stride), expected)


def test_windows_cover_every_row():
    for rows in range(1, 40):
        for length, stride in [(7, 7), (7, 3), (1, 1), (30, 20)]:
            covered = np.zeros(rows, bool)
            for start in windows.window_starts(rows, length, stride):
                covered[start : start + length] = True
            assert covered.all()


@pytest.mark.parametrize(("length", "stride"), [(0, 1), (4, 0), (4, 5)])
def test_windows_that_would_leave_rows_out_are_refused(length, stride):
    with pytest.raises(InputError, match="stride"):
        windows.window_starts(10, length, stride)


def test_fill_repeats_the_previous_frame():
    frames, found = np.array([3, 4, 7]), np.array([[3.0], [4.0], [7.0]])
    filled, present = windows.fill(frames, found, 9)
    np.testing.assert_array_equal(filled[:, 0], [3, 3, 3, 4, 4, 4, 7, 7, 7])
    np.testing.assert_array_equal(np.flatnonzero(present), [2, 3, 6])
    filled, present = windows.fill(frames, found, 4)
    np.testing.assert_array_equal(filled[:, 0], [3, 3, 3, 4])
    np.testing.assert_array_equal(present, [False, False, True, True])


def test_fill_without_frames_in_reach():
    filled, present = windows.fill(np.array([6]), np.array([[2.0]]), 3)
    np.testing.assert_array_equal(filled, [[2], [2], [2]])
    assert not present.any()
    filled, present = windows.fill(np.zeros(0, int), np.zeros((0, 4), np.float32), 2)
    assert filled.shape == (2, 4) and not filled.any() and not present.any()


def test_a_pass_gives_every_row_its_features_and_labels(reader):
    seen = np.zeros(ROWS[-1], int)
    for batch in windows.window_epoch(cut(), reader, batch_size=4):
        assert batch["features"].shape == (4, 8, 2) and batch["features"].dtype == np.float32
        assert batch["mask"].shape == (4, 8) and batch["mask"].dtype == bool
        assert batch["label"].shape == (4, 8, 1) and batch["label"].dtype == np.int32
        assert batch["video"].dtype == batch["start"].dtype == np.int32
        for i in range(4):
            v, start, mask = batch["video"][i], batch["start"][i], batch["mask"][i]
            rows = start + np.flatnonzero(mask)
            np.testing.assert_array_equal(batch["features"][i][mask], filled_by_hand(v)[rows])
            np.testing.assert_array_equal(batch["label"][i][mask], LABELS[ROWS[v] + rows])
            assert (batch["label"][i][~mask] == -1).all()
            seen[ROWS[v] + rows] += 1
    assert (seen >= 1).all(), "label-only rows and short videos take part"
    assert seen.sum() == sum(
        min(8, rows) * len(windows.window_starts(rows, 8, 5)) for _, rows in VIDEOS.values()
    )


def test_a_short_video_is_padded_with_zeros(reader):
    window = windows.read_window(cut(), reader, 1, 0, None)
    np.testing.assert_array_equal(window["mask"], [True] * 3 + [False] * 5)
    assert not window["features"][3:].any() and (window["label"][3:] == -1).all()


def test_thinned_windows_are_those_of_the_stride():
    every, some = cut(length=5, stride=1, causal=True), cut(length=5, stride=3, causal=True)
    thinned = windows.thin_windows(every, 3)
    np.testing.assert_array_equal(thinned.video, some.video)
    np.testing.assert_array_equal(thinned.start, some.start)
    assert len(some) < len(every) == len(windows.thin_windows(every, 1))


def test_causal_windows_end_at_every_row_and_repeat_the_first(reader):
    cuts = cut(length=5, stride=1, causal=True)
    assert len(cuts) == ROWS[-1]
    np.testing.assert_array_equal(cuts.start[:6] + 4, range(6))
    whole = filled_by_hand(0)
    for end in (0, 2, 4, 11, 19):
        window = windows.read_window(cuts, reader, 0, end - 4, None)
        rows = np.arange(end - 4, end + 1)
        np.testing.assert_array_equal(window["features"], whole[np.maximum(rows, 0)])
        assert window["mask"].all()
        np.testing.assert_array_equal(window["label"][rows >= 0], LABELS[rows[rows >= 0]])
        assert (window["label"][rows < 0] == -1).all()
    ends = [cut(length=5, stride=3, causal=True).start[:7] + 4]
    np.testing.assert_array_equal(ends, [[1, 4, 7, 10, 13, 16, 19]])


def test_labels_may_be_absent_or_floats(reader):
    cuts = windows.make_windows(list(VIDEOS), ROWS, None, length=8, stride=5)
    assert "label" not in next(windows.window_epoch(cuts, reader, batch_size=2))
    floats = np.random.default_rng(0).random((ROWS[-1], 2), np.float32)
    cuts = windows.make_windows(list(VIDEOS), ROWS, floats, length=8, stride=5, invalid=-5)
    label = windows.read_window(cuts, reader, 1, 0, None)["label"]
    assert label.dtype == np.float32 and (label[3:] == -5).all()
    np.testing.assert_array_equal(label[:3], floats[20:23])


def take(cuts, reader, steps, **options):
    options = {"batch_size": 4, "seed": 2} | options
    stream = windows.window_batches(cuts, reader, **options)
    found = [next(stream) for _ in range(steps)]
    stream.close()
    return found


@pytest.mark.parametrize("options", [{}, {"shift": 4}])
def test_batches_are_the_same_for_any_processes_threads_and_start(reader, options):
    cuts = cut()
    whole = take(cuts, reader, 6, **options)
    for processes in (2, 4):
        parts = [take(cuts, reader, 6, process=(p, processes), **options) for p in range(processes)]
        for step, batch in enumerate(whole):
            for key in batch:
                for p in range(processes):
                    np.testing.assert_array_equal(batch[key][p::processes], parts[p][step][key])
    for other in (
        take(cuts, reader, 6, threads=0, **options),
        whole[:2] + take(cuts, reader, 4, start_step=2, threads=1, **options),
    ):
        for one, two in zip(whole, other, strict=True):
            for key in one:
                np.testing.assert_array_equal(one[key], two[key])


def test_shift_moves_windows_within_their_video(reader):
    for causal, low in ((False, 0), (True, -7)):
        cuts = cut(causal=causal)
        batches = take(cuts, reader, 30, shift=3)
        starts = {(int(v), int(s)) for b in batches for v, s in zip(b["video"], b["start"])}  # noqa: B905
        assert len(starts) > len(cuts)
        for video, start in starts:
            last = max(ROWS[video + 1] - ROWS[video] - 8, low)
            assert low <= start <= last
        for batch in batches[:3]:
            window = windows.read_window(cuts, reader, batch["video"][0], batch["start"][0], None)
            np.testing.assert_array_equal(window["features"], batch["features"][0])


def test_merging_averages_and_counts_each_row_once(reader):
    cuts = cut()
    collected = {"values": [], "video": [], "start": [], "mask": []}
    for batch in windows.window_epoch(cuts, reader, batch_size=4, threads=0):
        offset = np.arange(4)[:, None, None] * 0  # every window says the same of a row
        collected["values"].append(batch["features"] + offset)
        for key in ("video", "start", "mask"):
            collected[key].append(batch[key])
    stacked = {key: np.concatenate(value) for key, value in collected.items()}
    counts = np.diff(ROWS)
    merged = windows.merge_windows(*stacked.values(), counts)
    assert [len(part) for part in merged] == counts.tolist()
    for v, part in enumerate(merged):
        assert part.dtype == np.float32
        np.testing.assert_array_equal(part, filled_by_hand(v))
    order = np.random.default_rng(0).permutation(len(stacked["start"]))
    shuffled = windows.merge_windows(*(value[order] for value in stacked.values()), counts)
    for one, two in zip(merged, shuffled, strict=True):
        np.testing.assert_array_equal(one, two)


def test_merging_by_hand():
    predictions = np.array([[[1.0], [2.0], [9.0]], [[4.0], [6.0], [9.0]], [[7.0], [9.0], [9.0]]])
    mask = np.array([[True, True, False], [True, True, False], [True, False, False]])
    merged = windows.merge_windows(
        predictions, np.array([0, 0, 1]), np.array([0, 1, 0]), mask, np.array([3, 1])
    )
    np.testing.assert_array_equal(merged[0], [[1], [3], [6]])
    np.testing.assert_array_equal(merged[1], [[7]])


def test_merging_predictions_of_the_last_row_alone(reader):
    cuts = cut(length=5, stride=1, causal=True)
    last = np.concatenate([np.arange(n) for n in np.diff(ROWS)])[:, None, None]
    merged = windows.merge_windows(
        last, cuts.video, cuts.start + 4, np.ones((len(cuts), 1), bool), np.diff(ROWS)
    )
    for part, rows in zip(merged, np.diff(ROWS), strict=True):
        np.testing.assert_array_equal(part[:, 0], np.arange(rows))
    whole = np.repeat(last, 5, axis=1)
    mask = np.ones((len(cuts), 5), bool)
    assert np.isfinite(
        np.concatenate(windows.merge_windows(whole, cuts.video, cuts.start, mask, np.diff(ROWS)))
    ).all()


def test_a_row_in_no_window_is_an_error():
    mask = np.array([[True, False]])
    with pytest.raises(ValueError, match="video 0, row 1: in no window"):
        windows.merge_windows(np.ones((1, 2, 1)), np.array([0]), np.array([0]), mask, [2])


def test_videos_missing_from_a_store_are_named(tmp_path):
    features.save_feature_settings(tmp_path, encoder="e", width=2, source_hash="s")
    store = features.FeatureStore(tmp_path)
    with pytest.raises(InputError, match=r"no features of 2 videos \(late, video10_1\)"):
        windows.make_feature_reader(["late", "video10_1"], [store])


def test_several_stores_lie_side_by_side_and_empty_ones_give_zeros(tmp_path):
    sound = {"a": np.zeros((0, 3)), "b": np.ones((2, 3))}
    for name, found in sound.items():
        features.save_features(tmp_path / "1", name, np.array([1, 2]), np.full((2, 2), 7.0))
        features.save_features(tmp_path / "2", name, np.arange(1, len(found) + 1), found)
    for number, width in ((1, 2), (2, 3)):
        features.save_feature_settings(
            tmp_path / str(number), encoder="e", width=width, source_hash="s"
        )
    stores = [features.FeatureStore(tmp_path / name) for name in ("1", "2")]
    reader = windows.make_feature_reader(["a", "b"], stores)
    for video, expected in ((0, [7, 7, 0, 0, 0]), (1, [7, 7, 1, 1, 1])):
        np.testing.assert_array_equal(reader(video, np.arange(4), None)["features"], [expected] * 4)


def test_impossible_windows_are_input_errors():
    with pytest.raises(InputError, match="one limit more than videos"):
        windows.make_windows(["a"], np.array([0, 2, 3]), None, length=4, stride=2)
    with pytest.raises(InputError, match="as many labels"):
        windows.make_windows(["a"], np.array([0, 2]), LABELS[:1], length=4, stride=2)
    with pytest.raises(InputError, match="0 rows together"):
        windows.make_windows(["a"], np.array([0, 0]), None, length=4, stride=2)
    with pytest.raises(InputError, match="at least 1"):
        windows.make_windows(["a"], np.array([0, 2]), None, length=0, stride=1, causal=True)


class Crops:
    """Crops of the videos as records in memory: as bright as their frame's number."""

    def __init__(self, damaged=None):
        self.raw = []
        for name, (frames, _) in VIDEOS.items():
            for frame in frames:
                image = np.full((16, 16, 3), 10 * frame, np.uint8)
                image[:, :8] //= 2
                data = simplejpeg.encode_jpeg(image, quality=95)
                data = data[:150] if (name, frame) == damaged else data
                self.raw.append(records.encode_record(data, name, frame, {}))
        first = np.cumsum([0, *(len(frames) for frames, _ in VIDEOS.values())])
        numbers = np.concatenate([frames for frames, _ in VIDEOS.values()]).astype(np.int32)
        self.index = records.Index(tuple(VIDEOS), first, numbers, ROWS, {"expr": LABELS})

    def __len__(self):
        return len(self.raw)

    def __getitem__(self, index):
        return self.raw[index]


def test_windows_of_crops_are_filled_like_windows_of_features():
    crops = Crops()
    reader = windows.make_frame_reader(crops, crops.index, transforms.make_eval_transform(16))
    for batch in windows.window_epoch(cut(), reader, batch_size=2):
        assert batch["image"].shape == (2, 8, 16, 16, 3) and batch["image"].dtype == np.uint8
        for i in range(2):
            mask, v = batch["mask"][i], batch["video"][i]
            rows = batch["start"][i] + np.flatnonzero(mask)
            bright = batch["image"][i][mask][:, :, 8:].mean((1, 2, 3)) / 10
            np.testing.assert_allclose(bright, -filled_by_hand(v)[rows, 1], atol=0.2)
            assert not batch["image"][i][~mask].any()


def test_a_window_of_crops_is_augmented_as_one():
    crops = Crops()
    transform = transforms.make_pretrain_transform(16, scale=(1, 1), aspect=(1, 1), flip=0.5)
    reader = windows.make_frame_reader(crops, crops.index, transform)
    flipped = set()
    for batch in take(cut(), reader, 8):
        halves = batch["image"].astype(int)
        dark_left = halves[:, :, :, :8].sum((2, 3, 4)) < halves[:, :, :, 8:].sum((2, 3, 4))
        for left, mask in zip(dark_left, batch["mask"], strict=True):
            assert len(set(left[mask].tolist())) == 1
            flipped.add(bool(left[0]))
    assert flipped == {True, False}


def test_a_damaged_crop_is_named():
    crops = Crops(damaged=("video10_1", 7))
    reader = windows.make_frame_reader(crops, crops.index, transforms.make_eval_transform(16))
    with pytest.raises(InputError, match=r"video 'video10_1', frame 7"):
        list(windows.window_epoch(cut(), reader, batch_size=2))


def test_a_video_without_crops_is_not_seen_and_all_may_not_be():
    crops, transform = Crops(), transforms.make_eval_transform(16)
    first, rows = (np.insert(a, 1, a[1]) for a in (crops.index.first, ROWS))  # a second video
    videos = ("a", "b", *crops.index.videos[1:])
    index = dataclasses.replace(crops.index, videos=videos, first=first, rows=rows)
    reader = windows.make_frame_reader(crops, index, transform)
    found, present = (reader(video, np.arange(3), None) for video in (1, 0))
    assert found["image"].shape == present["image"].shape == (3, 16, 16, 3)
    assert not found["image"].any() and not found["seen"].any()
    assert present["image"].any() and present["seen"].all()
    index = records.Index(("a",), np.array([0, 0]), np.zeros(0, np.int32), np.array([0, 4]), {})
    with pytest.raises(InputError, match=r"no crop of 1 videos; prepare"):
        windows.make_frame_reader([], index, transform)


def test_readers_side_by_side_give_all_that_each_reads(reader):
    crops = Crops()
    frames = windows.make_frame_reader(crops, crops.index, transforms.make_eval_transform(16))
    joined = windows.join_readers(frames, reader)
    window = windows.read_window(cut(), joined, 0, 0, None)
    assert set(window) == {"image", "seen", "features", "mask", "label", "video", "start"}
    np.testing.assert_array_equal(window["seen"], window["mask"])  # padding is not seen


def clips(length=8, **options) -> windows.Windows:
    return windows.make_clip_windows(list(VIDEOS), ROWS, LABELS, length=length, **options)


def test_a_clip_is_one_window(reader):
    cuts = clips()
    assert len(cuts) == len(VIDEOS) and (cuts.start == 0).all()
    for video, count in enumerate(np.diff(ROWS)):
        window = windows.read_window(cuts, reader, video, 0, None)
        if count <= 8:  # all of it
            rows = np.arange(count)
        else:  # the middle of each of 8 parts
            ends = [i * count // 8 for i in range(9)]
            rows = np.array([a + (b - a) // 2 for a, b in itertools.pairwise(ends)])
        assert window["mask"].sum() == len(rows)
        own = slice(0, len(rows))
        np.testing.assert_array_equal(window["features"][own], filled_by_hand(video)[rows])
        np.testing.assert_array_equal(window["label"][own], LABELS[ROWS[video] + rows])
        assert not window["features"][len(rows) :].any()


def test_training_draws_a_row_of_each_part(reader):
    cuts, seen = clips(length=6), set()
    for batch in take(cuts, reader, 60):
        for i in np.flatnonzero(batch["video"] == 2):  # 8 rows, each with a crop: frame = row + 1
            assert batch["mask"][i].all()
            rows = -batch["features"][i, :, 1].astype(int) - 1
            seen.add(tuple(rows))
            ends = np.arange(7) * 8 // 6
            assert (ends[:-1] <= rows).all() and (rows < ends[1:]).all()
    assert len(seen) == 4, "two of the parts have two rows"


def test_clips_are_the_same_for_any_processes_and_threads(reader):
    whole = take(clips(length=6), reader, 4)
    alone = take(clips(length=6), reader, 4, threads=0)
    parts = [take(clips(length=6), reader, 4, process=(p, 2)) for p in range(2)]
    for step, batch in enumerate(whole):
        for key in batch:
            np.testing.assert_array_equal(batch[key], alone[step][key])
            for p in range(2):
                np.testing.assert_array_equal(batch[key][p::2], parts[p][step][key])


def test_of_a_clip_every_so_many_th_row_is_seen(reader):
    """Of 20, 3, 8 and 11 rows every third: 7, 1, 3 and 4; of more than 4 one of each equal part."""
    made = windows.make_clip_windows(list(VIDEOS), ROWS, LABELS, length=4, every=3)
    (batch,) = windows.window_epoch(made, reader, batch_size=4, threads=0)
    assert batch["mask"].sum(1).tolist() == [4, 1, 3, 4]
    for video, rows in enumerate([[0, 6, 12, 18], [0], [0, 3, 6], [0, 3, 6, 9]]):
        expected = filled_by_hand(video)[rows]
        np.testing.assert_array_equal(batch["features"][video, : len(rows)], expected)


def test_a_training_window_does_without_modalities_at_the_rate_asked_for(tmp_path):
    """Never without all of them, the same ones each time, and never outside of training."""
    for name in ("one", "two"):
        features.save_features(tmp_path / name, "a", np.arange(1, 4), np.ones((3, 2), np.float32))
        features.save_feature_settings(tmp_path / name, encoder="e", width=2, source_hash="s")
    stores = [features.FeatureStore(tmp_path / name) for name in ("one", "two")]
    reader = windows.make_feature_reader(["a"], stores, 0.3)
    made = windows.make_windows(["a"], np.array([0, 3]), None, length=1, stride=1)
    options = {"batch_size": 200, "seed": 0, "threads": 0}

    def draw(**changes):
        batches = windows.window_batches(made, reader, **{**options, **changes})
        return np.concatenate([next(batches)["features"][:, 0] for _ in range(10)])

    found = draw()
    kept = found.reshape(-1, 2, 2)
    assert (kept.min(2) == kept.max(2)).all()  # whole modalities
    assert kept.any((1, 2)).all()
    # p (1 - p), as both together are none: .21 +- 3 sigma of 2,000 draws.
    np.testing.assert_allclose((kept[..., 0] == 0).mean(0), 0.21, atol=0.028)
    np.testing.assert_array_equal(draw(), found)
    assert (draw(seed=1) != found).any()
    (batch,) = windows.window_epoch(made, reader, batch_size=3, threads=0)
    assert batch["features"].all()


def test_a_modality_that_is_done_without_is_not_read(tmp_path, monkeypatch):
    taken = []
    read = features.FeatureStore.read
    for name in ("one", "two"):
        features.save_features(tmp_path / name, "a", np.arange(1, 4), np.ones((3, 2), np.float32))
        features.save_feature_settings(tmp_path / name, encoder="e", width=2, source_hash="s")
    stores = [features.FeatureStore(tmp_path / name) for name in ("one", "two")]
    reader = windows.make_feature_reader(["a"], stores, 0.5)

    def listen(store, *asked):
        taken.append(store.folder.name)
        return read(store, *asked)

    monkeypatch.setattr(features.FeatureStore, "read", listen)
    rng, seen = np.random.default_rng(0), []
    for _ in range(20):
        values = reader(0, np.arange(3), rng)["features"]
        seen += [
            name for name, part in (("one", values[:, :2]), ("two", values[:, 2:])) if part.any()
        ]
    assert taken == seen and len(taken) < 40


def test_clips_that_cannot_be_are_refused(reader):
    with pytest.raises(InputError, match="windows of 0 rows: expected at least 1"):
        clips(length=0)
    with pytest.raises(InputError, match="2 videos have 0 rows together"):
        windows.make_clip_windows(["a", "b"], [0, 0, 0], None, length=4)
    with pytest.raises(InputError, match="shift 3: a window is a whole clip; expected 0"):
        next(windows.window_batches(clips(), reader, batch_size=2, seed=0, shift=3))
