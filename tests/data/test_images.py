"""Images that are no files of their own: spans of a file and crops."""

import itertools

import corpus_trees
import cv2
import numpy as np
import pytest
import simplejpeg

from abaw_jax.data import records, write
from abaw_jax.data.images import Crop, Span, identity, read_image
from abaw_jax.data.records import Split, Video
from abaw_jax.errors import InputError


def gradient(width=40, height=30):
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, :, 0] = np.arange(width) * 6
    pixels[:, :, 2] = np.arange(height)[:, None] * 8
    return pixels


def decoded(content):
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)


@pytest.mark.parametrize("ending", [".jpg", ".png", ".bmp"])
def test_crop_is_the_part_within_the_image(tmp_path, ending):
    path = str(tmp_path / f"face{ending}")
    assert cv2.imwrite(path, gradient(), [cv2.IMWRITE_JPEG_QUALITY, 100])
    part = decoded(read_image(Crop(path, 10, 5, 20, 12)))
    assert part.shape == (12, 20, 3)
    np.testing.assert_allclose(part.astype(int), gradient()[5:17, 10:30].astype(int), atol=6)
    assert decoded(read_image(Crop(path, -4, 20, 14, 100))).shape == (10, 10, 3)
    with pytest.raises(ValueError, match=r"20 x 12 from \(40, 5\) is outside .* of 40 x 30"):
        read_image(Crop(path, 40, 5, 20, 12))


@pytest.mark.parametrize("content", [b"", b"BM no", corpus_trees.jpeg()[:-60], b"\x89PNG\r\n"])
def test_crop_of_no_image(tmp_path, content):
    path = corpus_trees.write(tmp_path / "x.jpg", content)
    with pytest.raises(ValueError):
        read_image(Crop(str(path), 0, 0, 4, 4))


def test_identity_changes_with_the_part(tmp_path):
    path = str(corpus_trees.write(tmp_path / "x.jpg", corpus_trees.jpeg()))
    images = [
        path,
        Crop(path, 0, 0, 4, 4),
        Crop(path, 0, 0, 4, 5),
        Span(path, 0, 9),
        Span(path, 1, 9),
    ]
    assert len({*map(identity, images), identity(corpus_trees.jpeg())}) == 6


class Numbered(list):
    """Frames that are counted as they are asked for."""

    asked = 0

    def __getitem__(self, i):
        self.asked += 1
        return super().__getitem__(i)


def test_spans_become_the_same_records_as_files(tmp_path, monkeypatch):
    monkeypatch.setattr(write, "SHARD_IMAGES", 2)
    contents = [corpus_trees.jpeg(i) for i in range(5)]
    whole = str(corpus_trees.write(tmp_path / "all.rec", b"head" + b"".join(contents)))
    ends = np.cumsum([4, *map(len, contents)])
    spans = [Span(whole, int(a), int(b - a)) for a, b in itertools.pairwise(ends)]
    videos = [Video("a", Numbered(enumerate(spans[:3], 1)), 3), Video("b", [(7, spans[3])], 0)]
    videos.append(Video("c", [(2, spans[4])], 2))
    records.write_corpus(tmp_path / "out", "spans", [Split("train", videos)], progress=False)
    assert videos[0].frames.asked == 3  # each frame is asked for by its own shard alone
    found = records.open_records(tmp_path / "out", "train")
    rows = [records.decode_record(found[i]) for i in range(5)]
    assert [(row["video"], row["frame"]) for row in rows] == [
        ("a", 1),
        ("a", 2),
        ("a", 3),
        ("b", 7),
        ("c", 2),
    ]
    assert [row["image"] for row in rows] == contents


def test_damaged_parts_are_named(tmp_path):
    path = str(corpus_trees.write(tmp_path / "x.jpg", corpus_trees.jpeg(0, 16)))
    frames = list(enumerate([path, Span(path, 10, 999_999), Crop(path, 16, 0, 4, 4)], 1))
    split = Split("train", [Video("", frames, 3)])
    summary = records.write_corpus(tmp_path / "out", "x", [split], max_damaged=2, progress=False)
    assert summary["damaged"] == [
        {"file": f"{path} from byte 10", "reason": "file ends early"},
        {
            "file": path,
            "reason": "box of 4 x 4 from (16, 0) is outside the image of 16 x 16",
        },
    ]
    with pytest.raises(InputError, match="absent.jpg: cannot be read"):
        lost = Split("train", [Video("", [(1, Crop("absent.jpg", 0, 0, 1, 1))], 1)])
        records.write_corpus(tmp_path / "lost", "x", [lost], progress=False)


def test_cmyk_is_no_crop(tmp_path):
    image = simplejpeg.encode_jpeg(np.zeros((8, 8, 4), np.uint8), colorspace="CMYK")
    path = corpus_trees.write(tmp_path / "x.jpg", image)
    with pytest.raises(ValueError, match="CMYK|YCCK"):
        read_image(Crop(str(path), 0, 0, 4, 4))
