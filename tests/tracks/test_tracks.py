"""What the five tracks have in common, and what is theirs alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import pearsonr
from sklearn.metrics import f1_score

from abaw_jax.errors import InputError
from abaw_jax.tracks import AU, CE, EMI, EXPR, TRACKS, VA

HEADERS = {
    "va": "image_location,valence,arousal",
    "expr": "image_location,Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other",
    "au": "image_location,AU1,AU2,AU4,AU6,AU7,AU10,AU12,AU15,AU23,AU24,AU25,AU26",
    "ce": "image_location,Fearfully_Surprised,Happily_Surprised,Sadly_Surprised,"
    "Disgustedly_Surprised,Angrily_Surprised,Sadly_Fearful,Sadly_Angry",
    "emi": "Filename,Admiration,Amusement,Determination,Empathic Pain,Excitement,Joy",
}
FACTS = {  # label width, lowest, highest, mark for no label, score
    "va": (2, -1, 1, -5, "mean_ccc"),
    "expr": (1, 0, 7, -1, "macro_f1"),
    "au": (12, 0, 1, -1, "mean_f1"),
    "ce": (1, 0, 6, -1, "macro_f1"),
    "emi": (6, 0, 1, -5, "mean_pearson"),
}
every_track = pytest.mark.parametrize("track", TRACKS.values(), ids=TRACKS)


def draw_labels(track, n, seed=0, invalid=0.2):
    """Label rows (n, W), some of them invalid in one column."""
    rng, (low, high) = np.random.default_rng(seed), track.label_range
    if track.label_type == "int32":
        rows = rng.integers(low, high, (n, track.label_width), endpoint=True).astype(np.int32)
    else:
        rows = rng.uniform(low, high, (n, track.label_width)).astype(np.float32)
    gone = np.flatnonzero(rng.random(n) < invalid)
    rows[gone, rng.integers(0, track.label_width, len(gone))] = track.invalid
    return rows


@every_track
def test_facts(track):
    assert track.header == HEADERS[track.key] and track.name == track.key.upper()
    found = (track.label_width, *track.label_range, track.invalid, track.score_name)
    assert found == FACTS[track.key]


@every_track
def test_any_invalid_column_makes_a_row_invalid(track):
    rows = draw_labels(track, 3, invalid=0)
    rows[1, -1] = track.invalid
    for xp in (np, jnp):
        np.testing.assert_array_equal(track.valid(xp.asarray(rows)), [True, False, True])


@every_track
def test_labels_encode_to_what_decodes_to_them_and_score_best(track):
    rows = draw_labels(track, 400, invalid=0)
    values = track.encode(rows)
    assert values.shape == (400, track.outputs) and values.dtype == np.float32
    decoded = track.decode(values)
    assert decoded.dtype == track.label_type
    np.testing.assert_array_equal(decoded, rows)
    summary = track.summary(track.evaluate(decoded, rows))
    assert summary.score == summary.metrics[track.score_name] == pytest.approx(1, abs=1e-12)
    assert [row["name"] for row in summary.per_class] == list(track.classes)
    assert track.format_row(rows[0]).count(",") == track.label_width - 1


@every_track
def test_statistics_of_parts_are_those_of_the_whole(track):
    labels, predicted = draw_labels(track, 300, 1), draw_labels(track, 300, 2, invalid=0)
    whole = track.evaluate(predicted, labels)
    parts = [track.evaluate(predicted[i::5], labels[i::5]) for i in range(5)]
    np.testing.assert_array_equal(sum(parts), whole)
    keep = track.valid(labels)
    np.testing.assert_array_equal(track.evaluate(predicted[keep], labels[keep]), whole)
    nothing = track.summary(track.evaluate(predicted[:0], labels[:0]))
    assert nothing.score == 0 and np.isfinite(list(nothing.metrics.values())).all()


def test_scores_are_the_organisers():
    for track in (VA, EMI):
        labels, predicted = draw_labels(track, 200, 3), draw_labels(track, 200, 4, invalid=0)
        keep = track.valid(labels)
        x, y = predicted[keep].astype(np.float64), labels[keep].astype(np.float64)
        summary = track.summary(track.evaluate(predicted, labels))
        cov = ((x - x.mean(0)) * (y - y.mean(0))).mean(0)
        ccc = 2 * cov / (x.var(0) + y.var(0) + (x.mean(0) - y.mean(0)) ** 2)
        assert summary.metrics["mean_ccc"] == pytest.approx(ccc.mean(), abs=1e-9)
        r = [pearsonr(x[:, k], y[:, k]).statistic for k in range(track.outputs)]
        assert summary.metrics["mean_pearson"] == pytest.approx(np.mean(r), abs=1e-9)
        assert summary.score == summary.metrics[track.score_name]
    labels, predicted = draw_labels(AU, 200, 3), draw_labels(AU, 200, 4, invalid=0)
    predicted[:, 2], labels[AU.valid(labels), 2] = 0, 0  # neither occurs nor is predicted
    keep = AU.valid(labels)
    want = f1_score(labels[keep], predicted[keep], average=None, zero_division=0.0)
    summary = AU.summary(AU.evaluate(predicted, labels))
    assert summary.score == pytest.approx(want.mean(), abs=1e-9)
    assert summary.per_class[2]["f1"] == 0


@every_track
def test_activations_keep_to_the_bounds_in_float32(track):
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(50, track.outputs)) * 4)
    low = -1 if track is VA else 0
    for name in track.activations:
        values = track.find_activation(name)(logits.astype(jnp.bfloat16))
        assert values.dtype == jnp.float32 and values.shape == logits.shape
        assert values.min() >= low and values.max() <= 1
    assert track.activation is next(iter(track.activations.values()))


def test_activations_of_values():
    logits = jnp.array([[-2.0, 0.5], [3.0, -0.25]])
    np.testing.assert_allclose(VA.activation(logits), np.tanh(logits), rtol=1e-6)
    clipped = np.clip(logits, -1, 1)
    for name in ("clip", "linear"):
        np.testing.assert_array_equal(VA.find_activation(name)(logits), clipped)
    np.testing.assert_array_equal(VA.find_activation("clip")(logits, train=True), clipped)
    np.testing.assert_array_equal(VA.find_activation("linear")(logits, train=True), logits)
    np.testing.assert_allclose(EMI.activation(logits), 1 / (1 + np.exp(-logits)), rtol=1e-6)


@every_track
def test_values_beyond_the_bounds_are_decoded_to_valid_rows(track):
    rows = track.decode(np.full((1, track.outputs), 1.5, np.float32))
    assert (rows <= track.label_range[1]).all() and (rows >= track.label_range[0]).all()


def test_thresholds_of_units():
    values = np.full((1, 12), 0.5, np.float32)
    values[0, :2] = 0.49, 0.3
    assert AU.decode(values).tolist() == [[0, 0] + [1] * 10]
    assert AU.decode(values, 0.4).tolist() == [[1, 0] + [1] * 10]
    limits = np.linspace(0.1, 0.9, 12)
    assert AU.decode(values, limits).tolist() == [(values[0] >= limits).astype(int).tolist()]
    with pytest.raises(InputError, match="AU: thresholds of shape \\(3,\\); expected one number"):
        AU.decode(values, [0.1, 0.2, 0.3])
    assert {t.key for t in TRACKS.values() if t.thresholds is not None} == {"au"}


LOSSES = [(t, name) for t in TRACKS.values() for name in t.losses()]


@pytest.mark.parametrize(("track", "name"), LOSSES, ids=[f"{t.key}-{n}" for t, n in LOSSES])
def test_losses_count_valid_rows_only(track, name):
    loss, labels = track.find_loss(name), draw_labels(track, 24, 5).reshape(4, 6, -1)
    logits = np.random.default_rng(6).normal(size=(4, 6, track.outputs)).astype(np.float32)
    valid = track.valid(labels) & (np.arange(6) < 5)
    activate = functools.partial(track.activation, train=True) if loss.of_values else jnp.asarray

    @jax.jit
    def total(x, y, mask):
        losses, weights = loss.function(activate(x), y, mask)
        assert losses.shape == weights.shape and losses.dtype == weights.dtype == jnp.float32
        assert not loss.per_row or losses.shape == mask.shape
        return losses.sum(), weights.sum()

    value, weight = total(logits, labels, valid)
    assert weight == valid.sum() and np.isfinite(value) and value > 0
    other, marked = logits.copy(), labels.copy()
    other[~valid], marked[~valid] = 9, track.invalid
    np.testing.assert_allclose(total(other, marked, valid)[0], value, rtol=1e-6)
    gradient = jax.grad(lambda x: total(x, labels, valid)[0])(logits)
    assert (gradient[~valid] == 0).all() and np.isfinite(gradient).all()
    assert (np.abs(gradient[valid]).sum(-1) > 0).mean() > 0.9
    empty = jax.grad(lambda x: total(x, labels, np.zeros_like(valid))[0])(logits)
    assert total(logits, labels, np.zeros_like(valid)) == (0, 0) and (empty == 0).all()
    # A step downhill is a better loss.
    assert total(logits - 1e-2 * gradient, labels, valid)[0] < value


def test_unknown_names_are_refused_with_those_there_are():
    with pytest.raises(InputError, match="loss 'ccc': EXPR has no such loss; expected one of c"):
        EXPR.find_loss("ccc")
    with pytest.raises(InputError, match="activation 'relu': VA has .* one of tanh, clip, linear"):
        VA.find_activation("relu")
    assert VA.find_loss() is VA.losses()["ccc"] and EMI.find_loss() is EMI.losses()["mse"]
    assert CE.find_loss() is EXPR.find_loss("cross_entropy")
