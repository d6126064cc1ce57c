"""How certain a frontier and a plan are: a band behind the line, and bits with their range."""

from collections.abc import Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go
from numpy.typing import NDArray

from engine.certainty import CERTAIN, Certainty, Vote
from hawq_viz.figures.costs import unit
from hawq_viz.figures.theme import BLUE, GRID, INK, ORANGE, PAPER, label, layer_axis, themed

BAND = "rgba(86,180,233,0.35)"  # sky: seen on white and on black, and the line stands out on it
ROW, AROUND = 19, 44  # pixels of a layer, and above the first
WORDS = 0.75  # room for the words, as a share of that for the bits
LOOKS = {
    True: {"symbol": "circle", "size": 11, "color": BLUE, "line": {"color": PAPER, "width": 1}},
    False: {"symbol": "diamond", "size": 13, "color": ORANGE, "line": {"color": INK, "width": 1}},
}


def add_band(
    figure: go.Figure,
    cost: str,
    costs: NDArray[Any],
    low: NDArray[Any],
    high: NDArray[Any],
    *,
    dearest: float,
) -> go.Figure:
    """Draw where Ω of a frontier's plans lies, behind everything else in its figure.

    Args:
        figure: Made by `frontier.frontier`; it is changed, and given back.
        cost: That it is drawn against.
        costs: [P], ascending.
        low: [P], lower end of Ω at each.
        high: [P], upper end.
        dearest: The most that a plan of the frontier costs, by which the figure has its unit.
    """
    scale = unit(cost, dearest).divisor
    x = (costs / scale).tolist()
    common: dict[str, Any] = {
        "x": x,
        "mode": "lines",
        "line": {"shape": "hv", "color": BAND, "width": 0.5},
        "hoverinfo": "skip",
    }
    figure.add_scatter(y=low.tolist(), showlegend=False, **common)
    figure.add_scatter(
        y=high.tolist(), fill="tonexty", fillcolor=BAND, name="95 % of Ω", legendrank=2000, **common
    )
    figure.data = (*figure.data[-2:], *figure.data[:-2])
    return figure.update_layout(legend_traceorder="normal")  # a fill would turn it round


def votes(certainty: Certainty) -> go.Figure:
    """Bits of each layer, forward order from the top, with the range that draws give it.

    What is certain and what is undecided is told by shape and by word. Below the weights stands
    what layers read, where that is chosen too.
    """
    blocks = [
        (title, own)
        for title, own in (("weights", certainty.layers), ("inputs", certainty.activations))
        if own
    ]
    heads = len(blocks) > 1  # a row above each block
    rows: list[Vote | str] = []
    for title, own in blocks:
        rows += [title] * heads + list(own)
    names = [row if isinstance(row, str) else row.name for row in rows]
    low, high = min(v.low for v in certainty.votes), max(v.high for v in certainty.votes)
    figure = themed(
        ROW * max(8, len(rows)) + AROUND,
        margin={"l": 14 + 6 * max(len(label(name)) for name in names), "r": 4, "t": AROUND, "b": 0},
        xaxis={
            "range": [low - 0.6, high + 0.6 + WORDS * (high - low + 1.2)],
            "tickvals": list(range(low, high + 1)),
            "side": "top",
            "ticks": "",
            "title": {"text": "bits", "standoff": 6},
        },
        yaxis=layer_axis(
            names,
            labels=len(names),
            range=[len(rows) - 0.5, -0.5],
            ticks="",
            ticklabelstandoff=4,
        ),
        showlegend=False,
    )
    figure.update_yaxes(
        ticktext=[f"<b>{row}</b>" if isinstance(row, str) else label(row.name) for row in rows]
    )
    _add_votes(figure, [(row, y) for y, row in enumerate(rows) if isinstance(row, Vote)], high)
    return figure


def _add_votes(figure: go.Figure, found: Sequence[tuple[Vote, int]], high: int) -> None:
    """The ranges, the bits and the words, each at its place."""
    figure.add_bar(
        x=[vote.high - vote.low + 0.44 for vote, _ in found],
        base=[vote.low - 0.22 for vote, _ in found],
        y=[y for _, y in found],
        orientation="h",
        width=0.5,
        marker={"color": GRID, "line": {"color": INK, "width": 0.6}},
        hoverinfo="skip",
    )
    for certain, look in LOOKS.items():
        own = [(vote, y) for vote, y in found if vote.certain == certain]
        figure.add_scatter(
            x=[vote.bits for vote, _ in own],
            y=[y for _, y in own],
            mode="markers",
            marker=look,
            hovertext=[_about(vote) for vote, _ in own],
            hoverinfo="text",
        )
    figure.add_scatter(
        x=[high + 0.6] * len(found),
        y=[y for _, y in found],
        mode="text",
        text=[word(vote) for vote, _ in found],
        textposition="middle right",
        textfont={"size": 12, "color": INK},
        cliponaxis=False,
        hovertext=[_about(vote) for vote, _ in found],
        hoverinfo="text",
    )


def word(vote: Vote) -> str:
    """What is to be said of one layer."""
    if not vote.free:
        return "held"
    return "certain" if vote.certain else f"undecided, {vote.share:.0%}"


def _about(vote: Vote) -> str:
    named = f"<b>{escape(vote.name)}</b>: {vote.bits} bits"
    if not vote.free:
        return f"{named}, held by the limits"
    low, high = vote.interval
    spread = f"{vote.low} bits" if vote.low == vote.high else f"{vote.low} to {vote.high} bits"
    return (
        f"{named}<br>in {vote.agreeing} of {vote.draws} draws ({vote.share:.1%}; 95 %: {low:.1%} "
        f"to {high:.1%})<br>nine draws in ten: {spread}"
        f"<br>{'certain' if vote.certain else 'undecided'}: "
        f"{'at least' if vote.certain else 'fewer than'} {CERTAIN:.0%} agree"
    )
