"""Round the network as the picked plan says, and measure what is left."""

import streamlit as st

from hawq_viz import state, viewmodels
from hawq_viz.components.plan import metrics
from hawq_viz.components.quantize import quantize_button, quantize_runs

study, view = state.require_study(), state.current()
summary = viewmodels.summarize(study.analysis, study.plan(view.size, view.bits))

st.subheader("Quantize: what the picked plan keeps")
metrics(summary)
quantize_button(summary)
quantize_runs(study.analysis, summary.plan)
