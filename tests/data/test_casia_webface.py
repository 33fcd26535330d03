"""CASIA-WebFace: folders, and MXNet's RecordIO read without MXNet."""

import itertools
import struct
import tracemalloc

import numpy as np
import pytest
from corpus_trees import fill, jpeg, refused, write

from abaw_jax.data import records
from abaw_jax.data.corpora import casia_webface, read_corpus
from abaw_jax.data.images import Span, read_image

MAGIC = struct.pack("<I", 0xCED7230A)


def packed(image, labels=(), identity=0.0):
    """The bytes of a record: MXNet's header, labels and image."""
    head = struct.pack("<IfQQ", len(labels), 0.0 if labels else identity, 7, 0)
    return head + np.array(labels, "<f4").tobytes() + image


def framed(content, part=0):
    """One part of a record: magic number, length, bytes and padding."""
    head = MAGIC + struct.pack("<I", part << 29 | len(content))
    return head + content + b"\0" * (-len(content) % 4)


def split_at_magic(content):
    """A record as dmlc-core writes it: cut where its bytes hold the magic number, at 4 bytes."""
    at = [i for i in range(0, len(content) - 3, 4) if content[i : i + 4] == MAGIC]
    pieces = [content[a:b] for a, b in zip([0, *(i + 4 for i in at)], [*at, None], strict=True)]
    if len(pieces) == 1:
        return framed(content)
    parts = [1, *[2] * (len(pieces) - 2), 3]
    return b"".join(itertools.starmap(framed, zip(pieces, parts, strict=True)))


def tree(root, contents):
    """train.rec and train.idx; returns the offset of each record."""
    blocks = [split_at_magic(content) for content in contents]
    offsets = [0, *itertools.accumulate(map(len, blocks))][:-1]
    write(root / "train.rec", b"".join(blocks))
    write(root / "train.idx", "".join(f"{i}\t{at}\n" for i, at in enumerate(offsets)))
    write(root / "property", "2,112,112")
    return offsets


def images(split):
    return [read_image(image) for _, image in split.videos[0].frames]


def test_records(tmp_path):
    faces = [jpeg(i, 12 + i) for i in range(5)]
    contents = [
        packed(b"", (6.0, 8.0)),  # where the identities' records begin and end
        packed(faces[0], identity=0.0),
        packed(faces[1], (1.0, 2.0, 3.0)),
        *(packed(face, identity=1.0) for face in faces[2:]),
        packed(b"", (1.0, 3.0)),
        packed(b"", (3.0, 6.0)),
    ]
    offsets = tree(tmp_path, contents)
    (split,) = read_corpus("casia_webface", root=str(tmp_path))
    (video,) = split.videos
    assert (split.name, video.name, video.rows, video.labels) == ("train", "", 5, {})
    assert split.skipped == {"records_without_image": 3}
    assert [number for number, _ in video.frames] == [1, 2, 3, 4, 5]
    assert images(split) == faces
    path = str(tmp_path / "train.rec")
    assert video.frames[1][1] == Span(path, offsets[2] + 8 + 24 + 12, len(faces[1]))
    with pytest.raises(IndexError):
        video.frames[5]
    summary = records.write_corpus(tmp_path / "out", "casia", [split], progress=False)
    assert summary["splits"]["train"]["images"] == 5 and not summary["damaged"]
    first = records.decode_record(records.open_records(tmp_path / "out", "train")[0])
    assert first["image"] == faces[0]


def test_index_decides_what_is_read_and_in_which_order(tmp_path):
    faces = [jpeg(i) for i in range(3)]
    offsets = tree(tmp_path, map(packed, faces))
    write(tmp_path / "train.idx", f"9\t{offsets[2]}\r\n4\t{offsets[0]}")
    (split,) = casia_webface.read(tmp_path)
    assert images(split) == [faces[2], faces[0]]


def test_records_in_parts(tmp_path):
    """Of an image that holds the magic number; only where it starts at 4 bytes is it cut."""
    faces = [jpeg(0) + MAGIC * 2 + b"abc", MAGIC, jpeg(1), b"x" + MAGIC + b"yz!" + MAGIC + b"12345"]
    while len(faces[0]) % 4 != 3:
        faces[0] = b"\0" + faces[0]
    contents = [packed(b""), *map(packed, faces[:3]), packed(faces[3], (1.0, 2.0))]
    tree(tmp_path, contents)
    assert (tmp_path / "train.rec").read_bytes().count(MAGIC) > len(contents)
    (split,) = casia_webface.read(tmp_path)
    assert images(split) == faces
    kinds = [type(image) for _, image in split.videos[0].frames]
    assert kinds == [bytes, bytes, Span, bytes]
    assert split.videos[0].rows == 4 and split.skipped == {"records_without_image": 1}


def test_memory_does_not_grow_with_the_images(tmp_path):
    """Two numbers a record: 100,000 headers of one file take below 20 MB, held below 4 MB."""
    count = 100_000
    block = framed(packed(b"face"))
    write(tmp_path / "train.rec", block * count)
    write(tmp_path / "train.idx", "".join(f"{i}\t{i * len(block)}\n" for i in range(count)))
    tracemalloc.start()
    (split,) = casia_webface.read(tmp_path)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(split.videos[0].frames) == count
    assert held < 4e6 and peak < 20e6


def test_folders(tmp_path):
    fill(tmp_path, "0000045/001.jpg", "0000045/002.jpg", "0000099/001.jpg", "0000099/.x", "a.txt")
    (split,) = casia_webface.read(tmp_path)
    assert [p.rsplit("/", 2)[1] for _, p in split.videos[0].frames] == ["0000045"] * 2 + ["0000099"]
    assert split.videos[0].labels == {}
    assert split.skipped == {"hidden_files": 1, "other_files": 1}
    refused(lambda: casia_webface.read(tmp_path / "no"), "does not exist")
    (tmp_path / "empty").mkdir()
    refused(lambda: casia_webface.read(tmp_path / "empty"), "neither train.rec nor images")


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("2", "key<tab>offset"),
        ("2\t-4", "key<tab>offset"),
        ("2\t6", "multiple of 4"),
        ("2\t9" + "0" * 30, "key<tab>offset"),
        ("", "key<tab>offset"),
        ("2\t0", "line 1"),
        ("2\t4", "magic"),
        ("2\t999996", "runs past"),
    ],
)
def test_faults_of_the_index(tmp_path, line, word):
    tree(tmp_path, [packed(jpeg(0)), packed(jpeg(1))])
    path = tmp_path / "train.idx"
    path.write_text(f"{path.read_text()}{line}\n")
    refused(lambda: casia_webface.read(tmp_path), f"{path}:3: ", word)


def test_faults_of_the_pair(tmp_path):
    tree(tmp_path, [packed(jpeg(0)), packed(jpeg(1))])
    index = tmp_path / "train.idx"
    index.write_text("")
    refused(lambda: casia_webface.read(tmp_path), index, "no rows")
    index.unlink()
    refused(lambda: casia_webface.read(tmp_path), index, "train.rec")
    tree(tmp_path, [packed(b""), packed(b"")])
    refused(lambda: casia_webface.read(tmp_path), tmp_path / "train.rec", "no image")


def test_cut_files_are_refused_at_every_length(tmp_path):
    """Never a crash or an image that was cut: any end but that of the last padding is refused."""
    face = b"0123" + MAGIC + b"4567"
    tree(tmp_path, [packed(b"abcde"), packed(face), packed(b"wxyz")])
    whole = (tmp_path / "train.rec").read_bytes()
    for length in range(len(whole)):
        (tmp_path / "train.rec").write_bytes(whole[:length])
        refused(lambda: casia_webface.read(tmp_path), tmp_path / "train.idx", "copy both")
    (tmp_path / "train.rec").write_bytes(whole)
    assert images(casia_webface.read(tmp_path)[0]) == [b"abcde", face, b"wxyz"]


def replaced(content, at, value):
    return content[:at] + struct.pack("<I", value) + content[at + 4 :]


@pytest.mark.parametrize(
    ("at", "value", "word"),
    [
        (0, 0, "magic"),
        (4, 2 << 29 | 40, "no beginning"),
        (4, 7 << 29 | 40, "no beginning"),
        (4, 1 << 29 | 40, "parts"),
        (4, (1 << 29) - 1, "runs past"),
        (4, 23, "shorter"),
        (8, 5, "shorter"),
        (8, 0xFFFFFFFF, "shorter"),
    ],
)
def test_damaged_records(tmp_path, at, value, word):
    first = packed(b"0123456789abcdef")  # 40 bytes
    tree(tmp_path, [packed(b"left"), first, packed(b"right")])
    path = tmp_path / "train.rec"
    start = len(framed(packed(b"left")))
    path.write_bytes(replaced(path.read_bytes(), start + at, value))
    refused(
        lambda: casia_webface.read(tmp_path), f"{tmp_path / 'train.idx'}:2: ", path, word, start
    )


@pytest.mark.parametrize("parts", [(1, 1), (1, 2), (1, 0), (1, 4), (1, 3, "magic"), (1, 3, "head")])
def test_damaged_parts(tmp_path, parts):
    content = packed(b"0123" + MAGIC + b"45678")
    if parts[-1] == "head":
        content = replaced(content, 0, 1000)
    cut = content.index(MAGIC)
    second = framed(content[cut + 4 :], parts[1])
    if parts[-1] == "magic":
        second = replaced(second, 0, 1)
    write(tmp_path / "train.rec", framed(content[:cut], parts[0]) + second)
    write(tmp_path / "train.idx", "0\t0\n")
    refused(lambda: casia_webface.read(tmp_path), f"{tmp_path / 'train.idx'}:1: ", "parts")
