"""One layer from close by: Ω against bits, its channels, and how its estimate settled."""

from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from engine.analysis import ActivationSensitivity, LayerSensitivity
from engine.results import TraceEstimate
from engine.sensitivities import omega_interval, running_mean
from hawq_viz.figures.intervals import log_intervals
from hawq_viz.figures.theme import BLUE, INK, ORANGE, number, themed

HEIGHT = 260
MARGIN = {"l": 76, "r": 16, "t": 30, "b": 50}
MOST_POINTS = 500  # of a chart; where there are more, evenly chosen ones are drawn
SETTLED_FROM = 8  # mini-batches from which on the band of a running mean sets the axis

Sensitivity = LayerSensitivity | ActivationSensitivity


def omegas(one: Sensitivity, at: int, planned: int | None, colour: str = BLUE) -> go.Figure:
    """Ω of a layer or an activation at each bit width, with 95 % intervals, on a log axis.

    A click tells the bits.

    Args:
        one: What is looked at.
        at: Bits at which it is.
        planned: Bits that the picked plan gives it, if it gives any.
        colour: Of the points.
    """
    widths = list(one.omega)
    intervals = [omega_interval(one, bits) for bits in widths]
    shown = [one.omega[bits] for bits in widths]
    bars = log_intervals(shown, *zip(*intervals, strict=True))
    figure = themed(
        HEIGHT,
        margin=MARGIN,
        xaxis={
            "title": {"text": "bits"},
            "tickvals": widths,
            "range": [widths[0] - 0.5, widths[-1] + 0.5],
            "showgrid": False,
        },
        yaxis={**bars.axis, "title": {"text": "Ω"}},
    )
    if planned in widths:
        figure.add_scatter(
            x=[planned],
            y=[one.omega[planned] if one.omega[planned] > 0 else None],
            mode="markers",
            name=f"the picked plan: {planned} bits",
            showlegend=True,
            marker={"symbol": "circle-open", "size": 19, "color": INK, "line": {"width": 2}},
            hoverinfo="skip",
        )
    return figure.add_scatter(
        x=widths,
        y=[x if x > 0 else None for x in shown],
        customdata=widths,
        mode="lines+markers",
        name="Ω with its 95 % interval",
        showlegend=True,
        line={"color": colour, "width": 1.5},
        marker={
            "size": [12 if bits == at else 8 for bits in widths],
            "symbol": ["diamond" if bits == at else "circle" for bits in widths],
            "color": colour,
        },
        error_y={
            "type": "data",
            "array": bars.up,
            "arrayminus": bars.down,
            "thickness": 2,
            "width": 5,
            "color": colour,
        },
        hovertext=[
            f"<b>{bits} bits</b><br>Ω = {number(one.omega[bits])}<br>95 % interval {number(low)} … "
            f"{number(high)}<br>½Ω, the predicted rise of the loss: {number(one.omega[bits] / 2)}"
            for bits, (low, high) in zip(widths, intervals, strict=True)
        ],
        hoverinfo="text",
    )


def channels(layer: LayerSensitivity) -> go.Figure:
    """Average trace of each output channel, the largest first, with 95 % intervals, log axis.

    Channels whose trace is not above zero have no place on it.
    """
    means, sems = np.array(layer.channel_traces), np.array(layer.channel_sems)
    ranked = np.argsort(-means, kind="stable")
    ranked = ranked[means[ranked] > 0]
    shown = ranked[thinned(len(ranked))]
    estimates = [
        TraceEstimate(float(means[i]), float(sems[i]), layer.trace.samples, layer.trace.exact)
        for i in (shown if len(sems) else ())
    ]
    values = means[shown].tolist() or [1.0]
    ends = [x.interval for x in estimates] or [(x, x) for x in values]
    bars = log_intervals(values, *zip(*ends, strict=True))
    figure = themed(
        HEIGHT,
        margin=MARGIN,
        xaxis={"title": {"text": "output channels, the most sensitive first"}, "showgrid": False},
        yaxis={**bars.axis, "title": {"text": "average trace"}},
    )
    if not len(shown):
        return figure
    places = (thinned(len(ranked)) + 1).tolist()
    about = (
        [f"<br>95 % interval {number(x.interval[0])} … {number(x.interval[1])}" for x in estimates]
        if estimates
        else [""] * len(shown)
    )
    figure.add_scatter(
        x=places,
        y=values,
        mode="markers",
        name="channel, 95 % interval" if estimates else "channel",
        showlegend=True,
        marker={"size": 6 if len(shown) <= 80 else 4, "color": BLUE},
        error_y={
            "type": "data",
            "array": bars.up,
            "arrayminus": bars.down,
            "thickness": 1.5 if len(shown) <= 80 else 0.7,
            "width": 2 if len(shown) <= 80 else 0,
            "color": BLUE,
            "visible": bool(estimates),
        },
        hovertext=[
            f"<b>channel {channel}</b> of {len(means)}<br>average trace {number(value)}{rest}"
            for channel, value, rest in zip(shown.tolist(), values, about, strict=True)
        ],
        hoverinfo="text",
    )
    if layer.trace.mean > 0:
        figure.add_scatter(
            x=[0.5, len(ranked) + 0.5],
            y=[layer.trace.mean] * 2,
            mode="lines",
            name="their mean, the layer’s trace",
            showlegend=True,
            line={"color": INK, "dash": "dash", "width": 1.5},
            hoverinfo="skip",
        )
    return figure


@dataclass(frozen=True)
class Course:
    """How an estimate went, mini-batch by mini-batch; each array has the drawn ones."""

    images: NDArray[np.int64]  # seen by then
    mean: NDArray[np.float64]
    low: NDArray[np.float64]  # of its 95 % interval
    high: NDArray[np.float64]
    target: tuple[float, float]  # what the interval would be at the error asked for


def course(values: NDArray[np.float64], sizes: NDArray[np.int64], relative_sem: float) -> Course:
    """The running mean of a trace over the mini-batches in the order they were used.

    Args:
        values: [m], means over mini-batches.
        sizes: [m], images in each.
        relative_sem: The error asked for, as a share of the mean.
    """
    means, sems = running_mean(values, sizes)
    drawn = thinned(len(values))
    ends = [
        TraceEstimate(float(means[i]), float(sems[i]), int(i) + 1, True).interval for i in drawn
    ]
    low, high = np.array(ends).reshape(-1, 2).T
    last = float(means[-1]) if len(means) else 0.0
    asked = TraceEstimate(last, relative_sem * abs(last), max(2, len(values)), True).interval
    return Course(np.cumsum(sizes)[drawn], means[drawn], low, high, asked)


def convergence(found: Course, colour: str = BLUE) -> go.Figure:
    """The running mean with its 95 % band against the images used, and the error asked for."""
    known = np.isfinite(found.high)
    settled = slice(min(SETTLED_FROM, max(0, len(found.mean) - 1)), None)
    ends = [*found.target, *found.mean]
    ends += [*found.low[settled][known[settled]], *found.high[settled][known[settled]]]
    bottom, top = (min(ends), max(ends)) if ends else (0.0, 1.0)
    room = 0.06 * (top - bottom) or 1.0
    images = found.images.tolist()
    figure = themed(
        HEIGHT,
        margin=MARGIN,
        xaxis={"title": {"text": "images used"}, "rangemode": "tozero", "showgrid": False},
        yaxis={
            "title": {"text": "average trace"},
            "range": [bottom - room, top + room],
            "exponentformat": "power",
        },
    )
    seen = found.images[known].tolist()
    figure.add_scatter(
        x=[*seen, *seen[::-1]],
        y=[*found.high[known].tolist(), *found.low[known].tolist()[::-1]],
        mode="lines",
        fill="toself",
        fillcolor=_pale(colour),
        line={"width": 0},
        name="95 %",
        showlegend=True,
        hoverinfo="skip",
    )
    figure.add_scatter(
        x=images,
        y=found.mean.tolist(),
        mode="lines",
        name="mean so far",
        showlegend=True,
        line={"color": colour, "width": 2},
        hovertext=[
            f"after {n:,} images: {number(mean)}<br>95 % interval {number(low)} … {number(high)}"
            for n, mean, low, high in zip(images, found.mean, found.low, found.high, strict=True)
        ],
        hoverinfo="text",
    )
    across = [0, images[-1] if images else 1]
    return figure.add_scatter(
        x=[*across, None, *across],
        y=[found.target[0]] * 2 + [None] + [found.target[1]] * 2,
        mode="lines",
        name="95 % at the error asked for",
        showlegend=True,
        line={"color": ORANGE, "dash": "dash", "width": 1.5},
        hoverinfo="skip",
    )


def thinned(count: int) -> NDArray[np.int64]:
    """Places of the points that are drawn, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, MOST_POINTS)).round().astype(np.int64))


def _pale(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.2)"
