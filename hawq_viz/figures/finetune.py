"""How fine-tuning goes: metric and loss against steps, one run or several over each other."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, Self, TypeVar

import plotly.graph_objects as go

from engine.results import METRIC_NAMES
from hawq_viz.figures.theme import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    PAPER,
    PURPLE,
    SKY,
    VERMILION,
    themed,
)

if TYPE_CHECKING:
    from engine.jobs import RunView

Row = Mapping[str, Any]
T = TypeVar("T")

# Colour, dash and marker of each run drawn over the others; the first is the one watched.
LOOKS = (
    (BLUE, "solid", "circle"),
    (ORANGE, "dash", "square"),
    (GREEN, "dashdot", "diamond"),
    (PURPLE, "dot", "triangle-up"),
    (VERMILION, "longdash", "cross"),
    (SKY, "longdashdot", "x"),
)
TOP_1 = "top-1"
ACCURACY = "accuracy"  # what people call the share of images whose class comes first
MOST_RUNS = len(LOOKS)
DRAWN = 1000  # points of a chart at most, all runs together
EDGES = (0.9, 0.8, 0.65, 0.5, 0.3, 0.0)  # where the accuracy axis may start
SPAN = 1 / 40  # of all steps: what the smoothed loss looks back on
ROUND = (1, 1.5, 2, 3, 4, 5, 6, 8, 10)  # ends of the loss axis, times a power of ten
HEIGHT = 304  # of a chart with one run
A_NAME = 19  # pixels of height that one more name takes
BESIDE = 98  # pixels for the names of the lines across


@dataclass(frozen=True)
class Course:
    """What one training has told so far, as its events have it."""

    id: str
    name: str
    steps: int  # in all; 0 before the first
    reference: Row | None  # the float network on the images of the measurements
    measurements: tuple[Row, ...]
    losses: tuple[Row, ...]  # step and loss
    metric: str = ACCURACY  # in words

    @classmethod
    def of(cls, run: "RunView", name: str) -> Self:
        """Read the events of a run of kind "finetune"."""
        steps = run.latest("step")
        reference = run.latest("reference")
        return cls(
            id=run.id,
            name=name,
            steps=steps[-1]["steps"] if steps else 0,
            reference=reference[-1] if reference else None,
            measurements=run.latest("measurement"),
            losses=tuple(row for row in steps if row["loss"] is not None),  # finite ones
            metric=_metric(run.results.get("float", {}).get("metric", TOP_1)),
        )

    @property
    def rounded(self) -> Row | None:
        """The network before its first step: rounded after training."""
        return next((row for row in self.measurements if row["step"] == 0), None)

    @property
    def best(self) -> Row | None:
        """The measurement whose network would be kept."""
        return next((row for row in reversed(self.measurements) if row["best"]), None)

    @property
    def last_step(self) -> int:
        """How far the course is drawn."""
        return max([self.steps, *(row["step"] for row in self.measurements[-1:])])


def accuracy(courses: Sequence[Course]) -> go.Figure:
    """The metric on the fixed test images against steps, with 95 % bands, and on held-back images.

    The first course is the one watched: its float network and its network before the first step are
    lines across. The axis ends at 100 % and starts at an edge of `EDGES` below everything measured:
    it stands still as points arrive, unless one needs the room.

    Args:
        courses: At most `MOST_RUNS`.
    """
    first = courses[0]
    lows = [row["test"]["low"] for course in courses for row in course.measurements]
    values = [row["held_out"]["value"] for course in courses for row in course.measurements]
    lows += [course.reference["test"]["low"] for course in courses if course.reference]
    lowest = min(lows + values, default=1.0)
    start = next((edge for edge in EDGES if edge < lowest), 0.0)
    images = next((row["test"]["samples"] for row in first.measurements), None)
    figure = _against_steps(
        courses,
        f"{escape(first.metric)} on {images:,} test images"
        if images
        else f"{escape(first.metric)} on test images",
        [start - 0.03 * (1 - start), 1.005],
        right=BESIDE,
        tickformat=".0%",
    )
    limit = (DRAWN - MOST_RUNS) // (4 * len(courses))
    for course, (colour, *_) in zip(courses, LOOKS, strict=False):
        rows = thinned(course.measurements, limit)
        if not rows:
            continue
        steps = [row["step"] for row in rows]
        figure.add_scatter(
            x=steps + steps[::-1],
            y=[row["test"]["low"] for row in rows] + [row["test"]["high"] for row in rows[::-1]],
            mode="lines",
            fill="toself",
            fillcolor=colour,
            line={"width": 1, "color": colour},
            opacity=0.24,
            hoverinfo="skip",
            showlegend=False,
            name="95 %",
        )
    for course, (colour, dash, symbol) in zip(courses, LOOKS, strict=False):
        rows = thinned(course.measurements, limit)
        figure.add_scatter(
            x=[row["step"] for row in rows],
            y=[row["held_out"]["value"] for row in rows],
            mode="lines",
            line={"width": 1.2, "color": colour, "dash": dash},
            opacity=0.75,
            hovertemplate="step %{x:,}<br>held-back images %{y:.1%}<extra></extra>",
            showlegend=False,
            name="held back",
        )
        figure.add_scatter(
            x=[row["step"] for row in rows],
            y=[row["test"]["value"] for row in rows],
            mode="lines+markers",
            line={"width": 3, "color": colour, "dash": dash},
            marker={
                "size": 8,
                "symbol": symbol,
                "color": colour,
                "line": {"color": PAPER, "width": 1},
            },
            hovertext=[_about(course, row) for row in rows],
            hoverinfo="text",
            showlegend=True,
            name=escape(course.name),
        )
        if course.best is not None:
            figure.add_scatter(
                x=[course.best["step"]],
                y=[course.best["test"]["value"]],
                mode="markers",
                marker={
                    "size": 17,
                    "symbol": "star",
                    "color": colour,
                    "line": {"color": INK, "width": 1.5},
                },
                hovertext=[f"best checkpoint<br>{_about(course, course.best)}"],
                hoverinfo="text",
                showlegend=False,
                name="best",
            )
    _lines_across(figure, first)
    return figure


def _metric(name: str) -> str:
    return ACCURACY if name == TOP_1 else METRIC_NAMES.get(name, name)


def loss(courses: Sequence[Course]) -> go.Figure:
    """Training loss against steps: every mini-batch thin, their running average thick.

    Args:
        courses: At most `MOST_RUNS`.
    """
    limit = DRAWN // (2 * len(courses))
    told = [course.losses for course in courses]
    highest = max((row["loss"] for rows in told for row in rows), default=1.0)
    figure = _against_steps(courses, "training loss", [0, rounded_up(highest)], right=14)
    smooth = [
        smoothed(
            [row["step"] for row in rows],
            [row["loss"] for row in rows],
            max(2.0, course.steps * SPAN),
        )
        for course, rows in zip(courses, told, strict=True)
    ]
    for rows, (colour, _, _) in zip(told, LOOKS, strict=False):
        drawn = thinned(rows, limit)
        figure.add_scatter(
            x=[row["step"] for row in drawn],
            y=[row["loss"] for row in drawn],
            mode="lines",
            line={"width": 1, "color": colour},
            opacity=0.35,
            hoverinfo="skip",
            showlegend=False,
            name="raw",
        )
    for course, rows, average, (colour, dash, _) in zip(courses, told, smooth, LOOKS, strict=False):
        drawn = thinned(list(zip(rows, average, strict=True)), limit)
        figure.add_scatter(
            x=[row["step"] for row, _ in drawn],
            y=[value for _, value in drawn],
            customdata=[row["loss"] for row, _ in drawn],
            mode="lines",
            line={"width": 3, "color": colour, "dash": dash},
            hovertemplate="step %{x:,}<br>smoothed loss %{y:.3g}<br>this mini-batch "
            "%{customdata:.3g}<extra></extra>",
            showlegend=False,
            name=escape(course.name),
        )
    return figure


def thinned(rows: Sequence[T], limit: int) -> list[T]:
    """Every 2ᵏ-th row, k as small as the limit allows, and the last: few change as rows arrive.

    Args:
        rows: Any number.
        limit: At least 2.
    """
    stride = 1
    while -(-len(rows) // stride) + 1 > limit and stride < len(rows):
        stride *= 2
    kept = list(rows[::stride])
    return kept if not rows or (len(rows) - 1) % stride == 0 else [*kept, rows[-1]]


def smoothed(steps: Sequence[int], values: Sequence[float], span: float) -> list[float]:
    """Exponential average that looks back about `span` steps, free of bias from its start.

    A value d steps back weighs exp(−d / span); dividing by the sum of the weights takes the bias
    towards a first zero away. Gaps between steps count as such, so thinning leaves the curve.
    """
    total = weights = 0.0
    before = None
    averages = []
    for step, value in zip(steps, values, strict=True):
        kept = 0.0 if before is None else math.exp(-(step - before) / span)
        total, weights, before = kept * total + value, kept * weights + 1, step
        averages.append(total / weights)
    return averages


def rounded_up(value: float) -> float:
    """The next round number above a positive value: few, so that an axis seldom moves."""
    if not 0 < value < math.inf:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next((m * power for m in ROUND if m * power >= value), 10 * power)


def _against_steps(
    courses: Sequence[Course], what: str, heights: list[float], right: int, **more: Any
) -> go.Figure:
    """An empty chart whose axes stand still; another run watched starts with its own zoom."""
    steps = max(course.last_step for course in courses)
    names = max(1, len(courses))
    return themed(
        HEIGHT + A_NAME * (names - 1),
        margin={"l": 64, "r": right, "t": 16 + A_NAME * names, "b": 50},
        uirevision=courses[0].id,
        legend={
            "orientation": "v",
            "x": 0,
            "y": 1.0,
            "yanchor": "bottom",
            "font": {"size": 13},
            "itemclick": False,
            "itemdoubleclick": False,
        },
        xaxis={
            "title": {"text": "training steps"},
            "range": [-0.02 * steps, 1.02 * steps] if steps else [-0.1, 5],
            "tickformat": ",d",
        },
        yaxis={"title": {"text": what}, "range": heights, **more},
    )


def _lines_across(figure: go.Figure, course: Course) -> None:
    """The float network and the one before the first step, each named at the end of its line.

    The upper name stands above its line and the lower below, so that they never meet; both stand
    beside the chart, where no curve goes.
    """
    found = [
        (row["test"]["value"], name, dash)
        for row, name, dash in (
            (course.reference, "float32", "dash"),
            (course.rounded, "post-training", "dot"),
        )
        if row is not None
    ]
    found.sort(key=lambda line: line[0])
    for value, name, dash in found:
        above = name == found[-1][1]
        figure.add_shape(
            type="line",
            xref="paper",
            x0=0,
            x1=1,
            y0=value,
            y1=value,
            layer="below",
            line={"color": INK, "width": 1.5, "dash": dash},
        )
        figure.add_annotation(
            xref="paper",
            x=1,
            xanchor="left",
            xshift=4,
            y=value,
            yanchor="bottom" if above else "top",
            align="left",
            text=f"{name}<br>{value:.1%}",
            showarrow=False,
            font={"size": 13, "color": INK},
        )


def _about(course: Course, row: Row) -> str:
    test, held_out = row["test"], row["held_out"]
    return (
        f"<b>{escape(course.name)}</b><br>step {row['step']:,}: {test['value']:.1%}<br>"
        f"95 % interval {test['low']:.1%} … {test['high']:.1%}<br>"
        f"held-back images {held_out['value']:.1%}"
    )
