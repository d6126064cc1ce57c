"""The values of an activation or the weights of a layer, with the levels that rounding leaves."""

from dataclasses import dataclass
from html import escape

import numpy as np
import plotly.graph_objects as go

from engine.analysis import ActivationSensitivity, Analysis, Histogram, LayerSensitivity
from engine.sensitivities import levels_in_steps
from hawq_viz.figures.theme import BLUE, GREEN, INK, ORANGE, number, themed


@dataclass(frozen=True)
class Rounded:
    """Values in bins of equal width, and the levels they are rounded to."""

    what: str  # the values are
    axis: str  # what the axis tells of them
    histogram: Histogram
    levels: tuple[float, ...]  # rising, a step apart
    step: float
    bits: int
    colour: str
    open_ends: bool = False  # whether the outermost bins hold what lies farther out, too

    @property
    def edges(self) -> np.ndarray:
        """Where bins end, [bins + 1]."""
        return np.linspace(self.histogram.low, self.histogram.high, len(self.histogram.counts) + 1)

    @property
    def middles(self) -> np.ndarray:
        """The middle of each bin, [bins]."""
        return (self.edges[1:] + self.edges[:-1]) / 2

    @property
    def shares(self) -> np.ndarray:
        """Share of the values in each bin, [bins]."""
        return np.array(self.histogram.counts) / max(1, sum(self.histogram.counts))

    @property
    def beyond(self) -> np.ndarray:
        """Whether the middle of each bin is past the outermost levels by over half a step."""
        half = self.step / 2
        return (self.middles < self.levels[0] - half) | (self.middles > self.levels[-1] + half)

    @property
    def becomes(self) -> np.ndarray:
        """The level nearest to the middle of each bin, by its place among them."""
        return np.abs(self.middles[:, None] - np.array(self.levels)).argmin(axis=1)

    @property
    def clipped(self) -> float:
        """Share of the values that are clipped, bin by bin."""
        return float(self.shares[self.beyond].sum())


def of_activation(activation: ActivationSensitivity, bits: int) -> Rounded:
    """The values of an activation, and scale · (code − zero point) for each code of these bits."""
    scale, zero_point = activation.grids[bits]
    return Rounded(
        what="values",
        axis=f"value of the input of {escape(activation.name)}",
        histogram=activation.histogram,
        levels=tuple(scale * (code - zero_point) for code in range(2**bits)),
        step=scale,
        bits=bits,
        colour=GREEN,
    )


def of_weights(analysis: Analysis, layer: LayerSensitivity, bits: int) -> Rounded | None:
    """The weights of a layer in steps of their grids; None where they were not counted."""
    found = analysis.weight_histogram(layer.name, bits)
    if found is None:
        return None
    scheme = analysis.quantizer.get("scheme", "symmetric")
    per = analysis.quantizer.get("weight_granularity", "channel")
    return Rounded(
        what="weights",
        axis=f"weight, in steps of its {per}’s grid at {bits} bits",
        histogram=found,
        levels=tuple(levels_in_steps(scheme, bits).tolist()),
        step=1.0,
        bits=bits,
        colour=BLUE,
        open_ends=True,
    )


def histogram(rounded: Rounded) -> go.Figure:
    """Share of the values in each bin, on a log axis, and the levels.

    Bins that are clipped, beyond the outermost levels, have a colour and a name of their own.
    """
    edges, shares, levels = rounded.edges, rounded.shares, rounded.levels
    filled = np.flatnonzero(shares)
    seen = shares[filled] if len(filled) else np.array([0.1])
    bottom = 10.0 ** np.floor(np.log10(seen.min()))
    top = 2 * seen.max()
    ends = (edges[filled[0]], edges[filled[-1] + 1]) if len(filled) else (edges[0], edges[-1])
    reach = min(ends[0], levels[0]), max(ends[1], levels[-1])
    room = 0.02 * (reach[1] - reach[0])
    figure = themed(
        260,
        margin={"l": 76, "r": 16, "t": 30, "b": 50},
        bargap=0,
        barmode="overlay",
        xaxis={
            "title": {"text": rounded.axis},
            "range": [float(reach[0] - room), float(reach[1] + room)],
        },
        yaxis={
            "type": "log",
            "title": {"text": f"share of {rounded.what}"},
            "range": [float(np.log10(bottom)), float(np.log10(top))],
            "dtick": 1,
            "exponentformat": "power",
        },
    )
    beyond = rounded.beyond
    for name, colour, members in (
        (rounded.what, rounded.colour, filled[~beyond[filled]]),
        ("clipped", ORANGE, filled[beyond[filled]]),
    ):
        if not len(members):
            continue
        figure.add_bar(
            x=rounded.middles[members].tolist(),
            y=shares[members].tolist(),
            width=float(edges[1] - edges[0]),
            name=name,
            showlegend=True,
            marker={"color": colour, "line": {"width": 0}},
            hovertext=[_about(rounded, i) for i in members],
            hoverinfo="text",
        )
    heights = (float(bottom), float(top))
    bits = rounded.bits
    return figure.add_scatter(
        x=[x for level in levels for x in (level, level, None)],
        y=[y for _ in levels for y in (*heights, None)],
        mode="lines",
        name=f"the {len(levels)} levels of {bits} bits",
        showlegend=True,
        line={"color": INK, "width": max(0.4, 1.6 - 0.2 * max(0, bits - 2))},
        opacity=0.75 if bits < 6 else 0.35,
        hoverinfo="skip",
    )


def _about(rounded: Rounded, i: int) -> str:
    """One bin in words."""
    low, high = rounded.edges[i], rounded.edges[i + 1]
    last = len(rounded.histogram.counts) - 1
    farther = " or farther out" if rounded.open_ends and i in (0, last) else ""
    code = rounded.becomes[i]
    becomes = f"become {number(rounded.levels[code])}, code {code}"
    if high - low > 1.01 * rounded.step:
        becomes = f"the middle becomes {number(rounded.levels[code])}, code {code}"
    return (
        f"{number(low)} … {number(high)}{farther}: {rounded.shares[i]:.3g} of the {rounded.what}"
        f"<br>{becomes} of 0 … {len(rounded.levels) - 1}"
    )
