"""A figure without Plotly's script: seen while a browser reads that, which takes it a second."""

import math
from collections.abc import Iterator, Sequence
from html import escape

import plotly.graph_objects as go

FINE = 10_000  # steps along an edge of the plane of the lines
SHAPES = {  # by the symbol of a marker; {} is half its size in pixels
    "square": '<rect x="{x}%" y="{y}%" width="{size}" height="{size}" '
    'transform="translate(-{half} -{half})" {look}/>',
    "circle": '<circle cx="{x}%" cy="{y}%" r="{half}" {look}/>',
}


def sketch(figure: go.Figure) -> str:
    """The figure as HTML that fills its place in a page, whatever the width.

    Args:
        figure: Of scatter traces only: step lines, markers, and texts to the upper right of them;
            with a range for both axes, the second logarithmic; the legend in the upper right.
    """
    layout = figure.layout
    ends = tuple(layout.xaxis.range), tuple(layout.yaxis.range)
    sides = {name: layout.margin[name[0]] for name in ("left", "right", "top", "bottom")}
    inset = ";".join(f"{name}:{pixels}px" for name, pixels in sides.items())
    parts = [
        *_across(layout, ends[1]),
        *_along(layout, ends[0]),
        *(part for trace in figure.data for part in _trace(trace, *ends)),
    ]
    return (
        f'<div aria-hidden="true" style="position:absolute;{inset};color:{layout.font.color};'
        f'font-size:{layout.font.size}px">'
        '<svg width="100%" height="100%" style="overflow:visible" fill="currentColor">'
        f"{''.join(parts)}</svg>{_legend(figure)}</div>"
    )


def _across(layout: go.Layout, ends: tuple[float, float]) -> Iterator[str]:
    """Grid lines at powers of ten, where these are few at twice and five times those; the title."""
    digits = (1,) if layout.yaxis.dtick else (1, 2, 5)
    for power in range(math.floor(ends[0]), math.ceil(ends[1])):
        for digit in digits:
            at = power + math.log10(digit)
            if not ends[0] <= at <= ends[1]:
                continue
            y = _place(at, (ends[1], ends[0]))
            told = _power_of_ten(power) if digit == 1 else digit
            yield f'<line x2="100%" y1="{y}%" y2="{y}%" stroke="{layout.yaxis.gridcolor}"/>'
            yield f'<text x="-8" y="{y}%" dy="0.35em" text-anchor="end">{told}</text>'
    title = escape(layout.yaxis.title.text)
    # Turned about its own place, halfway down the axis.
    yield (
        f'<svg y="50%" x="{14 - layout.margin.l}" overflow="visible">'
        f'<text transform="rotate(-90)" text-anchor="middle">{title}</text></svg>'
    )


def _power_of_ten(power: int) -> str:
    if power in (0, 1):
        return str(10**power)
    return f'10<tspan dy="-0.5em" font-size="70%">{str(power).replace("-", "−")}</tspan>'


def _along(layout: go.Layout, ends: tuple[float, float]) -> Iterator[str]:
    """Grid lines at round values, and the title of the axis."""
    step = _round_step(ends[1] - ends[0])
    for i in range(math.ceil(ends[0] / step), math.floor(ends[1] / step) + 1):
        x = _place(i * step, ends)
        yield f'<line x1="{x}%" x2="{x}%" y2="100%" stroke="{layout.xaxis.gridcolor}"/>'
        yield f'<text x="{x}%" y="100%" dy="1.35em" text-anchor="middle">{i * step:.10g}</text>'
    title = escape(layout.xaxis.title.text)
    yield f'<text x="50%" y="100%" dy="2.75em" text-anchor="middle">{title}</text>'


def _round_step(extent: float) -> float:
    """1, 2 or 5 times a power of ten: between 4 and 10 of it in an extent."""
    power = 10.0 ** math.floor(math.log10(extent / 4))
    return max(power * digit for digit in (1, 2, 5) if power * digit <= extent / 4)


def _trace(trace: go.Scatter, along: Sequence[float], across: Sequence[float]) -> Iterator[str]:
    """The line of a trace, or its markers with their texts."""
    places = [
        (_place(x, along), _place(math.log10(y), (across[1], across[0])))
        for x, y in zip(trace.x, trace.y, strict=True)
        if y > 0
    ]
    if not places:
        return
    if "lines" in trace.mode:
        yield _line(trace, places)
    if "markers" not in trace.mode or "lines" in trace.mode:
        return
    texts = trace.text or [""] * len(places)
    for (x, y), text in zip(places, texts, strict=True):
        yield _marker(trace, x, y)
        if text:
            beside = trace.marker.size / 2 + 2
            yield (
                f'<text x="{x}%" y="{y}%" dx="{beside}" dy="-{beside + 3}" '
                f'font-size="{trace.textfont.size}">{escape(text)}</text>'
            )


def _marker(trace: go.Scatter, x: float, y: float) -> str:
    size, edge = trace.marker.size, trace.marker.line
    look = f'fill="{trace.marker.color}" stroke="{edge.color}" stroke-width="{edge.width}"'
    return SHAPES[trace.marker.symbol].format(x=x, y=y, size=size, half=size / 2, look=look)


def _line(trace: go.Scatter, places: Sequence[tuple[float, float]]) -> str:
    """A step line in a plane of its own, which is stretched, as the line's width is not."""
    first, *rest = ((x * FINE / 100, y * FINE / 100) for x, y in places)
    path = f"M{first[0]:.0f} {first[1]:.0f}" + "".join(f"H{x:.0f}V{y:.0f}" for x, y in rest)
    return (
        f'<svg width="100%" height="100%" viewBox="0 0 {FINE} {FINE}" preserveAspectRatio="none">'
        f'<path d="{path}" fill="none" stroke="{trace.line.color}" '
        f'stroke-width="{trace.line.width}" vector-effect="non-scaling-stroke"/></svg>'
    )


def _legend(figure: go.Figure) -> str:
    """The name of each trace, after a piece of its line or its marker."""
    rows = []
    for trace in figure.data:
        line = f'stroke="{trace.line.color}" stroke-width="{trace.line.width}"'
        sample = (
            f'<line x2="100%" y1="50%" y2="50%" {line}/>'
            if "lines" in trace.mode
            else _marker(trace, 50, 50)
        )
        rows.append(
            f'<div style="display:flex;gap:5px"><svg width="30" height="19">{sample}</svg>'
            f"{escape(trace.name)}</div>"
        )
    look = f"position:absolute;right:6px;top:5px;font-size:{figure.layout.legend.font.size}px"
    return f'<div style="{look};line-height:19px">{"".join(rows)}</div>'


def _place(value: float, ends: Sequence[float]) -> float:
    """Percent of the way from the first end to the last."""
    return 100 * (value - ends[0]) / (ends[1] - ends[0])
