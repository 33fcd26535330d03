"""The modality `text`: hidden states of what is said, by the encoder that `extract.text` names.

That folder holds a converted text encoder, `config.json` ({"kind": "converted", "architecture":
"bert", "model": fields of `models.bert.BertEncoder`}) and `model.safetensors`, and its tokenizer
(`data.tokens`). Taken are the last layer's states of a text's tokens but for its start and end, of
128 tokens at most at once. Of a clip that is all there is: what follows is left out, and counted. A
video's text is encoded in parts, one after the other; its rows have the mean state of the tokens of
the word that is being said.

`extract.text` may be 'tiny' instead: a small encoder is trained from nothing on the training
videos' transcripts, and kept in extract/text/encoder.
"""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from abaw_jax.data.media import of_video, row_times
from abaw_jax.data.records import load_index
from abaw_jax.data.tokens import LIMIT, Tokenizer, check_vocabulary, load_tokenizer
from abaw_jax.data.transcripts import Transcript, read_words, said_at, spread_evenly
from abaw_jax.errors import InputError
from abaw_jax.interop.archive import content_hash
from abaw_jax.recipe import Context
from abaw_jax.stages.prepare import corpus_root
from abaw_jax.stages.sources import find_recordings, find_sources, listen_to, load_encoder
from abaw_jax.stages.text_training import KIND, SIZE, train_text_encoder

NAME = "text"
SHORTEST = 16  # tokens: what is shorter is padded; so a handful of programs does for all lengths


class TextEncoder(NamedTuple):
    """states: ids int32 (n,), n from 1 to `most` -> float32 (n, width). name: its hash."""

    tokenizer: Tokenizer
    states: Callable[[np.ndarray], np.ndarray]
    most: int
    width: int
    name: str


def is_learnt(config: Any) -> bool:
    """Whether text is a modality; without `extract.text`, it may be the name of a store."""
    return bool(config.extract.text) and NAME in config.sequence.modalities


def check_text_encoder(config: Any) -> None:
    """Raise InputError for an encoder that is learnt from and cannot be read."""
    if is_learnt(config) and config.extract.text != SIZE:
        open_text_encoder(config.extract.text)


def _find_encoder(context: Context) -> pathlib.Path:
    """The folder of the encoder, which is trained if it must be and is not yet."""
    if context.config.extract.text != SIZE:
        return pathlib.Path(context.config.extract.text)
    folder = context.folder("extract") / NAME / "encoder"
    if not (folder / "config.json").is_file():
        texts = [said.words for said in _read_all(context, "train") if said.words]
        train_text_encoder(context, texts, folder)
    return folder


def open_text_encoder(folder: str | pathlib.Path) -> TextEncoder:
    """Read an encoder and its tokenizer.

    Raises InputError for a folder that holds none, damaged files, weights of another architecture
    than config.json says, and a tokenizer that is not theirs.
    """
    folder = pathlib.Path(folder)
    model, variables, _ = load_encoder(folder, NAME, KIND["architecture"])
    tokenizer = load_tokenizer(folder)
    check_vocabulary(tokenizer, model.vocabulary, folder)
    limit = min(LIMIT, model.positions - model.first_position)
    apply = jax.jit(lambda variables, ids, mask: model.apply(variables, ids, mask)[0][-1])

    def states(ids: np.ndarray) -> np.ndarray:
        length = min(max(SHORTEST, 1 << (len(ids) + 1).bit_length()), limit)
        padded, mask = tokenizer.wrap(ids, length)
        found = apply(variables, padded[None], mask[None])
        return np.asarray(found[0, 1 : len(ids) + 1], np.float32)

    return TextEncoder(tokenizer, states, limit - 2, model.width, content_hash(folder))


def make_text(
    context: Context,
) -> tuple[Callable[[str, int], np.ndarray | None], dict[str, Any]]:
    """(video, rows) -> its values, None where nothing is said, and the settings of their store."""
    clip, steps = context.track.per_clip, context.config.extract.steps.get(NAME)
    files = find_sources(context.config, corpus_root(context), NAME)
    listen = listen_to(context, find_recordings(context))
    encoder = open_text_encoder(_find_encoder(context))

    def make(video: str, rows: int) -> np.ndarray | None:
        said = read_words(path) if (path := of_video(files, video)) else None
        if said is None or not said.words:
            return None
        if clip or steps:
            return clip_states(encoder, said.words, steps)
        sound = listen(video) if said.times is not None else None
        if sound is None or not (sound.seconds or len(sound.times) > 1):
            return row_states(encoder, said.words, spread_evenly(len(said.words), rows))
        times = row_times(sound, rows, clip=False)
        if said.times[0, 0] > times[-1]:
            raise InputError(
                f"{path}: its first word is at {said.times[0, 0]:g} s, the video's last row at "
                f"{times[-1]:g} s; give seconds from the start of the recording"
            )
        return row_states(encoder, said.words, said_at(said, times))

    return make, {"encoder": encoder.name, "width": encoder.width + 1}


def clip_states(
    encoder: TextEncoder, words: Sequence[str], steps: int | None
) -> np.ndarray | None:  # fmt: skip
    """The mean state of a text's first tokens, or with `steps` a row for each, so many at most:
    float32 (n, width + 1), the last number 1; None of no token."""
    ids = encoder.tokenizer.cut(words).ids[: _most(encoder, steps)]
    if not len(ids):
        return None
    states = encoder.states(ids)
    values = states if steps else states.mean(axis=0, keepdims=True)
    return np.pad(values, ((0, 0), (0, 1)), constant_values=1)


def _most(encoder: TextEncoder, steps: int | None) -> int:
    return min(steps or LIMIT, encoder.most)


def row_states(
    encoder: TextEncoder, words: Sequence[str], said: np.ndarray
) -> np.ndarray | None:  # fmt: skip
    """Of each row the state of the word `said`, by its number, int (rows,), -1 for none: float32
    (rows, width + 1), the last number 1, or 0 where there is none; None where there is none at all.
    """
    tokens = encoder.tokenizer.cut(words)
    counts = np.bincount(tokens.words, minlength=len(words))
    there = (said >= 0) & (counts[said] > 0)
    if not there.any():
        return None
    parts = range(0, len(tokens.ids), encoder.most)
    states = [encoder.states(tokens.ids[at : at + encoder.most]) for at in parts]
    sums = np.zeros((len(words), encoder.width), np.float32)
    np.add.at(sums, tokens.words, np.concatenate(states))
    values = (sums / np.maximum(counts, 1)[:, None])[said] * there[:, None]
    return np.column_stack([values, there]).astype(np.float32)


def check_texts(context: Context, splits: Sequence[str]) -> None:
    """Raise InputError for a transcript that cannot be read, where text is a modality, and where
    nothing is said in any training video."""
    if not is_learnt(context.config):
        return
    said = {split: _read_all(context, split) for split in splits}
    if not any(transcript.words for transcript in said["train"]):
        raise InputError(
            "config.extract.transcripts: nothing is said in any training video; name other "
            f"folders, or leave {NAME!r} out of config.sequence.modalities"
        )


def count_cut(context: Context, splits: Sequence[str]) -> int:
    """How many clips' texts have more tokens than there are states of."""
    if not context.track.per_clip:
        return 0
    encoder = open_text_encoder(_find_encoder(context))
    most = _most(encoder, context.config.extract.steps.get(NAME))
    said = [transcript for split in splits for transcript in _read_all(context, split)]
    return sum(len(encoder.tokenizer.cut(words).ids) > most for words, _ in said)


def _read_all(context: Context, split: str) -> list[Transcript]:
    """The transcripts of a split's videos that have one."""
    files = find_sources(context.config, corpus_root(context), NAME)
    videos = load_index(context.folder("prepare") / "records", split).videos
    paths = filter(None, (of_video(files, video) for video in videos))
    return [read_words(path) for path in paths]
