"""Losses, as functions of arrays; `tracks/losses.py` says which track takes which.

Two kinds. Losses of rows give one number a row: whoever calls them drops invalid rows, sums and
divides. Losses of many rows (CCC, Pearson, F1) are no sums over rows: they take the mask of valid
rows and give n * loss and n, where n is the number of valid rows, so that they enter sums over
micro-batches as the others do. Over micro-batches such a loss is therefore the mean, weighted by
rows, of what each micro-batch's own rows agree by; that is not the loss of all the rows together,
and smaller micro-batches estimate it worse. Over devices it is: they share one global batch.

Shapes: B any leading axes, C classes of which one is true, K units or numbers.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Num

# What functions of arrays take: JAX's, tracers among them, or NumPy's.
AnyArray = jax.Array | np.ndarray
ClassWeights = Sequence[float] | Float[AnyArray, "_"] | None
# Keeps quotients of variances finite: far below any variance that means something.
EPSILON = 1e-8


def cross_entropy(
    logits: Float[AnyArray, "*B C"],
    labels: Int[AnyArray, "*B"] | Float[AnyArray, "*B C"],
    class_weights: ClassWeights = None,
    label_smoothing: float = 0.0,
) -> Float32[jax.Array, "*B"]:
    """Cross-entropy of each example: logits (..., C), labels (...) or (..., C) -> float32 (...).

    -sum_c w_c t_c log softmax(logits)_c, where t is the one-hot label, or the given distribution,
    smoothed to (1 - s) t + s / C (Szegedy et al. 2016, section 7). With weights, torch's
    `CrossEntropyLoss(weight=w)` then divides by sum_i w_(y_i): see `class_weight_of`.
    Integer labels must lie in [0, C); callers drop invalid rows.
    """
    logits = logits.astype(jnp.float32)
    classes = logits.shape[-1]
    soft = labels.ndim == logits.ndim
    target = labels.astype(jnp.float32) if soft else jax.nn.one_hot(labels, classes)
    if label_smoothing:
        target = (1 - label_smoothing) * target + label_smoothing / classes
    if class_weights is not None:
        target = target * jnp.asarray(class_weights, jnp.float32)
    return -(target * jax.nn.log_softmax(logits, axis=-1)).sum(-1)


def class_weight_of(
    labels: Int[AnyArray, "*B"], class_weights: ClassWeights
) -> Float32[jax.Array, "*B"]:
    """What each example adds to the normaliser: its class's weight, or 1. int (...) -> (...).

    The mean of torch's weighted cross-entropy is sum_i w_(y_i) l_i / sum_i w_(y_i).
    """
    if class_weights is None:
        return jnp.ones(labels.shape, jnp.float32)
    return jnp.asarray(class_weights, jnp.float32)[labels]


def focal(
    logits: Float[AnyArray, "*B C"],
    labels: Int[AnyArray, "*B"],
    class_weights: ClassWeights = None,
    gamma: float = 2.0,
    alpha: float = 1.0,
) -> Float32[jax.Array, "*B"]:
    """Focal loss of each example over a softmax: logits (..., C), labels in [0, C) (...).

    -alpha w_y (1 - p_y)^gamma log p_y, p = softmax(logits): equation 5 of Lin et al. 2017 with
    p_t = p_y; alpha is a plain factor here, as every class is the positive one in turn. The mean
    is over examples, whatever their weights. gamma 0: weighted cross-entropy.
    """
    logs = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    own = jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)
    log_p = jnp.where(own, logs, 0.0).sum(-1)
    # log(1 - p) from the other classes: 1 - p itself loses all its digits where p is near 1.
    log_rest = jax.nn.logsumexp(jnp.where(own, -jnp.inf, logs), axis=-1)
    weight = alpha * class_weight_of(labels, class_weights)
    return -weight * jnp.exp(gamma * log_rest) * log_p


def _mean_over_classes(
    elements: Float32[jax.Array, "*B K"], class_weights: ClassWeights
) -> Float32[jax.Array, "*B"]:
    if class_weights is not None:
        elements = elements * jnp.asarray(class_weights, jnp.float32)
    return elements.mean(-1)


def binary_cross_entropy(
    logits: Float[AnyArray, "*B K"],
    targets: Num[AnyArray, "*B K"],
    class_weights: ClassWeights = None,
    positive_weights: ClassWeights = None,
    label_smoothing: float = 0.0,
) -> Float32[jax.Array, "*B"]:
    """Binary cross-entropy of each example, the mean over its units. logits, targets (..., K).

    -w_k (q_k t log p + (1 - t) log(1 - p)), p = sigmoid(logits). w, `class_weights`, scales the
    whole term (torch's `weight`, `fuxi`'s); q, `positive_weights`, only where a unit is on (torch's
    `pos_weight`). w_k = N / (2 negatives), q_k = negatives / positives is `hsemotion`'s weighting.
    targets: 0 or 1, or between, smoothed to (1 - s) t + s / 2. The mean is over all elements, as
    torch's, whatever their weights.
    """
    logits, targets = logits.astype(jnp.float32), targets.astype(jnp.float32)
    if label_smoothing:
        targets = (1 - label_smoothing) * targets + label_smoothing / 2
    positive = targets * jax.nn.log_sigmoid(logits)
    if positive_weights is not None:
        positive = positive * jnp.asarray(positive_weights, jnp.float32)
    negative = (1 - targets) * jax.nn.log_sigmoid(-logits)
    return _mean_over_classes(-(positive + negative), class_weights)


def binary_focal(
    logits: Float[AnyArray, "*B K"],
    targets: Num[AnyArray, "*B K"],
    class_weights: ClassWeights = None,
    gamma: float = 2.0,
    alpha: float = 0.25,
) -> Float32[jax.Array, "*B"]:
    """Focal loss of each example over sigmoids, the mean over its units. logits, targets (..., K).

    -w_k alpha_t (1 - p_t)^gamma log p_t; p_t is p where the target is 1 and 1 - p where it is 0,
    alpha_t is alpha and 1 - alpha (Lin et al. 2017, equation 5). Logits go in, never probabilities.
    gamma 0 and alpha 0.5: half the binary cross-entropy.
    """
    logits = logits.astype(jnp.float32)
    on = targets > 0
    sign = jnp.where(on, 1.0, -1.0)
    log_p, log_rest = jax.nn.log_sigmoid(sign * logits), jax.nn.log_sigmoid(-sign * logits)
    balance = jnp.where(on, alpha, 1 - alpha)
    return _mean_over_classes(-balance * jnp.exp(gamma * log_rest) * log_p, class_weights)


def asymmetric(
    logits: Float[AnyArray, "*B K"],
    targets: Num[AnyArray, "*B K"],
    class_weights: ClassWeights = None,
    gamma_positive: float = 0.0,
    gamma_negative: float = 4.0,
    margin: float = 0.05,
) -> Float32[jax.Array, "*B"]:
    """Asymmetric loss of each example, the mean over its units. logits, targets (..., K).

    On: -(1 - p)^gamma_positive log p. Off: -p_m^gamma_negative log(1 - p_m), where
    p_m = max(p - margin, 0): easy negatives weigh nothing (Ridnik et al. 2021, section 2).
    The paper sums over units, a factor of K; its public code stops the gradient of the two powers,
    which this, the formula, does not.
    """
    logits = logits.astype(jnp.float32)
    log_p, log_rest = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
    positive = jnp.exp(gamma_positive * log_rest) * log_p
    shifted = jax.nn.sigmoid(logits) - margin
    # Below the margin the term is 0, and so is its gradient; 1 stands in, whose powers have one.
    above = shifted > jnp.finfo(jnp.float32).tiny
    log_shifted = jnp.log(jnp.where(above, shifted, 1.0))
    # log(1 - p + margin) by logarithms: 1 - p has no digits left where p is near 1.
    log_rest = jnp.logaddexp(log_rest, math.log(margin) if margin else -math.inf)
    negative = jnp.where(above, jnp.exp(gamma_negative * log_shifted) * log_rest, 0.0)
    return _mean_over_classes(-jnp.where(targets > 0, positive, negative), class_weights)


def squared_error(
    values: Float[AnyArray, "*B K"], targets: Float[AnyArray, "*B K"]
) -> Float32[jax.Array, "*B"]:
    """Mean over the K numbers of each example of (value - target)^2."""
    return jnp.square(values.astype(jnp.float32) - targets.astype(jnp.float32)).mean(-1)


def _valid_values(values, targets, valid):
    """Both as float32, 0 in rows that do not count, so that their gradient is 0 whatever they are;
    and the mask as float32 (..., 1)."""
    mask = jnp.asarray(valid)[..., None]
    values = jnp.where(mask, values.astype(jnp.float32), 0.0)
    targets = jnp.where(mask, targets.astype(jnp.float32), 0.0)
    return values, targets, mask.astype(jnp.float32)


def _moments(values, targets, valid, axes):
    """Number of valid rows, means, variances and covariance over `axes`, which stay with length 1.

    All 0 where no row is valid.
    """
    x, y, mask = _valid_values(values, targets, valid)

    def mean(z):
        return z.sum(axes, keepdims=True) / jnp.maximum(rows, 1.0)

    rows = mask.sum(axes, keepdims=True)
    mean_x, mean_y = mean(x), mean(y)
    # Centred before they are squared: float32 has no digits to lose.
    x, y = (x - mean_x) * mask, (y - mean_y) * mask
    return rows, mean_x - mean_y, mean(x * x), mean(y * y), mean(x * y)


def _many_rows(rows: jax.Array, agreement: jax.Array, axes: tuple[int, ...]):
    """n (1 - mean agreement of the columns) and n, without the axes that were summed over."""
    loss = rows * (1 - agreement.mean(-1, keepdims=True))
    drop = (*axes, -1)
    return loss.squeeze(drop), rows.squeeze(drop)


def ccc_loss(
    values: Float[AnyArray, "*B K"],
    targets: Float[AnyArray, "*B K"],
    valid: Bool[AnyArray, "*B"],
    per_sequence: bool = False,
) -> tuple[Float32[jax.Array, "..."], Float32[jax.Array, "..."]]:
    """n (1 - mean_k CCC_k) and n over the valid rows, n of them. values, targets (..., K).

    CCC = 2 cov / (var x + var y + (mean x - mean y)^2 + EPSILON), population statistics (Lin 1989).
    Over all rows together, two scalars; or `per_sequence`, over the last axis before K alone: then
    (B,) of each for values (B, T, K), so that sequences weigh by their valid rows. Constant
    predictions have a CCC of 0 and a gradient towards the targets.
    """
    axes = (-2,) if per_sequence else tuple(range(-values.ndim, -1))
    rows, gap, var_x, var_y, cov = _moments(values, targets, valid, axes)
    ccc = 2 * cov / (var_x + var_y + jnp.square(gap) + EPSILON)
    return _many_rows(rows, ccc, axes)


def pearson_loss(
    values: Float[AnyArray, "*B K"],
    targets: Float[AnyArray, "*B K"],
    valid: Bool[AnyArray, "*B"],
    epsilon: float = 1e-6,
) -> tuple[Float32[jax.Array, ""], Float32[jax.Array, ""]]:
    """n (1 - mean_k r_k) and n over the valid rows, n of them. values, targets (..., K).

    r = cov / sqrt((var x + epsilon) (var y + epsilon)), Pearson's up to epsilon: at constant
    predictions the gradient of r is infinite, of this it is bounded by 1 / sqrt(epsilon).
    """
    axes = tuple(range(-values.ndim, -1))
    rows, _, var_x, var_y, cov = _moments(values, targets, valid, axes)
    r = cov * jax.lax.rsqrt((var_x + epsilon) * (var_y + epsilon))
    return _many_rows(rows, r, axes)


def soft_f1_loss(
    probabilities: Float[AnyArray, "*B K"],
    targets: Num[AnyArray, "*B K"],
    valid: Bool[AnyArray, "*B"],
) -> tuple[Float32[jax.Array, ""], Float32[jax.Array, ""]]:
    """n (1 - mean_k F1_k) and n over the valid rows, n of them. probabilities, targets (..., K).

    F1 = 2 sum p t / (sum p + sum t), the counts of macro F1 with probabilities p in place of
    decisions (Bénédict et al. 2022, sigmoidF1, without its further sigmoid). A class that does not
    occur among the rows has an F1 of 0 and no gradient.
    """
    axes = tuple(range(-probabilities.ndim, -1))
    p, t, mask = _valid_values(probabilities, targets, valid)
    hits, total = (z.sum(axes, keepdims=True) for z in (p * t, p + t))
    f1 = 2 * hits / (total + EPSILON)
    return _many_rows(mask.sum(axes, keepdims=True), f1, axes)
