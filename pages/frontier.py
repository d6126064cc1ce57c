"""A cost against Ω: pick a plan, see its bits, hold layers, compare."""

import streamlit as st

from hawq_viz import state
from hawq_viz.components.certainty import certainty_panel
from hawq_viz.components.costs import (
    budget_slider,
    budgets_form,
    choose_cost,
    part_slider,
    plan_says,
    require_table,
    shown_plan,
)
from hawq_viz.components.frontier import frontier_chart
from hawq_viz.components.page import apart
from hawq_viz.components.pins import pins_panel
from hawq_viz.components.plan import metrics, plan_buttons, plan_panel
from hawq_viz.components.reached import reached_here, reached_panel
from hawq_viz.viewmodels import plans


def picked() -> None:
    """All that another plan changes: the page below its title."""
    analysis = state.require_analysis()
    require_table(analysis)
    study = state.require_study()
    plan, refusal = shown_plan(study)
    points = reached_here(study)
    metrics(plans.summarize(analysis, plan, study.cost, study.latency), study)
    left, right = st.columns(2, gap="medium")
    with right:  # first, for it is what a click is waited for
        plan_buttons(analysis, plan)
        with st.container():  # always one element, so that what has the focus below keeps it
            plan_says(study, plan, refusal)
        certain = plan_panel(study, plan)
    with left:
        if state.several(analysis):
            budgets_form(study, refusal)
            part_slider(study)
        else:
            if refusal is not None:
                st.error(str(refusal))
            budget, part = st.columns([6, 5], gap="small")
            with budget:
                budget_slider(study, plan)
            with part:
                part_slider(study)
        frontier_chart(study, plan, points)
    pinned, measured = st.tabs(["Pinned plans", "Measured plans"], key="below", on_change="rerun")
    if pinned.open:
        with pinned:
            pins_panel(study, plan)
    if measured.open:
        with measured:
            reached_panel(study, points)
    if certain is not None:
        with certain:
            certainty_panel(study, plan)


choose_cost(state.require_analysis())
apart(picked)
