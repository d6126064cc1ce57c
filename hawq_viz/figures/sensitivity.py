"""How sensitive each layer's weights and input are: average Hessian traces, Ω at every bit width.

All four charts have the same columns: a layer stands at its place, and an activation at that of
the first layer that reads it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import plotly.graph_objects as go

from engine.analysis import ActivationSensitivity, Analysis, LayerSensitivity
from engine.results import BELOW_ERROR, TraceEstimate
from hawq_viz.figures.theme import (
    BLUE,
    GREEN,
    GRID,
    INK,
    LABEL_LENGTH,
    LABELS,
    ORANGE,
    PAPER,
    layer_axis,
    number,
    themed,
)

UPRIGHT = 32  # layers from which on names are turned further
UPRIGHT_LENGTH = 17  # characters that the margin below then has room for
MARGIN = {"l": 84, "r": 104, "t": 36, "b": 118}  # all charts: a layer stands in one column
HALF_UPRIGHT, HALF_LABELS = 12, 27  # the same, and names there is room for, in half the width


@dataclass(frozen=True)
class _Column:
    """What stands at one place of a chart."""

    place: int  # of the layer, forward order
    trace: TraceEstimate
    about: str  # hover text of the trace
    omega: dict[int, float]
    about_omega: dict[int, str]
    picks: int  # what a click on it means


def traces(analysis: Analysis, *, half: bool = False) -> go.Figure:
    """Average trace of each layer's weights in forward order, with 95 % intervals, on a log axis.

    A logarithm has no place for zero: an interval that reaches it runs out of the chart, and a
    layer whose mean lies below its standard error stands, marked, where Ω takes it.

    Args:
        analysis: With at least one layer.
        half: Whether the chart has half the page's width.
    """
    return _traces(analysis, _weights(analysis), BLUE, "trace of the weights  Tr(H) / n", half)


def activation_traces(analysis: Analysis, *, half: bool = True) -> go.Figure:
    """The same of each activation; a click tells its place among the activations.

    Args:
        analysis: With at least one activation.
        half: Whether the chart has half the page's width.
    """
    title = "trace of the input  Tr(H) / n"
    return _traces(analysis, _activations(analysis), GREEN, title, half)


def _traces(
    analysis: Analysis, columns: Sequence[_Column], colour: str, title: str, half: bool
) -> go.Figure:
    shown = [column.trace.for_omega for column in columns]
    lows, highs = zip(*(column.trace.interval for column in columns), strict=True)
    positive = [x for x in (*shown, *lows, *highs) if 0 < x < math.inf] or [1.0]
    bottom = min(min(positive), 0.5 * min([x for x in shown if x > 0] or [1.0]))
    figure = themed(
        334 if half else 400,
        margin=_margin(half),
        xaxis=_places(analysis, half),
        yaxis={
            "type": "log",
            "range": [math.log10(bottom) - 0.1, math.log10(max(positive)) + 0.15],
            "title": {"text": title if half else "average trace  Tr(H) / n"},
            "dtick": 1 if max(positive) / bottom > 30 else None,
            "exponentformat": "power",
        },
    )
    kinds: tuple[tuple[str, str, str, Callable[[TraceEstimate], bool]], ...] = (
        ("Hessian trace", "circle", colour, lambda x: x.exact and not x.floored),
        ("Gauss-Newton trace", "diamond", colour, lambda x: not (x.exact or x.floored)),
        ("too noisy: its standard error", "triangle-up-open", ORANGE, lambda x: x.floored),
    )
    for name, symbol, paint, belongs in kinds:
        members = [i for i, column in enumerate(columns) if belongs(column.trace)]
        if not members:
            continue
        known = [math.isfinite(highs[i]) for i in members]  # not of a single sample
        up = [highs[i] - shown[i] if k else 0.0 for i, k in zip(members, known, strict=True)]
        down = [
            shown[i] - max(lows[i], 0.01 * bottom) if k else 0.0
            for i, k in zip(members, known, strict=True)
        ]
        figure.add_scatter(
            x=[columns[i].place for i in members],
            y=[shown[i] if shown[i] > 0 else None for i in members],
            customdata=[columns[i].picks for i in members],
            error_y={
                "type": "data",
                "array": [max(0.0, x) for x in up],
                "arrayminus": [max(0.0, x) for x in down],
                "thickness": 2,
                "width": 3 if half else 5,
                "color": paint,
            },
            mode="markers",
            name=name,
            showlegend=True,
            marker={
                "symbol": symbol,
                "size": 8,
                "color": paint,
                "line": {"color": paint if "open" in symbol else PAPER, "width": 1.5},
            },
            hovertext=[columns[i].about for i in members],
            hoverinfo="text",
        )
    return figure


def omega_heatmap(analysis: Analysis, *, half: bool = False) -> go.Figure:
    """Ω of each layer (columns, forward order) at each bit width (rows), colours on a log scale.

    Args:
        analysis: Where it has activations, its two heatmaps share their colours.
        half: Whether the chart has half the page's width, with the colours explained in the other.
    """
    return _heatmap(analysis, _weights(analysis), "bits of the weights", half, bar=not half)


def activation_heatmap(analysis: Analysis, *, half: bool = True) -> go.Figure:
    """The same of each activation; a click tells 10 · its place + the bits.

    Args:
        analysis: With at least one activation.
        half: Whether the chart has half the page's width.
    """
    return _heatmap(analysis, _activations(analysis), "bits of the input", half, bar=True)


def _heatmap(
    analysis: Analysis, columns: Sequence[_Column], title: str, half: bool, *, bar: bool
) -> go.Figure:
    widths = analysis.bit_widths
    at = {column.place: column for column in columns}
    row = [at.get(place) for place in range(len(analysis.layers))]
    logs = [[_log(x.omega[bits]) if x else None for x in row] for bits in widths]
    omegas = [y for x in (*analysis.layers, *analysis.activations) for y in x.omega.values()]
    known = [math.log10(x) for x in omegas if x > 0] or [0.0]
    powers = range(math.ceil(min(known)), math.floor(max(known)) + 1)
    step = -(-len(powers) // 8)
    figure = themed(
        max(250, (27 if half else 34) * len(widths) + _margin(half)["b"] + 24),
        margin={**_margin(half), "t": 12},
        xaxis=_places(analysis, half),
        yaxis={
            "title": {"text": title if half else "bits of the layer"},
            "tickvals": list(range(len(widths))),
            "ticktext": list(map(str, widths)),
            "showgrid": False,
        },
    )
    return figure.add_heatmap(
        z=logs,
        zmin=min(known),
        zmax=max(known),
        colorscale="Cividis",
        xgap=1,
        ygap=1,
        customdata=[[10 * x.picks + bits if x else None for x in row] for bits in widths],
        hovertext=[[x.about_omega[bits] if x else "" for x in row] for bits in widths],
        hoverinfo="text",
        hoverongaps=False,
        showscale=bar,
        colorbar={
            "title": {"text": "Ω", "side": "top"},
            "tickvals": list(powers)[::step],
            "ticktext": [f"10<sup>{power}</sup>" for power in powers[::step]],
            "outlinecolor": GRID,
            "tickcolor": INK,
            "thickness": 16,
            "x": 1.01,
            "len": 1,
        },
    )


def _log(value: float) -> float | None:
    return math.log10(value) if value > 0 else None


def _margin(half: bool) -> dict[str, int]:
    return {**MARGIN, "l": 66, "r": 76, "b": 106} if half else MARGIN


def _places(analysis: Analysis, half: bool) -> dict[str, Any]:
    """The axis of all charts: names aslant, upright where there are many."""
    upright = len(analysis.layers) > (HALF_UPRIGHT if half else UPRIGHT)
    return layer_axis(
        analysis.names,
        labels=HALF_LABELS if half else LABELS,
        length=UPRIGHT_LENGTH if upright else LABEL_LENGTH,
        tickangle=-90 if upright else -60,
        tickfont={"size": 11 if upright else 12},
        range=[-0.6, len(analysis.layers) - 0.4],
    )


def _weights(analysis: Analysis) -> list[_Column]:
    return [
        _Column(
            place,
            layer.trace,
            f"<b>{escape(layer.name)}</b><br>{escape(layer.kind)} {_shape(layer.shape)}, "
            f"{layer.parameters:,} weights<br>" + _about_trace(layer.trace, "mini-batches"),
            layer.omega,
            {bits: _about_omega(layer, bits) for bits in analysis.bit_widths},
            place,
        )
        for place, layer in enumerate(analysis.layers)
    ]


def _activations(analysis: Analysis) -> list[_Column]:
    return [
        _Column(
            analysis.names.index(activation.name),
            activation.trace,
            f"<b>input of {escape(activation.name)}</b>{_readers(activation)}<br>"
            f"{_shape(activation.shape)}, {activation.elements:,} values an image<br>"
            + _about_trace(activation.trace, "images"),
            activation.omega,
            {bits: _about_activation(activation, bits) for bits in analysis.bit_widths},
            index,
        )
        for index, activation in enumerate(analysis.activations)
    ]


def _readers(activation: ActivationSensitivity) -> str:
    others = [escape(name) for name in activation.readers if name != activation.name]
    rest = f" and {len(others) - 2} more" if len(others) > 2 else ""
    return f"<br>read by {', '.join(others[:2])}{rest} too" if others else ""


def _shape(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))


def _about_trace(trace: TraceEstimate, samples: str) -> str:
    low, high = trace.interval
    return (
        f"average trace {number(trace.mean)}<br>"
        f"95 % interval {number(low)} … {number(high)}<br>"
        f"standard error {trace.relative_sem:.0%} of it, {trace.samples:,} {samples}<br>"
        + ("equals the Hessian's own trace" if trace.exact else "Gauss-Newton trace only")
        + (f"<br>{BELOW_ERROR}" if trace.floored else "")
    )


def _about_omega(layer: LayerSensitivity, bits: int) -> str:
    return (
        f"<b>{escape(layer.name)}</b> at {bits} bits<br>Ω = {number(layer.omega[bits])}<br>"
        f"average trace {number(layer.trace.for_omega)} × "
        f"‖Q(W) − W‖² {number(layer.perturbation[bits])}"
    )


def _about_activation(activation: ActivationSensitivity, bits: int) -> str:
    return (
        f"<b>input of {escape(activation.name)}</b> at {bits} bits<br>"
        f"Ω = {number(activation.omega[bits])}, ½Ω = {number(activation.omega[bits] / 2)}<br>"
        f"average trace {number(activation.trace.for_omega)} × "
        f"‖Q(a) − a‖² {number(activation.perturbation[bits])}<br>"
        f"first-order term {number(activation.first_order[bits])} "
        f"± {number(activation.first_order_sem[bits])}, not in Ω"
    )
