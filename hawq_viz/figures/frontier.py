"""Size against Ω: the exact frontier, what other rules reach, and one plan layer by layer."""

from collections.abc import Sequence
from functools import lru_cache
from html import escape

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from engine.analysis import Analysis
from engine.frontier import Frontier, Overlay
from engine.results import BitPlan
from hawq_viz.figures.theme import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    PAPER,
    VERMILION,
    bits_colour,
    label,
    layer_axis,
    number,
    themed,
)

DRAWN = 600  # points of a line at most: more cannot be told apart, and cost time at every click
KIB, MIB = 2**10, 2**20
LINES = {
    "monotone": ("the paper's monotone rule", ORANGE, "dash"),
    "greedy": ("greedy", GREEN, "dot"),
}


def frontier(
    analysis: Analysis,
    line: Frontier,
    *,
    picked: BitPlan | None = None,
    overlays: Sequence[Overlay] = (),
) -> go.Figure:
    """Weight size against Ω (log): the frontier as a step line, and what other rules reach.

    Every drawn point carries its cost, so that a click can be turned into the best plan of that
    cost. At most `DRAWN` points of a line are drawn; the picked plan is drawn exactly.

    Args:
        analysis: What the plans were made from.
        line: Its frontier over size.
        picked: The plan to mark, on the frontier or not.
        overlays: Of the same costs and Ω.
    """
    divisor, unit = (MIB, "MiB") if line.cost[-1] >= 4 * MIB else (KIB, "KiB")
    floats = 4 * analysis.parameters
    figure = themed(
        404,
        margin={"l": 70, "r": 12, "t": 14, "b": 52},
        uirevision="frontier",
        xaxis={"title": {"text": f"size of the weights ({unit})"}},
        yaxis={
            "type": "log",
            "title": {"text": "Ω, lower is better"},
            "exponentformat": "power",
            "minor": {"showgrid": False},
            "dtick": 1 if line.omega[0] > 30 * max(line.omega[-1], 1e-300) else None,
        },
        legend={"orientation": "v", "x": 1, "xanchor": "right", "y": 1, "yanchor": "top"},
    )
    drawn = thinned(line.cost, line.omega)
    figure.add_scatter(
        x=(line.cost[drawn] / divisor).tolist(),
        y=line.omega[drawn].tolist(),
        customdata=line.cost[drawn].tolist(),
        mode="lines+markers",
        name="exact frontier",
        line={"shape": "hv", "color": BLUE, "width": 3},
        marker={"size": 5, "color": BLUE},
        hovertext=_drawn_texts(line, floats, divisor, unit),
        hoverinfo="text",
    )
    for overlay in overlays:
        if overlay.name not in LINES:
            continue
        name, colour, dash = LINES[overlay.name]
        drawn = thinned(overlay.cost, overlay.omega)
        figure.add_scatter(
            x=(overlay.cost[drawn] / divisor).tolist(),
            y=overlay.omega[drawn].tolist(),
            customdata=overlay.cost[drawn].tolist(),
            mode="lines",
            name=name,
            line={"shape": "hv", "color": colour, "width": 2, "dash": dash},
            hovertemplate=f"{name}<br>%{{x:.1f}} {unit}, Ω %{{y:.3g}}<extra></extra>",
        )
    for overlay in overlays:
        if overlay.name != "uniform":
            continue
        widths = [analysis.bit_widths[option] for option in overlay.choices[:, 0]]
        figure.add_scatter(
            x=(overlay.cost / divisor).tolist(),
            y=overlay.omega.tolist(),
            customdata=overlay.cost.tolist(),
            mode="markers+text",
            name="uniform bits",
            text=[f"{bits} bits" for bits in widths],
            textposition="top right",
            textfont={"size": 12.5, "color": INK},
            cliponaxis=False,
            marker={
                "size": 9,
                "symbol": "square",
                "color": VERMILION,
                "line": {"color": PAPER, "width": 1},
            },
            hovertemplate=(
                f"uniform %{{text}}<br>%{{x:.1f}} {unit}, Ω %{{y:.3g}}"
                "<br>click: the best plan of this size<extra></extra>"
            ),
        )
    if picked is not None:
        figure.add_scatter(
            x=[picked.size_bytes / divisor],
            y=[picked.omega],
            customdata=[picked.size_bytes],
            mode="markers",
            name="this plan",
            marker={
                "size": 17,
                "symbol": "circle",
                "color": "rgba(0,114,178,0.25)",
                "line": {"color": INK, "width": 2.5},
            },
            hovertext=[_about(picked, floats, divisor, unit)],
            hoverinfo="text",
        )
    return figure


@lru_cache(maxsize=8)
def _drawn_texts(line: Frontier, floats: float, divisor: int, unit: str) -> list[str]:
    """Hover texts of a frontier, which stay when another plan is picked."""
    drawn = thinned(line.cost, line.omega)
    return [_about(line.plan(int(i)), floats, divisor, unit) for i in drawn]


def _about(plan: BitPlan, floats: float, divisor: int, unit: str) -> str:
    return (
        f"<b>{plan.size_bytes / divisor:,.2f} {unit}</b>, {floats / plan.size_bytes:.1f}× smaller"
        f"<br>Ω {number(plan.omega)}<br>bits {escape(plan.summary)}"
    )


def thinned(
    cost: NDArray[np.float64], omega: NDArray[np.float64], limit: int = DRAWN
) -> NDArray[np.intp]:
    """Indices of at most `limit` points that draw the line: evenly along it as it looks, with ends.

    A step line through some of a frontier's points lies on or above the frontier, never below.

    Args:
        cost: [P], ascending.
        omega: [P], positive where it can be; distances are taken in its logarithm.
        limit: At least 2.
    """
    if len(cost) <= limit:
        return np.arange(len(cost))
    logs = np.log(np.maximum(omega, np.finfo(float).tiny))
    steps = np.diff(cost) / np.ptp(cost) + np.abs(np.diff(logs)) / (np.ptp(logs) or 1.0)
    along = np.concatenate([[0.0], np.cumsum(steps)])
    even = np.searchsorted(along, np.linspace(0, along[-1], limit))
    return np.unique(np.minimum(even, len(cost) - 1))


def plan_bits(analysis: Analysis, plan: BitPlan) -> go.Figure:
    """Bits of each layer, forward order from the top; the number is printed beside its colour."""
    layers = analysis.layers
    bits = [plan.weight_bits[layer.name] for layer in layers]
    return themed(
        max(400, 19 * len(layers) + 8),
        margin={
            "l": 14 + 6 * max(len(label(name)) for name in analysis.names),
            "r": 4,
            "t": 4,
            "b": 4,
        },
        xaxis={"range": [0, 8.5], "visible": False},
        yaxis=layer_axis(
            analysis.names, range=[len(layers) - 0.5, -0.5], ticks="", ticklabelstandoff=4
        ),
        bargap=0.16,
        showlegend=False,
    ).add_bar(
        x=bits,
        y=list(range(len(layers))),
        orientation="h",
        marker={
            "color": [bits_colour(b) for b in bits],
            "line": {"color": INK, "width": 0.8},
        },
        text=[str(b) for b in bits],
        textposition="outside",
        textfont={"size": 13, "color": INK},
        cliponaxis=False,
        hovertext=[
            f"<b>{escape(layer.name)}</b>: {b} bits<br>{escape(layer.kind)} "
            f"{'×'.join(map(str, layer.shape))}, {layer.parameters:,} weights<br>"
            f"{layer.parameters * b / 8 / plan.size_bytes:.1%} of the plan's size<br>"
            f"Ω {number(layer.omega[b])}, "
            f"{layer.omega[b] / plan.omega if plan.omega else 0:.1%} of the plan's"
            for layer, b in zip(layers, bits, strict=True)
        ],
        hoverinfo="text",
    )
