"""The dashboard's entry: `streamlit run hawq_viz/app.py`."""

import gc
from pathlib import Path

import pandas  # noqa: F401 — with plotly here: an import that begins under a click is not safe
import plotly.graph_objects  # noqa: F401
import streamlit as st

from hawq_viz import state
from hawq_viz.components.chart import serve_plotly
from hawq_viz.components.page import in_words
from hawq_viz.components.sidebar import sidebar

ICON = str(Path(__file__).parent / "static" / "icon.png")  # an emoji would be fetched from outside

# Streamlit keeps a bar free above every page; a projector has no room for it. What stands under
# it can be clicked. No colour is bright enough to be read on a dark page and dark enough to have
# white letters: buttons that stand out keep the blue of the light page. The box of a formula is two
# pixels too small for it, and would scroll for the mouse alone. A link shows that it has the focus,
# as buttons do. A button that is seen as an icon alone has a name for those who hear it.
STYLE = """<style>
[data-testid="stMainBlockContainer"] { padding: 1.4rem 2.5rem 2rem; }
[data-testid="stVerticalBlock"] { gap: 0.75rem; }
[data-testid="stHeader"] { background: transparent; }
[data-testid="stHeader"], [data-testid="stToolbar"] { pointer-events: none; }
[data-testid="stHeader"] button { pointer-events: auto; }
[data-testid="stMetricValue"] { font-size: 1.55rem; }
[data-testid="stCaptionContainer"] { color: inherit; opacity: 0.8; }
[data-testid="stWidgetLabel"], [data-testid="stWidgetLabel"] * { color: inherit; }
.katex-display { overflow: visible !important; }
[data-testid^="stBaseButton-primary"] { background: #0072b2; border-color: #0072b2; }
[data-testid^="stBaseButton-primary"]:hover { background: #005b8e; border-color: #005b8e; }
[data-testid="stMain"] a:focus-visible, [data-testid="stSidebarNavLink"]:focus-visible {
  outline: 2px solid #0072b2; outline-offset: -2px; }
:is([class*="st-key-icon_"], .st-key-pin, .st-key-undo, .st-key-clear, .st-key-whole)
  button [data-testid="stMarkdownContainer"] {
  position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
</style>"""


@st.cache_resource(show_spinner=False)
def set_apart() -> None:
    """Leave what has been imported out of later collections of garbage.

    Streamlit collects after every run of a script, and what the run has drawn waits for it: 60 ms
    with all that is imported, 1 ms without.
    """
    gc.collect()
    gc.freeze()


st.set_page_config("hawq-viz", ICON, layout="wide", initial_sidebar_state=250)
st.html(STYLE)
serve_plotly()
state.restore()
page = st.navigation(
    [
        st.Page("../pages/home.py", title="Home", icon=":material/home:", default=True),
        st.Page("../pages/sensitivity.py", title="Sensitivity", icon=":material/bar_chart:"),
        st.Page("../pages/frontier.py", title="Frontier", icon=":material/timeline:"),
        st.Page("../pages/quantize.py", title="Quantize", icon=":material/compress:"),
        st.Page("../pages/runs.py", title="Runs", icon=":material/list:"),
        st.Page("../pages/export.py", title="Export", icon=":material/inventory_2:"),
    ]
)
sidebar()
with in_words():
    page.run()
set_apart()  # after the first page, for it imports most
