"""Plain files parse to the same bits as line by line, and nothing else is taken for plain."""

import random

import numpy as np
import pytest

from abaw_jax.errors import InputError
from abaw_jax.tracks import AU, EXPR, VA, annotations
from abaw_jax.tracks.plain_rows import parse_plain_rows

BY_HAND = ["0", "-0", "1", "-1", "-5", "1.", "-0.0", "0.00000000000001", "-0.99999999999999"]
ODD = ["1e-3", "+0.5", " 0.5", "0.5 ", "0.5\t", ".5", "00.5", "1_0", "0_1", "٠", "-05", "+1", " 1"]
ODD += ["0.1234567890123456789", "1.00000000000000001", "1.0000000000001", "-5.00000000000001"]
ODD += ["", "-", "--1", "-.5", "-1-", "1-", ".", "nan", "inf", "2", "8", "9.5", "-1.5", "x", "\x00"]
ODD += ["/", "-/", "0/", "0,5", "1.2.3", '"0.5"', "0x1", "1;0", "0\r", "\r", "0\n", "\xff", "\xa0"]
TRACKS = {"va": VA, "expr": EXPR, "au": AU}


def draw_number(draw, track):
    """A number as a plain file may have it."""
    if draw.random() < 0.1:
        return f"{track.invalid:g}"
    if track is VA:
        places = draw.randrange(15)
        return draw.choice([*BY_HAND, *[f"{draw.uniform(-1, 1):.{places}f}"] * 20])
    return str(draw.randint(0, int(track.label_range[1])))


def draw_rows(draw, track):
    return [
        [draw_number(draw, track) for _ in range(track.label_width)]
        for _ in range(draw.randint(1, 12))
    ]


def join(draw, rows) -> bytes:
    """A file of these rows, with any header, line ends and blank lines at its end."""
    header = draw.choice(["", "\ufeff", '"a, b",c', "valence,arousal", "\xff\x85 /-1"])
    end = draw.choice(["\n", "\r\n"])
    tail = draw.choice(["", end, end * 3, " ", f" {end}\t{end}", "\xa0", "\x1c\n"])
    return (end.join([header, *map(",".join, rows)]) + tail).encode()


def read(path, track):
    """The rows' type, shape and bits, or the message."""
    try:
        rows = annotations.read_annotation(path, track)
    except InputError as error:
        return str(error)
    return rows.dtype, rows.shape, rows.tobytes()


def line_by_line(monkeypatch, path, track):
    with monkeypatch.context() as patch:
        patch.setattr(annotations, "parse_plain_rows", lambda *_: None)
        return read(path, track)


@pytest.mark.parametrize("key", TRACKS)
def test_plain_files_have_the_same_bits(tmp_path, monkeypatch, key):
    draw, track, path = random.Random(0), TRACKS[key], tmp_path / "v.txt"
    plain = 0
    for _ in range(150):
        path.write_bytes(join(draw, draw_rows(draw, track)))
        found = read(path, track)
        assert not isinstance(found, str) and found == line_by_line(monkeypatch, path, track)
        plain += parse_plain_rows(path.read_bytes(), track) is not None
    assert plain > 90  # the others end in spaces of other kinds


@pytest.mark.parametrize("key", TRACKS)
def test_anything_else_is_read_or_refused_as_line_by_line(tmp_path, monkeypatch, key):
    draw, track, path = random.Random(1), TRACKS[key], tmp_path / "v.txt"
    refused = 0
    for _ in range(400):
        rows = draw_rows(draw, track)
        row = draw.choice(rows)
        place = draw.randrange(len(row) + 1)
        if place == len(row):
            row[:] = draw.choice([row[1:], [*row, "0"], [""], []])
        else:
            row[place] = draw.choice([draw.choice(ODD), draw.choice("-/. ,\r") + row[place]])
        path.write_bytes(join(draw, rows))
        found = read(path, track)
        assert found == line_by_line(monkeypatch, path, track), path.read_bytes()
        refused += isinstance(found, str)
    assert 100 < refused < 400


def test_every_number_of_four_places_has_the_bits_of_float(monkeypatch):
    texts = [f"{sign}{n / 10_000:.4f}" for n in range(10_001) for sign in ("", "-")]
    data = "\n".join(["header", *map(",".join, zip(texts, reversed(texts), strict=True))]).encode()
    want = np.array(list(map(float, texts)))
    rows = parse_plain_rows(data, VA)
    assert rows.tobytes() == np.stack([want, want[::-1]], axis=1).astype(np.float32).tobytes()
