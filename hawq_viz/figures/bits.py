"""One plan layer by layer: the bits of its weights, and of what its layers read."""

from collections.abc import Sequence
from functools import lru_cache
from html import escape
from typing import Any

import plotly.graph_objects as go

from engine.analysis import Analysis
from engine.results import BitPlan
from hawq_viz.figures.costs import cost_text
from hawq_viz.figures.ground import Ground, Overlaid
from hawq_viz.figures.theme import INK, bits_colour, label, layer_axis, number, themed

Bar = tuple[int | None, float, str]  # bits, none for float; opacity; hover text


def plan_bits(analysis: Analysis, plan: BitPlan) -> go.Figure:
    """Bits of each layer, forward order from the top; the number is printed beside its colour.

    Where the plan rounds activations, a second panel has the bits of what each layer reads; an
    activation that an earlier layer reads too is pale.
    """
    return _bits_frame(analysis, bool(plan.activation_bits)).add_traces(_bars(analysis, plan))


def plan_bits_again(analysis: Analysis, plan: BitPlan) -> Overlaid:
    """The same in half the time, where another plan of the analysis is drawn already."""
    return _bits_ground(analysis, bool(plan.activation_bits)).under(_bars(analysis, plan))


@lru_cache(maxsize=16)
def _bits_ground(analysis: Analysis, both: bool) -> Ground:
    return Ground.of(_bits_frame(analysis, both))


def _bits_frame(analysis: Analysis, both: bool) -> go.Figure:
    """All but the bars: what is the same for every plan."""
    layers = analysis.layers
    panel: dict[str, Any] = {"range": [0, 9.4 if both else 8.5], "visible": False}
    figure = themed(
        max(400, 19 * len(layers) + 8 + 20 * both),
        margin={
            "l": 14 + 6 * max(len(label(name)) for name in analysis.names),
            "r": 4,
            "t": 24 if both else 4,
            "b": 4,
        },
        xaxis={**panel, "domain": [0, 0.49 if both else 1]},
        **({"xaxis2": {**panel, "domain": [0.51, 1]}} if both else {}),
        yaxis=layer_axis(
            analysis.names, range=[len(layers) - 0.5, -0.5], ticks="", ticklabelstandoff=4
        ),
        bargap=0.16,
        showlegend=False,
    )
    if both:
        for axis, title in (("x", "weights"), ("x2", "inputs")):
            figure.add_annotation(
                text=f"<b>{title}</b>",
                x=0,
                xref=f"{axis} domain",
                xanchor="left",
                y=1,
                yref="paper",
                yanchor="bottom",
                showarrow=False,
            )
    return figure


def _bars(analysis: Analysis, plan: BitPlan) -> list[dict[str, Any]]:
    """One bar a layer for its weights, and one for what it reads where that is rounded."""
    found = [_side("x", [_weight_bar(analysis, plan, i) for i in range(len(analysis.layers))])]
    if plan.activation_bits:
        found.append(_side("x2", [_input_bar(analysis, plan, name) for name in analysis.names]))
    return found


def _side(axis: str, bars: Sequence[Bar]) -> dict[str, Any]:
    """A trace as a mapping: to check it as `go.Bar` takes longer than to make it."""
    return {
        "type": "bar",
        "x": [bits or 0 for bits, _, _ in bars],
        "y": list(range(len(bars))),
        "xaxis": axis,
        "orientation": "h",
        "marker": {
            "color": [bits_colour(bits or 1) for bits, _, _ in bars],
            "opacity": [opacity for _, opacity, _ in bars],
            "line": {"color": INK, "width": 0.8},
        },
        "text": [str(bits or "float") for bits, _, _ in bars],
        "textposition": "outside",
        "textfont": {"size": 13, "color": INK},
        "cliponaxis": False,
        "hovertext": [about for _, _, about in bars],
        "hoverinfo": "text",
    }


def _weight_bar(analysis: Analysis, plan: BitPlan, place: int) -> Bar:
    layer = analysis.layers[place]
    named = f"<b>{escape(layer.name)}</b>"
    bits = plan.weight_bits.get(layer.name)
    if bits is None:
        return None, 1.0, f"{named}: its weights stay float"
    return (
        bits,
        1.0,
        f"{named}: {bits} bits<br>{escape(layer.kind)} "
        f"{'×'.join(map(str, layer.shape))}, {layer.parameters:,} weights<br>"
        f"{layer.parameters * bits / 8 / plan.size_bytes:.1%} of the plan's size<br>"
        + _share(layer.omega[bits], plan),
    )


def _input_bar(analysis: Analysis, plan: BitPlan, name: str) -> Bar:
    found = next((x for x in analysis.activations if name in x.readers), None)
    if found is None or found.name not in plan.activation_bits:
        return None, 1.0, f"<b>input of {escape(name)}</b> stays float"
    bits = plan.activation_bits[found.name]
    own = found.name == name
    shared = "" if own else f"<br>rounded once, as the input of {escape(found.name)}"
    image = ", the network's input" if found.image else ""
    return (
        bits,
        1.0 if own else 0.4,
        f"<b>input of {escape(name)}</b>: {bits} bits{image}{shared}<br>"
        f"{'×'.join(map(str, found.shape))}, {cost_text('size', found.elements * bits / 8)} "
        f"an image<br>" + _share(found.omega[bits], plan),
    )


def _share(omega: float, plan: BitPlan) -> str:
    return f"Ω {number(omega)}, {omega / plan.omega if plan.omega else 0:.1%} of the plan's"
