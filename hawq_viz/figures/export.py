"""What the bytes of an exported network are."""

import plotly.graph_objects as go

from engine.results import PACKED_KINDS, PackedFile
from hawq_viz.figures.costs import KIB
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

COLOURS = dict(
    zip(
        PACKED_KINDS,
        (BLUE, SKY, PURPLE, GREEN, ORANGE, VERMILION, "#f0e442", "#999999"),
        strict=True,
    )
)
ROWS = ("promised", "the file")


def sizes(file: PackedFile) -> go.Figure:
    """The weights that a plan promised above the parts of the packed file."""
    figure = themed(
        210,
        margin={"l": 92, "r": 28, "t": 64, "b": 56},
        barmode="stack",
        legend={"traceorder": "normal"},
        bargap=0.35,
        xaxis={"title": {"text": "KiB"}, "rangemode": "tozero"},
        yaxis={"categoryarray": ROWS[::-1], "categoryorder": "array", "showgrid": False},
    )
    figure.add_bar(
        x=[file.promised_bytes / KIB],
        y=[ROWS[0]],
        orientation="h",
        marker={"color": PAPER, "line": {"color": INK, "width": 2}},
        text=[f"{file.promised_bytes / KIB:,.1f} KiB"],
        textposition="inside",
        insidetextanchor="middle",
        textfont={"color": INK},
        hovertemplate=f"<b>promised</b><br>{file.promised_bytes:,.0f} bytes<extra></extra>",
        showlegend=False,
    )
    for kind, count in file.by_kind.items():
        if count:
            figure.add_bar(
                x=[count / KIB],
                y=[ROWS[1]],
                orientation="h",
                name=kind,
                marker={"color": COLOURS[kind], "line": {"color": INK, "width": 0.5}},
                hovertemplate=f"<b>{kind}</b><br>{count:,} bytes<extra></extra>",
            )
    return figure
