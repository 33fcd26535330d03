"""How much each class weighs in a loss: rules on how often it occurs in training, or numbers."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from abaw_jax.errors import InputError

Weights = Mapping[str, tuple[float, ...]]  # option of a loss -> a number for each class
Rule = str | Sequence[float]


def _balanced(power: float):
    """1 / count^power, scaled so that the mean over the training rows is 1."""

    def weigh(counts: np.ndarray, rows: int) -> np.ndarray:
        weights = counts**-power
        return weights * counts.sum() / (weights * counts).sum()

    return weigh


def _effective(counts: np.ndarray, rows: int, beta: float = 0.9999) -> np.ndarray:
    """(1 - beta) / (1 - beta^count), scaled to a sum of K: Cui et al. 2019, section 3.3."""
    weights = -1 / np.expm1(counts * math.log(beta))
    return weights * len(counts) / weights.sum()


# Rule -> (counts float64 (K,), all above 0; number of rows) -> weights (K,).
WEIGHT_RULES = {
    "class_weights": {
        "none": None,
        "inverse": _balanced(1.0),
        "inverse_sqrt": _balanced(0.5),
        "max": lambda counts, rows: counts.max() / counts,
        "effective": _effective,
        "share": lambda counts, rows: 1 - counts / counts.sum(),
        "negative": lambda counts, rows: rows / (2 * np.maximum(rows - counts, 1)),
    },
    "positive_weights": {
        "none": None,
        "ratio": lambda counts, rows: (rows - counts) / counts,
        "ratio_sqrt": lambda counts, rows: np.sqrt((rows - counts) / counts),
    },
}


def make_class_weights(
    rule: Rule, labels: np.ndarray, classes: int, option: str = "class_weights"
) -> tuple[float, ...] | None:
    """Weights of the classes from the training labels (n, W), None for the rule 'none'.

    Of a track with one class a row (W = 1) the rows of each class are counted, of one with several
    units the rows in which each is on. The rules of `class_weights`:

        inverse       1 / count         } scaled so that the mean over what is
        inverse_sqrt  1 / sqrt(count)   } counted is 1
        max           largest count / count (`hsemotion`)
        effective     (1 - b) / (1 - b^count), summing to K (Cui et al. 2019); b = 0.9999, or as in
                      'effective:0.999'
        share         1 - count / sum of counts (`masked_vit`)
        negative      rows / (2 * rows in which the unit is off) (with `ratio`: `hsemotion`)

    and of `positive_weights`: ratio, rows off / rows on, and ratio_sqrt, its root. A class that
    never occurs weighs 0. Or the numbers themselves, one for each class.
    Raises InputError for another rule, and for labels that are no classes.
    """
    rule, parameters = parse_weight_rule(rule, classes, option)
    if not isinstance(rule, str):
        return rule
    if rule == "none":
        return None
    if labels.dtype.kind == "f":
        raise InputError(f"{option} {rule!r}: labels are real numbers, of which none is a class")
    labels = labels[(labels >= 0).all(axis=1)]
    one_class = labels.shape[1] == 1
    counts = np.bincount(labels[:, 0], minlength=classes) if one_class else labels.sum(axis=0)
    present = counts > 0
    weights = np.zeros(classes)
    weigh = WEIGHT_RULES[option][rule]
    weights[present] = weigh(counts[present].astype(np.float64), len(labels), *parameters)
    return tuple(weights.tolist())


def parse_weight_rule(
    rule: Rule, classes: int, option: str
) -> tuple[str | tuple[float, ...], tuple[float, ...]]:
    """(name of a rule, its parameters) or (the numbers that were given, ()).

    Numbers may come as text with commas between, as from a command line: '1, 2.5, 4'.
    Raises InputError for an unknown name, a parameter that cannot be, or other than one number of
    at least 0 for each class.
    """
    if not isinstance(rule, str) or "," in rule:
        given = rule.strip("()[] ").rstrip(",").split(",") if isinstance(rule, str) else rule
        try:
            numbers = tuple(float(number) for number in given)
        except ValueError:
            raise InputError(
                f"{option} {rule!r}; expected {classes} numbers with commas between"
            ) from None
        if len(numbers) != classes or not all(0 <= number < math.inf for number in numbers):
            raise InputError(f"{option} {numbers}; expected {classes} numbers of at least 0")
        return numbers, ()
    name, colon, parameter = rule.partition(":")
    known = WEIGHT_RULES[option]
    if name not in known or (colon and known[name] is not _effective):
        raise InputError(
            f"{option} {rule!r}; expected one of {', '.join(known)}, or {classes} numbers "
            "with commas between"
        )
    if not colon:
        return name, ()
    try:
        beta = float(parameter)
    except ValueError:
        beta = math.nan
    if not 0 < beta < 1:
        raise InputError(f"{option} {rule!r}; expected a number between 0 and 1 after the colon")
    return name, (beta,)
