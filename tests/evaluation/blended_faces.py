"""Probabilities of expressions as a face between two of them would give."""

import numpy as np

from abaw_jax.tracks import CE, EXPR
from abaw_jax.tracks.targets import PARTS


def face(**probabilities):
    """One row of EXPR probabilities; what is not named shares the rest."""
    row = np.zeros(EXPR.outputs, np.float32)
    for name, value in probabilities.items():
        row[EXPR.classes.index(name)] = value
    others = row == 0
    row[others] = (1 - row.sum()) / others.sum()
    return row


def blends(rows=6, noise=0.02, seed=0):
    """Rows of each compound class in turn: (labels (n,), probabilities (n, 8))."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(CE.outputs), rows)
    clean = np.stack([face(**dict.fromkeys(PARTS[CE.classes[k]], 0.45)) for k in labels])
    noisy = np.abs(clean + rng.normal(0, noise, clean.shape))
    return labels, (noisy / noisy.sum(axis=1, keepdims=True)).astype(np.float32)
