"""Tables and the page: well formed, complete, escaped."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from abaw_jax.evaluation import pictures
from abaw_jax.evaluation.report import (
    Timeline,
    class_table_text,
    markdown_table,
    text_table,
    write_report,
)
from abaw_jax.tracks import EXPR

ROWS = [
    {"stage": "pretrain", "seconds": 1234.56, "score": None, "steps": 12000},
    {"stage": "a|b", "seconds": 3.0, "score": 0.41234},
]


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


def page(path, **options):
    write_report(path, "<EXPR> & more", EXPR, summary(), **options)
    text = path.read_text(encoding="utf-8")
    # Well formed as XML but for the two tags that HTML leaves open.
    for open_tag in ('<meta charset="utf-8">', 'initial-scale=1">'):
        assert text.count(open_tag) == 1
        text = text.replace(open_tag, open_tag[:-1] + "/>")
    return text, ElementTree.fromstring(text.removeprefix("<!doctype html>\n"))


def test_page_holds_everything_and_nothing_from_outside(tmp_path):
    labels = np.repeat([-1, 0, 3, 7], 50)
    candidates = [
        {"kind": "none", "width": 0, "macro_f1": 0.3},
        {"kind": "box", "width": 5, "macro_f1": 0.4},
    ]
    text, tree = page(
        tmp_path / "report.html",
        notes=["validation <1>"],
        stages=ROWS,
        candidates=candidates,
        timeline=Timeline("video1_left", {"labels": labels, "predicted": labels[::-1]}),
    )
    assert tree.find("head/title").text == tree.find("body/h1").text == "<EXPR> & more"
    assert f"{summary().score:.4f}" in [p.text for p in tree.iter("p")]
    headings = [h.text for h in tree.iter("h2")]
    assert headings[:2] == ["Stages", "Classes"] and "video1_left over time" in headings
    assert len(list(tree.iter("{http://www.w3.org/2000/svg}svg"))) == 3
    best = [row for row in tree.iter("tr") if row.get("class") == "best"]
    assert [cell.text for cell in best[0]] == ["box", "5", "0.4000"] and len(best) == 1
    for outside in ("<script", "src=", "href=", "@import", "url("):
        assert outside not in text


def test_page_without_options(tmp_path):
    _, tree = page(tmp_path / "report.html")
    assert [h.text for h in tree.iter("h2")] == ["Classes", "F1 of each class", "Confusion"]


def rectangles(svg):
    tag = "{http://www.w3.org/2000/svg}rect"
    return [rect for rect in ElementTree.fromstring(svg).iter(tag)]


def test_bars_are_as_long_as_the_figures():
    rows = [{"name": "a", "f1": 0.25}, {"name": "b", "f1": 1.0}, {"name": "c", "f1": 0.0}]
    widths = [float(rect.get("width")) for rect in rectangles(pictures.bars(rows, "f1"))]
    assert widths == [widths[1] / 4, widths[1], 0]


def test_confusion_is_darkest_where_the_share_is_highest():
    svg = pictures.confusion(np.array([[9, 1], [0, 0]]), ["a", "b"])
    assert [rect.get("fill") for rect in rectangles(svg)][2:] == ["rgb(255, 255, 255)"] * 2
    assert ">90.0<" in svg and ">10.0<" in svg and svg.count(">-<") == 2
    assert "a predicted as b: 1 of 10" in svg


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
