"""Masked words: a text encoder on texts without labels."""

import jax
import jax.numpy as jnp
import optax

from abaw_jax.models.bert import MaskedWords
from abaw_jax.tasks.task import Aux, Task

# Devlin et al. 2019, section 3.1: of the words that are to be told, most are masked, some are
# another word, some stay.
CHOSEN, MASKED, OTHER = 0.15, 0.8, 0.1


def make_masked_words_task(model: MaskedWords, *, first_word: int, masked: int) -> Task:
    """Cross-entropy of the words that were chosen. Batch: tokens int32 (B, N), seen bool (B, N),
    False where a token is padding.

    first_word: ids below it are no words. masked: the id that stands for a masked word. What is
    chosen is drawn for the whole global batch from the stream 'mask'. predict gives `logits`.
    """
    words = model.encoder.vocabulary

    def init(key, batch):
        return model.init(key, batch["tokens"], batch["seen"])["params"], {}

    def loss(params, model_state, batch, rngs, train):
        tokens, seen = batch["tokens"], batch["seen"]
        choice, drawn = jax.random.split(rngs["mask"])
        share = jax.random.uniform(choice, tokens.shape) / CHOSEN
        chosen = (share < 1) & seen & (tokens >= first_word)
        others = jax.random.randint(drawn, tokens.shape, first_word, words)
        shown = jnp.where(share < MASKED, masked, jnp.where(share < MASKED + OTHER, others, tokens))
        shown = jnp.where(chosen, shown, tokens)
        logits = model.apply({"params": params}, shown, seen, train=train, rngs=rngs)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, tokens)
        right, weight = (logits.argmax(-1) == tokens) & chosen, chosen.sum(dtype=jnp.float32)
        metrics = {"accuracy": (right.sum(dtype=jnp.float32), weight)}
        return (losses * chosen).sum(), Aux(weight, metrics, model_state)

    def predict(params, model_state, batch):
        return {"logits": model.apply({"params": params}, batch["tokens"], batch["seen"])}

    return Task(init, loss, predict)
