"""One layer from close by: its charts and what is said of it, from made-up numbers."""

import math
from dataclasses import replace

import numpy as np
import pytest
from made_up import BATCHES, made_up_activations, made_up_analysis

from engine.results import TraceEstimate
from engine.sensitivities import Finding, omega_interval
from hawq_viz.figures import layer as figures
from hawq_viz.figures.histogram import of_weights
from hawq_viz.viewmodels import analyses, checklist, detail

ANALYSIS = made_up_activations(made_up_analysis())
FIRST, NOISY = ANALYSIS.layers[0], ANALYSIS.layers[4]


def named(figure, name):
    return next(trace for trace in figure.data if trace.name == name)


# --- Ω and its interval


def test_omega_is_as_uncertain_as_its_trace():
    for one in (*ANALYSIS.layers, *ANALYSIS.activations):
        low, high = omega_interval(one, 4)
        assert low == pytest.approx(one.trace.interval[0] * one.perturbation[4])
        assert high == pytest.approx(one.trace.interval[1] * one.perturbation[4])
    by_channel = replace(FIRST, omega={4: 3 * FIRST.omega[4]})
    assert omega_interval(by_channel, 4)[1] == pytest.approx(3 * omega_interval(FIRST, 4)[1])
    flat = replace(FIRST, trace=TraceEstimate(0.0, 0.0, 8, True), omega={4: 0.0})
    assert omega_interval(flat, 4) == (0, 0)


def test_omegas_are_drawn_with_the_plans_bits_and_the_chosen_ones():
    figure = figures.omegas(FIRST, 4, 3)
    points = named(figure, "Ω with its 95 % interval")
    assert list(points.y) == [FIRST.omega[bits] for bits in range(2, 9)]
    assert list(points.customdata) == list(range(2, 9))
    assert points.y[1] + points.error_y.array[1] == pytest.approx(omega_interval(FIRST, 3)[1])
    assert points.y[1] - points.error_y.arrayminus[1] == pytest.approx(omega_interval(FIRST, 3)[0])
    assert [symbol == "diamond" for symbol in points.marker.symbol] == [x == 4 for x in range(2, 9)]
    ring = named(figure, "the picked plan: 3 bits")
    assert (ring.x, ring.y) == ((3,), (FIRST.omega[3],))
    assert len(figures.omegas(FIRST, 4, None).data) == 1


# --- channels


def with_channels(traces, sems=()):
    return replace(FIRST, channel_traces=tuple(traces), channel_sems=tuple(sems))


def test_channels_are_ranked_with_their_intervals():
    layer = with_channels([1.0, 4.0, 0.0, 2.0], [0.1, 0.2, 0.0, 0.4])
    figure = figures.channels(layer)
    points = named(figure, "channel, 95 % interval")
    assert (list(points.x), list(points.y)) == ([1, 2, 3], [4.0, 2.0, 1.0])
    for value, up, sem in zip(points.y, points.error_y.array, (0.2, 0.4, 0.1), strict=True):
        assert value + up == pytest.approx(TraceEstimate(value, sem, BATCHES, True).interval[1])
    assert points.hovertext[0].startswith("<b>channel 1</b> of 4<br>average trace 4<br>95 %")
    assert "1 of 4 are not above zero." in detail.channels_read(layer)
    assert "1 of them are not above zero and not drawn" in detail.channels_alt(layer)
    assert list(detail.channels_table(layer)["standard error"]) == [0.1, 0.2, 0.0, 0.4]


def test_channels_of_an_analysis_of_before_say_that_they_have_no_errors():
    layer = with_channels([1.0, 4.0])
    points = named(figures.channels(layer), "channel")
    assert not points.error_y.visible
    assert "made before errors of channels were kept" in detail.channels_read(layer)
    assert list(detail.channels_table(layer)) == ["channel", "trace"]


def test_no_more_channels_are_drawn_than_can_be_told_apart():
    layer = with_channels(np.linspace(1, 2, 3000), np.full(3000, 0.1))
    points = figures.channels(layer).data[0]
    assert len(points.x) == figures.MOST_POINTS
    assert (points.x[0], points.x[-1]) == (1, 3000)
    assert (points.y[0], points.y[-1]) == (2.0, 1.0)


def test_channels_without_any_trace_leave_the_chart_empty():
    assert len(figures.channels(NOISY).data) == 0


# --- convergence


def test_the_course_ends_at_the_estimate_and_the_target_is_what_was_asked_for():
    rng = np.random.default_rng(0)
    values, sizes = rng.gamma(2, 1, 40), np.full(40, 16)
    found = figures.course(values, sizes, 0.1)
    mean, sem = values.mean(), values.std(ddof=1) / math.sqrt(40)
    low, high = TraceEstimate(mean, sem, 40, True).interval
    assert (found.images[-1], found.mean[-1]) == (640, pytest.approx(mean))
    assert (found.low[-1], found.high[-1]) == (pytest.approx(low), pytest.approx(high))
    assert found.target == pytest.approx(TraceEstimate(mean, 0.1 * mean, 40, True).interval)
    figure = figures.convergence(found)
    assert list(named(figure, "mean so far").y) == found.mean.tolist()
    bottom, top = figure.layout.yaxis.range
    assert bottom < found.low[9] < found.high[9] < top
    assert top < found.high[1]  # the first few would leave no room for the rest
    assert "after 640 images" in detail.convergence_alt("fc", found)
    assert list(detail.convergence_table(found)["trace"]) == found.mean.tolist()


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_course_of_few_mini_batches_can_be_drawn(count):
    found = figures.course(np.ones(count), np.full(count, 8), 0.1)
    figure = figures.convergence(found)
    assert all(map(math.isfinite, figure.layout.yaxis.range))
    assert len(figure.data[0].x) == 2 * max(0, count - 1)  # one has no interval
    assert detail.convergence_alt("fc", found)


# --- words


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.0123456, "0.0123"),
        (12345.6, "12{,}346"),
        (-1.5e-5, r"-1.50\times10^{-5}"),
        (2.5e9, r"2.50\times10^{9}"),
        (math.inf, r"\infty"),
        (-math.inf, r"-\infty"),
        (math.nan, r"\text{unknown}"),
    ],
)
def test_numbers_as_tex(value, text):
    assert detail.tex(value) == text


def test_the_formula_holds_the_layers_numbers():
    says = detail.formula(ANALYSIS, FIRST, 4)
    low, high = omega_interval(FIRST, 4)
    for part in (
        r"(6 \pm 0.5)",
        detail.tex(FIRST.perturbation[4]),
        r"\text{ at 4 bits}",
        detail.tex(FIRST.omega[4]),
        rf"{detail.tex(low)}\ \dots\ {detail.tex(high)}",
        detail.tex(FIRST.omega[4] / 2),
    ):
        assert part in says
    assert r"(0.02)}_{\text{error of the trace" in detail.formula(ANALYSIS, NOISY, 4)
    by_channel = replace(ANALYSIS, granularity="channel")
    assert "weighted over channels" in detail.formula(by_channel, FIRST, 4)
    inputs = detail.formula(by_channel, ANALYSIS.activations[0], 4)
    assert rf"\pm {detail.tex(ANALYSIS.activations[0].perturbation_sem[4])}" in inputs
    assert "weighted" not in inputs
    assert r"\text{ at 1 bit}" in detail.formula(
        ANALYSIS, replace(FIRST, omega={1: 1.0}, perturbation={1: 1.0}), 1
    )


def test_where_the_numbers_come_from():
    says = detail.sources(ANALYSIS, FIRST, 4)
    assert "standard error 0.5 (8% of it)" in says["Average trace Tr(H) / n"]
    assert (
        "8 mini-batches of 256 images, each used once; made-up images; seed 0" in says["Found by"]
    )
    assert "symmetric grid, one per channel, range by least squared error" in says["‖Q(W) − W‖²"]
    assert says["Command"] == "hawq-viz analyze made-up"
    assert "below its error" in detail.sources(ANALYSIS, NOISY, 4)["Average trace Tr(H) / n"]
    inputs = detail.sources(ANALYSIS, ANALYSIS.activations[3], 4)
    assert "averaged over 128 images" in inputs["‖Q(a) − a‖²"]
    assert "not the Hessian" in inputs["Average trace Tr(H) / n"]
    assert detail.sources(replace(ANALYSIS, granularity="channel"), FIRST, 4)["Ω"].startswith("Σ")


@pytest.mark.parametrize(
    ("name", "bits", "planned", "expected"),
    [
        ("fc", 6, {}, ("fc", 6)),
        ("fc", None, {"fc": 3}, ("fc", 3)),
        ("fc", 1, {}, ("fc", 4)),
        ("gone", 5, {}, ("layer1.0.conv2", 5)),  # which has the largest Ω
        ("", None, {"layer1.0.conv2": 8}, ("layer1.0.conv2", 8)),
    ],
)
def test_the_layer_that_is_looked_at(name, bits, planned, expected):
    layer, at = detail.chosen(ANALYSIS, name, bits, planned)
    assert (layer.name, at) == expected


def test_charts_of_a_layer_in_words():
    assert "at 2 bits" in detail.omegas_alt(FIRST, 3)
    assert detail.omegas_alt(FIRST, 3).endswith("The picked plan has 3 bits.")
    assert list(detail.omegas_table(FIRST)["Ω"]) == list(FIRST.omega.values())
    says = detail.weights_alt(FIRST, of_weights(ANALYSIS, FIRST, 4))
    assert "432 weights of conv<1>" in says
    assert "the 16 levels of 4 bits" in says


def test_layers_sorted_by_trace_or_omega():
    traces = [layer.trace.for_omega for layer in ANALYSIS.layers]
    by_trace = analyses.ordered(ANALYSIS, "trace", None)
    assert [traces[i] for i in by_trace] == sorted(traces, reverse=True)
    omegas = [layer.omega[2] for layer in ANALYSIS.layers]
    by_omega = analyses.ordered(ANALYSIS, "omega", 2)
    assert [omegas[i] for i in by_omega] == sorted(omegas, reverse=True)
    assert analyses.ordered(ANALYSIS, "", 2) == tuple(range(6))
    assert analyses.ordered(ANALYSIS, "omega", 1) == analyses.ordered(ANALYSIS, "omega", 4)
    assert "6 layers in forward order with" in analyses.traces_alt(ANALYSIS)
    assert "6 layers sorted by Ω at 2 bits with" in analyses.traces_alt(ANALYSIS, "omega", 2)
    assert analyses.sort_name(ANALYSIS, "omega", 1) == "by Ω at 4 bits"
    assert analyses.sort_name(ANALYSIS, "trace", 3) == "by trace"


def test_findings_that_an_analysis_holds_come_before_those_of_a_run():
    run = type("Run", (), {"results": {"checklist": {"findings": []}}})()
    held = replace(ANALYSIS, findings=(Finding("problem", "a_b", "Look."),))
    assert checklist.findings(run, held) == [":material/warning: **a\\_b**  \nLook."]
    assert checklist.findings(None, held) == checklist.findings(run, held)
    assert checklist.findings(run, ANALYSIS) == []
    assert checklist.findings(None, ANALYSIS) is None
