"""A cost against Ω: pick a plan, see its bits."""

import streamlit as st

from hawq_viz import state
from hawq_viz.components.chart import chart, clicked
from hawq_viz.components.costs import (
    budgets_form,
    choose_cost,
    plan_says,
    require_table,
    shown_plan,
)
from hawq_viz.components.plan import metrics, open_plan
from hawq_viz.figures import frontier
from hawq_viz.viewmodels import activations, costs, plans, studies

analysis = state.require_analysis()
choose_cost(analysis)
require_table(analysis)
study = state.require_study()
view = state.current()
plan, refusal = shown_plan(study)
several = state.several(analysis)
slider = studies.budget_slider(study, getattr(view, study.cost))


def click() -> None:
    """Take the best plan of the cost that was clicked."""
    state.pick(study.cost, clicked("frontier"))


def slide() -> None:
    """Take the best plan that fits."""
    state.pick(study.cost, st.session_state["budget"] * slider.per_unit)


metrics(plans.summarize(analysis, plan, study.cost, study.latency))
left, right = st.columns([3, 2], gap="medium")
with left:
    if several:
        budgets_form(study, refusal)
    else:
        if refusal is not None:
            st.error(str(refusal))
        st.session_state["budget"] = slider.value
        st.slider(
            costs.slider_label(study.cost, slider.unit),
            slider.low,
            slider.high,
            step=slider.step,
            format=slider.format,
            key="budget",
            on_change=slide,
            help="The keyboard's way to pick: the arrow keys go from plan to plan.",
        )
    chart(
        frontier.frontier(
            analysis,
            study.frontier,
            cost=study.cost,
            picked=plan,
            overlays=study.overlays,
            uniform=study.uniform,
            limit=view.budget if several else None,
        ),
        key="frontier",
        alt=plans.frontier_alt(study, plan),
        how_to_read=costs.how_to_read(study),
        table=plans.frontier_table(study),
        on_pick=click,
    )
    if not analysis.activations:
        st.caption(activations.without(analysis))
with right:
    with st.container(horizontal=True, vertical_alignment="center", gap="xxsmall"):
        if st.button("Quantize this plan", icon=":material/compress:", type="primary"):
            st.switch_page("../pages/quantize.py", query_params=state.encode(view))
        st.download_button(
            "",
            plans.plan_file(plan),
            "plan.json",
            "application/json",
            icon=":material/download:",
            on_click="ignore",
            help="Download this plan as plan.json",
        )
        open_plan(analysis)
        st.button(
            "",
            icon=":material/undo:",
            key="undo",
            on_click=state.undo,
            disabled=not state.can_undo(),
            help="Undo: back to the plan picked before",
        )
        st.button(
            "",
            icon=":material/close:",
            key="clear",
            on_click=state.clear,
            disabled=state.is_clear(),
            help="Clear: back to the plan this page suggests",
        )
    if says := plan_says(study, plan, refusal):
        st.caption(says)
    chart(
        frontier.plan_bits(analysis, plan),
        key="plan_bits",
        alt=plans.plan_alt(plan),
        how_to_read=costs.how_to_read_bits(plan),
        table=plans.plan_table(analysis, plan),
    )
