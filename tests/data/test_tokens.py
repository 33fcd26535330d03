"""Tokenizers of given files and fitted ones: ids as of transformers, words of tokens, refusals."""

import json
import pathlib

import numpy as np
import pytest
from tokenizers import processors

from abaw_jax.data.tokens import check_vocabulary, fit_tokenizer, load_tokenizer, save_tokenizer
from abaw_jax.errors import InputError
from tests.data.corpus_trees import one_line, write
from tests.golden import bert_inputs

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
WRITERS = {"bert": bert_inputs.write_pieces, "roberta": bert_inputs.write_bytes}
TEXTS = ["Stop it, please", "stop STOP it", "please it now", "zebra now", "ant now"]


@pytest.mark.parametrize("family", WRITERS)
def test_ids_are_those_of_transformers(family, tmp_path):
    with np.load(GOLDEN / f"{family}_small.npz") as golden:
        expected = np.split(golden["ids"], np.cumsum(golden["lengths"])[:-1])
    WRITERS[family](tmp_path)
    given = load_tokenizer(tmp_path)
    save_tokenizer(given, tmp_path / "saved")
    for tokenizer in (given, load_tokenizer(tmp_path / "saved")):
        for text, ids in zip(bert_inputs.TEXTS, expected, strict=True):
            if family == "roberta" and text != " ".join(text.split()):
                continue  # of white space single spaces are kept here
            found, mask = tokenizer.wrap(tokenizer.cut(text.split()).ids, len(ids) + 2)
            assert found[:-2].tolist() == ids.tolist() and mask.sum() == len(ids)
            assert (found[-2:] == tokenizer.padding).all()


@pytest.mark.parametrize("family", WRITERS)
def test_tokens_are_of_their_words(family, tmp_path):
    WRITERS[family](tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    words = ["unstoppable", "joys", "☃", "x", "it's", "New York", "it"]
    ids, of = tokenizer.cut(words)
    assert len(ids) == len(of) and set(of.tolist()) == set(range(7)) and (np.diff(of) >= 0).all()
    if family == "roberta":  # letters that stand for bytes
        byte = {letter: number for number, letter in bert_inputs.byte_letters().items()}
        for number, word in enumerate(words):
            tokens = "".join(map(tokenizer.backend.id_to_token, ids[of == number].tolist()))
            assert bytes(byte[letter] for letter in tokens).decode().strip() == word
    assert [(of == number).sum() for number in (6, 3)] == ([1, 1] if family == "bert" else [1, 2])
    ids, of = tokenizer.cut([])
    assert ids.shape == of.shape == (0,)


def test_words_that_leave_no_token_are_passed_over(tmp_path):
    bert_inputs.write_pieces(tmp_path)
    assert load_tokenizer(tmp_path).cut(["it", "\u200b", "stop"]).words.tolist() == [0, 2]


@pytest.mark.parametrize(("config", "capitals", "small"), [
    (None, False, True), (None, True, False), ({"do_lower_case": True}, True, True),
    ({"do_lower_case": False}, False, False),
])  # fmt: skip
def test_capitals_follow_the_settings_or_the_pieces(tmp_path, config, capitals, small):
    pieces = [*bert_inputs.PIECES, *(["Stop"] if capitals else [])]
    write(tmp_path / "vocab.txt", "\n".join(pieces))
    if config is not None:
        write(tmp_path / "tokenizer_config.json", json.dumps(config))
    (found,) = load_tokenizer(tmp_path).cut(["STOP"]).ids
    assert found == pieces.index("stop" if small else "[UNK]")


def test_a_tokenizer_is_fitted_on_what_is_said(tmp_path):
    tokenizer = fit_tokenizer(TEXTS, least=2)
    numbers = tokenizer.backend.get_vocab()
    words = sorted(numbers, key=numbers.get)
    assert words == ["[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]", "it", "now", "stop", "please"]
    assert tokenizer.cut(["Now", "zebra", "stop"]).ids.tolist() == [6, 3, 7]
    assert fit_tokenizer(TEXTS, size=7, least=1).size == 7
    again = fit_tokenizer(iter(TEXTS[::-1]), least=1).backend.to_str()
    assert again == fit_tokenizer(TEXTS, least=1).backend.to_str()
    save_tokenizer(tokenizer, tmp_path)
    assert load_tokenizer(tmp_path).backend.to_str() == tokenizer.backend.to_str()


@pytest.mark.parametrize(
    ("files", "name", "fault"),
    [
        ({}, "", "has no tokenizer; expected tokenizer.json, vocab.txt, or vocab.json and merges"),
        ({"vocab.json": "{}"}, "", "has no tokenizer"),
        ({"tokenizer.json": "{}"}, "tokenizer.json", "is no tokenizer"),
        ({"tokenizer.json": b"\xff"}, "tokenizer.json", "byte 0 is not UTF-8"),
        ({"vocab.txt": "[PAD]\n[CLS]\nit\n"}, "vocab.txt", "has no [SEP], [UNK]; expected [CLS]"),
        ({"vocab.txt": "[PAD]\nit\nit\n"}, "vocab.txt", "'it' twice"),
        ({"vocab.json": "[]", "merges.txt": ""}, "vocab.json", "holds a JSON list"),
        ({"vocab.json": '{"a": "1"}', "merges.txt": ""}, "vocab.json", "'a': '1'; expected"),
        ({"vocab.json": '{"a": 1}', "merges.txt": "a b\n"}, "vocab.json", "is no tokenizer ("),
        ({"vocab.json": '{"a": 1}', "merges.txt": "#version\na\n"}, "merges.txt:2", "two tokens"),
        ({"vocab.json": '{"<s>": 0}', "merges.txt": ""}, "vocab.json", "has no </s>, <pad>, <unk>"),
    ],
)
def test_what_is_no_tokenizer_is_refused(tmp_path, files, name, fault):
    for file, content in files.items():
        write(tmp_path / file, content)
    with pytest.raises(InputError) as caught:
        load_tokenizer(tmp_path)
    one_line(caught, tmp_path / name, fault)


def test_what_a_file_says_of_length_and_special_tokens_does_not_count(tmp_path):
    bert_inputs.write_bytes(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    expected, backend = tokenizer.cut(["it", "x", "stop"]), tokenizer.backend
    backend.enable_truncation(2)
    backend.enable_padding(length=9)
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    write(tmp_path / "tokenizer.json", backend.to_str())
    found = load_tokenizer(tmp_path).cut(["it", "x", "stop"])
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("surplus", "fits"), [(0, True), (3, True), (1, False), (-1, False), (131, False)]
)
def test_tokenizer_and_embeddings_are_held_together(tmp_path, surplus, fits):
    write(tmp_path / "vocab.txt", "\n".join([*bert_inputs.PIECES, *"abcd"]))  # 29
    tokenizer = load_tokenizer(tmp_path)
    if fits:
        return check_vocabulary(tokenizer, 29 + surplus, "DIR")
    with pytest.raises(InputError, match=f"DIR: the tokenizer has 29 tokens, .* {29 + surplus};"):
        check_vocabulary(tokenizer, 29 + surplus, "DIR")
