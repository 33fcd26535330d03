"""Small BERT and RoBERTa with drawn weights."""

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from abaw_jax.interop.keymap import write_tensors
from abaw_jax.interop.keys import bert as keys
from abaw_jax.models.bert import BertEncoder
from tests.golden import bert_inputs


def shapes_of(model, tokens=4):
    """Shape of each variable by its path."""
    ids, mask = jnp.zeros((1, tokens), jnp.int32), jnp.ones((1, tokens), bool)
    return {
        path: leaf.shape
        for path, leaf in flatten_dict(
            jax.eval_shape(model.init, jax.random.key(0), ids, mask), sep="/"
        ).items()
    }


def small(family, **more):
    return BertEncoder(**keys.read_architecture(bert_inputs.size(family), "config.json"), **more)


def drawn(shapes, rules):
    """Torch's tensors by name, for variables of these shapes."""
    zeros = {path: np.zeros(shape, np.float32) for path, shape in shapes.items()}
    names = write_tensors(zeros, rules)
    return {name: bert_inputs.draw(name, tensor.shape) for name, tensor in names.items()}
