"""Texts as the token ids that an encoder of BERT's or RoBERTa's class was trained on.

A tokenizer is a folder with one of

    tokenizer.json               as the `tokenizers` library writes it
    vocab.json and merges.txt    byte-level pairs, as RoBERTa's
    vocab.txt                    WordPiece, a piece a line, as BERT's

Of vocab.txt `do_lower_case` in tokenizer_config.json says whether capitals are made small letters
and accents dropped; without it they are where no piece has a capital letter. Words are joined by
single spaces before they are cut into tokens.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, trainers

from abaw_jax.errors import InputError
from abaw_jax.files import atomic_write, read_json

LIMIT = 128  # tokens that are encoded at once, with the one before and the one after them
FILE = "tokenizer.json"
# The files that are a tokenizer, the first there is; and what else lies beside them.
WHOLE = ((FILE,), ("vocab.json", "merges.txt"), ("vocab.txt",))
BESIDE = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
# Start, end, padding, unknown: of BERT's class, of RoBERTa's.
SPECIAL = (("[CLS]", "[SEP]", "[PAD]", "[UNK]"), ("<s>", "</s>", "<pad>", "<unk>"))
FITTED = (*SPECIAL[0], "[MASK]")  # of a fitted tokenizer: the first ids
PADDED = 128  # rows by which an embedding table may be longer than its vocabulary


class Tokens(NamedTuple):
    """A text without its start and end: ids int32 (n,), and the number of the word that each is
    of, int64 (n,), not falling. A word may have none."""

    ids: np.ndarray
    words: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Tokenizer:
    """start, end, padding: ids. size: 1 more than the greatest id."""

    backend: tokenizers.Tokenizer
    start: int
    end: int
    padding: int
    size: int

    def cut(self, words: Sequence[str]) -> Tokens:
        """Words as tokens, however many."""
        found = self.backend.encode(" ".join(words), add_special_tokens=False)
        # A token is of the word that its last letter is of; the space before a word is its, too.
        ends = np.cumsum([len(word) + 1 for word in words]) - 1
        last = [max(stop - 1, start) for start, stop in found.offsets]
        of = np.searchsorted(ends, np.array(last, np.int64), side="right")
        return Tokens(np.array(found.ids, np.int32), of.astype(np.int64))

    def wrap(self, ids: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
        """(ids (length,) with start, end and padding, mask bool (length,))."""
        whole = [self.start, *ids, self.end]
        padding = [self.padding] * (length - len(whole))
        return np.array([*whole, *padding], np.int32), np.arange(length) < len(whole)


def load_tokenizer(folder: str | os.PathLike) -> Tokenizer:
    """Read a tokenizer. Raises InputError for a folder without one, for a file that is damaged, and
    for a vocabulary that lacks a special token."""
    folder = pathlib.Path(folder)
    for names, read in zip(WHOLE, (_whole, _pairs, _pieces), strict=True):
        paths = [folder / name for name in names]
        if all(path.is_file() for path in paths):
            try:
                return _wrap(read(*paths), paths[0])
            except InputError:
                raise
            except Exception as error:  # the library raises nothing more special
                reason = " ".join(str(error).split())[:200]
                raise InputError(
                    f"{paths[0]}: is no tokenizer ({reason}); name the files that came with the "
                    "weights"
                ) from error
    raise InputError(
        f"{folder}: has no tokenizer; expected {FILE}, vocab.txt, or vocab.json and merges.txt"
    )


def find_tokenizer(folder: str | os.PathLike) -> list[str]:
    """Names of the files of a folder's tokenizer and of what lies beside them; none where no
    tokenizer is whole."""
    folder = pathlib.Path(folder)
    if not any(all((folder / name).is_file() for name in names) for names in WHOLE):
        return []
    names = (*(name for names in WHOLE for name in names), *BESIDE)
    return [name for name in names if (folder / name).is_file()]


def copy_tokenizer(source: str | os.PathLike, folder: str | os.PathLike) -> None:
    """Copy the tokenizer of a folder, byte for byte, to another in place of that one's own, which
    stays where there is none in the first."""
    source, folder = pathlib.Path(source), pathlib.Path(folder)
    if not (names := find_tokenizer(source)):
        return
    for name in set(find_tokenizer(folder)) - set(names):
        (folder / name).unlink()
    for name in names:
        with atomic_write(folder / name) as file:
            file.write((source / name).read_bytes())


def _wrap(backend: tokenizers.Tokenizer, path: pathlib.Path) -> Tokenizer:
    backend.no_truncation()
    backend.no_padding()
    vocabulary = backend.get_vocab(with_added_tokens=True)
    lacking = [[name for name in names if name not in vocabulary] for names in SPECIAL]
    if all(lacking):
        nearest = min(lacking, key=len)
        raise InputError(
            f"{path}: has no {', '.join(nearest)}; expected {', '.join(SPECIAL[0])} or "
            f"{', '.join(SPECIAL[1])}: name the files that came with the weights"
        )
    start, end, padding, _ = (vocabulary[name] for name in SPECIAL[lacking.index([])])
    return Tokenizer(backend, start, end, padding, max(vocabulary.values()) + 1)


def _whole(path: pathlib.Path) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_str(_text(path))


def _pairs(vocabulary: pathlib.Path, merges: pathlib.Path) -> tokenizers.Tokenizer:
    numbers = _numbers(read_json(vocabulary), vocabulary)
    pairs = []
    for line, text in enumerate(_text(merges).split("\n"), 1):
        if not text.strip() or (line == 1 and text.startswith("#version")):
            continue
        if len(pair := text.split()) != 2:
            raise InputError(f"{merges}:{line}: {text!r}; expected two tokens that become one")
        pairs.append(tuple(pair))
    backend = tokenizers.Tokenizer(models.BPE(vocab=numbers, merges=pairs))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return backend


def _numbers(found: dict, path: pathlib.Path) -> dict[str, int]:
    if odd := [token for token, number in found.items() if type(number) is not int or number < 0]:
        raise InputError(f"{path}: {odd[0]!r}: {found[odd[0]]!r}; expected the number of its row")
    return found


def _pieces(path: pathlib.Path) -> tokenizers.Tokenizer:
    pieces = _text(path).rstrip("\n").split("\n")
    if len(set(pieces)) < len(pieces):
        twice = next(piece for i, piece in enumerate(pieces) if piece in pieces[:i])
        raise InputError(f"{path}: {twice!r} twice; expected a piece a line, each once")
    settings = path.with_name("tokenizer_config.json")
    lower = read_json(settings).get("do_lower_case") if settings.is_file() else None
    if lower is None:
        words = (piece for piece in pieces if not piece.startswith("["))
        lower = not any("A" <= letter <= "Z" for word in words for letter in word)
    numbers = {piece: number for number, piece in enumerate(pieces)}
    backend = tokenizers.Tokenizer(models.WordPiece(vocab=numbers, unk_token=SPECIAL[0][3]))
    backend.normalizer = normalizers.BertNormalizer(lowercase=bool(lower))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return backend


def _text(path: pathlib.Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or f"byte {error.start} is not UTF-8"
        raise InputError(f"{path}: cannot be read ({reason})") from error


def check_vocabulary(tokenizer: Tokenizer, rows: int, source: object) -> None:
    """Raise InputError, naming `source`, unless an embedding table of so many rows is the
    tokenizer's: a row a token, or padded to a multiple of 8 by less than PADDED."""
    surplus = rows - tokenizer.size
    if surplus and not (0 < surplus < PADDED and rows % 8 == 0):
        raise InputError(
            f"{source}: the tokenizer has {tokenizer.size} tokens, the weights have embeddings of "
            f"{rows}; take the tokenizer that came with the weights"
        )


def fit_tokenizer(texts: Iterable[str], size: int = 1024, least: int = 3) -> Tokenizer:
    """A tokenizer of whole words in small letters, of those most often said in `texts`.

    The special tokens, FITTED, come first, then words by how often they are said, equally frequent
    ones in the order of the alphabet; `size` counts all of them. Words said less than `least` times
    are unknown.
    """
    backend = tokenizers.Tokenizer(models.WordLevel(unk_token=SPECIAL[0][3]))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordLevelTrainer(
        vocab_size=size, min_frequency=least, special_tokens=list(FITTED), show_progress=False
    )
    backend.train_from_iterator(texts, trainer)
    return _wrap(backend, pathlib.Path(FILE))


def save_tokenizer(tokenizer: Tokenizer, folder: str | os.PathLike) -> None:
    """Write `folder`/tokenizer.json, of which `load_tokenizer` makes the same tokenizer."""
    text = json.dumps(json.loads(tokenizer.backend.to_str()), indent=1, ensure_ascii=False)
    with atomic_write(pathlib.Path(folder) / FILE, "w") as file:
        file.write(text + "\n")
