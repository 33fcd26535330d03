"""The order, determinism and failures of the image batches."""

import subprocess
import sys

import numpy as np
import pytest
import simplejpeg

from abaw_jax.data import pipeline, records, transforms
from abaw_jax.errors import InputError

COUNT = 23


def face(value: int, noise: int) -> bytes:
    image = np.random.default_rng(noise).integers(0, 40, (24, 24, 3)) + value * 8
    return simplejpeg.encode_jpeg(image.astype(np.uint8), quality=95, colorsubsampling="444")


class Memory:
    """Records in memory that count how often they are read."""

    def __init__(self, encoded):
        self.encoded, self.reads = list(encoded), 0

    def __len__(self):
        return len(self.encoded)

    def __getitem__(self, index):
        self.reads += 1
        return self.encoded[index]


@pytest.fixture
def faces() -> Memory:
    labels = [np.array([i % 8], np.int32) for i in range(COUNT)]
    return Memory(
        records.encode_record(face(i, i), f"video{i % 3}", i + 1, {"expr": label})
        for i, label in enumerate(labels)
    )


LABELS = np.arange(COUNT, dtype=np.int32)[:, None]
TRANSFORM = transforms.make_pretrain_transform(16)


def batches(faces, count, *, batch_size=8, seed=5, **options):
    options = {"indices": np.arange(COUNT), "labels": LABELS, "transform": TRANSFORM} | options
    stream = pipeline.image_batches(faces, batch_size=batch_size, seed=seed, **options)
    found = [next(stream) for _ in range(count)]
    stream.close()
    return found


def assert_same(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key], err_msg=key)


def test_batches_hold_images_labels_and_mask(faces):
    for batch in batches(faces, 3):
        assert batch["image"].shape == (8, 16, 16, 3) and batch["image"].dtype == np.uint8
        assert batch["label"].shape == (8, 1) and batch["label"].dtype == np.int32
        assert batch["mask"].all() and batch["mask"].dtype == bool
        # Each face is as bright as its number says: labels belong to their images.
        seen = (batch["image"].mean((1, 2, 3)) - 19.5) / 8
        np.testing.assert_allclose(seen, batch["label"][:, 0], atol=0.5)
    assert batches(faces, 1, labels=None)[0].keys() == {"image"}


def test_label_width_and_type_are_kept(faces):
    labels = np.random.default_rng(0).random((COUNT, 2), np.float32)
    batch = batches(faces, 1, labels=labels)[0]
    assert batch["label"].dtype == np.float32 and batch["label"].shape == (8, 2)


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_share_the_same_global_batch(faces, processes):
    whole = batches(faces, 7)
    parts = [batches(faces, 7, process=(p, processes)) for p in range(processes)]
    for step, batch in enumerate(whole):
        for key, expected in batch.items():
            merged = np.empty_like(expected)
            for p in range(processes):
                assert len(parts[p][step][key]) == 8 // processes
                merged[p::processes] = parts[p][step][key]
            np.testing.assert_array_equal(merged, expected, err_msg=f"step {step} {key}")


@pytest.mark.parametrize("threads", [0, 1, 5])
def test_threads_do_not_change_the_batches(faces, threads):
    assert_same(batches(faces, 6, threads=threads), batches(faces, 6, threads=2))


@pytest.mark.parametrize("threads", [0, 2])
def test_resume_at_any_step_is_exact(faces, threads):
    whole = batches(faces, 9)
    for start in (1, 4, 8):
        resumed = batches(faces, 9 - start, start_step=start, threads=threads)
        assert_same(resumed, whole[start:])


def test_resume_is_a_jump_not_a_replay(faces):
    batches(faces, 2, start_step=10**9, threads=0)
    assert faces.reads == 16


def test_every_epoch_is_a_new_permutation(faces):
    drawn = np.concatenate([b["label"][:, 0] for b in batches(faces, COUNT, batch_size=3)])
    epochs = drawn.reshape(3, COUNT)
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(COUNT))
    assert (epochs[0] != np.arange(COUNT)).any()
    assert (epochs[0] != epochs[1]).any() and (epochs[1] != epochs[2]).any()


def test_seeds_differ_in_order_and_neighbours_share_no_epoch(faces):
    def orders(seed):
        found = [b["label"][:, 0] for b in batches(faces, COUNT, batch_size=4, seed=seed)]
        return {tuple(epoch) for epoch in np.concatenate(found).reshape(4, COUNT).tolist()}

    assert not orders(0) & orders(1) and len(orders(0)) == 4


def test_augmentation_differs_between_epochs_and_positions(faces):
    one = pipeline.image_batches(
        faces, np.array([3]), None, batch_size=6, transform=TRANSFORM, seed=0
    )
    images = np.concatenate([next(one)["image"], next(one)["image"]])
    one.close()
    assert len(np.unique(images.reshape(12, -1), axis=0)) == 12


def test_a_batch_may_be_larger_than_the_records(faces):
    batch = batches(faces, 1, batch_size=50, indices=np.array([2, 7, 11]))[0]
    values, counts = np.unique(batch["label"], return_counts=True)
    np.testing.assert_array_equal(values, [2, 7, 11])
    assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize("processes", [1, 2, 4])
@pytest.mark.parametrize("threads", [0, 2])
def test_an_epoch_is_one_pass_in_order(faces, processes, threads):
    indices = np.array([4, 0, 22, 9, 9, 1, 17, 3, 5])
    transform = transforms.make_eval_transform(16)
    expected = np.stack([transform(records.decode_record(faces[int(i)])["image"]) for i in indices])
    seen = np.zeros(len(indices), int)
    for p in range(processes):
        found = list(
            pipeline.image_epoch(
                faces,
                indices,
                batch_size=4,
                transform=transform,
                process=(p, processes),
                threads=threads,
            )
        )
        assert len(found) == 3, "every process makes as many steps"
        for batch in found:
            assert len(batch["image"]) == 4 // processes and batch["index"].dtype == np.int64
            np.testing.assert_array_equal(batch["image"], expected[batch["index"]])
            np.add.at(seen, batch["index"][batch["mask"]], 1)
    np.testing.assert_array_equal(seen, 1)


@pytest.mark.parametrize("threads", [0, 3])
def test_an_undecodable_image_is_named_and_nothing_hangs(faces, threads):
    faces.encoded[6] = records.encode_record(face(6, 6)[:200], "video10_1_left", 41, {})
    with pytest.raises(InputError, match=r"record 6 \(video 'video10_1_left', frame 41\)") as info:
        batches(faces, 5, threads=threads)
    assert "\n" not in str(info.value)
    with pytest.raises(InputError, match="frame 41"):
        list(
            pipeline.image_epoch(
                faces, np.arange(COUNT), batch_size=4, transform=TRANSFORM_EVAL, threads=threads
            )
        )


TRANSFORM_EVAL = transforms.make_eval_transform(16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"indices": np.array([], int)}, "0 examples"),
        ({"indices": np.array([COUNT])}, "expected 0 .. 22"),
        ({"indices": np.array([0.5])}, "whole numbers"),
        ({"labels": LABELS[:3]}, "one row a record"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"batch_size": 9, "process": (0, 2)}, "multiple of 2 processes"),
        ({"process": (2, 2)}, "0 <= index < count"),
        ({"threads": -1}, "threads -1"),
        ({"seed": -1}, "from 0 up"),
        ({"start_step": -1}, "from 0 up"),
    ],
)
def test_impossible_arguments_are_input_errors_at_once(faces, options, message):
    options = {"indices": np.arange(COUNT), "labels": LABELS, "batch_size": 8, "seed": 0} | options
    with pytest.raises(InputError, match=message):
        pipeline.image_batches(faces, transform=TRANSFORM, **options)
    assert faces.reads == 0


LATE = np.arange(COUNT) % 3 == 0
CURRICULUM = pipeline.Curriculum(LATE, 20)


def test_a_curriculum_goes_from_early_to_late_examples():
    late = np.arange(90) >= 40
    stream = pipeline.shuffled_batches(
        90,
        lambda i, rng: {"x": i},
        batch_size=100,
        seed=4,
        threads=0,
        curriculum=pipeline.Curriculum(late, 20),
    )
    drawn = np.stack([next(stream)["x"] for _ in range(30)])
    stream.close()
    shares = late[drawn].mean(axis=1)
    expected = np.minimum(np.arange(30) / 20, 1)
    assert shares[0] == 0 and (shares[20:] == 1).all()
    np.testing.assert_allclose(shares, expected, atol=0.2)
    assert np.abs((shares - expected).mean()) < 0.02
    # Of each part every example is drawn; all late ones in every epoch once there are no others.
    assert set(drawn.ravel().tolist()) == set(range(90))
    for epoch in drawn[20:].reshape(-1, 50):
        np.testing.assert_array_equal(np.sort(epoch), np.arange(40, 90))


def test_the_order_of_a_curriculum_follows_from_seed_and_step(faces):
    whole = batches(faces, 24, curriculum=CURRICULUM)
    resumed = batches(faces, 11, start_step=13, threads=0, curriculum=CURRICULUM)
    assert_same(resumed, whole[13:])
    for part in range(2):
        found = batches(faces, 24, process=(part, 2), curriculum=CURRICULUM)
        assert_same(found, [{k: v[part::2] for k, v in batch.items()} for batch in whole])
    other = batches(faces, 24, seed=6, curriculum=CURRICULUM)
    assert any((a["label"] != b["label"]).any() for a, b in zip(whole, other, strict=True))


@pytest.mark.parametrize(
    ("late", "steps"), [(LATE[1:], 5), (LATE | True, 5), (LATE & False, 5), (LATE, 0)]
)
def test_an_impossible_curriculum_is_named(faces, late, steps):
    with pytest.raises(InputError, match=f"among {len(late)} examples over {steps} steps"):
        batches(faces, 1, curriculum=pipeline.Curriculum(late, steps))


def test_batches_from_written_records(tmp_path):
    frames = [(n, face(n, n)) for n in range(1, 12)]
    labels = {"expr": np.arange(12, dtype=np.int32)[:, None] % 8}
    split = records.Split("train", [records.Video("video1", frames, 12, labels)])
    records.write_corpus(tmp_path / "corpus", "small", [split], workers=1, progress=False)
    source = records.open_records(tmp_path / "corpus", "train")
    index = records.load_index(tmp_path / "corpus", "train")
    stream = pipeline.image_batches(
        source,
        np.arange(len(source)),
        index.record_labels("expr"),
        batch_size=4,
        transform=TRANSFORM,
        seed=1,
    )
    for _ in range(6):
        batch = next(stream)
        seen = np.round((batch["image"].mean((1, 2, 3)) - 19.5) / 8)
        np.testing.assert_array_equal((seen - 1) % 8, batch["label"][:, 0])
    stream.close()


def test_the_order_is_the_same_in_another_interpreter(faces):
    code = (
        "from abaw_jax.data import pipeline;"
        "b = pipeline.shuffled_batches(23, lambda i, g: {'x': i, 'u': g.random()},"
        " batch_size=5, seed=3, start_step=7);"
        "c = next(b); print(c['x'].tolist(), c['u'].tolist())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    stream = pipeline.shuffled_batches(
        23, lambda i, g: {"x": i, "u": g.random()}, batch_size=5, seed=3, start_step=7, threads=0
    )
    batch = next(stream)
    stream.close()
    assert run.stdout.strip() == f"{batch['x'].tolist()} {batch['u'].tolist()}"


CLASSES = np.array([0] * 15 + [3] * 6 + [7] * 2)  # of COUNT examples


def test_classes_come_equally_often_and_each_ones_examples_too():
    stream = pipeline.shuffled_batches(
        COUNT, lambda i, rng: {"x": i}, batch_size=30, seed=4, threads=0, classes=CLASSES
    )
    drawn = np.concatenate([next(stream)["x"] for _ in range(6)])
    stream.close()
    turns = CLASSES[drawn].reshape(-1, 3)
    np.testing.assert_array_equal(np.sort(turns, axis=1), np.broadcast_to([0, 3, 7], (60, 3)))
    assert len({tuple(turn) for turn in turns.tolist()}) == 6  # in every order
    for number in (0, 3, 7):
        own, members = drawn[CLASSES[drawn] == number], np.flatnonzero(CLASSES == number)
        for epoch in own.reshape(-1, len(members)):  # 60 is a multiple of each
            np.testing.assert_array_equal(np.sort(epoch), members)


def test_the_order_of_classes_follows_from_seed_and_step(faces):
    whole = batches(faces, 12, classes=CLASSES)
    assert_same(batches(faces, 5, start_step=7, threads=0, classes=CLASSES), whole[7:])
    for part in range(2):
        found = batches(faces, 12, process=(part, 2), classes=CLASSES)
        assert_same(found, [{k: v[part::2] for k, v in batch.items()} for batch in whole])
    other = batches(faces, 12, seed=6, classes=CLASSES)
    assert any((a["label"] != b["label"]).any() for a, b in zip(whole, other, strict=True))


def test_classes_that_cannot_be_balanced_are_named(faces):
    with pytest.raises(InputError, match=r"classes of \(22,\) examples; expected one each of 23"):
        batches(faces, 1, classes=CLASSES[1:])
    with pytest.raises(InputError, match="and a curriculum; expected one each of 23, and one of"):
        batches(faces, 1, classes=CLASSES, curriculum=CURRICULUM)
