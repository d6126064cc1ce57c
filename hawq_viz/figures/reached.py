"""Plans that were measured: on the frontier, and what they keep against what they cost."""

from collections.abc import Sequence
from html import escape
from typing import Any, Protocol

import plotly.graph_objects as go

from engine.results import Evaluation
from hawq_viz.figures.costs import NAMES, cost_text, unit
from hawq_viz.figures.theme import INK, PAPER, PURPLE, themed


class Point(Protocol):
    """What is drawn of a measured plan."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def rounded(self) -> bool: ...  # noqa: D102
    @property
    def cost(self) -> float: ...  # noqa: D102
    @property
    def omega(self) -> float: ...  # noqa: D102
    @property
    def about(self) -> str: ...  # noqa: D102
    @property
    def evaluation(self) -> Evaluation: ...  # noqa: D102
    @property
    def reference(self) -> Evaluation | None: ...  # noqa: D102


def measured_marks(points: Sequence[Point], *, cost: str, largest: float) -> list[go.Scatter]:
    """Measured plans where they lie over a frontier; open where they were rounded only.

    Args:
        points: The plans.
        cost: Of the frontier.
        largest: The most that is drawn of it.
    """
    if not points:
        return []
    scale = unit(cost, largest)
    return [
        go.Scatter(
            x=[point.cost / scale.divisor for point in points],
            y=[point.omega for point in points],
            customdata=[point.cost for point in points],
            mode="markers",
            name="measured",
            marker=_look(points, 12),
            hovertext=_texts(points, cost),
            hoverinfo="text",
        )
    ]


def accuracies(points: Sequence[Point], *, cost: str) -> go.Figure:
    """What measured plans keep against what they cost, with 95 % intervals.

    Args:
        points: At least one.
        cost: That they are drawn against.
    """
    scale = unit(cost, max(point.cost for point in points))
    found = [point.evaluation for point in points]
    figure = themed(
        320,
        margin={"l": 70, "r": 16, "t": 12, "b": 52},
        showlegend=False,
        xaxis={"title": {"text": f"{NAMES[cost]} ({scale.name})" if scale.name else NAMES[cost]}},
        yaxis={"title": {"text": found[0].metric_name}, "tickformat": ".0%"},
    )
    figure.add_scatter(
        x=[point.cost / scale.divisor for point in points],
        y=[own.value for own in found],
        mode="markers",
        error_y={
            "type": "data",
            "symmetric": False,
            "array": [own.interval[1] - own.value for own in found],
            "arrayminus": [own.value - own.interval[0] for own in found],
            "color": INK,
            "thickness": 1.2,
        },
        marker=_look(points, 13),
        hovertext=_texts(points, cost),
        hoverinfo="text",
    )
    floats = [point.reference for point in points if point.reference is not None]
    if floats:
        whole = max(floats, key=lambda own: own.samples)
        figure.add_hline(
            whole.value,
            line={"color": INK, "width": 1.2, "dash": "dot"},
            annotation={"text": f"float32 {whole.value:.1%}", "font": {"size": 12}},
            annotation_position="top right",
        )
    return figure


def _look(points: Sequence[Point], size: int) -> dict[str, Any]:
    return {
        "size": size,
        "symbol": "diamond",
        "color": [PAPER if point.rounded else PURPLE for point in points],
        "line": {"color": PURPLE, "width": 2.5},
    }


def _texts(points: Sequence[Point], cost: str) -> list[str]:
    return [
        f"<b>{escape(point.name)}</b><br>{cost_text(cost, point.cost)}"
        f"<br>{escape(point.about).replace(', ', '<br>')}"
        for point in points
    ]
