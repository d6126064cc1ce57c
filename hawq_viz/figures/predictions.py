"""The rise of the loss that ½Ω predicts against the one that was measured."""

import math
from collections.abc import Iterable, Sequence
from html import escape
from itertools import cycle
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from hawq_viz.figures.theme import (
    BLUE,
    GREEN,
    GRID,
    INK,
    ORANGE,
    PAPER,
    PURPLE,
    number,
    themed,
)

if TYPE_CHECKING:
    from hawq_viz.viewmodels.predictions import Prediction

LOOKS = ((BLUE, "circle"), (ORANGE, "square"), (GREEN, "diamond"), (PURPLE, "triangle-up"))
LINE_POINTS = 60
MOST_TICKS = 9  # on one side of zero, before every other is left out


class SymmetricLog:
    """An axis that is a logarithm far from zero and straight around it, so that all has a place.

    Args:
        threshold: Where it turns from one into the other; above 0.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold

    def __call__(self, value: float) -> float:
        """Where a value is drawn: sign(v) · log₁₀(1 + |v| / threshold)."""
        return math.copysign(math.log10(1 + abs(value) / self.threshold), value)

    def ticks(self, low: float, high: float) -> list[float]:
        """Zero, and 1 and 3 times powers of ten from the threshold on, as far as values reach."""

        def until(end: float) -> list[float]:
            steps, power = list[float](), math.floor(math.log10(self.threshold) + 0.5)
            while 10.0**power <= end:
                steps += [x for x in (10.0**power, 3 * 10.0**power) if x <= end]
                power += 1
            return steps if len(steps) <= MOST_TICKS else steps[::2]

        return [-x for x in reversed(until(-low))] + [0.0] + until(high)


def predicted_and_measured(
    found: Sequence["Prediction"], selected: Iterable[str] = ()
) -> go.Figure:
    """Each plan as a point with 95 % bars both ways, and the line on which both are the same.

    The measured rise may be zero or less, so its axis is straight around zero, within the errors of
    the measurements, and a logarithm beyond. Plans rounded in another way than Ω reckons with are
    open.

    Args:
        found: By rising ½Ω.
        selected: Ids of runs whose points are ringed.
    """
    scale = SymmetricLog(_threshold(found))
    xs = [x for one in found for x in (one.predicted, *(one.interval or ())) if x > 0]
    edges = [y for one in found for y in (one.rise.mean, *one.rise.interval)]
    low, high = (min(xs) / 1.6, max(xs) * 1.6) if xs else (1e-3, 1.0)
    ticks = scale.ticks(min([*edges, 0.0]), max([*edges, high]))
    ends = scale(min([*edges, 0.0])) - 0.15, scale(max([*edges, high])) + 0.15
    figure = themed(
        400,
        margin={"l": 86, "r": 16, "t": 40, "b": 56},
        uirevision="predictions",
        xaxis={
            "type": "log",
            "title": {"text": "predicted rise of the loss, ½Ω"},
            "range": [math.log10(low), math.log10(high)],
            "exponentformat": "power",
            "dtick": 1 if high > 20 * low else None,
        },
        yaxis={
            "title": {"text": "measured rise of the loss"},
            "range": list(ends),
            "tickvals": [scale(tick) for tick in ticks],
            "ticktext": [number(tick).replace("-", "−") for tick in ticks],
        },
        showlegend=len({(one.images, one.as_predicted) for one in found}) > 1,
    )
    figure.add_hline(0, line={"color": GRID, "width": 2})
    line = [low * (high / low) ** (i / LINE_POINTS) for i in range(LINE_POINTS + 1)]
    figure.add_scatter(
        x=line,
        y=[scale(x) for x in line],
        mode="lines",
        line={"color": INK, "width": 1.5, "dash": "dash"},
        name="as predicted",
        hoverinfo="skip",
        showlegend=False,
    )
    figure.add_annotation(
        x=math.log10(high),
        y=scale(high),
        text="as predicted",
        xanchor="right",
        yanchor="bottom",
        xshift=-4,
        yshift=2,
        showarrow=False,
        font={"size": 13, "color": INK},
    )
    looks: dict[str, tuple[str, str]] = {}
    for one, look in zip(dict.fromkeys(one.images for one in found), cycle(LOOKS), strict=False):
        looks[one] = look
    for images, (colour, symbol) in looks.items():
        for usual in (True, False):
            group = [
                (i, one)
                for i, one in enumerate(found)
                if (one.images, one.as_predicted) == (images, usual)
            ]
            if group:
                _add_group(figure, group, scale, (colour, symbol), low)
    ringed = {*selected}
    rings = [one for one in found if ringed.intersection(run.id for run in one.runs)]
    figure.add_scatter(
        x=[one.predicted for one in rings],
        y=[scale(one.rise.mean) for one in rings],
        mode="markers",
        marker={"size": 20, "symbol": "circle-open", "color": INK, "line": {"width": 2.5}},
        hoverinfo="skip",
        showlegend=False,
        name="of the picked runs",
    )
    return figure


def _threshold(found: Sequence["Prediction"]) -> float:
    """The power of ten near the median half-width of the measured rises."""
    halves = sorted((one.rise.interval[1] - one.rise.interval[0]) / 2 for one in found)
    half = halves[len(halves) // 2] if halves else 0.0
    return 10.0 ** round(math.log10(half)) if half > 0 else 1e-3


def _add_group(
    figure: go.Figure,
    group: Sequence[tuple[int, "Prediction"]],
    scale: SymmetricLog,
    look: tuple[str, str],
    least: float,
) -> None:
    """The plans of one set of images that were rounded in one way."""
    (colour, symbol), first = look, group[0][1]
    usual = first.as_predicted
    known = [one.interval or (one.predicted, one.predicted) for _, one in group]
    ends = [(scale(one.rise.interval[0]), scale(one.rise.interval[1])) for _, one in group]
    heights = [scale(one.rise.mean) for _, one in group]
    bar: dict[str, Any] = {"type": "data", "color": colour, "thickness": 1.5, "width": 4}
    figure.add_scatter(
        x=[one.predicted for _, one in group],
        y=heights,
        customdata=[i for i, _ in group],
        error_x={
            **bar,
            "array": [
                max(0.0, high - one.predicted)
                for (_, high), (_, one) in zip(known, group, strict=True)
            ],
            "arrayminus": [
                max(0.0, one.predicted - max(low, least))
                for (low, _), (_, one) in zip(known, group, strict=True)
            ],
        },
        error_y={
            **bar,
            "array": [high - at for (_, high), at in zip(ends, heights, strict=True)],
            "arrayminus": [at - low for (low, _), at in zip(ends, heights, strict=True)],
        },
        mode="markers",
        marker={
            "size": 11,
            "symbol": symbol if usual else f"{symbol}-open",
            "color": colour,
            "line": {
                "color": PAPER if usual else colour,
                "width": 1 if usual else 2,
            },
        },
        name=escape(first.images.partition(":")[0]) + ("" if usual else ", rounded in other ways"),
        hovertext=[_about(one) for _, one in group],
        hoverinfo="text",
    )


def _about(one: "Prediction") -> str:
    low, high = one.rise.interval
    error = f" ({number(one.interval[0])} … {number(one.interval[1])})" if one.interval else ""
    return (
        f"<b>{escape(one.name)}</b><br>predicted ½Ω {number(one.predicted)}{error}"
        f"<br>measured {one.rise.mean:+.3g} ({low:+.3g} … {high:+.3g})"
        f"<br>{escape(one.images)}<br>click: show its run"
    )
