"""An HTML file that needs nothing else: charts, tables and words, readable offline and on paper.

Whatever is put in is text and gets escaped here, but for what this module's own functions returned.
The file forbids itself to load anything, and says so to the browser.
"""

import math
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any, NewType

import pandas as pd
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from hawq_viz.figures.theme import BLUE, GRID, INK, PAPER

HERE = Path(__file__).parent
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; base-uri 'none'; form-action 'none'"
)
STAND_INS = {INK: "--ink", PAPER: "--paper", GRID: "--line", BLUE: "--accent"}  # as in the style

Html = NewType("Html", str)  # what is escaped already


def document(title: str, parts: Iterable[Html]) -> str:
    """A whole file.

    Args:
        title: Of the browser's window, and the heading.
        parts: What stands under it.
    """
    stand_ins = "".join(f' data-{x.removeprefix("--")}="{y}"' for y, x in STAND_INS.items())
    return "\n".join(
        [
            "<!doctype html>",
            f'<html lang="en"{stand_ins}>',
            '<head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>{escape(title)}</title>",
            f"<style>{(HERE / 'document.css').read_text()}</style></head>",
            f"<body><main><h1>{escape(title)}</h1>",
            *parts,
            "</main>",
            f"<script>{get_plotlyjs()}</script>",
            f"<script>{(HERE / 'document.js').read_text()}</script>",
            "</body></html>\n",
        ]
    )


def section(title: str, *parts: Html) -> Html:
    """A part with a heading."""
    return Html("\n".join([f"<section><h2>{escape(title)}</h2>", *parts, "</section>"]))


def paragraph(*sentences: str) -> Html:
    """Sentences; empty ones are left out."""
    return Html(f"<p>{escape(' '.join(filter(None, sentences)))}</p>")


def chart(figure: go.Figure, alt: str, how_to_read: str = "") -> Html:
    """A figure that is drawn when the file is opened.

    Args:
        figure: In the common look.
        alt: What it shows, for those who cannot see it.
        how_to_read: A line under it.
    """
    data = str(figure.to_json()).replace("<", "\\u003c")  # so that no name can end the script
    under = f"<figcaption>{escape(how_to_read)}</figcaption>" if how_to_read else ""
    return Html(
        f'<figure><div class="chart" role="img" aria-label="{escape(alt)}" '
        f'style="height:{figure.layout.height:g}px"></div>'
        f'<script type="application/json">{data}</script>{under}</figure>'
    )


def table(frame: pd.DataFrame, caption: str) -> Html:
    """A table whose first column names its rows."""
    numeric = set(frame.select_dtypes("number").columns)
    heads = "".join(
        f'<th scope="col"{_kind(name in numeric)}>{escape(str(name))}</th>'
        for name in frame.columns
    )
    rows = []
    for first, *others in frame.itertuples(index=False):
        cells = "".join(_cell(value) for value in others)
        rows.append(f'<tr><th scope="row">{escape(_text(first))}</th>{cells}</tr>')
    return Html(
        f'<div class="wide"><table><caption>{escape(caption)}</caption>'
        f"<thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def facts(values: Mapping[str, object], caption: str) -> Html:
    """A table of names and what belongs to them."""
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(str(value))}</td></tr>'
        for name, value in values.items()
    )
    return Html(
        f'<table class="facts"><caption>{escape(caption)}</caption><tbody>{rows}</tbody></table>'
    )


def folded(title: str, *parts: Html) -> Html:
    """What is only seen when asked for."""
    inside = "\n".join(parts)
    return Html(f"<details><summary>{escape(title)}</summary>{inside}</details>")


def code(text: str) -> Html:
    """Lines as they are."""
    return Html(f"<pre><code>{escape(text)}</code></pre>")


def _cell(value: Any) -> str:
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    return f"<td{_kind(numeric)}>{escape(_text(value))}</td>"


def _kind(numeric: bool) -> str:
    return ' class="number"' if numeric else ""


def _text(value: Any) -> str:
    """A value for people: whole numbers with their thousands, others with four digits or none."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.4g}"
    return str(value)
