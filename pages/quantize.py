"""Launch the picked plan, and watch its accuracy come back."""

import streamlit as st

from hawq_viz import state
from hawq_viz.components.plan import metrics
from hawq_viz.components.quantize import quantize_page
from hawq_viz.viewmodels import plans

study, view = state.require_study(), state.current()
summary = plans.summarize(study.analysis, study.plan(view.size, view.bits))

st.subheader("Quantize: launch the picked plan, and watch it")
metrics(summary)
quantize_page(study.analysis, summary)
