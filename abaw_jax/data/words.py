"""Features of what is said: weighted counts of words, of a vocabulary found in training texts.

tf-idf (Salton & Buckley 1988): a word counts log(1 + times said) x log(texts / texts with it), and
a text's vector has length 1.
"""

import collections
import math
import re
from collections.abc import Iterable, Mapping

import numpy as np

_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
REACH = 4  # words
BLOCK = 4096  # rows at a time, in float64: bounds memory to some 100 MB
LEAST = 3  # texts that a word must be in: rarer ones stand for their video


def split_words(text: str) -> list[str]:
    """The words of a text, in small letters; digits and punctuation are none."""
    return _WORD.findall(text.lower())


def fit_vocabulary(texts: Iterable[str], size: int = 512) -> dict[str, float]:
    """Word -> its weight, in the order of the alphabet: the `size` words that are in most texts.

    Empty where no word is in as many as LEAST texts. Texts without a word do not count.
    """
    said = [found for text in texts if (found := set(split_words(text)))]
    counts = collections.Counter(word for found in said for word in found)
    frequent = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:size]
    kept = {word: count for word, count in frequent if count >= LEAST}
    # 1 more than the texts: a word that is in all of them still counts a little.
    return {word: math.log((1 + len(said)) / kept[word]) for word in sorted(kept)}


def word_features(text: str, vocabulary: Mapping[str, float], rows: int = 0) -> np.ndarray:
    """Weighted counts, of length 1, and 1: float32 (1, V + 1) of the whole text, or (rows, V + 1).

    A transcript has no times: with `rows` the words are taken to be spoken evenly over them, and a
    row has the REACH words to either side of its place. Where none of them is in the vocabulary the
    counts are 0; where nothing is said at all everything is.
    """
    words, places = split_words(text), {word: i for i, word in enumerate(vocabulary)}
    spoken = np.array([places.get(word, -1) for word in words], np.int64)
    first, stop = np.array([0]), np.array([len(words)])
    if rows:
        place = (np.arange(rows) + 0.5) * len(words) / rows
        first = np.round(place - REACH).astype(int).clip(0)
        stop = np.round(place + REACH).astype(int).clip(0, len(words))
    weights = np.array(list(vocabulary.values()))
    found = np.zeros((len(first), len(weights) + 1), np.float32)
    found[:, -1] = bool(words)
    for start in range(0, len(first), BLOCK):
        block = slice(start, start + BLOCK)
        values = np.log1p(_count(spoken, first[block], stop[block], len(weights))) * weights
        length = np.sqrt((values**2).sum(axis=1, keepdims=True))
        found[block, :-1] = np.divide(values, length, out=np.zeros_like(values), where=length > 0)
    return found


def _count(spoken: np.ndarray, first: np.ndarray, stop: np.ndarray, size: int) -> np.ndarray:
    """How often each of `size` words is spoken from `first` to before `stop`: int (n, size).

    spoken: int (words,), places in the vocabulary, -1 for words that it lacks.
    """
    length = stop - first
    row = np.repeat(np.arange(len(first)), length)
    word = spoken[np.arange(len(row)) + np.repeat(stop - length.cumsum(), length)]
    cell = (row * size + word)[word >= 0]
    return np.bincount(cell, minlength=len(first) * size).reshape(len(first), size)
