"""What quantized networks were measured to reach."""

from collections.abc import Mapping
from html import escape

import plotly.graph_objects as go

from engine.results import Evaluation
from hawq_viz.figures.theme import BLUE, INK, ORANGE, themed

NAMES = {"float": "float32", "plan": "HAWQ-V2 plan", "uniform": "uniform bits"}
LOOKS = {"float": (INK, "circle"), "plan": (BLUE, "diamond"), "uniform": (ORANGE, "square")}


def accuracies(results: Mapping[str, Evaluation], names: Mapping[str, str] = NAMES) -> go.Figure:
    """Measured quality of each network with its 95 % interval.

    The axis ends at 100 % and starts at the first of 80, 50 and 0 % below every interval, so it
    stands still while results arrive, unless one needs the room.

    Args:
        results: Of "float", "plan" and "uniform", those that are there.
        names: What to call them, in a line or two; one without a result keeps its row.
    """
    lowest = min((evaluation.interval[0] for evaluation in results.values()), default=1.0)
    start = next(edge for edge in (0.8, 0.5, -1.0) if edge < lowest)
    rows = list(names)
    figure = themed(
        92 + 58 * len(rows),
        margin={"l": 170, "r": 28, "t": 12, "b": 56},
        showlegend=False,
        xaxis={
            "title": {"text": f"{_metric(results)} on the test images"},
            "range": [max(start, 0) - (0.02 if start < 0 else 0), 1.005],
            "tickformat": ".0%",
        },
        yaxis={
            "tickvals": list(range(len(rows))),
            "ticktext": [_lines(names[row]) for row in rows],
            "range": [len(rows) - 0.5, -0.5],
            "showgrid": False,
            "ticks": "",
            "tickfont": {"size": 15},
        },
    )
    for position, row in enumerate(rows):
        if row not in results:
            continue
        found = results[row]
        colour, symbol = LOOKS[row]
        low, high = found.interval
        figure.add_scatter(
            x=[found.value],
            y=[position],
            error_x={
                "type": "data",
                "array": [high - found.value],
                "arrayminus": [found.value - low],
                "color": colour,
                "thickness": 3,
                "width": 8,
            },
            mode="markers+text",
            text=[f"<b>{found.value:.1%}</b>"],
            textposition="top center",
            textfont={"size": 15, "color": INK},
            marker={
                "size": 14,
                "color": colour,
                "symbol": symbol,
                "line": {"color": INK, "width": 1},
            },
            hovertext=[
                f"<b>{_lines(names[row])}</b><br>{escape(found.metric_name)} {found.value:.2%}<br>"
                f"95 % interval {low:.2%} … {high:.2%}<br>{found.samples:,} images<br>"
                f"loss {found.loss:.4f} ± {found.loss_sem:.4f}"
            ],
            hoverinfo="text",
            name=names[row],
        )
    return figure


def _lines(name: str) -> str:
    return escape(name).replace("\n", "<br>")


def _metric(results: Mapping[str, Evaluation]) -> str:
    return next((escape(found.metric_name) for found in results.values()), "top-1")
