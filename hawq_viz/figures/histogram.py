"""The values of one activation, with the levels that its quantizer knows."""

from html import escape

import numpy as np
import plotly.graph_objects as go

from engine.analysis import ActivationSensitivity
from hawq_viz.figures.theme import GREEN, INK, ORANGE, number, themed


def levels(activation: ActivationSensitivity, bits: int) -> list[float]:
    """The values that a quantized activation can have, rising: scale · (code − zero point)."""
    scale, zero_point = activation.grids[bits]
    return [scale * (code - zero_point) for code in range(2**bits)]


def clipped(activation: ActivationSensitivity, bits: int) -> float:
    """Share of the values beyond the outermost levels by more than half a step, bin by bin."""
    found = activation.histogram
    counts = np.array(found.counts, float)
    return float(counts[_beyond(activation, bits)].sum() / max(1.0, counts.sum()))


def _middles(activation: ActivationSensitivity) -> np.ndarray:
    found = activation.histogram
    edges = np.linspace(found.low, found.high, len(found.counts) + 1)
    return (edges[1:] + edges[:-1]) / 2


def _beyond(activation: ActivationSensitivity, bits: int) -> np.ndarray:
    """Whether the middle of each bin is clipped, [bins]."""
    known, half = levels(activation, bits), activation.grids[bits][0] / 2
    middles = _middles(activation)
    return (middles < known[0] - half) | (middles > known[-1] + half)


def histogram(activation: ActivationSensitivity, bits: int) -> go.Figure:
    """Share of an activation's values in each bin, on a log axis, and the levels at these bits.

    Bins that are clipped, beyond the outermost levels, have a colour and a name of their own.

    Args:
        activation: With its histogram.
        bits: One of the analyzed widths.
    """
    found, known = activation.histogram, levels(activation, bits)
    edges = np.linspace(found.low, found.high, len(found.counts) + 1)
    middles, width = _middles(activation), (found.high - found.low) / len(found.counts)
    shares = np.array(found.counts) / max(1, sum(found.counts))
    seen = shares[shares > 0]
    bottom = 10.0 ** np.floor(np.log10(seen.min() if len(seen) else 0.1))
    top = 2 * (seen.max() if len(seen) else 1.0)
    reach = min(found.low, known[0]), max(found.high, known[-1])
    room = 0.02 * (reach[1] - reach[0])
    figure = themed(
        260,
        margin={"l": 76, "r": 16, "t": 30, "b": 50},
        bargap=0,
        barmode="overlay",
        xaxis={
            "title": {"text": f"value of the input of {escape(activation.name)}"},
            "range": [reach[0] - room, reach[1] + room],
        },
        yaxis={
            "type": "log",
            "title": {"text": "share of values"},
            "range": [float(np.log10(bottom)), float(np.log10(top))],
            "dtick": 1,
            "exponentformat": "power",
        },
    )
    beyond = _beyond(activation, bits)
    codes = np.abs(middles[:, None] - np.array(known)).argmin(axis=1)
    for name, colour, members in (
        ("values", GREEN, np.flatnonzero(~beyond)),
        ("clipped to the outermost level", ORANGE, np.flatnonzero(beyond & (shares > 0))),
    ):
        if not len(members):
            continue
        figure.add_bar(
            x=middles[members].tolist(),
            y=shares[members].tolist(),
            width=width,
            name=name,
            showlegend=True,
            marker={"color": colour, "line": {"width": 0}},
            hovertext=[
                f"{number(edges[i])} … {number(edges[i + 1])}: {shares[i]:.3g} of the values<br>"
                f"become {number(known[codes[i]])}, code {codes[i]}"
                for i in members
            ],
            hoverinfo="text",
        )
    ends = (float(bottom), float(top))
    return figure.add_scatter(
        x=[x for level in known for x in (level, level, None)],
        y=[y for _ in known for y in (*ends, None)],
        mode="lines",
        name=f"the {len(known)} levels of {bits} bits",
        showlegend=True,
        line={"color": INK, "width": max(0.4, 1.6 - 0.2 * max(0, bits - 2))},
        opacity=0.75 if bits < 6 else 0.35,
        hoverinfo="skip",
    )
