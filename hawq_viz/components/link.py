"""A button that copies the address of the page, which holds everything chosen."""

from pathlib import Path

import streamlit as st

HERE = Path(__file__).parent
HTML = """
<div class="link">
  <button title="The address of this page holds all you chose: it opens the same view elsewhere">
    Copy link
  </button>
  <input hidden readonly aria-label="Address of this view">
  <div role="status"></div>
</div>"""

_mount = st.components.v2.component(
    "hawq_viz_link",
    html=HTML,
    css=(HERE / "link.css").read_text(),
    js=(HERE / "link.js").read_text(),
    isolate_styles=False,
)


def copy_link() -> None:
    """Show the button."""
    _mount(key="copy_link")
