"""The chosen network, the journey in five steps and what is done of it, recent runs."""

import streamlit as st

from hawq_viz import state
from hawq_viz.components.costs import shown_plan
from hawq_viz.components.home import network_card, promise
from hawq_viz.components.journey import latest_run, recent_runs, steps
from hawq_viz.viewmodels import journey

study = state.find_study()
view, seen = state.current(), state.list_runs()
plan = shown_plan(study)[0] if study else None
run = journey.latest(seen, view.workload)
run_first = journey.comes_first(run, plan)

st.subheader("How few bits can each layer bear?")
st.markdown(
    "Rounding a network's weights to a few bits makes it small. Some layers bear that, others do "
    "not: measure which, give each layer its own bits, and see what is left of the accuracy."
)
latest_run(run, primary=run_first)
steps(
    journey.steps(study is not None, not state.is_clear(), seen, view.workload),
    primary=not run_first,
)
left, right = st.columns(2, gap="medium")
with left:
    network_card(study, seen)
if study:
    with right:
        promise(study)
recent_runs(seen)
