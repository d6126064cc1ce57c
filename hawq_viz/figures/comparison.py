"""Two plans of one network beside each other, layer by layer."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go

from engine.results import BitPlan
from hawq_viz.figures.theme import BLUE, INK, ORANGE, PAPER, label, layer_axis, themed

LOOKS = ((BLUE, "circle", 13), (ORANGE, "square", 8))  # of A and B: one still shows over the other
FLOAT = 9  # where a layer stands that stays float: above all bit widths
HEIGHT = 196  # of a panel
LETTERS = 18  # of a layer's name


def bits(a: BitPlan, b: BitPlan, names: Sequence[str]) -> go.Figure:
    """Bits of each layer in both plans, forward order from the left; a line joins what differs.

    Where either plan rounds activations, a second panel has the bits of what layers read.

    Args:
        a: Of the same layers as b.
        b: Likewise.
        names: What to call the two.
    """
    panels = [("weights", a.weight_bits, b.weight_bits)]
    panels += [("inputs", a.activation_bits, b.activation_bits)]
    panels = [panel for panel in panels if panel[1] or panel[2]]
    below = 22 + 4 * max(
        min(LETTERS, len(name)) for _, ours, theirs in panels for name in ours or theirs
    )
    room = below + 14  # between panels, for the layers' names
    height = 44 + len(panels) * HEIGHT + (len(panels) - 1) * room + below
    whole = height - 44 - below
    axes: dict[str, Any] = {}
    for place, (title, ours, theirs) in enumerate(panels):
        suffix = "" if place == 0 else str(place + 1)
        top = 1 - place * (HEIGHT + room) / whole
        axes[f"xaxis{suffix}"] = layer_axis(
            list(ours or theirs),
            length=LETTERS,
            range=[-0.6, len(ours or theirs) - 0.4],
            anchor=f"y{suffix}",
            tickangle=-50,
            ticks="",
        )
        axes[f"yaxis{suffix}"] = _bits_axis(title, panels, top, top - HEIGHT / whole, f"x{suffix}")
    figure = themed(
        height,
        margin={"l": 84, "r": 12, "t": 44, "b": below},
        uirevision="compared bits",
        **axes,
    )
    for place, (title, ours, theirs) in enumerate(panels):
        _add_panel(figure, "" if place == 0 else str(place + 1), title, (ours, theirs), names)
    return figure


def _bits_axis(
    title: str,
    panels: Sequence[tuple[str, Mapping[str, int], Mapping[str, int]]],
    top: float,
    bottom: float,
    anchor: str,
) -> dict[str, Any]:
    """One bit width a line; float above them where anything stays float."""
    has_float = any(not ours or not theirs for _, ours, theirs in panels)
    last = FLOAT if has_float else 8
    return {
        "title": {"text": f"bits of {title}"},
        "domain": [max(0.0, bottom), min(1.0, top)],
        "anchor": anchor,
        "range": [0.4, last + 0.6],
        "tickvals": list(range(1, last + 1)),
        "ticktext": [str(x) if x < FLOAT else "float" for x in range(1, last + 1)],
        "ticks": "",
    }


def _add_panel(
    figure: go.Figure,
    suffix: str,
    title: str,
    sides: tuple[Mapping[str, int], Mapping[str, int]],
    names: Sequence[str],
) -> None:
    layers = list(sides[0] or sides[1])
    heights = [[side.get(layer, FLOAT) for layer in layers] for side in sides]
    where = {"xaxis": f"x{suffix}", "yaxis": f"y{suffix}"}
    differ = [i for i in range(len(layers)) if heights[0][i] != heights[1][i]]
    figure.add_scatter(
        x=[x for i in differ for x in (i, i, None)],
        y=[y for i in differ for y in (heights[0][i], heights[1][i], None)],
        mode="lines",
        line={"color": INK, "width": 2},
        hoverinfo="skip",
        showlegend=False,
        name="differ",
        **where,
    )
    for which, (colour, symbol, size) in enumerate(LOOKS):
        figure.add_scatter(
            x=list(range(len(layers))),
            y=heights[which],
            mode="markers",
            name=escape(names[which]),
            legendgroup=names[which],
            showlegend=suffix == "",
            marker={
                "size": size,
                "symbol": symbol,
                "color": colour,
                "opacity": [1.0 if i in differ else 0.45 for i in range(len(layers))],
                "line": {"color": PAPER, "width": 1},
            },
            hovertext=[_about(layer, title, sides, layers) for layer in layers],
            hoverinfo="text",
            **where,
        )


def _about(
    layer: str,
    title: str,
    sides: tuple[Mapping[str, int], Mapping[str, int]],
    layers: Sequence[str],
) -> str:
    told = [f"{bits} bits" if (bits := side.get(layer)) else "float" for side in sides]
    what = f"{label(layer, 60)}, {title} ({layers.index(layer) + 1} of {len(layers)})"
    return f"<b>{what}</b><br>A: {told[0]}<br>B: {told[1]}"
