"""The frontier at a glance: what mixing bits gains over the same bits everywhere."""

from collections.abc import Callable, Sequence

import plotly.graph_objects as go

from engine.analysis import Analysis
from engine.frontier import Frontier
from engine.results import BitPlan
from hawq_viz.figures.frontier import Bits, frontier

HEIGHT = 290


def overview(
    analysis: Analysis,
    line: Frontier,
    *,
    cost: str,
    picked: BitPlan,
    uniform: Sequence[BitPlan],
    bits: Callable[[int], Bits] | None = None,
) -> go.Figure:
    """The frontier as its page draws it, smaller and without the rules of others.

    Args:
        analysis: What the plans were made from.
        line: Its frontier over that cost.
        cost: One of `engine.analysis.COSTS`.
        picked: The plan to mark.
        uniform: Plans with the same bits everywhere.
        bits: Those at a point of the frontier, where that is quicker to say than its plan.
    """
    figure = frontier(analysis, line, cost=cost, picked=picked, uniform=uniform, bits=bits)
    return figure.update_layout(height=HEIGHT, margin={"t": 8, "b": 46}, legend={"font.size": 12})
