"""Cost against Ω: the exact frontier, what other rules reach, and plans among them."""

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from textwrap import wrap

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from engine.analysis import Analysis
from engine.frontier import Frontier, Overlay
from engine.results import BitPlan
from hawq_viz.figures.costs import (
    NAMES,
    Unit,
    bits_text,
    cost_of,
    cost_text,
    plan_text,
    tolerance_of,
    uniform_text,
    unit,
)
from hawq_viz.figures.theme import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    PAPER,
    SKY,
    VERMILION,
    number,
    themed,
)

HEIGHT = 372  # so that the whole chart is seen on a projector
BESIDE_LEGEND, UNDER_LEGEND = 0.48, 0.5  # where its edges are, as shares of the chart
Bits = tuple[Mapping[str, int], Mapping[str, int]]  # of weights, of inputs; none for float
HOVER = 44  # letters of bits in a row of a hover text
DRAWN = 400  # points of a line at most: more cannot be told apart, and cost time at every click
DOTTED = 60  # of a line, at most: where there are more, none stands out
LINES = {
    "monotone": ("the paper's monotone rule", ORANGE, "dash"),
    "greedy": ("greedy", GREEN, "dot"),
}


def frontier(
    analysis: Analysis,
    line: Frontier,
    *,
    cost: str = "size",
    picked: BitPlan | None = None,
    overlays: Sequence[Overlay] = (),
    uniform: Sequence[BitPlan] = (),
    limit: float | None = None,
    free: Frontier | None = None,
    part: tuple[float, float] | None = None,
    bits: Callable[[int], Bits] | None = None,
) -> go.Figure:
    """A cost against Ω (log): the frontier as a step line, and what other rules reach.

    Every drawn point carries its cost, so that a click can be turned into the best plan of that
    cost. At most `DRAWN` points of a line are drawn; the picked plan is drawn exactly.

    Args:
        analysis: What the plans were made from.
        line: Its frontier over that cost.
        cost: One of `engine.analysis.COSTS`.
        picked: The plan to mark, on the frontier or not.
        overlays: Of the same costs and Ω, named as in `LINES`.
        uniform: Plans with the same bits everywhere, to mark by them.
        limit: A budget in this cost, to draw as an upright line where it parts the plans.
        free: The frontier without locks and ties, where `line` has some.
        part: Ends of the part of the costs that is drawn; all if none.
        bits: Those of weights and of inputs at a point of the frontier, where that is quicker to
            say than its plan.
    """
    scale = unit(cost, float(line.cost[-1]))
    axis = f"{NAMES[cost]} ({scale.name})" if scale.name else NAMES[cost]
    lines = [x for x in (free, line) if x is not None]
    ends = part or (min(x.cost[0] for x in lines), max(x.cost[-1] for x in lines))
    top, bottom = _heights(lines, ends)
    figure = themed(
        HEIGHT,
        margin={"l": 70, "r": 12, "t": 14, "b": 52},
        uirevision=f"frontier over {cost} {part or ''}",
        xaxis={"title": {"text": axis}, "range": _range(ends, scale, 0.02 if part else 0.08)},
        yaxis={
            "type": "log",
            "title": {"text": "Ω, lower is better"},
            "exponentformat": "power",
            "minor": {"showgrid": False},
            "dtick": 1 if top - bottom > 1.5 else None,
            "range": [bottom, top],
        },
        legend={
            "orientation": "v",
            "x": 1,
            "xanchor": "right",
            "y": 1,
            "yanchor": "top",
            "font": {"size": 12},
        },
    )
    if free is not None:
        drawn = thinned(free.cost, free.omega, part=part)
        figure.add_scatter(
            x=(free.cost[drawn] / scale.divisor).tolist(),
            y=free.omega[drawn].tolist(),
            mode="lines",
            name="without locks and ties",
            line={"shape": "hv", "color": SKY, "width": 1.5},
            hoverinfo="skip",
        )
    drawn = thinned(line.cost, line.omega, part=part)
    figure.add_scatter(
        x=(line.cost[drawn] / scale.divisor).tolist(),
        y=line.omega[drawn].tolist(),
        customdata=line.cost[drawn].tolist(),
        mode="lines+markers" if len(drawn) <= DOTTED else "lines",
        name="frontier" if tolerance_of(line) else "exact frontier",
        line={"shape": "hv", "color": BLUE, "width": 3},
        marker={"size": 5, "color": BLUE},
        hovertext=_drawn_texts(line, drawn, cost, 4 * analysis.parameters, bits),
        hoverinfo="text",
    )
    for overlay in overlays:
        name, colour, dash = LINES[overlay.name]
        drawn = thinned(overlay.cost, overlay.omega, part=part)
        figure.add_scatter(
            x=(overlay.cost[drawn] / scale.divisor).tolist(),
            y=overlay.omega[drawn].tolist(),
            customdata=overlay.cost[drawn].tolist(),
            mode="lines",
            name=name,
            line={"shape": "hv", "color": colour, "width": 2, "dash": dash},
            hovertemplate=f"{name}<br>%{{x:.1f}} {scale.name}, Ω %{{y:.3g}}<extra></extra>",
        )
    if uniform:
        figure.add_scatter(
            x=[cost_of(plan, cost) / scale.divisor for plan in uniform],
            y=[plan.omega for plan in uniform],
            customdata=[cost_of(plan, cost) for plan in uniform],
            mode="markers+text",
            name="uniform bits",
            text=list(map(uniform_text, uniform)),
            textposition="top right",
            textfont={"size": 12.5, "color": INK},
            cliponaxis=part is not None,
            marker={
                "size": 9,
                "symbol": "square",
                "color": VERMILION,
                "line": {"color": PAPER, "width": 1},
            },
            hovertemplate=(
                f"uniform %{{text}}<br>%{{x:.4g}} {scale.name}, Ω %{{y:.3g}}"
                "<br>click: the best plan that costs no more<extra></extra>"
            ),
        )
    if limit is not None and line.cost[0] <= limit <= line.cost[-1]:
        figure.add_vline(
            limit / scale.divisor,
            line={"color": INK, "width": 1.5, "dash": "dot"},
            annotation={"text": "budget", "font": {"size": 12}},
            annotation_position="bottom right",
        )
    if picked is not None:
        figure.add_traces(marks(analysis, line, picked, cost=cost))
    return figure


def _heights(lines: Sequence[Frontier], ends: tuple[float, float]) -> tuple[float, float]:
    """Upper and lower end of an axis of log Ω, so that the legend stands above the frontiers.

    The legend takes the right part of the chart from `BESIDE_LEGEND` on, down to `UNDER_LEGEND`.
    """
    low, high = ends
    places = low, low + BESIDE_LEGEND * (high - low), high
    found = [_log(line.omega[_at(line, place)]) for line in lines for place in places]
    bottom, top, beside = min(found), max(found), max(found[1::3])
    top = max(top, bottom + (beside - bottom) / UNDER_LEGEND)
    room = max(0.05 * (top - bottom), 0.02)
    return top + 2 * room, bottom - room  # bits stand above their squares


def _at(line: Frontier, cost: float) -> int:
    return line.index_within(max(cost, float(line.cost[0])))


def _log(omega: float) -> float:
    return math.log10(max(omega, 1e-300))


def _range(ends: tuple[float, float], scale: Unit, after: float) -> list[float]:
    """The range of an axis of costs: a little wider, so that marks at its ends are seen.

    It is set, for Plotly would choose another for each plan that is marked.

    Args:
        ends: Of the costs that are drawn.
        scale: Their unit.
        after: Room to the right of the last, as a share of the range: its mark may have a name.
    """
    low, high = (end / scale.divisor for end in ends)
    wide = (high - low) or high
    return [low - 0.02 * wide, high + after * wide]


def marks(
    analysis: Analysis,
    line: Frontier,
    picked: BitPlan,
    *,
    cost: str,
    ahead: float | None = None,
) -> list[go.Scatter]:
    """The picked plan exactly where it is; where it is off the frontier, how far.

    Args:
        analysis: What the plan was made from.
        line: The frontier it is drawn over.
        picked: The plan.
        cost: Of the frontier.
        ahead: The least Ω at its cost, if the plan has more and that is to be drawn.
    """
    scale = unit(cost, float(line.cost[-1]))
    place = cost_of(picked, cost) / scale.divisor
    found = []
    if ahead is not None and 0 < ahead < picked.omega:
        found.append(
            go.Scatter(
                x=[place] * 3,
                y=[picked.omega, math.sqrt(picked.omega * ahead), ahead],
                mode="lines+text",
                text=["", f"  <b>{picked.omega / ahead:.2f}×</b>", ""],
                textposition="middle right",
                textfont={"size": 14, "color": INK},
                line={"color": INK, "width": 1.5, "dash": "dot"},
                showlegend=False,
                hoverinfo="skip",
            )
        )
    found.append(
        go.Scatter(
            x=[place],
            y=[picked.omega],
            customdata=[cost_of(picked, cost)],
            mode="markers",
            name="this plan",
            marker={
                "size": 17,
                "symbol": "circle",
                "color": "rgba(0,114,178,0.25)",
                "line": {"color": INK, "width": 2.5},
            },
            hovertext=[
                _about(
                    cost,
                    cost_of(picked, cost),
                    picked.omega,
                    4 * analysis.parameters,
                    plan_text(picked),
                )
            ],
            hoverinfo="text",
        )
    )
    return found


def _drawn_texts(
    line: Frontier,
    drawn: NDArray[np.intp],
    cost: str,
    floats: float,
    bits: Callable[[int], Bits] | None,
) -> list[str]:
    """Hover texts of some points of a frontier."""

    def about(point: int) -> str:
        if bits is None:
            plan = line.plan(point)
            own = plan.weight_bits, plan.activation_bits
        else:
            own = bits(point)
        values = float(line.cost[point]), float(line.omega[point])
        return _about(cost, *values, floats, bits_text(*own))

    return [about(int(point)) for point in drawn]


def _about(cost: str, value: float, omega: float, floats: float, text: str) -> str:
    smaller = f", {floats / value:.1f}× smaller" if cost == "size" else ""
    lines = [line for side in text.split("; ") for line in wrap(side, HOVER)]
    return (
        f"<b>{cost_text(cost, value)}</b>{smaller}"
        f"<br>Ω {number(omega)}<br>{'<br>'.join(map(escape, lines))}"
    )


def thinned(
    cost: NDArray[np.float64],
    omega: NDArray[np.float64],
    limit: int = DRAWN,
    *,
    part: tuple[float, float] | None = None,
) -> NDArray[np.intp]:
    """Indices of at most `limit` points that draw the line: evenly along it as it looks, with ends.

    A step line through some of a frontier's points lies on or above the frontier, never below.

    Args:
        cost: [P], ascending.
        omega: [P], positive where it can be; distances are taken in its logarithm.
        limit: At least 2.
        part: Ends of the costs that are drawn: points between them, and the next on either side.
    """
    first, last = 0, len(cost)
    if part is not None:
        first = max(int(np.searchsorted(cost, part[0], "left")) - 1, 0)
        last = max(int(np.searchsorted(cost, part[1], "right")) + 1, first + 1)
        first = min(first, len(cost) - 1)
        cost, omega = cost[first:last], omega[first:last]
    if len(cost) <= limit:
        return first + np.arange(len(cost))
    logs = np.log(np.maximum(omega, np.finfo(float).tiny))
    steps = np.diff(cost) / np.ptp(cost) + np.abs(np.diff(logs)) / (np.ptp(logs) or 1.0)
    along = np.concatenate([[0.0], np.cumsum(steps)])
    even = np.searchsorted(along, np.linspace(0, along[-1], limit))
    return first + np.unique(np.minimum(even, len(cost) - 1))
