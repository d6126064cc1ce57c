"""Figures hold the numbers they were given; drawn from made-up ones."""

import json
import math
from dataclasses import replace

import numpy as np
import plotly.graph_objects as go
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import made_up_analysis, made_up_evaluation

from hawq_viz.figures import frontier, quantize, sensitivity, theme
from hawq_viz.viewmodels import Study


@pytest.fixture(scope="module")
def analysis():
    return made_up_analysis()


@pytest.fixture(scope="module")
def study(analysis):
    return Study.of(analysis)


@pytest.fixture(scope="module")
def everything(analysis, study):
    line = study.frontier
    return {
        "traces": sensitivity.traces(analysis),
        "omegas": sensitivity.omega_heatmap(analysis),
        "frontier": frontier.frontier(analysis, line, picked=line.plan(3), overlays=study.overlays),
        "bits": frontier.plan_bits(analysis, line.plan(3)),
        "accuracies": quantize.accuracies({"float": made_up_evaluation(0.9)}),
    }


def named(figure: go.Figure, name: str):
    return next(trace for trace in figure.data if trace.name == name)


def test_no_figure_says_a_layer_name_unescaped(everything):
    for name, figure in everything.items():
        assert "conv<1>" not in figure.to_json().encode().decode("unicode_escape"), name


def test_all_data_travel_as_plain_lists(everything):
    # A click on packed arrays comes back from the browser as {"0": …}.
    for figure in everything.values():
        assert "bdata" not in figure.to_json()


def test_every_layer_stands_in_one_chart_once_at_its_place(analysis):
    figure = sensitivity.traces(analysis)
    assert figure.layout.yaxis.type == "log"
    assert sorted(x for trace in figure.data for x in trace.x) == list(range(len(analysis.layers)))
    assert list(figure.layout.xaxis.ticktext)[:2] == ["conv&lt;1&gt;", "layer1.0.conv1"]


def test_trace_bars_end_where_the_interval_ends(analysis):
    trace = named(sensitivity.traces(analysis), "Hessian trace")
    low, high = analysis.layers[0].trace.interval
    assert trace.x[0] == 0
    assert trace.y[0] == 6.0
    assert trace.y[0] + trace.error_y.array[0] == pytest.approx(high)
    assert trace.y[0] - trace.error_y.arrayminus[0] == pytest.approx(low)


def test_a_bar_that_reaches_zero_leaves_the_chart_at_the_bottom(analysis):
    figure = sensitivity.traces(analysis)
    trace = named(figure, "Hessian trace")
    end = trace.y[2] - trace.error_y.arrayminus[2]
    assert analysis.layers[2].trace.interval[0] < 0
    assert 0 < end < 10 ** figure.layout.yaxis.range[0]


def test_noisy_and_inexact_layers_are_marked_by_shape_and_name(analysis):
    figure = sensitivity.traces(analysis)
    noisy = named(figure, "too noisy: its standard error")
    assert (list(noisy.x), list(noisy.y)) == ([4], [0.02])
    assert list(named(figure, "Gauss-Newton trace").x) == [3]
    assert len({trace.marker.symbol for trace in figure.data}) == 3


def test_traces_of_one_batch_have_no_bars():
    analysis = made_up_analysis(layers=(("fc", (10, 4), 1.0, 0.0, True),))
    layer = analysis.layers[0]
    one = replace(layer, trace=replace(layer.trace, samples=1))
    figure = sensitivity.traces(replace(analysis, layers=(one,)))
    bars = figure.data[0].error_y
    assert (bars.array[0], bars.arrayminus[0]) == (0.0, 0.0)
    assert "95 % interval -∞ … ∞" in figure.data[0].hovertext[0]
    assert all(map(math.isfinite, figure.layout.yaxis.range))


def test_heatmap_is_the_logarithm_of_omega_and_says_omega(analysis):
    heatmap = sensitivity.omega_heatmap(analysis).data[0]
    omega = analysis.layers[1].omega[4]
    assert heatmap.z[2][1] == pytest.approx(math.log10(omega))
    assert f"Ω = {theme.number(omega)}" in heatmap.hovertext[2][1]


def test_an_omega_of_zero_leaves_its_cell_empty(analysis):
    free = replace(analysis.layers[0], omega={**analysis.layers[0].omega, 8: 0.0})
    changed = replace(analysis, layers=(free, *analysis.layers[1:]))
    heatmap = sensitivity.omega_heatmap(changed).data[0]
    assert heatmap.z[-1][0] is None
    assert "Ω = 0<br>" in heatmap.hovertext[-1][0]


def test_the_picked_plan_is_drawn_exactly(analysis, study):
    figure = frontier.frontier(analysis, study.frontier, picked=study.frontier.plan(5))
    point = named(figure, "this plan")
    assert point.x[0] * 1024 == pytest.approx(study.frontier.cost[5], rel=1e-12)
    assert point.y[0] == study.frontier.omega[5]


def test_a_click_on_any_drawn_point_leads_to_that_plan(analysis, study):
    line = named(frontier.frontier(analysis, study.frontier), "exact frontier")
    costs = json.loads(json.dumps(line.customdata))  # as it travels
    for cost, omega in zip(costs, line.y, strict=True):
        assert study.frontier.omega[study.point(cost)] == omega


def test_overlays_lie_on_or_above_the_frontier(analysis, study):
    figure = frontier.frontier(analysis, study.frontier, overlays=study.overlays)
    for name in ("the paper's monotone rule", "greedy", "uniform bits"):
        trace = named(figure, name)
        for cost, omega in zip(trace.customdata, trace.y, strict=True):
            assert omega >= study.frontier.omega[study.frontier.index_within(cost)] * (1 - 1e-12)
    assert list(named(figure, "uniform bits").text) == [f"{b} bits" for b in range(2, 9)]


@given(st.integers(1, 3000), st.integers(2, 50), st.randoms(use_true_random=False))
def test_thinning_keeps_the_ends_the_order_and_the_limit(points, limit, random):
    cost = np.cumsum([random.uniform(0.01, 1) for _ in range(points)])
    omega = np.cumsum([random.uniform(0, 1) ** 9 + 1e-9 for _ in range(points)])[::-1]
    kept = frontier.thinned(cost, omega, limit)
    assert len(kept) <= max(limit, 1)
    assert (kept[0], kept[-1]) == (0, points - 1)
    assert (np.diff(kept) > 0).all()


def test_thinning_of_ten_thousands_of_plans_leaves_no_gap_to_be_seen():
    cost = np.linspace(1, 100, 40_000)
    omega = np.exp(-cost / 7) + 1e-6
    kept = frontier.thinned(cost, omega)
    assert len(kept) <= frontier.DRAWN
    assert np.diff(cost[kept]).max() < 0.006 * np.ptp(cost)
    assert -np.diff(np.log(omega[kept])).min() < 0.006 * np.ptp(np.log(omega))


def test_bits_are_printed_and_one_width_has_one_colour(analysis, study):
    plan = study.frontier.plan(study.suggested)
    bars = frontier.plan_bits(analysis, plan).data[0]
    assert list(map(int, bars.text)) == list(plan.weight_bits.values()) == list(bars.x)
    assert len(set(zip(bars.text, bars.marker.color, strict=True))) == len(set(bars.text))
    assert bars.marker.color[0] == theme.bits_colour(plan.weight_bits["conv<1>"])


def test_accuracies_stand_with_their_intervals():
    found = {"float": made_up_evaluation(0.92), "plan": made_up_evaluation(0.9)}
    figure = quantize.accuracies(found)
    for position, (name, evaluation) in enumerate(found.items()):
        trace = named(figure, quantize.NAMES[name])
        assert (trace.x[0], trace.y[0]) == (evaluation.value, position)
        assert trace.x[0] + trace.error_x.array[0] == pytest.approx(evaluation.interval[1])
        assert trace.x[0] - trace.error_x.arrayminus[0] == pytest.approx(evaluation.interval[0])
        assert f"{evaluation.value:.1%}" in trace.text[0]
        assert f"{evaluation.value:.2%}" in trace.hovertext[0]


@pytest.mark.parametrize(("lowest", "start"), [(0.9, 0.8), (0.7, 0.5), (0.1, -0.02), (0.0, -0.02)])
def test_the_accuracy_axis_starts_at_few_places(lowest, start):
    found = {"float": made_up_evaluation(0.95), "plan": made_up_evaluation(lowest)}
    assert quantize.accuracies(found).layout.xaxis.range[0] == pytest.approx(start)


def test_accuracies_keep_a_row_for_what_is_still_to_come():
    figure = quantize.accuracies({})
    assert list(figure.layout.yaxis.ticktext) == list(quantize.NAMES.values())
    assert figure.data == ()


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.12345, "0.123"), (1234.5, "1,234"), (-2.5, "-2.5"), (1.5e-7, "1.50 × 10⁻⁷")],
)
def test_numbers_for_people(value, text):
    assert theme.number(value) == text


def test_long_names_keep_their_end():
    name = "backbone.body.layer4.2.downsample.0"
    assert theme.label(name) == "…ody.layer4.2.downsample.0"
    assert len(theme.label(name)) == theme.LABEL_LENGTH
