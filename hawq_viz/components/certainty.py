"""How certain the shown plan is, and the way to more images."""

import time
from contextlib import suppress
from typing import Any

import plotly.graph_objects as go
import streamlit as st

from engine.analysis import Analysis
from engine.results import BitPlan
from hawq_viz import networks, state
from hawq_viz.components.analyze import analyze_run
from hawq_viz.components.chart import chart
from hawq_viz.components.runs import REFUSED
from hawq_viz.figures.certainty import add_band, votes
from hawq_viz.viewmodels import certainty, further
from hawq_viz.viewmodels.studies import Study

HOW_CERTAIN = "How certain"  # the panel's tab


def with_band(
    figure: go.Figure, study: Study, part: tuple[float, float] | None = None
) -> go.Figure:
    """The frontier's figure with the band behind it, if that can be known."""
    with suppress(ValueError):  # the panel says why
        band = certainty.band_of(study, part)
        dearest = float(study.frontier.cost[-1])
        add_band(figure, study.cost, band.cost, band.low, band.high, dearest=dearest)
    return figure


def certainty_panel(study: Study, plan: BitPlan) -> None:
    """A switch; and once it is on, which layers of the plan are certain and how that was found."""
    view = state.current()
    st.session_state["band"] = bool(view.band)
    st.toggle(
        "Show how certain this is",
        key="band",
        on_change=lambda: state.change(band="on" if st.session_state["band"] else ""),
    )
    if not view.band:
        st.caption(certainty.WHAT)
        return
    asked = view.budgets if state.several(study.analysis) else {}
    budgets = certainty.budgets_of(study, plan, asked)
    try:
        found = _found(study, budgets)
    except ValueError as error:
        st.info(str(error))
        return
    st.markdown(certainty.verdict(found))
    further_button(study.analysis, "further")
    analyze_run()
    if says := certainty.differs(study, plan, found):
        st.caption(says)
    st.caption(certainty.interval_text(study, plan))
    chart(
        votes(found),
        key="votes",
        alt=certainty.votes_alt(found),
        how_to_read=certainty.READ_VOTES,
        table=certainty.votes_table(found),
    )
    st.caption(certainty.source(study, found))


def further_button(analysis: Analysis, key: str) -> None:
    """Start an analysis that goes on from this one, or say why there is nothing to go on with.

    Args:
        analysis: The one that is looked at.
        key: Unique on the page.
    """
    view = state.current()
    offer = further.offer(analysis, state.analysis_run(view), own=networks.is_own(view.workload))
    st.button(
        offer.label,
        icon=":material/more_time:",
        help=offer.help,
        disabled=not offer.options,
        key=key,
        width="stretch",
        on_click=_further,
        args=(offer.options,),
    )


def _further(options: dict[str, Any]) -> None:
    try:
        run_id = networks.launch("analyze", state.current().workload, options)
    except ValueError as error:
        st.session_state[REFUSED] = str(error)
    else:
        state.change(run=run_id)


def _found(study: Study, budgets: dict[str, float]) -> certainty.Certainty:
    if not certainty.is_long(budgets):
        with st.spinner(certainty.WAIT):
            return certainty.certainty_of(study, budgets)
    place, started = st.empty(), time.monotonic()  # any click on the page stops it
    found = certainty.certainty_of(
        study,
        budgets,
        lambda done, total, _: place.progress(
            done / total, certainty.waiting(done, total, time.monotonic() - started)
        ),
    )
    place.empty()
    return found
