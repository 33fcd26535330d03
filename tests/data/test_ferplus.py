"""FER+: votes beside FER2013's csv or the images that they name."""

import numpy as np
import pytest
from corpus_trees import fill, refused, write

from abaw_jax.data.corpora import fer2013, ferplus, read_corpus

HEADER = (
    "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
)
VOTES = [
    "Training,fer0000000.png,4,0,0,1,3,2,0,0,0,0",  # 4 of 9 that count
    "Training,fer0000001.png,6,0,1,1,0,0,0,0,2,0",  # neutral, 6 of 8 that count
    "PublicTest,fer0000002.png,5,5,0,0,0,0,0,0,0,0",  # a tie
    "Training,,0,0,0,0,0,0,0,0,0,10",  # no face
    "PrivateTest,fer0000004.png,0,0,0,0,1,0,8,0,1,0",  # fear
    "Training,fer0000005.png,0,0,0,0,0,0,0,9,1,0",  # contempt
    "Training,fer0000006.png,1,1,1,1,1,1,1,1,1,1",  # single votes alone
    "Training,fer0000007.png,2,0,0,0,0,0,0,0,8,0",  # unknown
    "Training,fer0000008.png,0,2,0,0,0,1,1,0,0,0",  # happiness: single votes do not count
]
SKIPPED = {
    "undecided_labels": 3,
    "contempt_labels": 1,
    "unknown_labels": 1,
    "non_face_images": 1,
}


def table(root, rows=VOTES, header=HEADER):
    return write(root / "fer2013new.csv", "\n".join([header, *rows]) + "\n")


def images(root, rows=VOTES):
    """FER2013's csv, whose own labels are all 3; image i is of the grey i."""
    lines = [f"3,{' '.join([str(i)] * 2304)},{row.split(',')[0]}" for i, row in enumerate(rows)]
    return write(root / "fer2013.csv", "\n".join(["emotion,pixels,Usage", *lines]))


def check(splits):
    assert [s.name for s in splits] == ["train", "validation", "test"]
    found = [s.videos[0].labels["expr"].ravel().tolist() for s in splits]
    assert found == [[-1, 0, -1, -1, -1, 4], [-1], [3]]
    assert splits[0].skipped == SKIPPED and splits[1].skipped == {}


def test_votes_beside_the_csv(tmp_path):
    path = images(tmp_path)
    table(tmp_path)
    splits = read_corpus("ferplus", path=str(tmp_path))
    check(splits)
    check(ferplus.read(path))
    expected = [image for _, s, image, _ in fer2013.read_rows(path) if s == "train"]
    del expected[2]  # no face
    assert [image for _, image in splits[0].videos[0].frames] == expected


def test_votes_elsewhere(tmp_path):
    votes = table(tmp_path / "votes", header=f"\ufeff{HEADER.upper()}")
    check(ferplus.read(images(tmp_path), votes=votes))
    refused(lambda: ferplus.read(tmp_path), tmp_path / "fer2013new.csv", "votes")


def test_votes_beside_images(tmp_path):
    folders = {"Training": "FER2013Train", "PublicTest": "FER2013Valid"}
    rows = [row.split(",")[:2] for row in VOTES if ".png" in row]
    fill(tmp_path, *(f"{folders.get(usage, 'FER2013Test')}/{name}" for usage, name in rows))
    write(tmp_path / "FER2013Train/._fer0000000.png", b"")
    path = table(tmp_path)
    splits = ferplus.read(tmp_path)
    assert splits[0].skipped.pop("hidden_files") == 1
    assert splits[0].skipped.pop("other_files") == 1  # the table itself
    check(splits)
    assert splits[2].videos[0].frames[0][1] == str(tmp_path / "FER2013Test/fer0000004.png")
    (tmp_path / "FER2013Test/fer0000004.png").unlink()
    refused(lambda: ferplus.read(tmp_path), f"{path}:6: ", "'fer0000004.png'")
    fill(tmp_path, "twice/fer0000000.png")
    refused(lambda: ferplus.read(tmp_path), tmp_path, "two images")


@pytest.mark.parametrize(
    ("votes", "winner"),
    [
        ([0] * 10, ""),
        ([1] * 10, ""),
        ([2, 1, 1, 1, 1, 1, 1, 1, 1, 0], "neutral"),
        ([5, 0, 0, 0, 0, 0, 0, 0, 5, 0], ""),
        ([0, 0, 0, 0, 0, 0, 0, 0, 6, 4], "unknown"),
        ([0, 0, 0, 0, 0, 0, 0, 0, 4, 6], "nf"),
    ],
)
def test_majority(votes, winner):
    assert ferplus.majority(votes) == winner


@pytest.mark.parametrize(
    ("row", "word"),
    [
        ("Other,a.png,4,0,0,0,0,0,0,0,0,0", "'Other'"),
        ("Training,a.png,4,0,0,0,0,0,0,0,0", "11 columns"),
        ("Training,a.png,4,-1,0,0,0,0,0,0,0,0", "votes"),
        ("Training,a.png,4,0.5,0,0,0,0,0,0,0,0", "votes"),
        (f"Training,a.png,{'9' * 5000},0,0,0,0,0,0,0,0,0", "votes"),
        ("PublicTest,a.png,4,0,0,0,0,0,0,0,0,0", "validation"),
    ],
)
def test_faults_of_a_row(tmp_path, row, word):
    images(tmp_path, VOTES[:2])
    path = table(tmp_path, [VOTES[0], row])
    refused(lambda: ferplus.read(tmp_path), f"{path}:3: ", word)


def test_rows_that_do_not_fit(tmp_path):
    path, votes = images(tmp_path), table(tmp_path, VOTES[:3])
    refused(lambda: ferplus.read(tmp_path), votes, "ends before", f"{path}:5")
    table(tmp_path, [*VOTES, VOTES[0]])
    refused(lambda: ferplus.read(tmp_path), f"{votes}:11: ", path, "ends before")
    table(tmp_path, header=HEADER.replace("fear", "feer"))
    refused(lambda: ferplus.read(tmp_path), f"{votes}:1: ", "'fear'")
    path.unlink()
    table(tmp_path, [VOTES[3]])
    refused(lambda: ferplus.read(tmp_path), votes, "no image")
    refused(lambda: ferplus.read(""), "path")
    votes.write_bytes(np.arange(256, dtype=np.uint8).tobytes())
    refused(lambda: ferplus.read(tmp_path), votes, "csv")
