"""Transcripts with times: what is read of them, and which are refused, by line."""

import numpy as np
import pytest

from abaw_jax.data.transcripts import Transcript, read_words, said_at, spread_evenly
from abaw_jax.errors import InputError
from tests.data.corpus_trees import one_line, write

CSV = 'Word, start,end\nStop,0.5,1.0\n"it, now",1,1\n\nplease,2,2.5\n'
VTT = """WEBVTT - a talk
Kind: captions

STYLE
::cue { color: red }

NOTE about --> nothing

first
00:01.000 --> 00:03.000 align:start
<v Ann>Stop <00:02.000><c>it &amp; go</c>
now

01:00:00.500 --> 01:00:01.500\tline:0
oh
"""
SRT = (
    "1\r\n00:00:01,000 --> 00:00:02,000\r\n<i>Stop</i> it\r\n\r\n"
    "2\r\n00:00:02,000 --> 00:00:02,000\r\n\r\n\r\n"
    "3\r\n00:00:02,500 --> 00:00:04,500\r\n{\\an8}a < b\r\nnow"
)


def test_a_table_of_words(tmp_path):
    words, times = read_words(write(tmp_path / "a.csv", "\ufeff" + CSV))
    assert words == ("Stop", "it, now", "please")
    assert times.tolist() == [[0.5, 1.0], [1.0, 1.0], [2.0, 2.5]]
    words, times = read_words(write(tmp_path / "b.csv", "word,start,end\n"))
    assert words == () and times.shape == (0, 2)


def test_cues_share_their_time(tmp_path):
    words, times = read_words(write(tmp_path / "a.vtt", VTT))
    assert words == ("Stop", "it", "&", "go", "now", "oh")
    np.testing.assert_allclose(times[:, 0], [1, 1.4, 1.8, 2.2, 2.6, 3600.5])
    np.testing.assert_allclose(times[:, 1], [1.4, 1.8, 2.2, 2.6, 3.0, 3601.5])
    words, times = read_words(write(tmp_path / "a.SRT", SRT))
    assert words == ("Stop", "it", "a", "<", "b", "now")
    assert times.tolist() == [[1, 1.5], [1.5, 2], [2.5, 3], [3, 3.5], [3.5, 4], [4, 4.5]]


def test_plain_text_has_no_times(tmp_path):
    assert read_words(write(tmp_path / "a.txt", " Stop\n\tit ")) == (("Stop", "it"), None)
    assert read_words(write(tmp_path / "b.txt", "")) == ((), None)


@pytest.mark.parametrize("ending", ["csv", "vtt", "srt"])
def test_an_empty_file_says_nothing(tmp_path, ending):
    words, times = read_words(write(tmp_path / f"a.{ending}", "\n"))
    assert words == () and times.shape == (0, 2)


@pytest.mark.parametrize(
    ("name", "content", "place", "fault"),
    [
        ("a.csv", "Stop,0,1\n", ":1", "expected the line word,start,end"),
        ("a.csv", "word,start,end\nStop,0\n", ":2", "a word and two numbers"),
        ("a.csv", "word,start,end\nStop,0,1,2\n", ":2", "a word and two numbers"),
        ("a.csv", "word,start,end\nStop,0,late\n", ":2", "a word and two numbers"),
        ("a.csv", "word,start,end\na,0,1\n ,1,2\n", ":3", "no word"),
        ("a.csv", "word,start,end\na,1,0.5\n", ":2", "from 1 to 0.5 s"),
        ("a.csv", "word,start,end\na,-1,0.5\n", ":2", "neither below 0"),
        ("a.csv", "word,start,end\na,0,nan\n", ":2", "from 0 to nan s"),
        ("a.csv", "word,start,end\na,0,inf\n", ":2", "from 0 to inf s"),
        ("a.csv", "word,start,end\na,2,3\nb,1,4\n", ":3", "starts at 1 s, what stands above"),
        ("a.csv", 'word,start,end\n"a,0,1\n', ":2", "expected word,start,end"),
        ("a.vtt", "00:01.000 --> 00:02.000\na\n", ":1", "begins with WEBVTT"),
        ("a.vtt", "WEBVTT\n00:01.000 --> 00:02.000\na\n", ":2", "an empty line"),
        ("a.vtt", "WEBVTT\n\nx\n00:01 --> 00:02\na\n", ":4", "expected times such as"),
        ("a.vtt", "WEBVTT\n\n00:02.000 --> 00:01.000\na\n", ":3", "from 2 to 1 s"),
        ("a.srt", "1\n00:00:61,000 --> 00:01:02,000\na\n", ":2", "expected times such as"),
        ("a.srt", "1\n00:00:01,000 --> 00:00:02,000\na\n\nlost\n", ":5", "'lost'; expected times"),
        ("a.srt", SRT.replace("02,500", "00,500"), ":10", "starts at 0.5 s, what stands above"),
        ("a.srt", "grüß".encode("latin-1"), "", "is not UTF-8"),
    ],
)
def test_what_is_wrong_is_said_by_line(tmp_path, name, content, place, fault):
    path = write(tmp_path / name, content)
    with pytest.raises(InputError) as caught:
        read_words(path)
    one_line(caught, f"{path}{place}", fault)


def test_a_time_has_the_word_that_began_last():
    said = Transcript(("a", "b", "c"), np.array([[1, 4], [2, 3], [5, 5.5]]))
    found = said_at(said, np.array([0.9, 1.0, 1.9, 2.0, 2.9, 3.0, 5.0, 5.5]))
    assert found.tolist() == [-1, 0, 0, 1, 1, -1, 2, -1]


def test_words_without_times_last_equally_long():
    assert spread_evenly(2, 5).tolist() == [0, 0, 1, 1, 1]
    assert spread_evenly(4, 2).tolist() == [1, 3]
