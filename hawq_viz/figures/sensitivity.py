"""How sensitive each layer's weights and input are: average Hessian traces, Ω at every bit width.

All four charts have the same columns, in forward order or sorted: a layer stands at its place, and
an activation at that of the first layer that reads it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import plotly.graph_objects as go

from engine.analysis import ActivationSensitivity, Analysis, LayerSensitivity
from engine.results import BELOW_ERROR, TraceEstimate
from hawq_viz.figures.intervals import log_intervals
from hawq_viz.figures.theme import (
    BLUE,
    GREEN,
    GRID,
    INK,
    LABEL_LENGTH,
    LABELS,
    ORANGE,
    PAPER,
    label,
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

    place: int  # of the layer, from left to right
    trace: TraceEstimate
    about: str  # hover text of the trace
    omega: dict[int, float]
    about_omega: dict[int, str]
    picks: int  # what a click on it means


def traces(
    analysis: Analysis, *, order: Sequence[int] = (), marked: str = "", half: bool = False
) -> go.Figure:
    """Average trace of each layer's weights, with 95 % intervals, on a log axis.

    A logarithm has no place for zero: an interval that reaches it runs out of the chart, and a
    layer whose mean lies below its standard error stands, marked, where Ω takes it. A click tells
    the layer's place in forward order.

    Args:
        analysis: With at least one layer.
        order: Layers from left to right, by their place in forward order, which it is if not given.
        marked: Layer whose name stands out.
        half: Whether the chart has half the page's width.
    """
    look = _Look(analysis, order, marked, half)
    return _traces(look, _weights(look), BLUE, "trace of the weights  Tr(H) / n")


def activation_traces(
    analysis: Analysis, *, order: Sequence[int] = (), marked: str = "", half: bool = True
) -> go.Figure:
    """The same of each activation; a click tells its place among the activations.

    Args:
        analysis: With at least one activation.
        order: As for `traces`.
        marked: Activation whose place's name stands out.
        half: Whether the chart has half the page's width.
    """
    look = _Look(analysis, order, marked, half)
    return _traces(look, _activations(look), GREEN, "trace of the input  Tr(H) / n")


def _traces(look: "_Look", columns: Sequence[_Column], colour: str, title: str) -> go.Figure:
    shown = [column.trace.for_omega for column in columns]
    bars = log_intervals(shown, *zip(*(column.trace.interval for column in columns), strict=True))
    half = look.half
    figure = themed(
        334 if half else 400,
        margin=look.margin,
        xaxis=look.axis(),
        yaxis={**bars.axis, "title": {"text": title if half else "average trace  Tr(H) / n"}},
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
        figure.add_scatter(
            x=[columns[i].place for i in members],
            y=[shown[i] if shown[i] > 0 else None for i in members],
            customdata=[columns[i].picks for i in members],
            error_y={
                "type": "data",
                "array": [bars.up[i] for i in members],
                "arrayminus": [bars.down[i] for i in members],
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


def omega_heatmap(
    analysis: Analysis, *, order: Sequence[int] = (), marked: str = "", half: bool = False
) -> go.Figure:
    """Ω of each layer (columns) at each bit width (rows), colours on a log scale.

    A click tells 10 · the layer's place in forward order + the bits.

    Args:
        analysis: Where it has activations, its two heatmaps share their colours.
        order: As for `traces`.
        marked: Layer whose name stands out.
        half: Whether the chart has half the page's width, with the colours explained in the other.
    """
    look = _Look(analysis, order, marked, half)
    return _heatmap(look, _weights(look), "bits of the weights", bar=not half)


def activation_heatmap(
    analysis: Analysis, *, order: Sequence[int] = (), marked: str = "", half: bool = True
) -> go.Figure:
    """The same of each activation; a click tells 10 · its place among them + the bits.

    Args:
        analysis: With at least one activation.
        order: As for `traces`.
        marked: Activation whose place's name stands out.
        half: Whether the chart has half the page's width.
    """
    look = _Look(analysis, order, marked, half)
    return _heatmap(look, _activations(look), "bits of the input", bar=True)


def _heatmap(look: "_Look", columns: Sequence[_Column], title: str, *, bar: bool) -> go.Figure:
    analysis, half = look.analysis, look.half
    widths = analysis.bit_widths
    at = {column.place: column for column in columns}
    row = [at.get(place) for place in range(len(analysis.layers))]
    logs = [[_log(x.omega[bits]) if x else None for x in row] for bits in widths]
    omegas = [y for x in (*analysis.layers, *analysis.activations) for y in x.omega.values()]
    known = [math.log10(x) for x in omegas if x > 0] or [0.0]
    powers = range(math.ceil(min(known)), math.floor(max(known)) + 1)
    step = -(-len(powers) // 8)
    figure = themed(
        max(250, (27 if half else 34) * len(widths) + look.margin["b"] + 24),
        margin={**look.margin, "t": 12},
        xaxis=look.axis(),
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


class _Look:
    """What all charts of one view share: their columns, names and margins."""

    def __init__(self, analysis: Analysis, order: Sequence[int], marked: str, half: bool) -> None:
        self.analysis, self.half = analysis, half
        self.order = order or range(len(analysis.layers))
        self.marked = marked

    @property
    def places(self) -> dict[str, int]:
        """Where each layer stands."""
        return {self.analysis.names[layer]: place for place, layer in enumerate(self.order)}

    @property
    def margin(self) -> dict[str, int]:
        """Around every chart, so that a layer's columns lie in line."""
        return {**MARGIN, "l": 66, "r": 76, "b": 106} if self.half else MARGIN

    def axis(self) -> dict[str, Any]:
        """The axis of all charts: names aslant, upright where there are many."""
        places, half = self.places, self.half
        upright = len(places) > (HALF_UPRIGHT if half else UPRIGHT)
        axis = layer_axis(
            list(places),
            labels=HALF_LABELS if half else LABELS,
            length=UPRIGHT_LENGTH if upright else LABEL_LENGTH,
            tickangle=-90 if upright else -60,
            tickfont={"size": 11 if upright else 12},
            range=[-0.6, len(places) - 0.4],
        )
        if self.marked in places:  # it takes the place of the nearest name that is shown
            at, shown = places[self.marked], axis["tickvals"]
            nearest = min(range(len(shown)), key=lambda i: abs(shown[i] - at))
            name = label(self.marked, UPRIGHT_LENGTH if upright else LABEL_LENGTH)
            shown[nearest], axis["ticktext"][nearest] = at, f"<b>{name}</b>"
        return axis


def _weights(look: _Look) -> list[_Column]:
    places = look.places
    return [
        _Column(
            places[layer.name],
            layer.trace,
            f"<b>{escape(layer.name)}</b><br>{escape(layer.kind)} {_shape(layer.shape)}, "
            f"{layer.parameters:,} weights<br>" + _about_trace(layer.trace, "mini-batches"),
            layer.omega,
            {bits: _about_omega(layer, bits) for bits in look.analysis.bit_widths},
            index,
        )
        for index, layer in enumerate(look.analysis.layers)
    ]


def _activations(look: _Look) -> list[_Column]:
    places = look.places
    return [
        _Column(
            places[activation.name],
            activation.trace,
            f"<b>input of {escape(activation.name)}</b>{_readers(activation)}<br>"
            f"{_shape(activation.shape)}, {activation.elements:,} values an image<br>"
            + _about_trace(activation.trace, "images"),
            activation.omega,
            {bits: _about_activation(activation, bits) for bits in look.analysis.bit_widths},
            index,
        )
        for index, activation in enumerate(look.analysis.activations)
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
