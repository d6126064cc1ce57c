"""Launch the picked plan, and watch what it loses come back."""

import streamlit as st

from hawq_viz import state
from hawq_viz.components.plan import metrics
from hawq_viz.components.quantize import quantize_page
from hawq_viz.viewmodels import plans

study = state.require_study()
summary = plans.summarize(study.analysis, state.require_plan(study), study.cost, study.latency)

st.subheader("Quantize: launch the picked plan, and watch it")
metrics(summary, study)
quantize_page(study.analysis, summary)
