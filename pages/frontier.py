"""A cost against Ω: pick a plan, see its bits, hold layers, compare."""

import streamlit as st

from hawq_viz import state
from hawq_viz.components.costs import (
    budget_slider,
    budgets_form,
    choose_cost,
    plan_says,
    require_table,
    shown_plan,
)
from hawq_viz.components.frontier import frontier_chart
from hawq_viz.components.plan import metrics, plan_buttons, plan_panel
from hawq_viz.viewmodels import plans

analysis = state.require_analysis()
choose_cost(analysis)
require_table(analysis)
study = state.require_study()
plan, refusal = shown_plan(study)
metrics(plans.summarize(analysis, plan, study.cost, study.latency))
left, right = st.columns(2, gap="medium")
with right:  # first, for it is what a click is waited for
    plan_buttons(analysis, plan)
    plan_says(study, plan, refusal)
    plan_panel(study, plan)
with left:
    if state.several(analysis):
        budgets_form(study, refusal)
    else:
        if refusal is not None:
            st.error(str(refusal))
        budget_slider(study, plan)
    frontier_chart(study, plan)
