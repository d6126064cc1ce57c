"""Figures hold the numbers they were given; drawn from made-up ones."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from made_up import made_up_activations, made_up_analysis, made_up_evaluation
from made_up_runs import FLOAT, ROUNDED, STEPS, opening, training

from engine.analysis import Histogram
from engine.quantizers import Grid
from engine.results import TraceEstimate
from hawq_viz.figures import bits as bits_figures
from hawq_viz.figures import (
    costs,
    finetune,
    frontier,
    histogram,
    layer,
    quantize,
    sensitivity,
    theme,
)
from hawq_viz.figures.finetune import Course
from hawq_viz.viewmodels.studies import Study


@pytest.fixture(scope="module")
def analysis():
    return made_up_analysis()


@pytest.fixture(scope="module")
def both(analysis):
    return made_up_activations(analysis)


@pytest.fixture(scope="module")
def study(analysis):
    return Study.of(analysis)


@pytest.fixture(scope="module")
def everything(analysis, both, study):
    line = study.frontier
    return {
        "activation traces": sensitivity.activation_traces(both),
        "activation omegas": sensitivity.activation_heatmap(both),
        "halves": sensitivity.traces(both, half=True),
        "half omegas": sensitivity.omega_heatmap(both, half=True),
        "histogram": histogram.histogram(histogram.of_activation(both.activations[0], 4)),
        "weights": histogram.histogram(histogram.of_weights(both, both.layers[0], 4)),
        "layer omegas": layer.omegas(both.layers[0], 4, 3),
        "channels": layer.channels(both.layers[0]),
        "convergence": layer.convergence(
            layer.course(both.batch_traces[:, 0], both.batch_sizes, 0.1)
        ),
        "sorted": sensitivity.traces(both, order=(5, 4, 3, 2, 1, 0), marked="conv<1>"),
        "both bits": bits_figures.plan_bits(both, both.uniform(4, 8)),
        "uniform": frontier.frontier(
            both, line, uniform=[both.uniform(4)], picked=both.uniform(4, 8), limit=900.0
        ),
        "traces": sensitivity.traces(analysis),
        "omegas": sensitivity.omega_heatmap(analysis),
        "frontier": frontier.frontier(analysis, line, picked=line.plan(3), overlays=study.overlays),
        "bits": bits_figures.plan_bits(analysis, line.plan(3)),
        "accuracies": quantize.accuracies({"float": made_up_evaluation(0.9)}),
        "live accuracy": finetune.accuracy([course(STEPS, name="conv<1>")]),
        "live loss": finetune.loss([course(STEPS, name="conv<1>")]),
    }


def course(until: int, steps: int = STEPS, name: str = "a run", events=None) -> Course:
    """What a made-up training has told until a step."""
    told = [*opening(), *training(until, steps=steps)] if events is None else events
    rows = {
        event: tuple(fields for name, fields in told if name == event)
        for event in ("reference", "measurement", "step")
    }
    reference = next(iter(rows["reference"]), None)
    return Course("an id", name, steps, reference, rows["measurement"], rows["step"])


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


def test_an_activation_stands_at_its_first_reader_and_a_click_tells_which(both):
    figure = sensitivity.activation_traces(both)
    places = {x: picked for t in figure.data for x, picked in zip(t.x, t.customdata, strict=True)}
    assert places == {both.names.index(x.name): i for i, x in enumerate(both.activations)}
    assert figure.layout.xaxis.range == sensitivity.traces(both).layout.xaxis.range
    trace = named(figure, "Hessian trace")
    low, high = both.activations[0].trace.interval
    assert trace.y[0] + trace.error_y.array[0] == pytest.approx(high)
    assert trace.y[0] - trace.error_y.arrayminus[0] == pytest.approx(low)
    assert list(named(figure, "Gauss-Newton trace").x) == [5]
    assert list(named(figure, "too noisy: its standard error").y) == [0.004]
    assert "read by layer2.0.conv1 too" in trace.hovertext[1]


def test_the_activation_heatmap_holds_omega_with_the_first_order_term_beside_it(both):
    heatmap = sensitivity.activation_heatmap(both).data[0]
    found = both.activations[1]
    assert heatmap.z[2][1] == pytest.approx(math.log10(found.omega[4]))
    assert heatmap.customdata[2][1] == 10 * 1 + 4
    says = heatmap.hovertext[2][1]
    for text in (f"Ω = {theme.number(found.omega[4])}", theme.number(found.first_order[4])):
        assert text in says
    assert [row[3] for row in heatmap.z] == [None] * 7  # it reads another layer's input
    weights = sensitivity.omega_heatmap(both, half=True).data[0]
    assert (weights.zmin, weights.zmax) == (heatmap.zmin, heatmap.zmax)
    assert (weights.showscale, heatmap.showscale) == (False, True)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_levels_are_those_of_the_engines_grid(both, bits):
    for found in both.activations:
        scale, zero_point = (torch.tensor([[x]]) for x in found.grids[bits])
        grid = Grid(scale, zero_point, 0, 2**bits - 1)
        known = torch.tensor(histogram.of_activation(found, bits).levels)
        assert torch.allclose(grid.round(known[None])[0], known, atol=1e-6)
        assert len(known) == 2**bits


def test_the_histogram_holds_every_value_and_tells_what_is_clipped(both):
    found = replace(both.activations[1], grids={2: (0.5, 0.0)})
    found = replace(found, histogram=Histogram(0.0, 4.0, (70, 20, 6, 4)))
    rounded = histogram.of_activation(found, 2)
    figure = histogram.histogram(rounded)
    kept, cut = named(figure, "values"), named(figure, "clipped")
    assert (list(kept.x), list(kept.y)) == ([0.5, 1.5], [0.7, 0.2])
    assert (list(cut.x), list(cut.y)) == ([2.5, 3.5], [0.06, 0.04])  # beyond 1.5 + 0.25
    assert rounded.clipped == pytest.approx(0.1)
    assert "the middle becomes 1.5, code 3 of 0 … 3" in cut.hovertext[0]  # two steps wide
    assert list(named(figure, "the 4 levels of 2 bits").x[::3]) == [0.0, 0.5, 1.0, 1.5]


def test_the_marked_name_is_shown_where_not_all_are():
    names = [f"a.rather.long.name.of.a.layer.{i}" for i in range(100)]
    many = made_up_analysis(layers=tuple((name, (4, 4), 1.0, 0.1, True) for name in names))
    axis = sensitivity.traces(many, marked=names[57]).layout.xaxis
    shown = dict(zip(axis.tickvals, axis.ticktext, strict=True))
    assert shown[57] == "<b>…me.of.a.layer.57</b>"
    assert len(shown) == len(sensitivity.traces(many).layout.xaxis.tickvals)
    plain = [x.removeprefix("<b>").removesuffix("</b>") for x in axis.ticktext]
    assert all(map(str.endswith, plain, (str(i) for i in axis.tickvals)))


def test_weights_are_drawn_in_steps_of_their_grids(analysis):
    counts = np.zeros(analysis.weight_counts.shape, int)
    counts[0, 0, [0, 32, 79, 80, 95, 96]] = 1, 2, 60, 30, 4, 3  # of the first layer at 2 bits
    first = analysis.layers[0]
    rounded = histogram.of_weights(replace(analysis, weight_counts=counts), first, 2)
    figure = histogram.histogram(rounded)
    kept, cut = named(figure, "weights"), named(figure, "clipped")
    assert list(kept.x) == pytest.approx([-2.5 + 1 / 32, 0.5 - 1 / 32, 0.5 + 1 / 32, 1.5 - 1 / 32])
    assert list(kept.y) == pytest.approx([0.02, 0.6, 0.3, 0.04])
    assert [says.split("become ")[1] for says in kept.hovertext] == [
        "-2, code 0 of 0 … 3",
        "0, code 2 of 0 … 3",
        "1, code 3 of 0 … 3",
        "1, code 3 of 0 … 3",
    ]
    assert list(cut.x) == pytest.approx([-4.5 + 1 / 32, 1.5 + 1 / 32])
    assert rounded.clipped == pytest.approx(0.04)
    assert ["farther out" in says for says in cut.hovertext] == [True, False]
    assert list(named(figure, "the 4 levels of 2 bits").x[::3]) == [-2, -1, 0, 1]
    uncounted = replace(analysis, weight_counts=np.zeros((0, 0, 0), int))
    assert histogram.of_weights(uncounted, first, 2) is None


def test_a_histogram_of_one_value_can_be_drawn(both):
    nothing = replace(both.activations[1], histogram=Histogram(0.0, 1.0, (0, 0)))
    figure = histogram.histogram(histogram.of_activation(nothing, 4))
    assert math.isfinite(figure.layout.yaxis.range[0])


@pytest.mark.parametrize("half", [False, True])
def test_sorted_charts_share_their_columns_and_a_click_still_tells_the_layer(both, half):
    order = (4, 0, 5, 2, 1, 3)
    column = {both.names[layer]: place for place, layer in enumerate(order)}
    traces = sensitivity.traces(both, order=order, marked="fc", half=half)
    placed = {
        both.names[picked]: x
        for t in traces.data
        for x, picked in zip(t.x, t.customdata, strict=True)
    }
    assert placed == column
    inputs = sensitivity.activation_traces(both, order=order, half=half)
    for t in inputs.data:
        for x, picked in zip(t.x, t.customdata, strict=True):
            assert x == column[both.activations[picked].name]
    heatmap = sensitivity.omega_heatmap(both, order=order, half=half)
    assert heatmap.data[0].customdata[2] == [10 * layer + 4 for layer in order]
    omega = both.layers[order[1]].omega[4]
    assert heatmap.data[0].z[2][1] == pytest.approx(math.log10(omega))
    of_inputs = sensitivity.activation_heatmap(both, order=order, half=half).data[0]
    assert of_inputs.customdata[2][column["fc"]] == 10 * 3 + 4
    names = traces.layout.xaxis.ticktext
    assert names[column["fc"]] == "<b>fc</b>"
    assert sum(name.startswith("<b>") for name in names) == 1
    assert names[1] == "conv&lt;1&gt;"


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
    figure = frontier.frontier(
        analysis, study.frontier, overlays=study.overlays, uniform=study.uniform
    )
    for name in ("the paper's monotone rule", "greedy", "uniform bits"):
        trace = named(figure, name)
        for cost, omega in zip(trace.customdata, trace.y, strict=True):
            assert omega >= study.frontier.omega[study.frontier.index_within(cost)] * (1 - 1e-12)
    assert list(named(figure, "uniform bits").text) == [f"{b} bits" for b in range(2, 9)]


def test_plans_are_dotted_where_they_are_few_enough_to_be_told_apart(analysis, study):
    assert len(study.frontier) > frontier.DOTTED
    assert named(frontier.frontier(analysis, study.frontier), "exact frontier").mode == "lines"
    part = (float(study.frontier.cost[5]), float(study.frontier.cost[9]))
    few = named(frontier.frontier(analysis, study.frontier, part=part), "exact frontier")
    assert len(few.x) == 7  # those of the part, and the next on either side
    assert few.mode == "lines+markers"


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
    bars = bits_figures.plan_bits(analysis, plan).data[0]
    assert list(map(int, bars.text)) == list(plan.weight_bits.values()) == list(bars.x)
    assert len(set(zip(bars.text, bars.marker.color, strict=True))) == len(set(bars.text))
    assert bars.marker.color[0] == theme.bits_colour(plan.weight_bits["conv<1>"])


def test_both_bit_widths_of_a_layer_stand_beside_each_other(both):
    plan = both.uniform(4, 6)
    weights, inputs = bits_figures.plan_bits(both, plan).data
    assert list(weights.text) == ["4"] * 6
    assert list(inputs.text) == ["8", "6", "6", "6", "float", "6"]  # the image; one was not found
    assert list(inputs.x) == [8, 6, 6, 6, 0, 6]
    assert list(inputs.marker.opacity) == [1, 1, 1, 0.4, 1, 1]  # read by an earlier layer too
    assert "as the input of layer1.0.conv1" in inputs.hovertext[3]
    assert (weights.xaxis, inputs.xaxis) == ("x", "x2")
    assert json.loads(bits_figures.plan_bits_again(both, plan).to_json()) == json.loads(
        bits_figures.plan_bits(both, plan).to_json()
    )
    floats = bits_figures.plan_bits(both, both.uniform(None, 6)).data[0]
    assert set(floats.text) == {"float"}


def test_uniform_plans_are_marked_by_their_bits_at_their_cost(both, study):
    plans = [both.uniform(4, 8), both.uniform(4, 4), both.uniform(8, 8)]
    figure = frontier.frontier(both, study.frontier, cost="bops", uniform=plans, picked=plans[0])
    marks = named(figure, "uniform bits")
    assert list(marks.text) == ["W4A8", "W4A4", "W8A8"]
    assert list(marks.customdata) == [plan.costs["bops"] for plan in plans]
    assert named(figure, "this plan").customdata == (plans[0].costs["bops"],)


@pytest.mark.parametrize("limit", [1e-6, 1e18])
def test_a_budget_beyond_all_plans_is_not_drawn(both, study, limit):
    drawn = frontier.frontier(both, study.frontier, cost="bops", limit=limit)
    assert not drawn.layout.shapes
    inside = float(study.frontier.cost[3])
    assert frontier.frontier(both, study.frontier, cost="bops", limit=inside).layout.shapes


@pytest.mark.parametrize(
    ("cost", "value", "text"),
    [
        ("size", 2048, "2.0 KiB"),
        ("activation_peak", 3 * 2**20, "3.00 MiB"),
        ("bops", 1.2345e9, "1.23 G"),
        ("bops", 12, "12.00"),
        ("latency", 0.5, "0.50 ms"),
    ],
)
def test_costs_for_people(cost, value, text):
    assert costs.cost_text(cost, value) == text


def test_plans_for_people(both):
    assert costs.plan_text(both.uniform(4, 6)) == "weights 4×6; inputs 8 6×3"
    assert costs.plan_text(both.uniform(4)) == "bits 4×6"
    assert costs.uniform_text(both.uniform(None, 6)) == "A6"
    mixed = both.plan_of(
        {name: 4 + i for i, name in enumerate(both.names[:4])}
        | {both.names[4]: 2, both.names[5]: 2},
        both.uniform(4, 6).activation_bits,
    )
    assert costs.uniform_text(mixed) == "A6"


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


def test_live_accuracy_holds_every_measurement_with_its_interval():
    watched = course(117)
    figure = finetune.accuracy([watched])
    line, band = named(figure, "a run"), named(figure, "95 %")
    rows = watched.measurements
    assert list(line.x) == [0, 39, 78, 117]
    assert list(line.y) == [row["test"]["value"] for row in rows]
    half = len(rows)
    assert list(band.x) == [*line.x, *line.x[::-1]]
    assert list(band.y[:half]) == [row["test"]["low"] for row in rows]
    assert list(band.y[half:]) == [row["test"]["high"] for row in rows[::-1]]
    assert list(named(figure, "held back").y) == [row["held_out"]["value"] for row in rows]
    assert named(figure, "best").x == (117,)
    assert named(figure, "held back").line.width < line.line.width


def test_lines_across_are_float_and_post_training_each_with_its_name():
    figure = finetune.accuracy([course(39)])
    assert [(shape.y0, shape.y1) for shape in figure.layout.shapes] == [
        (ROUNDED, ROUNDED),
        (FLOAT, FLOAT),
    ]
    below, above = figure.layout.annotations
    assert (below.text, below.yanchor) == ("post-training<br>58.6%", "top")
    assert (above.text, above.yanchor) == ("float32<br>92.1%", "bottom")
    assert not finetune.accuracy([course(0, events=[])]).layout.shapes


def test_the_accuracy_axis_stands_still_while_points_arrive():
    ranges = {finetune.accuracy([course(until)]).layout.yaxis.range for until in range(0, 391, 39)}
    assert len(ranges) == 1
    low, high = ranges.pop()
    assert (low, high) == (pytest.approx(0.5 - 0.03 * 0.5), 1.005)
    steps = {finetune.accuracy([course(until)]).layout.xaxis.range for until in range(0, 391, 39)}
    assert len(steps) == 1


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_the_accuracy_axis_only_ever_widens_and_has_room_for_all(values):
    starts = []
    for count in range(1, len(values) + 1):
        rows = tuple(
            {
                "step": 39 * i,
                "test": {"value": v, "low": v * 0.98, "high": v, "samples": 500},
                "held_out": {"value": v},
                "best": False,
            }
            for i, v in enumerate(values[:count])
        )
        figure = finetune.accuracy([Course("a", "a", STEPS, None, rows, ())])
        starts.append(figure.layout.yaxis.range[0])
        assert starts[-1] < min(row["test"]["low"] for row in rows)
    assert starts == sorted(starts, reverse=True)


@pytest.mark.parametrize("runs", [1, finetune.MOST_RUNS])
@pytest.mark.parametrize("draw", [finetune.accuracy, finetune.loss])
def test_a_live_chart_draws_at_most_a_thousand_points_and_always_the_last(runs, draw):
    rows = [*opening()]
    for number in range(1, 3001):
        rows += [*training(number, number - 1, 3000), ("measurement", measured_at(number))]
    courses = [course(3000, 3000, f"run {i}", rows) for i in range(runs)]
    figure = draw(courses)
    drawn = json.loads(figure.to_json())["data"]
    assert sum(len(trace["x"]) for trace in drawn) <= finetune.DRAWN
    for one in courses:
        assert named(figure, one.name).x[-1] == 3000
    looks = {(named(figure, c.name).line.color, named(figure, c.name).line.dash) for c in courses}
    assert len(looks) == runs


def measured_at(step: int) -> dict:
    seen = {"value": 0.9, "low": 0.88, "high": 0.92, "samples": 500, "loss": 0.3}
    return {"step": step, "held_out": seen, "test": seen, "best": True}


@given(st.integers(0, 5000), st.integers(2, 300))
def test_thinned_rows_keep_the_ends_and_stay_as_more_arrive(rows, limit):
    kept = finetune.thinned(range(rows), limit)
    assert len(kept) <= limit
    assert kept == sorted(set(kept))
    if rows:
        assert (kept[0], kept[-1]) == (0, rows - 1)
        before = finetune.thinned(range(rows - 1), limit)
        assert set(kept[:-1]) <= set(before)  # nothing comes back that was left out
        assert len(kept) >= min(rows, limit // 2)


def test_the_smoothed_loss_is_the_weighted_average_written_out():
    steps, values, span = [1, 2, 5, 9], [4.0, 2.0, 1.0, 3.0], 3.0
    for last, found in enumerate(finetune.smoothed(steps, values, span)):
        weights = [math.exp(-(steps[last] - s) / span) for s in steps[: last + 1]]
        assert found == pytest.approx(np.average(values[: last + 1], weights=weights))


@given(st.floats(0.1, 10), st.lists(st.integers(1, 50), min_size=1, max_size=30))
def test_smoothing_leaves_a_constant_as_it_is(value, gaps):
    steps = np.cumsum(gaps).tolist()
    assert finetune.smoothed(steps, [value] * len(steps), 5.0) == pytest.approx(
        [value] * len(steps)
    )


@given(st.floats(1e-6, 1e6))
def test_the_loss_axis_ends_a_little_above_the_highest(value):
    assert value <= finetune.rounded_up(value) * (1 + 1e-12)
    assert finetune.rounded_up(value) <= 1.5 * value * (1 + 1e-9)


def test_an_axis_of_nothing_is_there_all_the_same():
    nothing = Course("a", "a", 0, None, (), ())
    assert finetune.loss([nothing]).layout.yaxis.range == (0, 1)
    assert finetune.accuracy([nothing]).layout.xaxis.range == (-0.1, 5)


def test_a_course_is_read_off_a_run():
    def latest(event):
        rows = [*opening(), *training(39), ("step", {"step": 40, "steps": 400, "loss": None})]
        return tuple(fields for name, fields in rows if name == event)

    found = Course.of(SimpleNamespace(id="an id", results={}, latest=latest), "a name")
    assert (found.steps, found.last_step, len(found.losses)) == (400, 400, 39)
    assert found.rounded["test"]["value"] == ROUNDED
    assert found.best["step"] == 39
    assert found.reference["test"]["value"] == FLOAT
    assert found.metric == "accuracy"


@pytest.mark.parametrize(
    ("metric", "says"),
    [("top-1", "accuracy"), ("top-5", "top-5"), ("mAP", "mAP@[.5:.95]")],
)
def test_a_course_says_what_is_measured(metric, says):
    run = SimpleNamespace(id="a", results={"float": {"metric": metric}}, latest=lambda _: ())
    found = Course.of(run, "a name")
    assert found.metric == says
    assert finetune.accuracy([found]).layout.yaxis.title.text == f"{says} on test images"


def test_a_detectors_precision_is_named_in_full():
    found = {"float": replace(made_up_evaluation(0.69), metric="mAP")}
    figure = quantize.accuracies(found)
    assert figure.layout.xaxis.title.text == "mAP@[.5:.95] on the test images"
    assert "mAP@[.5:.95] 69.00%" in named(figure, "float32").hovertext[0]


def test_a_trace_below_its_error_stands_where_omega_takes_it_and_says_so(analysis):
    noisy = named(sensitivity.traces(analysis), "too noisy: its standard error")
    (below,) = (layer for layer in analysis.layers if layer.trace.floored)
    assert list(noisy.y) == [below.trace.sem]
    assert noisy.hovertext[0].endswith("trace below its error: Ω uses the error instead")
    assert "average trace -0.01" in noisy.hovertext[0]
    wholly = replace(below, trace=TraceEstimate(-5.0, 0.1, 8, exact=True))  # its interval too
    figure = sensitivity.traces(replace(analysis, layers=(analysis.layers[0], wholly)))
    noisy = named(figure, "too noisy: its standard error")
    assert (list(noisy.y), noisy.error_y.array[0]) == ([0.1], 0)
    assert np.isfinite(figure.layout.yaxis.range).all()


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
