"""Several plans layer by layer: where their bits differ."""

from collections.abc import Mapping, Sequence
from html import escape

import plotly.graph_objects as go

from engine.analysis import Analysis
from engine.results import BitPlan
from hawq_viz.figures.costs import cost_of, unit
from hawq_viz.figures.theme import INK, PAPER, bits_colour, layer_axis, number, themed

PALE = 0.28  # what is the same in the shown plan
ROW = 30  # height
FLOAT = 0  # in place of bits
BRIGHT = 5  # bits from which on a colour is bright
SCALE = [[i / 8, bits_colour(max(i, 1))] for i in range(9)]


def comparison(analysis: Analysis, plans: Mapping[str, BitPlan]) -> go.Figure:
    """Bits of each layer in several plans, a row each; pale where they are those of the first.

    Where a plan rounds activations, a second panel has the bits of what each layer reads.

    Args:
        analysis: Of their network.
        plans: By what they are called.
    """
    sides = ["weights"]
    if any(plan.activation_bits for plan in plans.values()):
        sides.append("inputs")
    names = list(plans)
    whole = ROW * len(names) * len(sides) + 26 * len(sides)
    below = 128
    figure = themed(
        whole + below,
        margin={"l": 74, "r": 8, "t": 4, "b": below},
        showlegend=False,
        xaxis=layer_axis(
            analysis.names,
            length=18,
            range=[-0.5, len(analysis.layers) - 0.5],
            tickangle=-90,
            tickfont={"size": 11},
            ticks="",
            anchor="y" if len(sides) == 1 else "y2",
        ),
    )
    for i, side in enumerate(sides):
        share = 26 / whole
        top = 1 - i * (0.5 if len(sides) == 2 else 1)
        bottom = top - 1 / len(sides)
        axis = "yaxis" if i == 0 else "yaxis2"
        figure.update_layout(
            {
                axis: {
                    "domain": [bottom, top - share],
                    "tickvals": list(range(len(names))),
                    "ticktext": [f"<b>{name}</b>" if len(name) == 1 else name for name in names],
                    "range": [len(names) - 0.5, -0.5],
                    "showgrid": False,
                    "zeroline": False,
                    "ticks": "",
                    "color": INK,
                }
            }
        )
        _add_side(figure, analysis, plans, side, "y" if i == 0 else "y2")
        figure.add_annotation(
            text=f"<b>{side}</b>",
            x=0,
            xref="paper",
            xanchor="left",
            y=top,
            yref="paper",
            yanchor="top",
            showarrow=False,
        )
    return figure


def _add_side(
    figure: go.Figure, analysis: Analysis, plans: Mapping[str, BitPlan], side: str, axis: str
) -> None:
    """A map for each look of cells."""
    table = [
        [_bits(analysis, plan, side, name) for name in analysis.names] for plan in plans.values()
    ]
    looks = {"same": (PALE, INK), "dark": (1.0, "#ffffff"), "bright": (1.0, "#000000")}
    for look, (opacity, ink) in looks.items():
        cells = [
            [bits if _look(row, bits, table[0][i]) == look else None for i, bits in enumerate(own)]
            for row, own in enumerate(table)
        ]
        figure.add_heatmap(
            z=cells,
            yaxis=axis,
            zmin=0,
            zmax=8,
            colorscale=SCALE,
            showscale=False,
            opacity=opacity,
            xgap=1,
            ygap=2,
            text=[["" if bits is None else str(bits or "·") for bits in own] for own in cells],
            texttemplate="%{text}",
            textfont={"size": 11, "color": ink},
            hoverinfo="text",
            hovertext=_texts(analysis, plans, side, table),
            hoverongaps=False,
        )


def _look(row: int, bits: int, first: int) -> str:
    """Whether a cell is pale, or else how bright it is, so that its number can be read."""
    if row > 0 and bits == first:
        return "same"
    return "bright" if bits >= BRIGHT else "dark"


def _bits(analysis: Analysis, plan: BitPlan, side: str, name: str) -> int:
    """Bits of a layer's weights or of what it reads."""
    if side == "weights":
        return plan.weight_bits.get(name, FLOAT)
    read = next((x.name for x in analysis.activations if name in x.readers), "")
    return plan.activation_bits.get(read, FLOAT)


def _texts(
    analysis: Analysis, plans: Mapping[str, BitPlan], side: str, table: Sequence[Sequence[int]]
) -> list[list[str]]:
    what = "" if side == "weights" else "input of "
    return [
        [
            f"<b>{what}{escape(name)}</b><br>{who}: {bits or 'float'}"
            f"<br>{next(iter(plans))}: {table[0][i] or 'float'}"
            for i, (name, bits) in enumerate(zip(analysis.names, own, strict=True))
        ]
        for who, own in zip(plans, table, strict=True)
    ]


def pin_marks(plans: Mapping[str, BitPlan], *, cost: str, largest: float) -> list[go.Scatter]:
    """Pinned plans where they lie over a frontier, each with its letter.

    Args:
        plans: By their letters; those that know the cost are drawn.
        cost: Of the frontier.
        largest: The most that is drawn of it.
    """
    scale = unit(cost, largest)
    known = {name: x for name, x in plans.items() if cost == "size" or cost in x.costs}
    if not known:
        return []
    places = [cost_of(plan, cost) for plan in known.values()]
    return [
        go.Scatter(
            x=[place / scale.divisor for place in places],
            y=[plan.omega for plan in known.values()],
            customdata=places,
            mode="markers+text",
            name="pinned plans",
            text=[f"<b>{name}</b>" for name in known],
            textfont={"size": 12, "color": INK},
            marker={
                "size": 19,
                "symbol": "square",
                "color": PAPER,
                "line": {"color": INK, "width": 2},
            },
            hovertext=[f"<b>{name}</b>: Ω {number(x.omega)}" for name, x in known.items()],
            hoverinfo="text",
        )
    ]
