"""C-EXPR-DB with RAF-DB's images: crops or whole frames, rows by the example, targets."""

import struct
from fractions import Fraction

import cv2
import numpy as np
import pytest
from corpus_trees import fill, jpeg, refused, write

from abaw_jax.data import records, video
from abaw_jax.data import write as writer
from abaw_jax.data.corpora import read_corpus
from abaw_jax.data.demo.container import write_container
from abaw_jax.data.images import VideoFrame, identity, read_image
from abaw_jax.tracks import CE, EXPR
from abaw_jax.tracks.targets import BASIC, COMPOUNDS, PARTS

FRAMES = 11
# Of video 02 one row more than the decoder finds, of 03 one fewer.
ROWS = {"01": 6, "02": FRAMES + 1, "03": FRAMES - 1}


def film(path, frames=FRAMES, size=(90, 160)):
    """A video whose frame i, from 1, is of the grey 20 i."""
    path.parent.mkdir(parents=True, exist_ok=True)
    greys = np.arange(1, frames + 1, dtype=np.uint8) * 20
    pictures = np.broadcast_to(greys[:, None, None, None], (frames, *size, 3))
    write_container(path, np.ascontiguousarray(pictures), Fraction(25), None)
    return path


def grey(content):
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR).mean()


class Tree:
    """Video 01 as crops, 02 and 03 as files, two images of each compound, ten single emotions."""

    def __init__(self, root):
        self.root = root
        for split in ("train", "test"):
            for name in COMPOUNDS.classes:
                folder = root / "raf" / split / name.replace("_", " ")
                fill(folder, f"{split}_1_aligned.jpg", f"{split}_2_aligned.jpg")
        names = [f"{split}_{n:05d}" for split in ("train", "test") for n in range(1, 11)]
        fill(root / "basic" / "aligned", *(f"{name}_aligned.jpg" for name in names))
        rows = [f"{name}.jpg {n % 7 + 1}" for n, name in enumerate(names)]
        write(root / "basic" / "list_patition_label.txt", "\n".join([*rows, ""]))
        fill(root / "crops" / "01", "00002.jpg", "00003.jpg", "00005.jpg", "._00002.jpg")
        film(root / "videos" / "02.mp4")
        film(root / "videos" / "03.avi")
        self.example = self.write_example(ROWS)

    def write_example(self, rows, header=CE.header, end="\n"):
        lines = [f"{v}/{n:05d}.jpg,0" for v, count in rows.items() for n in range(1, count + 1)]
        return write(self.root / "example.txt", end.join([header, *lines, ""]))

    def read(self, **changes):
        return read_corpus(
            "cexpr",
            **{
                "images": str(self.root / "raf"),
                "image_roots": (str(self.root / "crops"), str(self.root / "absent")),
                "videos": str(self.root / "videos"),
                "test_example": str(self.example),
                **changes,
            },
        )


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path)


def test_images_are_learnt_from_and_videos_predicted(tree, capsys):
    train, validation, test = tree.read()
    assert [split.name for split in (train, validation, test)] == ["train", "validation", "test"]
    assert [[v.name for v in split.videos] for split in (train, validation)] == [[""]] * 2
    for split in (train, validation):
        labels = split.videos[0].labels
        assert np.bincount(labels["compounds"][:, 0]).tolist() == [2] * 11
        known = labels["compounds"] < CE.outputs
        assert labels["ce"].tolist() == np.where(known, labels["compounds"], CE.invalid).tolist()
    assert {video.name: video.rows for video in test.videos} == ROWS
    assert [[number for number, _ in video.frames] for video in test.videos] == [
        [2, 3, 5],
        list(range(1, FRAMES + 1)),
        list(range(1, FRAMES)),
    ]
    assert [video.skipped for video in test.videos] == [
        {"hidden_files": 1},
        {},
        {"surplus_images": 1},
    ]
    printed = capsys.readouterr().out
    assert "2 of 3 videos have no crops" in printed and "no face is looked for" in printed
    assert [split.name for split in tree.read(test_example="")] == ["train", "validation"]


def test_single_emotions_are_learnt_beside_pairs(tree):
    plain = tree.read(test_example="")
    train, validation = tree.read(test_example="", singles=str(tree.root / "basic"))
    assert facts(validation) == facts(plain[1])
    (video,) = train.videos
    assert not video.name and video.rows == 22 + 10
    for key in ("ce", "compounds"):
        before = plain[0].videos[0].labels[key]
        assert video.labels[key].tolist() == before.tolist() + [[CE.invalid]] * 10
    pairs, singles = np.split(video.labels["basic"], [22])
    for row, (label,) in zip(pairs, plain[0].videos[0].labels["compounds"], strict=True):
        shown = {BASIC.classes[k] for k in np.flatnonzero(row)}
        assert shown == set(PARTS[COMPOUNDS.classes[label]])
    order = ["Surprise", "Fear", "Disgust", "Happiness", "Sadness", "Anger", None]
    for number, row in enumerate(singles):
        shown = order[number % 7]
        assert row.tolist() == [int(name == shown) for name in BASIC.classes]
    alone = [[EXPR.classes.index(order[n % 7] or "Neutral")] for n in range(10)]
    assert video.labels["singles"].tolist() == [[-1]] * 22 + alone
    paths = [path for _, path in video.frames]
    assert [number for number, _ in video.frames] == list(range(1, 33))
    assert all("basic/aligned/train_" in path for path in paths[22:])


def facts(split):
    """Images and labels of a split of one video."""
    (video,) = split.videos
    return video.frames, {key: rows.tolist() for key, rows in video.labels.items()}


def test_a_class_without_images_is_named(tree):
    raf, basic = tree.root / "raf", tree.root / "basic"
    for path in (raf / "train" / "Sadly Disgusted").iterdir():
        path.unlink()
    refused(tree.read, raf / "train", "has no image of Sadly Disgusted", "11")
    fill(raf / "train" / "Sadly Disgusted", "1.jpg")
    (raf / "test" / "Sadly Angry").rename(tree.root / "gone")
    refused(tree.read, raf / "test", "has no image of Sadly Angry", "11")
    (tree.root / "gone").rename(raf / "test" / "Sadly Angrily")
    refused(tree.read, raf / "test" / "Sadly Angrily", "is no compound", "'Sadly Angry'")
    (raf / "test" / "Sadly Angrily").rename(raf / "test" / "Sadly Angry")

    def read():
        return tree.read(singles=str(basic))

    listing, rows = basic / "list_patition_label.txt", ["train_00001.jpg 5", "train_00002.jpg 7"]
    write(listing, "\n".join(rows))
    refused(read, basic, "no image of Anger, Disgust, Fear, Happiness, Surprise", "6")
    write(listing, "test_00001.jpg 5\n")
    refused(read, basic, "no train image")
    write(listing, "train_00001.jpg 8\n")
    refused(read, f"{listing}:1", "1 to 7")
    refused(lambda: tree.read(singles=str(tree.root / "absent")), tree.root / "absent")


def test_frames_of_videos_become_records(tree, monkeypatch):
    """Shards begin in the midst of a video; each thread decodes for itself."""
    monkeypatch.setattr(writer, "SHARD_IMAGES", 4)
    out = tree.root / "out"
    summary = records.write_corpus(out, "cexpr", tree.read(), progress=False, workers=3)
    assert summary["splits"]["test"]["images"] == 3 + FRAMES + FRAMES - 1
    index, found = records.load_index(out, "test"), records.open_records(out, "test")
    assert np.diff(index.rows).tolist() == list(ROWS.values())
    rows = [records.decode_record(found[i]) for i in range(len(found))]
    for row in rows[3:]:
        assert row["video"] in ("02", "03") and row["ce"].tolist() == [CE.invalid]
        assert row["basic"].tolist() == [BASIC.invalid] * 6
        assert grey(row["image"]) == pytest.approx(20 * row["frame"], abs=4)


def test_an_empty_folder_of_crops_is_none(tree, capsys):
    film(tree.root / "videos" / "01.mp4", 6)
    for path in (tree.root / "crops" / "01").iterdir():
        path.unlink()
    assert len(tree.read()[2].videos[0].frames) == 6
    assert "3 of 3 videos" in capsys.readouterr().out


def test_the_example_may_come_from_windows(tree):
    text = tree.example.read_text()
    write(tree.example, "\ufeff" + text.replace("\n", "\r\n"))
    assert {video.name: video.rows for video in tree.read()[2].videos} == ROWS


def test_faults_are_one_line(tree):
    root = tree.root
    refused(lambda: tree.read(videos=""), tree.example, "video 02 has neither", root / "crops")
    refused(lambda: tree.read(image_roots=()), "video 01 has neither", root / "videos" / "01.mp4")
    refused(lambda: tree.read(images=str(root / "no")), root / "no", "does not exist")
    (root / "raf" / "test").rename(root / "raf" / "valid")
    refused(tree.read, root / "raf", "no folder test", "validation")
    (root / "raf" / "valid").rename(root / "raf" / "test")
    fill(root / "absent" / "01", "00001.jpg")
    refused(tree.read, "video 01 has images in", root / "absent")
    (root / "absent" / "01" / "00001.jpg").unlink()
    refused(lambda: tree.read(max_unmatched=1, test_example=tree.write_example({"02": 3})), "02")
    tree.write_example(ROWS, header="image_location,valence,arousal")
    refused(tree.read, f"{tree.example}:1: ", "CE")


@pytest.mark.parametrize("content", [b"", b"no video", b"\0" * 999])
def test_files_that_are_no_videos(tree, content):
    path = tree.root / "videos" / "02.mp4"
    path.write_bytes(content)
    refused(tree.read, path, "replace the file")


def test_a_cut_video_is_refused(tree):
    path = film(tree.root / "videos" / "03.avi", 60)
    whole = path.read_bytes()
    path.write_bytes(whole[:300])
    refused(tree.read, path, "replace the file")


def test_frames_in_any_order_are_those_of_their_number(tmp_path):
    path = str(film(tmp_path / "a.mp4", size=(90, 160)))
    other = str(film(tmp_path / "b.mp4", size=(64, 64)))
    assert video.count_frames(path) == FRAMES
    for name, number in [(path, 2), (path, 3), (path, 7), (other, 4), (path, 8), (path, 1)]:
        image = read_image(VideoFrame(name, number, 80))
        assert grey(image) == pytest.approx(20 * number, abs=4)
    assert cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR).shape == (45, 80, 3)
    assert image == read_image(VideoFrame(path, 1, 80)) != read_image(VideoFrame(path, 1, 81))
    assert identity(VideoFrame(path, 1, 80)) != identity(VideoFrame(path, 2, 80))
    with pytest.raises(ValueError, match="ends before frame 12"):
        read_image(VideoFrame(path, FRAMES + 1, 80))
    with pytest.raises(OSError):
        read_image(VideoFrame(str(tmp_path / "no.mp4"), 1, 80))


def show_turned(path, matrix):
    """Have an .mp4 say that it is to be shown by (a, b, c, d) of ISO/IEC 14496-12's matrix."""
    content, (a, b, c, d) = bytearray(path.read_bytes()), matrix
    start = content.index(b"tkhd") + 44
    one = 1 << 16
    content[start : start + 36] = struct.pack(
        ">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30
    )
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("matrix", "shown"),
    [
        ((1, 0, 0, 1), lambda picture: picture),
        ((0, 1, -1, 0), lambda picture: np.rot90(picture, -1)),
        ((-1, 0, 0, -1), lambda picture: np.rot90(picture, 2)),
        ((0, -1, 1, 0), lambda picture: np.rot90(picture, 1)),
        ((-1, 0, 0, 1), np.fliplr),
        ((0, 1, 1, 0), lambda picture: picture.swapaxes(0, 1)),
    ],
    ids=["as stored", "clockwise", "upside down", "anticlockwise", "mirrored", "transposed"],
)
def test_frames_come_as_the_container_shows_them(tmp_path, matrix, shown):
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[:32, :48] = 80  # each corner is of a grey of its own
    picture[:32, 48:] = 160
    picture[32:, :48] = 240
    path = tmp_path / "a.mp4"
    write_container(path, np.stack([picture] * 3), Fraction(25), None)
    show_turned(path, matrix)
    for number in (1, 3):
        content = np.frombuffer(read_image(VideoFrame(str(path), number, 48)), np.uint8)
        image = cv2.imdecode(content, cv2.IMREAD_COLOR)
        expected = shown(picture)[::2, ::2]
        assert image.shape == expected.shape
        assert np.abs(image.astype(float) - expected).mean() < 4


def test_crops_need_no_decoder(tree):
    """Images of 01 alone: nothing is decoded, and nothing is printed of whole frames."""
    tree.write_example({"01": 6})
    write(tree.root / "crops" / "01" / "00001.png", jpeg())
    assert len(tree.read(videos="")[2].videos[0].frames) == 4
