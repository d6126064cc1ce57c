"""What to know of a network, folded away."""

import streamlit as st

from engine.analysis import Analysis
from engine.jobs import RunView
from hawq_viz.viewmodels import checklist


def checklist_of(run: RunView | None, analysis: Analysis | None = None) -> None:
    """Show what was found of the network of an analysis, where that was looked at."""
    told = checklist.findings(run, analysis)
    if told is None:
        return
    with st.expander(checklist.title(told), icon=":material/checklist:"):
        for paragraph in told:
            st.markdown(paragraph)
        if not told:
            st.markdown("Nothing stands in the way of an analysis, and nothing is unusual.")
