"""Tables and the page: well formed, complete, escaped."""

import json
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from abaw_jax.errors import InputError
from abaw_jax.evaluation import pictures, plots
from abaw_jax.evaluation.confidence import Interval
from abaw_jax.evaluation.report import (
    Timeline,
    class_table_text,
    markdown_table,
    read_history,
    text_table,
    write_report,
)
from abaw_jax.tracks import AU, CE, EMI, EXPR, VA

ROWS = [
    {"stage": "pretrain", "seconds": 1234.56, "score": None, "steps": 12000},
    {"stage": "a|b", "seconds": 3.0, "score": 0.41234},
]
HOSTILE = "<script>alert('&')</script>\"|.."
RANKS = range(1, 11)


def summary(seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 7, (300, 1)).astype(np.int32)
    predicted = np.where(rng.random((300, 1)) < 0.5, labels, rng.integers(0, 8, (300, 1)))
    return EXPR.summary(EXPR.evaluate(predicted.astype(np.int32), labels))


def test_text_table_aligns():
    assert text_table(ROWS).splitlines() == [
        "stage     seconds   score   steps",
        "pretrain  1,234.6          12,000",
        "a|b           3.0  0.4123",
    ]
    assert text_table([]) == ""


def test_markdown_table():
    assert markdown_table(ROWS).splitlines() == [
        "| stage | seconds | score | steps |",
        "| --- | ---: | ---: | ---: |",
        "| pretrain | 1,234.6 |  | 12,000 |",
        "| a\\|b | 3.0 | 0.4123 |  |",
    ]
    assert markdown_table([]) == ""


def test_class_table_names_every_class():
    lines = class_table_text(summary()).splitlines()
    assert [line.split()[0] for line in lines] == ["name", *EXPR.classes]


def page(path, track=EXPR, found=None, **options):
    write_report(path, "<EXPR> & more", track, found or summary(), **options)
    text = path.read_text(encoding="utf-8")
    # Well formed as XML but for the two tags that HTML leaves open.
    for open_tag in ('<meta charset="utf-8">', 'initial-scale=1">'):
        assert text.count(open_tag) == 1
        text = text.replace(open_tag, open_tag[:-1] + "/>")
    for outside in ("<script", "src=", "href=", "@import", "url("):
        assert outside not in text
    return text, ElementTree.fromstring(text.removeprefix("<!doctype html>\n"))


def headings(tree):
    return [h.text for h in tree.iter("h2")]


def pictures_of(tree):
    return [svg.get("aria-label") for svg in tree.iter("{http://www.w3.org/2000/svg}svg")]


def test_page_holds_everything_and_nothing_from_outside(tmp_path):
    labels = np.repeat([-1, 0, 3, 7], 50)[:, None]
    candidates = [
        {"kind": "none", "width": 0, "macro_f1": 0.3},
        {"kind": "box", "width": 5, "macro_f1": 0.4},
    ]
    history = tmp_path / "metrics.jsonl"
    history.write_text('{"step": 1, "loss": 2.5}\n')
    timelines = [
        Timeline(name, {"labels": labels, "predicted": labels[::-1]}, note)
        for name, note in (("v_left", "<b>liveliest</b>"), (HOSTILE, ""))
    ]
    text, tree = page(
        tmp_path / "report.html",
        notes=["validation <1>"],
        intervals={"score": Interval(0.4, 0.35, 0.45), "macro_f1": Interval(0.4, 0.35, 0.45)},
        stages=ROWS,
        timelines=timelines,
        videos=[{"video": HOSTILE, "score": 0.0}, *({"video": f"v{i}", "score": i} for i in RANKS)],
        members=[{"member": HOSTILE, "Neutral": 0.5}],
        scenes=[{"scene": HOSTILE, "videos": 3}],
        candidates=candidates,
        histories={"finetune": {"all": history}, "sequence": {"all": history, HOSTILE: history}},
        config={"finetune": {"epochs": 3, "name": "<a&b>"}},
        versions={"jax": "0.10.2"},
    )
    assert tree.find("head/title").text == tree.find("body/h1").text == "<EXPR> & more"
    assert f"{summary().score:.4f}" in [p.text for p in tree.iter("p")]
    assert "95 % of resamples of the videos lie between 0.3500 and 0.4500" in text
    assert headings(tree) == [
        "Stages",
        "Intervals over videos",
        "Classes",
        "F1 of each class",
        "Confusion",
        "v_left over time",
        f"{HOSTILE} over time",
        "Worst videos",
        "Members",
        "Scenes",
        "Smoothing, tuned on validation",
        "Learning: finetune",
        "Learning: sequence",
        "Configuration",
        "Versions",
    ]
    assert pictures_of(tree)[2:] == ["classes over time"] * 2 + ["figures while learning"] * 2
    assert "<b>liveliest</b>" in [p.text for p in tree.iter("p")]
    cells = [cell.text for cell in tree.iter("td")]
    assert cells.count(HOSTILE) == 3 and "v9" in cells and "v10" not in cells
    assert "Of 11 videos" in text
    best = [row for row in tree.iter("tr") if row.get("class") == "best"]
    assert [cell.text for cell in best[0]] == ["box", "5", "0.4000"] and len(best) == 1
    (settings,) = tree.iter("pre")
    assert json.loads(settings.text) == {"finetune": {"epochs": 3, "name": "<a&b>"}}


def test_page_without_options(tmp_path):
    _, tree = page(tmp_path / "report.html")
    assert headings(tree) == ["Classes", "F1 of each class", "Confusion"]


def drawn(track, rows=90, seed=0):
    """Labels, some of them marked invalid, and what was predicted."""
    rng = np.random.default_rng(seed)
    labels = rng.uniform(*track.label_range, (rows, track.label_width))
    if track.label_type == "int32":
        labels = rng.integers(track.label_range[0], track.label_range[1] + 1, labels.shape)
    labels, predicted = (a.astype(track.label_type) for a in (labels, labels[::-1]))
    labels[10:20] = track.invalid
    return labels, predicted


@pytest.mark.parametrize(
    "track, bars, over_time",
    [
        (VA, "CCC of each class", ["valence, arousal over time", "plane of valence and arousal"]),
        (AU, "F1 of each class", ["units over time"]),
        (CE, "F1 of each class", ["classes over time"]),
    ],
    ids=lambda value: getattr(value, "key", None),
)
def test_each_track_over_time(tmp_path, track, bars, over_time):
    labels, predicted = drawn(track)
    rows = {"labels": labels, "frames": predicted, "smoothed": predicted}
    _, tree = page(
        tmp_path / "report.html",
        track,
        track.summary(track.evaluate(predicted, labels)),
        timelines=[Timeline("v", rows)],
    )
    assert bars in headings(tree) and pictures_of(tree)[-len(over_time) :] == over_time
    if track is AU:
        texts = [t.text for t in tree.iter("{http://www.w3.org/2000/svg}text")]
        assert "smoothed: on" in texts and "labels: on" in texts and "frames: on" not in texts


def test_clips_predicted_against_true(tmp_path):
    labels, predicted = drawn(EMI)
    _, tree = page(
        tmp_path / "report.html",
        EMI,
        EMI.summary(EMI.evaluate(predicted, labels)),
        pairs=(predicted, labels),
        videos=[{"video": f"{i:05d}", "score": 0.0, "mean_rmse": 0.1 * i} for i in range(12)],
    )
    assert headings(tree)[-3:] == [
        "Pearson's r of each class",
        "Predicted against true",
        "Worst clips",
    ]
    cells = [cell.text for cell in tree.iter("td")]
    assert cells[-20:-16] == ["00011", "1.1000", "00010", "1.0000"]
    # Six squares, each with a dot for each clip that has a label.
    svg = list(tree.iter("{http://www.w3.org/2000/svg}svg"))[-1]
    dots = [p.get("d") for p in svg.iter() if p.get("stroke-opacity")]
    assert [d.count("M") for d in dots] == [80] * 6
    assert "80 labelled clips." in [p.text for p in tree.iter("p")]


def test_history_of_a_stage(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        '{"step": 0, "compile_seconds": 3.1}\n{"step": 5, "loss": 2.0, "images_per_second": 9}\n'
        '{"step": 7, "loss": null}\n{"step": 7, "evaluation/loss": 1.5, "evaluation/f1": 0.2}\n'
    )
    found = read_history(path)
    assert {f: list(lines) for f, lines in found.items()} == {
        "loss": ["training", "validation"],
        "f1": ["validation"],
    }
    steps, values = found["loss"]["training"]
    np.testing.assert_array_equal(steps, [5, 7])
    np.testing.assert_array_equal(values, [2.0, np.nan])
    for bad in ('{"step": 8', "[1]", '{"loss": 1}', '{"step": 8, "loss": "x"}', '{"step": {}}'):
        path.write_text(f'{{"step": 1, "loss": 1}}\n{bad}\n')
        with pytest.raises(InputError, match=r"metrics\.jsonl:2: .*expected a JSON object"):
            read_history(path)
    with pytest.raises(InputError, match="absent: cannot be read"):
        read_history(tmp_path / "absent")


def paths(svg):
    """(stroke, points) of each line, a point as (x, y)."""
    found = []
    for path in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}path"):
        points = re.findall(r"[ML]([-\d.]+) ([-\d.]+)", path.get("d"))
        found.append((path.get("stroke"), np.array(points, float), path.get("d")))
    return found


@pytest.mark.parametrize("scale", [1, 40])
def test_lines_lie_at_their_values_and_break_where_there_is_none(scale):
    truth = np.repeat(np.linspace(-1, 1, 100), scale)[:, None]
    truth[20 * scale : 30 * scale] = np.nan
    half = np.full_like(truth, 0.5)
    svg = plots.over_time({"labels": truth, "half": half}, ["valence"], (-1, 1))
    grid = [points[0, 1] for colour, points, _ in paths(svg) if colour == pictures.GRID]
    bottom, middle, top = grid[0], grid[2], grid[4]
    assert (bottom + top) / 2 == middle and bottom > top
    found = {colour: (points, d) for colour, points, d in paths(svg)}
    points, d = found[pictures.INK]
    assert d.count("M") == 2 and found[pictures.COLOURS[1]][1].count("M") == 1
    assert points[0, 1] == pytest.approx(bottom, abs=1.5)
    assert points[-1, 1] == pytest.approx(top, abs=1.5)
    np.testing.assert_allclose(found[pictures.COLOURS[1]][0][:, 1], (middle + top) / 2, atol=0.1)
    with pytest.raises(ValueError, match="one length"):
        plots.over_time({"labels": truth, "half": half[1:]}, ["valence"], (-1, 1))


@pytest.mark.parametrize("rows", [1, 2, 7, 1000])
def test_the_way_through_the_plane_is_whole(rows):
    way = np.stack([np.linspace(-1, 1, rows), np.linspace(0, 0.5, rows)], axis=1)
    svg = plots.plane({"labels": way, "again": way}, ["valence", "arousal"], (-1, 1))
    found = [points for colour, points, _ in paths(svg) if colour.startswith("rgb") and len(points)]
    half = len(found) // 2
    first, second = np.concatenate(found[:half]), np.concatenate(found[half:])
    # Pieces share an end, and lie one after the other.
    assert (np.diff(first[:, 0]) >= 0).all() and (np.diff(first[:, 1]) <= 0).all()
    assert len(np.unique(first, axis=0)) == min(rows, plots.STEPS)
    np.testing.assert_allclose((second - first)[:, 1], 0, atol=1e-9)
    assert len(np.unique((second - first)[:, 0].round(1))) == 1


def test_a_scatter_of_many_rows_shows_some_of_them_all_along():
    values = np.linspace(0, 1, 50_000)[:, None]
    (dots,) = [p for p in paths(plots.scatter(values, values, ["Joy"], (0, 1))) if "h0" in p[2]]
    assert len(dots[1]) == plots.POINTS
    steps = np.diff(dots[1], axis=0)
    np.testing.assert_allclose(steps.sum(axis=0), [220, -220], atol=0.11)
    np.testing.assert_allclose(steps[:, 0], -steps[:, 1], atol=0.11)


def test_curves_of_one_figure_and_of_nothing_but_nan():
    line = (np.array([10.0, 20.0]), np.array([3.0, 1.0]))
    nothing = (np.array([20.0]), np.array([np.nan]))
    history = {"loss": {"training": line, "validation": nothing}, "f1": {"validation": nothing}}
    svg = plots.curves(history, ("training", "validation"))
    drawn_lines = [p for p in paths(svg) if p[0] != pictures.GRID and "v" not in p[2]]
    keys, drawn_lines = drawn_lines[:2], drawn_lines[2:]
    assert [d[-3:] for _, _, d in keys] == ["h18"] * 2
    assert [len(points) for _, points, _ in drawn_lines] == [2, 0, 0]
    ((_, points, _), *_) = drawn_lines
    assert points[0, 1] < points[1, 1] and points[1, 0] - points[0, 0] == pytest.approx(165)


def test_each_of_many_models_has_a_line_of_its_own(tmp_path):
    """Told apart by colour or dashes, named once, and never longer than the panel has room for."""
    steps = np.arange(1, 5001)
    models = [f"fold{i}" for i in range(12)]
    history = {
        figure: {name: (steps, np.cos(steps / (i + 1))) for i, name in enumerate(models)}
        for figure in ("loss, training", "f1, validation")
    }
    svg = plots.curves(history, models)
    assert [svg.count(f">{name}<") for name in models] == [1] * 12
    tree = ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}path")
    found = [p for p in tree if p.get("stroke-width")]
    styles = [(p.get("stroke"), p.get("stroke-dasharray")) for p in found]
    assert len(set(styles)) == 12 and styles == styles[:12] * 3  # keys, and two panels
    assert max(p.get("d").count("L") for p in found) < 200
    assert len(svg) < 100_000


def test_models_of_a_stage_share_a_panel_for_each_figure(tmp_path):
    files = {name: tmp_path / f"{name}.jsonl" for name in ("all", "fold1")}
    for path in files.values():
        path.write_text('{"step": 1, "loss": 2.5}\n{"step": 2, "evaluation/loss": 2}\n')
    text, _ = page(tmp_path / "report.html", histories={"sequence": files})
    for heading in ("loss, training", "loss, validation", "all", "fold1"):
        assert text.count(f">{heading}</text>") == 1
    assert "their lines are not of the same videos" in text


def test_the_worst_videos_have_no_figure_twice(tmp_path):
    row = {"video": "v", "score": 0.25, EXPR.score_name: 0.25, "accuracy": 0.5}
    _, tree = page(tmp_path / "report.html", videos=[row])
    heads = [cell.text for cell in list(tree.iter("thead"))[-1].iter("th")]
    assert heads == ["video", EXPR.score_name, "accuracy"]


def test_units_predicted_above_true():
    predicted = np.repeat([[1, 0], [0, 1]], 50, axis=0)
    labels = np.repeat([[1, 1], [-1, 0]], 50, axis=0)
    svg = pictures.units({"smoothed": predicted, "labels": labels}, ["AU1", "AU2"])
    drawn_ = [r for r in rectangles(svg) if r.get("height") == "11" and r.get("fill") != "none"]
    fills = [(r.get("fill"), float(r.get("y"))) for r in drawn_]
    off, said, true = "#f1f3f5", pictures.COLOURS[5], pictures.FAINT
    assert [f for f, _ in fills] == [said, off, true, off, said, true, off]
    heights = [y for _, y in fills]
    assert heights == sorted(heights) and len(set(heights)) == 4


def rectangles(svg):
    tag = "{http://www.w3.org/2000/svg}rect"
    return [rect for rect in ElementTree.fromstring(svg).iter(tag)]


def test_bars_are_as_long_as_the_figures():
    rows = [{"name": "a", "f1": 0.25}, {"name": "b", "f1": 1.0}, {"name": "c", "f1": 0.0}]
    widths = [float(rect.get("width")) for rect in rectangles(pictures.bars(rows, "f1"))]
    assert widths == [widths[1] / 4, widths[1], 0]


def test_bars_below_zero_reach_to_the_left():
    rows = [{"name": "a", "ccc": -0.5}, {"name": "b", "ccc": 1.0}]
    (left, right) = rectangles(pictures.bars(rows, "ccc"))
    assert float(left.get("x")) + float(left.get("width")) == float(right.get("x"))
    assert float(right.get("width")) == 2 * float(left.get("width"))


def test_confusion_is_darkest_where_the_share_is_highest():
    svg = pictures.confusion(np.array([[9, 1], [0, 0]]), ["a", "b"])
    assert [rect.get("fill") for rect in rectangles(svg)][2:] == ["rgb(255, 255, 255)"] * 2
    assert ">90.0<" in svg and ">10.0<" in svg and svg.count(">-<") == 2
    assert "a predicted as b: 1 of 10" in svg


def test_confusion_stacks_the_words_of_long_names():
    svg = pictures.confusion(np.eye(7, dtype=int), CE.classes)
    head = [
        (float(t.get("x")), float(t.get("y")), t.text)
        for t in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
        if t.get("text-anchor") == "middle" and t.text.rstrip("_").isalpha()
    ]
    columns = {x for x, _, _ in head[2:]}
    assert len(columns) == 7
    step = min(np.diff(sorted(columns)))
    assert all(7.5 * len(text) <= step for _, _, text in head[2:])
    first = [text for x, _, text in sorted(head[2:]) if x == min(columns)]
    assert first == ["Fearfully_", "Surprised"]


@pytest.mark.parametrize("scale", [1, 10, 997])
def test_strips_show_each_run_in_its_colour(scale):
    row = np.repeat([2, -1, 5, 5, 0], 100 * scale)
    svg = pictures.strips({"labels": row}, EXPR.classes)
    drawn = [r for r in rectangles(svg) if r.get("height") == "32" and r.get("fill") != "none"]
    assert [r.get("fill") for r in drawn] == [pictures.COLOURS[c] for c in (2, 5, 0)]
    widths = np.array([float(r.get("width")) for r in drawn])
    np.testing.assert_allclose(widths / widths.sum(), [0.25, 0.5, 0.25], atol=0.005)
    with pytest.raises(ValueError, match="one length"):
        pictures.strips({"a": row, "b": row[1:]}, EXPR.classes)
