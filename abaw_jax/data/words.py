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


def word_features(text: str, vocabulary: Mapping[str, float]) -> np.ndarray:
    """float32 (V + 1,): weighted counts, of length 1, and 1; all 0 where nothing was said."""
    counts = collections.Counter(split_words(text))
    values = np.array([math.log1p(counts[word]) * weight for word, weight in vocabulary.items()])
    length = math.sqrt(float(values @ values))
    return np.append(values / length if length else values, bool(counts)).astype(np.float32)
