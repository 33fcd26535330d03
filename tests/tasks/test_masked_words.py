"""Masked words: which are chosen, what is shown of them, what the loss counts."""

import jax
import numpy as np
import pytest

from abaw_jax.models.bert import SIZES, BertEncoder, MaskedWords
from abaw_jax.tasks import masked_words
from abaw_jax.tasks.masked_words import make_masked_words_task

FIRST, MASKED = 5, 4
SMALL = SIZES["tiny"] | dict(vocabulary=12, width=8, depth=1, heads=2, mlp_width=8, positions=40)


class Told:
    """In a model's place: logits that say which token was shown, surely."""

    encoder = BertEncoder(**SMALL)

    @staticmethod
    def apply(variables, tokens, seen, *, train, rngs):
        del variables, seen, train, rngs
        return 50 * jax.nn.one_hot(tokens, 12)


def batch(rows=600):
    rng = np.random.default_rng(0)
    tokens = rng.integers(FIRST, 12, (rows, 30)).astype(np.int32)
    tokens[:, 0] = 0
    seen = np.arange(30) < rng.integers(10, 31, (rows, 1))
    return {"tokens": np.where(seen, tokens, 2).astype(np.int32), "seen": seen}


def test_words_alone_are_chosen_and_most_of_them_masked():
    task, given = make_masked_words_task(Told, first_word=FIRST, masked=MASKED), batch()
    loss, aux = jax.jit(lambda key: task.loss({}, {}, given, {"mask": key}, True))(
        jax.random.key(0)
    )
    words = ((given["tokens"] >= FIRST) & given["seen"]).sum()
    assert float(aux.weight) / words == pytest.approx(masked_words.CHOSEN, abs=0.01)
    # What is shown as it is is told rightly: a tenth, and of another tenth one word in seven.
    right = float(aux.metrics["accuracy"][0] / aux.weight)
    assert right == pytest.approx(0.1 + 0.1 / 7, abs=0.02)
    assert float(loss / aux.weight) == pytest.approx(50 * (1 - right), rel=1e-3)


def test_a_batch_without_words_weighs_nothing():
    task = make_masked_words_task(Told, first_word=FIRST, masked=MASKED)
    given = {"tokens": np.full((2, 4), 2, np.int32), "seen": np.ones((2, 4), bool)}
    loss, aux = task.loss({}, {}, given, {"mask": jax.random.key(0)}, True)
    assert loss == 0 and aux.weight == 0


def test_the_model_has_logits_for_every_token():
    task = make_masked_words_task(
        MaskedWords(BertEncoder(**SMALL)), first_word=FIRST, masked=MASKED
    )
    given = batch(2)
    params, state = jax.jit(task.init)(jax.random.key(0), given)
    assert set(params) == {"encoder", "head"} and state == {}
    predicted = jax.eval_shape(task.predict, params, state, given)
    assert predicted["logits"].shape == (2, 30, 12)
    rngs = {name: jax.random.key(1) for name in ("mask", "dropout")}
    loss, aux = jax.jit(task.loss, static_argnums=4)(params, state, given, rngs, True)
    assert float(loss / aux.weight) == pytest.approx(np.log(12), abs=1)  # it knows nothing yet
