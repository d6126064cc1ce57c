"""How sensitive each layer is: its average Hessian trace, and Ω at every bit width."""

import math
from html import escape
from typing import Any

import plotly.graph_objects as go

from engine.analysis import Analysis, LayerSensitivity
from hawq_viz.figures.theme import BLUE, GRID, INK, ORANGE, PAPER, layer_axis, number, themed

UPRIGHT = 32  # layers from which on names are turned further
MARGIN = {"l": 84, "r": 104, "t": 36, "b": 118}  # both charts: a layer stands in one column


def traces(analysis: Analysis) -> go.Figure:
    """Average trace of each layer in forward order, with 95 % intervals, on a log axis.

    A logarithm has no place for zero: an interval that reaches it runs out of the chart, and a
    layer whose mean lies below its standard error stands, marked, where Ω takes it.
    """
    layers = analysis.layers
    shown = [layer.trace.for_omega for layer in layers]
    lows, highs = zip(*(layer.trace.interval for layer in layers), strict=True)
    positive = [x for x in (*shown, *lows, *highs) if 0 < x < math.inf] or [1.0]
    bottom = min(min(positive), 0.5 * min([x for x in shown if x > 0] or [1.0]))
    figure = themed(
        400,
        margin=MARGIN,
        xaxis=_columns(analysis),
        yaxis={
            "type": "log",
            "range": [math.log10(bottom) - 0.1, math.log10(max(positive)) + 0.15],
            "title": {"text": "average trace  Tr(H) / n"},
            "dtick": 1 if max(positive) / bottom > 30 else None,
            "exponentformat": "power",
        },
    )
    kinds = (
        ("Hessian trace", "circle", BLUE, lambda x: x.trace.exact and not x.trace.floored),
        ("Gauss-Newton trace", "diamond", BLUE, lambda x: not (x.trace.exact or x.trace.floored)),
        ("too noisy: its standard error", "triangle-up-open", ORANGE, lambda x: x.trace.floored),
    )
    for name, symbol, colour, belongs in kinds:
        members = [i for i, layer in enumerate(layers) if belongs(layer)]
        if not members:
            continue
        known = [math.isfinite(highs[i]) for i in members]  # not of a single mini-batch
        up = [highs[i] - shown[i] if k else 0.0 for i, k in zip(members, known, strict=True)]
        down = [
            shown[i] - max(lows[i], 0.01 * bottom) if k else 0.0
            for i, k in zip(members, known, strict=True)
        ]
        figure.add_scatter(
            x=members,
            y=[shown[i] if shown[i] > 0 else None for i in members],
            error_y={
                "type": "data",
                "array": [max(0.0, x) for x in up],
                "arrayminus": [max(0.0, x) for x in down],
                "thickness": 2,
                "width": 5,
                "color": colour,
            },
            mode="markers",
            name=name,
            showlegend=True,
            marker={
                "symbol": symbol,
                "size": 8,
                "color": colour,
                "line": {"color": colour if "open" in symbol else PAPER, "width": 1.5},
            },
            hovertext=[_about_trace(layers[i]) for i in members],
            hoverinfo="text",
        )
    return figure


def _columns(analysis: Analysis) -> dict[str, Any]:
    """The axis of both charts: names aslant, upright where there are many."""
    upright = len(analysis.layers) > UPRIGHT
    return layer_axis(
        analysis.names,
        tickangle=-90 if upright else -60,
        tickfont={"size": 11 if upright else 12},
        range=[-0.6, len(analysis.layers) - 0.4],
    )


def _about_trace(layer: LayerSensitivity) -> str:
    trace = layer.trace
    low, high = trace.interval
    return (
        f"<b>{escape(layer.name)}</b><br>"
        f"{escape(layer.kind)} {'×'.join(map(str, layer.shape))}, {layer.parameters:,} weights<br>"
        f"average trace {number(trace.mean)}<br>"
        f"95 % interval {number(low)} … {number(high)}<br>"
        f"standard error {trace.relative_sem:.0%} of it, {trace.samples} mini-batches<br>"
        + ("equals the Hessian's own trace" if trace.exact else "Gauss-Newton trace only")
        + ("<br>below its standard error: Ω takes the error" if trace.floored else "")
    )


def omega_heatmap(analysis: Analysis) -> go.Figure:
    """Ω of each layer (columns, forward order) at each bit width (rows), colours on a log scale."""
    layers, widths = analysis.layers, analysis.bit_widths
    omegas = [[layer.omega[bits] for layer in layers] for bits in widths]
    logs = [[math.log10(x) if x > 0 else None for x in row] for row in omegas]
    known = [x for row in logs for x in row if x is not None] or [0.0]
    powers = range(math.ceil(min(known)), math.floor(max(known)) + 1)
    figure = themed(
        max(250, 34 * len(widths) + MARGIN["b"] + 24),
        margin={**MARGIN, "t": 12},
        xaxis=_columns(analysis),
        yaxis={
            "title": {"text": "bits of the layer"},
            "tickvals": list(range(len(widths))),
            "ticktext": list(map(str, widths)),
            "showgrid": False,
        },
    )
    return figure.add_heatmap(
        z=logs,
        colorscale="Cividis",
        xgap=1,
        ygap=1,
        hovertext=[
            [
                f"<b>{escape(layer.name)}</b> at {bits} bits<br>Ω = {number(layer.omega[bits])}<br>"
                f"average trace {number(layer.trace.for_omega)} × "
                f"‖Q(W) − W‖² {number(layer.perturbation[bits])}"
                for layer in layers
            ]
            for bits in widths
        ],
        hoverinfo="text",
        colorbar={
            "title": {"text": "Ω", "side": "top"},
            "tickvals": list(powers),
            "ticktext": [f"10<sup>{power}</sup>" for power in powers],
            "outlinecolor": GRID,
            "tickcolor": INK,
            "thickness": 16,
            "x": 1.01,
            "len": 1,
        },
    )
