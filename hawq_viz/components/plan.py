"""A plan in a row of numbers, and the way in for one that was saved elsewhere."""

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from engine.analysis import Analysis
from engine.results import BitPlan
from hawq_viz import state
from hawq_viz.components.certainty import HOW_CERTAIN
from hawq_viz.components.chart import chart
from hawq_viz.components.layers import layers_panel
from hawq_viz.components.pins import pin_button
from hawq_viz.figures import bits
from hawq_viz.view import encode
from hawq_viz.viewmodels import certainty, costs, limits, plans
from hawq_viz.viewmodels.plans import Summary, opened_plan
from hawq_viz.viewmodels.studies import SHORT, Study

SCROLLED, HEIGHT = 26, 500  # layers from which on their bits scroll, in so many pixels


def metrics(summary: Summary, study: Study) -> None:
    """All costs of the plan, Ω, predicted loss increase, and the uniform plan to beat.

    Args:
        summary: Of the plan.
        study: Of the analysis it was made from.
    """
    further = summary.further
    omega_is, rise_is = certainty.sources(study, summary.plan)
    columns = iter(st.columns(4 + max(1, len(further))))
    smaller = f"{summary.compression} smaller than float32: {summary.average_bits}."
    next(columns).metric(
        SHORT["size"] if further else "Size of the weights", summary.size, help=smaller
    )
    for name, (text, explained) in further.items():
        next(columns).metric(name, text, help=explained)
    if not further:
        compressed = next(columns)
        compressed.metric("Smaller than float32", summary.compression, help=summary.average_bits)
    next(columns).metric("Ω", summary.omega, help=omega_is)
    rise = "½Ω" if further else "Predicted loss rise, ½Ω"
    next(columns).metric(rise, f"+{summary.loss_increase}", help=rise_is)
    next(columns).metric(
        f"Ω of {summary.rival_text}" if further else f"{summary.rival_name}, {summary.rival_size}",
        summary.ratio if further else f"{summary.ratio} the Ω",
        help=f"The cheapest uniform plan that is not cheaper ({summary.rival_size}). Above 1× "
        "this plan is the better of the two.",
    )


def plan_buttons(analysis: Analysis, plan: BitPlan) -> None:
    """What can be done with the shown plan."""
    with st.container(horizontal=True, vertical_alignment="center", gap="xxsmall"):
        if st.button("Quantize this plan", icon=":material/compress:", type="primary"):
            st.switch_page("../pages/quantize.py", query_params=encode(state.current()))
        st.download_button(
            "Download",
            plans.plan_file(plan),
            "plan.json",
            "application/json",
            key="icon_download",
            icon=":material/download:",
            on_click="ignore",
            help="Download this plan as plan.json",
        )
        pin_button(plan)
        open_plan(analysis)
        st.button(
            "Undo",
            icon=":material/undo:",
            key="undo",
            on_click=state.undo,
            disabled=not state.can_undo(),
            help="Undo: back to the plan picked before, and what was held then",
        )
        st.button(
            "Clear",
            icon=":material/close:",
            key="clear",
            on_click=state.clear,
            disabled=state.is_clear(),
            help="Clear: back to the plan this page suggests",
        )


def plan_panel(study: Study, plan: BitPlan) -> DeltaGenerator | None:
    """The plan layer by layer: its bits, the table in which layers are held, or how certain.

    Returns:
        The place of the last, if that is open: to be filled when the page is done with all else,
        for it takes a while.
    """
    if state.current().band:
        st.session_state.setdefault("plan_tabs", HOW_CERTAIN)
    tabs = ["Bits", "Lock, tie, change", HOW_CERTAIN]
    drawn, held, sure = st.tabs(tabs, key="plan_tabs", on_change="rerun")
    if sure.open:
        return sure
    if held.open:
        with held:
            layers_panel(study, plan)
        return None
    tall = len(study.analysis.layers) > SCROLLED
    with drawn, st.container(height=HEIGHT if tall else "content", border=False):
        chart(
            bits.plan_bits_again(study.analysis, plan),
            key="plan_bits",
            alt=plans.plan_alt(plan),
            how_to_read=costs.how_to_read_bits(plan),
            table=lambda: plans.plan_table(study.analysis, plan),
        )
    return None


def open_plan(analysis: Analysis) -> None:
    """A button that takes a plan.json, from a notebook or the command line."""
    with st.popover(
        "Open", icon=":material/upload_file:", help="Open a plan.json", key="icon_open"
    ):
        file = st.file_uploader(
            "A plan that was saved by a notebook, the command line or this page",
            type="json",
            key="opened",
        )
        if file is None or st.session_state.get("_opened") == file.file_id:
            return
        try:
            plan = opened_plan(file.name, file.getvalue(), analysis)
        except ValueError as error:
            st.error(str(error))
            return
    st.session_state["_opened"] = file.file_id
    budget = {"size": plan.size_bytes} if state.current().axis == "size" else {}
    state.change(
        **budget,
        bits=limits.digits(plan.weight_bits),
        abits=limits.digits(plan.activation_bits),
    )
    st.rerun()
