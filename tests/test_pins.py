"""Pinned plans, the part of the costs that is drawn, and measured plans; from made-up numbers."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import made_up_activations, made_up_analysis, made_up_evaluation

from hawq_viz.figures import frontier
from hawq_viz.figures import pins as figures
from hawq_viz.figures import reached as reached_figures
from hawq_viz.figures.ground import Ground
from hawq_viz.view import MOST_PINS, View, decode, encode
from hawq_viz.viewmodels import measured, pins, reached, sliders
from hawq_viz.viewmodels.limits import Held
from hawq_viz.viewmodels.plans import summarize
from hawq_viz.viewmodels.studies import Study

ANALYSIS = made_up_activations(made_up_analysis())
STUDY = Study.of(ANALYSIS)
BOPS = Study.of(ANALYSIS, "bops")
COST = STUDY.frontier.cost
NEAR = st.floats(float(COST[0]) / 2, float(COST[-1]) * 2)


def test_pins_are_in_the_link_and_come_back():
    text = ""
    plans = [ANALYSIS.uniform(4), ANALYSIS.uniform(None, 5), ANALYSIS.uniform(3, 6)]
    for plan in plans:
        assert pins.why_not(text, plan, MOST_PINS) == ""
        text = pins.pinned(text, plan)
    assert decode(encode(View(pins=text))).pins == text
    found = pins.pins_of(STUDY, text)
    assert [pin.letter for pin in found] == ["A", "B", "C"]
    assert [(x.plan.weight_bits, x.plan.activation_bits) for x in found] == [
        (plan.weight_bits, plan.activation_bits) for plan in plans
    ]
    assert pins.why_not(text, plans[1], MOST_PINS) == "This plan is pinned as B"
    assert pins.why_not(text, ANALYSIS.uniform(8), MOST_PINS).startswith("3 plans are pinned")
    left = pins.pins_of(STUDY, pins.unpinned(text, 0))
    assert [pin.plan.weight_bits for pin in left] == [{}, plans[2].weight_bits]
    assert pins.unpinned("444444", 0) == ""


def test_pins_of_another_network_are_passed_over_and_letters_stay():
    (pin,) = pins.pins_of(STUDY, "44,444444,111111")
    assert (pin.letter, pin.place) == ("B", 1)
    assert pins.pins_of(STUDY, "") == []


def test_pinned_plans_are_summed_and_counted_against_the_shown_one():
    plan, other = ANALYSIS.uniform(4, 6), ANALYSIS.uniform(4, 8)
    kept = [pins.Pin(0, other), pins.Pin(1, ANALYSIS.uniform(4))]
    table = pins.sums_table(plan, kept)
    assert list(table["plan"]) == [pins.SHOWN, "A", "B"]
    assert list(table["bits that differ"]) == [0, 3, 4]  # the image has 8 bits in both
    assert list(table["× Ω of this plan"]) == pytest.approx(
        [1, other.omega / plan.omega, ANALYSIS.uniform(4).omega / plan.omega]
    )
    assert list(table["½Ω"]) == pytest.approx([x / 2 for x in table["Ω"]])
    bits = pins.bits_table(ANALYSIS, plan, kept)
    assert len(bits) == len(ANALYSIS.layers) + len(ANALYSIS.activations)
    assert bits.iloc[-1].tolist() == ["input of fc", 6, 8, 32]
    assert pins.comparison_alt(plan, kept) == (
        "Bits of each layer in this plan and in those pinned: A differs in 3 places; "
        "B differs in 4 places."
    )


def test_the_comparison_draws_every_cell_once_and_pale_what_is_the_same():
    plan, other = ANALYSIS.uniform(4, 6), ANALYSIS.uniform(4, 8)
    figure = figures.comparison(ANALYSIS, {"this plan": plan, "A": other})
    for axis, plans in (("y", [[4] * 6] * 2), ("y2", [[8, 6, 6, 6, 0, 6], [8, 8, 8, 8, 0, 8]])):
        maps = [trace for trace in figure.data if trace.yaxis == axis]
        cells = np.array([np.array(trace.z, float) for trace in maps])
        assert (np.isfinite(cells).sum(axis=0) == 1).all()
        assert np.nansum(cells, axis=0).tolist() == plans
        pale = next(np.array(trace.z, float) for trace in maps if trace.opacity < 1)
        assert not np.isfinite(pale[0]).any()
        assert (np.isfinite(pale[1]) == (np.array(plans[1]) == plans[0])).all()
    assert len(figures.comparison(ANALYSIS, {"this plan": ANALYSIS.uniform(4)}).data) == 3
    assert "conv<1>" not in json.dumps(figure.to_dict()["data"], default=list)


def test_pins_are_drawn_where_their_cost_is_known():
    plans = {"A": ANALYSIS.uniform(4, 6), "B": ANALYSIS.uniform(4)}
    (marks,) = figures.pin_marks(plans, cost="activation_memory", largest=1e4)
    assert list(marks.customdata) == [
        plans["A"].costs["activation_memory"],
        plans["B"].costs["activation_memory"],
    ]
    assert list(marks.text) == ["<b>A</b>", "<b>B</b>"]
    assert figures.pin_marks(plans, cost="latency", largest=1e4) == []


def test_what_is_drawn_over_a_figure_is_the_figure_with_it():
    figure = frontier.frontier(ANALYSIS, STUDY.frontier, overlays=STUDY.overlays)
    over = frontier.marks(ANALYSIS, STUDY.frontier, STUDY.plan(None), cost="size")
    ground = Ground.of(figure)
    assert json.loads(ground.under([]).to_json()) == json.loads(figure.to_json())
    figure.add_traces(over)
    assert json.loads(ground.under(over).to_json()) == json.loads(figure.to_json())


def test_hover_texts_are_the_same_found_quickly():
    slow = frontier.frontier(ANALYSIS, BOPS.frontier, cost="bops")
    quick = frontier.frontier(ANALYSIS, BOPS.frontier, cost="bops", bits=BOPS.bits)
    assert quick.data[0].hovertext == slow.data[0].hovertext


@given(NEAR, NEAR)
def test_a_part_is_drawn_with_every_point_in_it(low, high):
    part = sliders.part_of(STUDY, low, high)
    if part is None:
        assert (
            low >= min(high, COST[-1])
            or high <= max(low, COST[0])
            or (low <= COST[0] and high >= COST[-1])
        )
        return
    inside = COST[(part[0] <= COST) & (part[1] >= COST)]
    drawn = COST[frontier.thinned(COST, STUDY.frontier.omega, 10_000, part=part)]
    assert set(inside) <= set(drawn)
    assert len(drawn) <= len(inside) + 2
    slider = sliders.part_slider(STUDY, part)
    assert slider.low <= slider.values[0] <= slider.values[1] <= slider.high


def test_a_part_of_ten_thousands_of_points_is_drawn_finer():
    cost = np.linspace(1, 100, 40_000)
    omega = np.exp(-cost / 7) + 1e-6
    drawn = frontier.thinned(cost, omega, part=(50.0, 50.9))
    assert len(drawn) == 366  # all there are, and one on either side
    assert cost[drawn[0]] < 50 <= cost[drawn[1]]
    assert cost[drawn[-2]] <= 50.9 < cost[drawn[-1]]
    assert list(frontier.thinned(cost, omega, part=(200.0, 300.0))) == [39_999]


def test_the_whole_range_asks_for_nothing():
    assert sliders.part_of(STUDY, None, None) is None
    assert sliders.part_of(STUDY, 1.0, 1e12) is None
    slider = sliders.part_slider(STUDY, None)
    assert slider.asked(slider.values) == (None, None)
    middle = float(COST[len(COST) // 2])
    assert sliders.zoomed_part(STUDY, None) == (None, None)
    assert sliders.zoomed_part(STUDY, (-5.0, middle / 1024)) == (None, pytest.approx(middle))
    assert sliders.zoomed_part(STUDY, (1e9, 2e9)) == (None, None)
    figure = frontier.frontier(ANALYSIS, STUDY.frontier, part=(middle, float(COST[-1])))
    low, high = figure.layout.xaxis.range
    assert low < middle / 1024 < COST[-1] / 1024 < high
    assert min(figure.data[0].x) < middle / 1024 <= sorted(figure.data[0].x)[1]


@pytest.mark.parametrize("held", [Held(), Held((("fc", 2),)), Held(widths=(2, 3))])
def test_the_legend_stands_above_the_frontier(held):
    study = STUDY.keeping(held)
    figure = frontier.frontier(ANALYSIS, study.frontier, free=study.free)
    bottom, top = figure.layout.yaxis.range
    lines = [study.frontier, *([study.free] if study.free else [])]
    first = min(line.cost[0] for line in lines)
    last = max(line.cost[-1] for line in lines)
    edge = first + frontier.BESIDE_LEGEND * (last - first)
    for line in lines:
        heights = (np.log10(line.omega[line.cost > edge]) - bottom) / (top - bottom)
        assert heights.max(initial=0) < 0.56
        assert ((np.log10(line.omega) < top) & (np.log10(line.omega) > bottom)).all()


def run(kind: str, **values: float) -> SimpleNamespace:
    """What is read of a run, without one on disk."""
    options = measured.quantize_options(summarize(ANALYSIS, STUDY.plan(None)), "sample")
    return SimpleNamespace(
        kind=kind,
        title="",
        workload=ANALYSIS.workload,
        options=options | {"recipe": "quick"},
        created="2026-01-01T00:00:00+00:00",
        results={name: made_up_evaluation(value).to_json() for name, value in values.items()},
    )


def test_measured_plans_stand_where_the_analysis_puts_them():
    seen = [run("finetune", float=0.92, plan=0.6, finetuned=0.9), run("quantize", uniform=0.5)]
    points = reached.reached(STUDY, seen)
    plan, rival = STUDY.plan(None), summarize(ANALYSIS, STUDY.plan(None)).rival
    assert [(x.rounded, x.cost, x.omega) for x in points] == [
        (True, plan.size_bytes, pytest.approx(plan.omega)),
        (True, rival.size_bytes, pytest.approx(rival.omega)),
        (False, plan.size_bytes, pytest.approx(plan.omega)),
    ]
    assert points[0].loss_rise == 0
    assert points[1].loss_rise is None
    assert "uniform rival" in points[1].name
    assert "fine-tuned" in points[2].name
    assert points[0].about.startswith("top-1 60.0% (")
    assert "½Ω" in points[0].about
    assert "½Ω" not in points[2].about
    assert reached.reached(BOPS, seen) == []  # they leave inputs float
    table = reached.reached_table(STUDY, points)
    assert list(table["top-1 (%)"]) == pytest.approx([60, 50, 90])
    assert "3 plans of finished runs" in reached.reached_alt(STUDY, points)


def test_measured_plans_are_drawn_open_where_they_were_only_rounded():
    seen = [run("finetune", float=0.92, plan=0.6, finetuned=0.9)]
    points = reached.reached(STUDY, seen)
    (marks,) = reached_figures.measured_marks(points, cost="size", largest=float(COST[-1]))
    assert list(marks.y) == [point.omega for point in points]
    assert len(set(marks.marker.color)) == 2
    figure = reached_figures.accuracies(points, cost="size")
    bars = figure.data[0]
    for point, y, up, down in zip(
        points, bars.y, bars.error_y.array, bars.error_y.arrayminus, strict=True
    ):
        assert (y - down, y + up) == pytest.approx(point.evaluation.interval)
    assert figure.layout.annotations[0].text == "float32 92.0%"
    assert reached_figures.measured_marks([], cost="size", largest=1.0) == []
