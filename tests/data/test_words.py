"""Features of transcripts: a vocabulary of the training texts, weighted counts of length 1."""

import itertools
import math
import tracemalloc

import numpy as np
import pytest

from abaw_jax.data import words
from abaw_jax.data.words import fit_vocabulary, split_words, word_features

TEXTS = ["Stop it now", "stop! STOP, please", "please stop", "oh please", "", "  ...", "oh no 12"]


def test_words_are_letters_in_any_script():
    assert split_words("Don't STOP, 12 times: grüß_dich") == [
        "don't",
        "stop",
        "times",
        "grüß",
        "dich",
    ]


def test_the_vocabulary_is_what_several_texts_say():
    vocabulary = fit_vocabulary(TEXTS)
    assert list(vocabulary) == ["please", "stop"]  # "oh" is in two texts alone
    assert vocabulary["stop"] == pytest.approx(math.log(6 / 3))  # of five that say something
    assert fit_vocabulary(TEXTS, size=1) == {"please": vocabulary["please"]}
    assert fit_vocabulary(["", "a b"]) == {}


def test_counts_are_weighted_and_of_length_1():
    vocabulary = {"a": 1.0, "b": 2.0, "c": 1.0}
    (values,) = word_features("a a b other", vocabulary)
    expected = np.array([math.log(3), 2 * math.log(2), 0])
    np.testing.assert_allclose(values, [*expected / np.linalg.norm(expected), 1], rtol=1e-6)
    assert values.dtype == np.float32


def test_nothing_said_is_zeros_and_unknown_words_are_said():
    vocabulary = {"a": 1.0, "b": 2.0}
    assert not word_features("  12 -- ", vocabulary).any()
    assert not word_features("", vocabulary, rows=3).any()
    assert word_features("other", vocabulary).tolist() == [[0, 0, 1]]


def test_a_row_has_the_words_about_its_share_of_the_text():
    text = " ".join(["a"] * 20 + ["b"] * 20)
    values = word_features(text, {"a": 1.0, "b": 2.0}, rows=8)
    assert values.shape == (8, 3) and (values[:, 2] == 1).all()
    assert values[:3, :2].tolist() == [[1, 0]] * 3 and values[-3:, :2].tolist() == [[0, 1]] * 3
    assert (values[3:5, :2] > 0).all()  # 2.5 words from the change: some of both
    np.testing.assert_allclose(np.linalg.norm(values[:, :2], axis=1), 1, rtol=1e-6)


def test_a_long_video_takes_little_more_than_its_features():
    vocabulary = {"".join(letters): 1.0 for letters in itertools.product("abcdef", repeat=3)}
    text = " ".join([*vocabulary] * 5)
    tracemalloc.start()
    values = word_features(text, vocabulary, rows=60_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * values.nbytes + words.BLOCK * len(vocabulary) * 8


def test_blocks_change_no_value(monkeypatch):
    vocabulary = {"a": 1.0, "b": 2.0, "c": 0.5}
    texts = ["a b other a c b b a", "other", "", " ".join(["a", "c b"] * 30)]
    whole = [word_features(text, vocabulary, rows) for text in texts for rows in (0, 1, 7, 40)]
    monkeypatch.setattr(words, "BLOCK", 3)
    parts = [word_features(text, vocabulary, rows) for text in texts for rows in (0, 1, 7, 40)]
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(one, other)
    about = split_words(texts[3])[42:50]  # row 20 of 40 lies at word 46.1 of 90
    counts = np.log1p([about.count(word) for word in vocabulary])
    expected = counts * list(vocabulary.values())
    np.testing.assert_allclose(whole[15][20, :3], expected / np.linalg.norm(expected), rtol=1e-6)
