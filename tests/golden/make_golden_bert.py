"""Write the golden files of BERT and RoBERTa: what transformers computes and how it cuts texts.

    python tests/golden/make_golden_bert.py [FOLDER]

needs torch and transformers (the package's `parity` extra) and not the package. Each file holds the
hidden states of the embeddings and of every layer, the pooled vector, the names of all tensors, the
number of parameters at the true size of the base model, and the ids of `TEXTS`; what all this is
made from stands in bert_inputs.py.
"""

import pathlib
import sys
import tempfile

import bert_inputs
import numpy as np
import torch
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    RobertaConfig,
    RobertaModel,
    RobertaTokenizer,
)

BASE = {
    "bert": (BertConfig, {}),
    "roberta": (
        RobertaConfig,
        dict(vocab_size=50265, max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5),
    ),
}
MODELS = {"bert": BertModel, "roberta": RobertaModel}


def states(family):
    config, base = BASE[family]
    with torch.device("meta"):
        count = sum(p.numel() for p in MODELS[family](config(**base)).parameters())
    model = MODELS[family](config(**bert_inputs.size(family))).eval()
    for name, parameter in model.named_parameters():
        parameter.data = torch.tensor(bert_inputs.draw(name, tuple(parameter.shape)))
    ids, mask, types = map(torch.tensor, bert_inputs.tokens(family))
    with torch.no_grad():
        found = model(ids, mask.long(), types, output_hidden_states=True)
    return {
        "states": torch.stack(found.hidden_states).numpy(),
        "pooled": found.pooler_output.numpy(),
        "names": np.array([name for name, _ in model.named_parameters()]),
        "parameters": count,
    }


def cut_texts(family):
    """Ids of each text, one after the other, and how many each has."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        if family == "bert":
            bert_inputs.write_pieces(folder)
            tokenizer = BertTokenizer(str(folder / "vocab.txt"))
        else:
            bert_inputs.write_bytes(folder)
            tokenizer = RobertaTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
        ids = [tokenizer(text)["input_ids"] for text in bert_inputs.TEXTS]
    return {"ids": np.concatenate(ids), "lengths": np.array([len(each) for each in ids])}


if __name__ == "__main__":
    folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent)
    for family in MODELS:
        np.savez_compressed(folder / f"{family}_small.npz", **states(family), **cut_texts(family))
