"""The one way charts get on a page: Plotly from our own server, in the page's own colours."""

import gzip
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import plotly
import plotly.graph_objects as go
import streamlit as st

from hawq_viz import state
from hawq_viz.figures.ground import Overlaid
from hawq_viz.figures.theme import BLUE, GRID, INK, PAPER

HERE = Path(__file__).parent
BUNDLED = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
SERVED = HERE.parent / "static" / f"plotly-{plotly.__version__}.js.gz"
STAND_INS = {
    INK: "--st-text-color",
    PAPER: "--st-background-color",
    GRID: "--st-border-color",
    BLUE: "--st-primary-color",  # the same on white, lighter on black
}

# Buttons of Plotly's mode bar are inside the chart, so it is no image but a figure.
HTML = """
<div class="chart" role="figure" tabindex="0"></div>
<div class="takes">
  <button name="png" disabled title="Download this chart as an image">↓ PNG</button>
  <button name="json" disabled title="Download this chart as Plotly JSON">↓ JSON</button>
</div>"""

_mount = st.components.v2.component(
    "hawq_viz_chart",
    html=HTML,
    css=(HERE / "chart.css").read_text(),
    js=(HERE / "chart.js").read_text(),
    isolate_styles=False,
)


@st.cache_resource(show_spinner=False)
def serve_plotly() -> None:
    """Put Plotly's script from its package to where the server serves files: no network needed.

    Packed: the server would pack it anew at every visit, which takes it a quarter of a second.
    """
    if not SERVED.exists():
        part = SERVED.with_suffix(".part")
        SERVED.parent.mkdir(exist_ok=True)
        part.write_bytes(gzip.compress(BUNDLED.read_bytes(), 6))
        part.replace(SERVED)


def chart(
    figure: go.Figure | Overlaid,
    *,
    key: str,
    alt: str,
    how_to_read: str,
    table: pd.DataFrame | Callable[[], pd.DataFrame],
    table_open: bool = False,
    on_pick: Callable[[], None] | None = None,
    on_zoom: Callable[[], None] | None = None,
    group: str = "",
    until_drawn: str = "",
) -> None:
    """Show a figure with a line on how to read it, its numbers as a table, and both to take away.

    Args:
        figure: Redrawn in place when it changes; zoom stays if its `uirevision` does. Where no more
            than values of traces over a ground change, these are drawn in half the time.
        key: Unique on the page; a click is in `st.session_state[key].pick` for `on_pick`.
        alt: What the chart shows, for those who cannot see it.
        how_to_read: One line under the chart.
        table: The numbers behind it; a function that takes a while to find them is only called once
            they are looked at.
        table_open: Whether they are shown from the start.
        on_pick: Called on a click on a point with `customdata`. Needs a twin on the keyboard.
        on_zoom: Called when another part of the x axis is chosen: its ends are in
            `st.session_state[key].zoom`, nothing for all of it. Needs a twin on the keyboard too.
        group: Charts of one group on a page share what is hovered; they have the same x.
        until_drawn: HTML of the same size, seen while the browser reads Plotly's script.
    """
    serve_plotly()
    parts = figure if isinstance(figure, Overlaid) else Overlaid(figure.to_json(), "[]")
    _mount(
        key=key,
        data={
            "figure": parts.ground,
            "over": parts.over,
            "source": f"app/static/{SERVED.name}",
            "stand_ins": STAND_INS,
            "name": _file_name(key),
            "alt": alt,
            "clickable": on_pick is not None,
            "zoomable": on_zoom is not None,
            "group": group,
            "until_drawn": until_drawn,
        },
        on_pick_change=on_pick or _nothing,
        on_zoom_change=on_zoom or _nothing,
    )
    st.caption(how_to_read)
    if table_open:
        numbers(table() if callable(table) else table)
        return
    if not callable(table):
        with st.expander("The numbers as a table"):
            numbers(table)
        return
    folded = st.expander("The numbers as a table", key=f"{key}_table", on_change="rerun")
    if folded.open:
        with folded:
            numbers(table())


def _file_name(key: str) -> str:
    """What a download of a chart is called, without its ending."""
    return re.sub(r"[^\w.-]+", "-", f"{state.current().workload}-{key}")


def numbers(table: pd.DataFrame) -> None:
    """Show a table; its numbers with four digits, however small."""
    columns = table.select_dtypes("floating").columns
    four_digits = st.column_config.NumberColumn(format="%.4g")
    st.dataframe(
        table,
        hide_index=True,
        width="stretch",
        column_config=dict.fromkeys(columns, four_digits),
    )


def clicked(key: str) -> float:
    """What was clicked in a chart, for its `on_pick`: the point's `customdata`."""
    return float(st.session_state[key].pick)


def zoomed(key: str) -> tuple[float, float] | None:
    """The part of the x axis that was chosen in a chart, for its `on_zoom`; none for all of it."""
    ends = st.session_state[key].zoom
    return (float(min(ends)), float(max(ends))) if ends else None


def _nothing() -> None:
    """Stand in for a callback: without one the component would have no `pick` and no `zoom`."""
