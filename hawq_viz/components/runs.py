"""A run as a page shows it: how far it is, or why it failed and what to do next."""

from collections.abc import Callable

import streamlit as st

from engine import jobs
from hawq_viz import viewmodels

SECONDS_A_TICK = 1.0


def watch(run_id: str, show: Callable[[jobs.RunView], None], *, again: str) -> None:
    """Show a run and keep it fresh while it lives; the rest of the page stays still.

    Args:
        run_id: A run that exists.
        show: Draws what it has found so far; called at every tick, and once at the end.
        again: What to do after a failure.
    """
    live = jobs.view(run_id).state not in jobs.FINAL

    def panel() -> None:
        run = jobs.view(run_id)
        if run.state not in jobs.FINAL:
            st.progress(viewmodels.share_done(run), text=viewmodels.progress_text(run))
        elif live:
            st.rerun()  # once: the rest of the page learns of it, and the clock stops
        elif run.state != "finished":
            failure(run, again)
        show(run)

    if live:
        st.fragment(panel, run_every=SECONDS_A_TICK)()
    else:  # no fragment: what is pressed in it concerns the whole page
        panel()


def failure(run: jobs.RunView, again: str) -> None:
    """The sentence, the next step, and the end of the log."""
    st.error(f"{run.error}  \n**Next:** {again}")
    with st.expander("The end of its log"):
        st.code(run.log_tail or "The log is empty.", language=None)
