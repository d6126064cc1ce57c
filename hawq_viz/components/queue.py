"""The queue: every run at work or waiting, in the order of their turns."""

import streamlit as st

from engine import jobs
from hawq_viz.components.runs import SECONDS_A_TICK, next_button
from hawq_viz.viewmodels import runs


def queue(watched: str = "") -> None:
    """All runs at work and waiting with their places, each to be cancelled.

    Args:
        watched: Of the run that the page shows anyway: alone, it needs no queue.
    """
    waiting = runs.in_turn(jobs.list_runs())
    if {run.id for run in waiting} <= {watched}:
        return
    told = [(run.id, run.state, run.place, run.cancelling) for run in waiting]

    def panel() -> None:
        try:
            seen = runs.in_turn([jobs.view(run.id) for run in waiting])
        except ValueError:  # deleted from another tab
            st.rerun()
        if [(run.id, run.state, run.place, run.cancelling) for run in seen] != told:
            st.rerun()
        for run in seen:
            name, far, cancel = st.columns([5, 4, 1.8], vertical_alignment="center")
            name.markdown(runs.plain(runs.any_name(run)))
            if run.state == "running":
                far.progress(runs.share_done(run), text=runs.progress_text(run))
            else:
                far.markdown(runs.progress_text(run))
            with cancel:
                next_button(run, primary=False, key="queue")

    with st.expander(runs.queue_text(waiting), icon=":material/hourglass_top:"):
        st.fragment(panel, run_every=SECONDS_A_TICK)()
