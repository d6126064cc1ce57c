"""What Home shows until Plotly draws: whole HTML, with the figure's own numbers."""

import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import made_up_analysis

from hawq_viz.figures.overview import overview
from hawq_viz.figures.sketch import _round_step, sketch
from hawq_viz.viewmodels.studies import Study


@pytest.fixture(scope="module")
def figure():
    analysis = made_up_analysis()
    study = Study.of(analysis)
    return overview(
        analysis, study.frontier, cost="size", picked=study.plan(None), uniform=study.uniform
    )


def texts(html: str) -> list[str]:
    return ["".join(text.itertext()) for text in ElementTree.fromstring(html).iter("text")]


def test_it_says_what_the_figure_says(figure):
    html = sketch(figure)
    squares = next(trace for trace in figure.data if trace.name == "uniform bits")
    said = texts(html)
    assert set(squares.text) <= set(said)
    assert {figure.layout.xaxis.title.text, figure.layout.yaxis.title.text} <= set(said)
    names = [div.text or div[0].tail for div in ElementTree.fromstring(html)[1]]
    assert names == [trace.name for trace in figure.data]


def test_each_square_and_the_line_lie_at_their_values(figure):
    root = ElementTree.fromstring(sketch(figure))
    (low, high), (bottom, top) = figure.layout.xaxis.range, figure.layout.yaxis.range
    squares = next(trace for trace in figure.data if trace.name == "uniform bits")
    drawn = [rect for rect in root.iter("rect") if rect.get("x") != "50%"]  # not the legend's
    for rect, x, y in zip(drawn, squares.x, squares.y, strict=True):
        across, down = (float(rect.get(name).rstrip("%")) / 100 for name in "xy")
        assert low + across * (high - low) == pytest.approx(x)
        assert top - down * (top - bottom) == pytest.approx(math.log10(y))
    line = next(trace for trace in figure.data if "lines" in trace.mode)
    path = next(root.iter("path")).get("d")
    ends = re.findall(r"[MH](\d+)", path)
    assert low + int(ends[0]) / 1e4 * (high - low) == pytest.approx(line.x[0], rel=1e-3)
    assert low + int(ends[-1]) / 1e4 * (high - low) == pytest.approx(line.x[-1], rel=1e-3)
    assert path.count("H") == path.count("V") == len(line.x) - 1


def test_axes_have_the_labels_of_plotly(figure):
    figure.update_layout(yaxis={"range": [-3.2, 1.3], "dtick": 1}, xaxis={"range": [95, 310]})
    said = texts(sketch(figure))
    assert said[:5] == ["10−3", "10−2", "10−1", "1", "10"]
    assert said[6:11] == ["100", "150", "200", "250", "300"]
    figure.update_layout(yaxis={"range": [-2.1, -0.9], "dtick": None})
    assert texts(sketch(figure))[:5] == ["10−2", "2", "5", "10−1", figure.layout.yaxis.title.text]


@given(st.floats(1e-6, 1e12))
def test_an_axis_has_four_to_ten_round_steps(extent):
    step = _round_step(extent)
    assert 4 - 1e-6 <= extent / step <= 10 + 1e-6
    assert f"{step:.0e}"[0] in "125"


def test_names_are_escaped(figure):
    figure.data[0].name = "<script>alert(1)</script>"
    html = sketch(figure)
    assert "<script" not in html
    assert "&lt;script&gt;" in html
