"""How sensitive each layer is, how that was found, and a form to find it again."""

import streamlit as st

from hawq_viz import state
from hawq_viz.components.analyze import analyze_form, analyze_run
from hawq_viz.components.chart import chart
from hawq_viz.figures import sensitivity
from hawq_viz.viewmodels import analyses

st.subheader("Sensitivity: what rounding each layer costs")
says, again = st.columns([4, 1], vertical_alignment="center")
with again:
    analyze_form()
analyze_run()

analysis = state.require_study().analysis
says.markdown(analyses.exactness(analysis))
chart(
    sensitivity.traces(analysis),
    key="traces",
    group="layers",
    alt=analyses.traces_alt(analysis),
    how_to_read=(
        "Higher means that a small change of one weight raises the loss more. Bars are 95 % "
        "intervals; layers whose bars overlap may change places."
    ),
    table=analyses.trace_table(analysis),
)
chart(
    sensitivity.omega_heatmap(analysis),
    key="omegas",
    group="layers",
    alt=analyses.omegas_alt(analysis),
    how_to_read=(
        "Ω is the trace times what rounding moves the weights, squared: the darker, the cheaper "
        "those bits are for that layer. Half of it is the predicted rise of the loss."
    ),
    table=analyses.omega_table(analysis),
)
st.markdown("##### How it was found")
st.table(analyses.settings(analysis), border="horizontal")
