"""Rules of class weights: against their formulas, on counts that are known."""

import math

import numpy as np
import pytest

from abaw_jax.errors import InputError
from abaw_jax.stages.class_weights import make_class_weights


def test_no_class_weights():
    assert make_class_weights("none", np.array([[0], [1]]), 2) is None


def test_class_weights_by_their_formulas():
    labels = np.array([0] * 16 + [1] * 4 + [-1] * 7)[:, None]  # class 2 never occurs, -1: invalid
    inverse = make_class_weights("inverse", labels, 3)
    # 1/16 and 1/4, times a factor for which 16 of the one and 4 of the other sum to 20
    assert inverse == pytest.approx((10 / 16, 10 / 4, 0))
    root = make_class_weights("inverse_sqrt", labels, 3)
    assert root == pytest.approx((20 / 24, 20 / 12, 0))
    for weights in (inverse, root):
        assert np.array(weights)[[0] * 16 + [1] * 4].mean() == pytest.approx(1)


EXPR_COUNTS = (177198, 16573, 10771, 9080, 95463, 78751, 31615, 165866)
EXPR_PRINTED = (1, 10.40, 16.23, 19.61, 1.856, 2.225, 5.611, 1.059)
AU_COUNTS = (
    160261, 67513, 209982, 362236, 538960, 467113, 332788, 38163, 42787, 34746, 851020, 100978,
)  # fmt: skip
AU_PRINTED = (
    5.278, 12.427, 3.918, 2.371, 1.574, 1.820, 2.587, 22.660, 20.121, 22.105, 1.0, 8.265,
)  # fmt: skip


def test_largest_count_over_count_against_the_weights_that_fuxi_printed():
    """The printed weights come of counts that are near those of Aff-Wild2 that are known, but not
    the same: the rule gives Neutral, Happiness and AU25 to the printed digits, the other classes of
    EXPR to 3 %, the other units to 3 % but AU24 to 11 %."""
    labels = np.repeat(np.arange(8), EXPR_COUNTS)[:, None]
    weights = np.array(make_class_weights("max", labels, 8))
    np.testing.assert_allclose(weights, 177198 / np.array(EXPR_COUNTS), rtol=1e-12)
    assert [round(w, 3) == p for w, p in zip(weights, EXPR_PRINTED, strict=True)] == [
        True, False, False, False, True, False, False, False,
    ]  # fmt: skip
    np.testing.assert_allclose(weights, EXPR_PRINTED, rtol=0.03)
    rows = np.arange(1_357_000)[:, None]
    weights = np.array(make_class_weights("max", (rows < AU_COUNTS).astype(np.int8), 12))
    np.testing.assert_allclose(weights, 851020 / np.array(AU_COUNTS), rtol=1e-12)
    near = np.isclose(weights, AU_PRINTED, rtol=0.035)
    assert near.tolist() == [True] * 9 + [False, True, True]
    assert weights[9] == pytest.approx(22.105, rel=0.11) and weights[10] == 1.0
    # Given as numbers, or as their text, they are what they are.
    assert make_class_weights(AU_PRINTED, rows, 12) == AU_PRINTED
    for text in (str(AU_PRINTED), ",".join(map(str, AU_PRINTED))):
        assert make_class_weights(text, rows, 12) == AU_PRINTED


def test_other_rules_by_their_formulas():
    labels = np.array([0] * 16 + [1] * 4 + [-1] * 7)[:, None]  # class 2 never occurs
    assert make_class_weights("max", labels, 3) == (1, 4, 0)
    assert make_class_weights("share", labels, 3) == pytest.approx((4 / 20, 16 / 20, 0))
    effective = np.array([(1 - 0.9) / (1 - 0.9**n) for n in (16, 4)])
    effective *= 2 / effective.sum()
    found = make_class_weights("effective:0.9", labels, 3)
    assert found == pytest.approx((*effective, 0))
    # beta towards 1: by inverse count; towards 0: all alike.
    assert make_class_weights("effective:0.999999", labels, 3) == pytest.approx(
        (0.4, 1.6, 0), rel=1e-4
    )
    assert make_class_weights("effective:1e-9", labels, 3) == pytest.approx((1, 1, 0))
    assert make_class_weights("effective", labels, 3) == make_class_weights(
        "effective:0.9999", labels, 3
    )


def test_weights_of_units():
    labels = np.array([[1, 0, 0], [1, 1, 0], [1, 0, 0], [0, 0, 0], [-1, 1, 1]])  # the last: invalid
    assert make_class_weights("max", labels, 3) == (1, 3, 0)
    assert make_class_weights("inverse", labels, 3) == pytest.approx((2 / 3, 2, 0))
    assert make_class_weights("negative", labels, 3) == pytest.approx((2, 4 / 6, 0))
    for rule, power in (("ratio", 1), ("ratio_sqrt", 0.5)):
        found = make_class_weights(rule, labels, 3, "positive_weights")
        assert found == pytest.approx(((1 / 3) ** power, 3**power, 0))
    # `hsemotion`: N / (2 negatives) where off, N / (2 positives) where on.
    off = make_class_weights("negative", labels, 3)
    on = np.multiply(off, make_class_weights("ratio", labels, 3, "positive_weights"))
    assert on[:2] == pytest.approx([4 / 6, 4 / 2])


@pytest.mark.parametrize(
    ("rule", "option", "message"),
    [
        ("inverze", "class_weights", "one of none, inverse, inverse_sqrt, max, effective"),
        ("ratio", "class_weights", "one of none, inverse"),
        ("max", "positive_weights", "one of none, ratio, ratio_sqrt, or 2 numbers"),
        ("max:2", "class_weights", "expected one of"),
        ("effective:1", "class_weights", "between 0 and 1"),
        ("effective:x", "class_weights", "between 0 and 1"),
        ((1.0,), "class_weights", "expected 2 numbers of at least 0"),
        ("1,2,3", "class_weights", "expected 2 numbers of at least 0"),
        ("1, none", "class_weights", "expected 2 numbers with commas between"),
        ((1.0, -1.0), "class_weights", "expected 2 numbers of at least 0"),
        ((1.0, math.nan), "positive_weights", "expected 2 numbers of at least 0"),
    ],
)
def test_rules_that_cannot_be(rule, option, message):
    with pytest.raises(InputError) as caught:
        make_class_weights(rule, np.array([[0], [1]]), 2, option)
    assert str(caught.value).startswith(option) and message in str(caught.value)


def test_real_numbers_have_no_classes():
    with pytest.raises(InputError, match="class_weights 'max': labels are real numbers"):
        make_class_weights("max", np.array([[0.5, 0.5]]), 2)
    assert make_class_weights("none", np.array([[0.5, 0.5]]), 2) is None
