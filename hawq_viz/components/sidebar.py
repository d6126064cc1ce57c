"""The sidebar: which network, which analysis of it."""

import streamlit as st

from hawq_viz import state
from hawq_viz.components.link import copy_link
from hawq_viz.viewmodels import analyses

COMES, NEWEST, NONE = "comes with the network", "the newest you made", "none yet"


def sidebar() -> None:
    """Choose the network and the analysis that all pages show."""
    view = state.current()
    names = state.networks_listed()
    st.session_state["workload"] = view.workload if view.workload in names else None
    with st.sidebar:
        st.selectbox(
            "Network",
            names,
            key="workload",
            on_change=lambda: state.change(workload=st.session_state["workload"]),
            help="A trained network with its data, loss and metric.",
        )
        found = {
            run.id: run for run in state.list_runs() if analyses.is_analysis(run, view.workload)
        }
        st.session_state["analysis"] = view.analysis if view.analysis in found else ""
        comes = COMES
        if view.workload in names and not state.comes_analyzed():
            comes = NEWEST if found else NONE
        st.selectbox(
            "Analysis",
            ["", *found],
            key="analysis",
            format_func=lambda run: analyses.analysis_name(found[run]) if run else comes,
            on_change=lambda: state.change(analysis=st.session_state["analysis"]),
            help="The one that comes with the network, or one you made on the Sensitivity page.",
        )
        copy_link()
