"""The frontier at a glance: what mixing bits gains over the same bits everywhere."""

from collections.abc import Sequence

import plotly.graph_objects as go

from engine.analysis import Analysis
from engine.frontier import Frontier
from engine.results import BitPlan
from hawq_viz.figures.frontier import frontier

HEIGHT = 290


def overview(
    analysis: Analysis, line: Frontier, *, cost: str, picked: BitPlan, uniform: Sequence[BitPlan]
) -> go.Figure:
    """The frontier as its page draws it, smaller and without the rules of others.

    Args:
        analysis: What the plans were made from.
        line: Its frontier over that cost.
        cost: One of `engine.analysis.COSTS`.
        picked: The plan to mark.
        uniform: Plans with the same bits everywhere.
    """
    figure = frontier(analysis, line, cost=cost, picked=picked, uniform=uniform)
    return figure.update_layout(height=HEIGHT, margin={"t": 8, "b": 46}, legend={"font.size": 12})
