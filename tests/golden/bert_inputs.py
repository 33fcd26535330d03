"""What the golden files of BERT and RoBERTa are made from, on both sides: sizes, weights, tokens,
vocabularies. NumPy alone."""

import json
import zlib

import numpy as np

LENGTHS = (7, 11, 4)  # tokens of each example; the others are padding
SIZES = {  # keys of transformers' config.json; no two dimensions alike
    "bert": dict(vocab_size=50, max_position_embeddings=12, type_vocab_size=2, pad_token_id=0),
    "roberta": dict(vocab_size=47, max_position_embeddings=14, type_vocab_size=1, pad_token_id=1,
                    layer_norm_eps=1e-5),
}  # fmt: skip
COMMON = dict(
    hidden_size=24, num_hidden_layers=3, num_attention_heads=4, intermediate_size=40,
    layer_norm_eps=1e-12, hidden_act="gelu",
)  # fmt: skip
TEXTS = (
    "Stop it, PLEASE stop!",
    "  unstoppable\n\tjoys: grüß 7 ",
    "",
    "it's  naïve ☃ xyz",
)
PIECES = (
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "stop", "##pa", "##ble", "un", "##stop", "it",
    "please", "!", ",", ":", "'", "joy", "##s", "s", "gruß", "7", "nai", "##ve", "x", "##y",
)  # fmt: skip


def size(family):
    return {"model_type": family, **COMMON, **SIZES[family]}


def draw(name, shape):
    """Weights of a tensor of this name, float32, such that activations stay of order one."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    values = rng.standard_normal(shape)
    if "LayerNorm" in name:
        values = 0.2 * values + name.endswith("weight")
    elif "embeddings" not in name:
        values *= 0.3 if len(shape) == 1 else 1.5 * shape[1] ** -0.5
    return values.astype(np.float32)


def tokens(family):
    """(ids int64 (3, 11), mask bool (3, 11), types int64 (3, 11))."""
    given = SIZES[family]
    rng = np.random.default_rng(zlib.crc32(family.encode()))
    mask = np.arange(max(LENGTHS)) < np.array(LENGTHS)[:, None]
    ids = rng.integers(3, given["vocab_size"], mask.shape)
    types = rng.integers(0, given["type_vocab_size"], mask.shape)
    return np.where(mask, ids, given["pad_token_id"]), mask, types


def byte_letters():
    """The letter that stands for each byte in byte-level vocabularies (GPT-2's table)."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in kept]
    return {**{b: chr(b) for b in kept}, **{b: chr(256 + i) for i, b in enumerate(others)}}


def write_pieces(folder):
    """vocab.txt of a WordPiece tokenizer."""
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in PIECES), encoding="utf-8")


def write_bytes(folder):
    """vocab.json and merges.txt of a byte-level BPE."""
    merges = ["s t", "st o", "sto p", "Ġ stop", "Ġ i", "Ġi t", "j o", "jo y", "joy s"]
    letters = [*byte_letters().values(), *(merge.replace(" ", "") for merge in merges)]
    vocabulary = ["<s>", "<pad>", "</s>", "<unk>", *letters, "<mask>"]
    numbers = {token: number for number, token in enumerate(vocabulary)}
    (folder / "vocab.json").write_text(json.dumps(numbers), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
