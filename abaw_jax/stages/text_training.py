"""A small text encoder trained from nothing on the training videos' transcripts, by masked words.

For corpora whose words no public weights know, such as the demo's. All values are chosen here.
"""

import pathlib
from collections.abc import Iterator, Sequence

import jax
import numpy as np
from jax.sharding import PartitionSpec

from abaw_jax.data.tokens import FITTED, Tokenizer, fit_tokenizer, save_tokenizer
from abaw_jax.errors import InputError
from abaw_jax.interop.archive import save_model
from abaw_jax.models.bert import SIZES, BertEncoder, MaskedWords
from abaw_jax.recipe import Context
from abaw_jax.tasks.masked_words import make_masked_words_task
from abaw_jax.training.loop import train
from abaw_jax.training.optim import make_optimizer

KIND = {"kind": "converted", "architecture": "bert"}  # of config.json, as of public weights
SIZE = "tiny"
STEPS, BATCH, SHARE = 1000, 64, 10  # texts a batch; a part of the steps that warms up
DROPOUT = 0.1


def train_text_encoder(
    context: Context, texts: Sequence[Sequence[str]], folder: pathlib.Path
) -> None:
    """Write a text encoder and its tokenizer, as `open_text_encoder` reads them, config.json last.

    texts: words of each, one at least. An interrupted run goes on. Raises InputError where no word
    is said several times.
    """
    tokenizer = fit_tokenizer(" ".join(words) for words in texts)
    if tokenizer.size == len(FITTED):
        raise InputError(
            "config.extract.text: no word is said several times in the training transcripts; give "
            "the folder of a converted text encoder"
        )
    sizes = SIZES[SIZE] | {"vocabulary": tokenizer.size}
    model = MaskedWords(BertEncoder(**sizes, dropout=DROPOUT))
    masked = tokenizer.backend.token_to_id(FITTED[-1])
    ids = [tokenizer.cut(words).ids for words in texts]
    result = train(
        make_masked_words_task(model, first_word=len(FITTED), masked=masked),
        make_batches=lambda start: draw_texts(
            tokenizer,
            ids,
            most=sizes["positions"],
            seed=context.config.seed,
            start_step=start,
            process=(jax.process_index(), jax.process_count()),
        ),
        optimizer=make_optimizer(
            lr=1e-3, steps=STEPS, warmup_steps=STEPS // SHARE, weight_decay=0.01, clip_norm=1.0
        ),
        steps=STEPS,
        mesh=context.mesh,
        workdir=folder,
        seed=context.config.seed,
        save_every=max(STEPS // SHARE, 1),
        rules=((".*", PartitionSpec()),),  # small: whole on every device
        label="text",
        unit="texts",
    )
    save_tokenizer(tokenizer, folder)
    save_model(folder, {"params": result.params["encoder"]}, {**KIND, "model": sizes})


def draw_texts(
    tokenizer: Tokenizer,
    ids: Sequence[np.ndarray],
    *,
    most: int,
    seed: int,
    start_step: int,
    process: tuple[int, int],
) -> Iterator[dict[str, np.ndarray]]:
    """This process's part of each batch of BATCH texts from `start_step` on: tokens int32 (b, N),
    seen bool (b, N). Of a text of more than `most` tokens a part is drawn anew each time."""
    length = min(most, max(map(len, ids)) + 2)
    step = start_step
    while True:
        rng = np.random.default_rng((seed, step))
        parts = []
        for text in rng.integers(len(ids), size=BATCH):
            first = rng.integers(max(len(ids[text]) - (length - 2), 0) + 1)
            parts.append(tokenizer.wrap(ids[text][first : first + length - 2], length))
        tokens, seen = zip(*parts[process[0] :: process[1]], strict=True)
        yield {"tokens": np.stack(tokens), "seen": np.stack(seen)}
        step += 1
