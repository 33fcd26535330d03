"""The annotations of models, losses and metrics are checked while tests run (see conftest.py)."""

import jax
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from abaw_jax.evaluation.metrics import macro_f1
from abaw_jax.models.layers import attention
from abaw_jax.models.transformer import TemporalEncoder
from abaw_jax.training.losses import cross_entropy


def test_a_wrong_rank_is_refused():
    three = np.zeros((2, 4, 8), np.float32)
    with pytest.raises(TypeCheckError, match="query"):
        attention(three, three, three)
    with pytest.raises(TypeCheckError, match="labels"):
        cross_entropy(three, np.zeros(2, int))
    with pytest.raises(TypeCheckError, match="confusion"):
        macro_f1(np.zeros((2, 2, 2), int))


def test_a_module_is_checked_as_it_is_made_and_as_it_is_traced():
    x = np.zeros((2, 4, 8), np.float32)
    encoder = TemporalEncoder(depth=1, heads=2, mlp_width=8)
    init = jax.jit(encoder.init)
    init(jax.random.key(0), x, np.ones((2, 4), bool))
    with pytest.raises(TypeCheckError, match="mask"):
        init(jax.random.key(0), x, np.ones((2, 5), bool))
    with pytest.raises(TypeCheckError, match="heads"):
        TemporalEncoder(depth=1, heads="2", mlp_width=8)
