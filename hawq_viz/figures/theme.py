"""Colours, fonts and margins shared by all figures, and layer names as axis labels."""

import math
from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from typing import Any

import plotly.graph_objects as go
from plotly.colors import sample_colorscale

# As they are on white; the dashboard exchanges these, and BLUE, for the page's own colours.
INK = "#1f2431"
PAPER = "#ffffff"
GRID = "#dfe3e9"

# Okabe and Ito, "Color Universal Design", 2008: told apart under every colour blindness.
BLUE = "#0072b2"
ORANGE = "#e69f00"
SKY = "#56b4e9"
GREEN = "#009e73"
VERMILION = "#d55e00"
PURPLE = "#cc79a7"

BITS = "Cividis"  # the ramp of bit widths, always over 1…8: one colour means the same everywhere
FONT_SIZE = 14  # readable from the back of a room at 1280 × 720
LABELS = 64  # layer names an axis has room for
LABEL_LENGTH = 26  # characters of a layer name on an axis; hover texts hold all of it


def themed(height: int, **layout: Any) -> go.Figure:
    """An empty figure in the common look; axes named in `layout` are merged with it."""
    axis = {
        "gridcolor": GRID,
        "linecolor": GRID,
        "tickcolor": GRID,
        "zeroline": False,
        "ticks": "outside",
        "title": {"standoff": 10, "font": {"size": FONT_SIZE}},
    }
    common: dict[str, Any] = {
        "height": height,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": INK, "size": FONT_SIZE},
        "margin": {"l": 76, "r": 16, "t": 36, "b": 56},
        "hoverlabel": {"bgcolor": PAPER, "bordercolor": GRID, "font": {"color": INK, "size": 13}},
        "hovermode": "closest",
        "hoverdistance": 24,
        "legend": {"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "font": {"size": 13}},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": GRID, "activecolor": INK},
        "xaxis": axis,
        "yaxis": axis,
    }
    figure = go.Figure(layout=_merged(common, layout))  # at once: bit by bit takes ten times longer
    return figure.update_layout(template=None)


def _merged(common: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of both, those of `more` first, and so within fields that are fields of both."""
    nested = {
        name: _merged(common[name], more[name])
        for name in common.keys() & more.keys()
        if isinstance(common[name], Mapping) and isinstance(more[name], Mapping)
    }
    return {**common, **more, **nested}


@cache
def bits_colour(bits: int) -> str:
    """A bit width's place on the ramp; the dark end is left out, it would drown on a dark page."""
    return str(sample_colorscale(BITS, [0.12 + 0.88 * (bits - 1) / 7])[0])


def layer_axis(
    names: Sequence[str], *, labels: int = LABELS, length: int = LABEL_LENGTH, **more: Any
) -> dict[str, Any]:
    """An axis with layer i at position i: names may repeat once shortened, positions may not.

    Args:
        names: Layer names in forward order.
        labels: How many there is room for.
        length: Characters that one has room for.
        more: Further fields of the axis.
    """
    step = -(-len(names) // labels)
    return {
        "tickvals": list(range(0, len(names), step)),
        "ticktext": [label(name, length) for name in names[::step]],
        "tickfont": {"size": 12},
        "ticklabeloverflow": "allow",  # else each is measured anew whenever the figure is drawn
        "showgrid": False,
        **more,
    }


def label(name: str, length: int = LABEL_LENGTH) -> str:
    """A layer name as Plotly shows it: escaped, and only its end where it is long."""
    return escape(name if len(name) <= length else "…" + name[1 - length :])


def number(value: float) -> str:
    """A value for people: three digits, with a power of ten where it is far from one."""
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    if not math.isfinite(value):
        return str(value).replace("inf", "∞").replace("nan", "unknown")
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa} × 10{str(int(exponent)).translate(_RAISED)}"


_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
