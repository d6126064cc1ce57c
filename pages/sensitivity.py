"""How sensitive each layer's weights and input are, how that was found, and a form to redo it."""

from functools import partial

import streamlit as st

from hawq_viz import state
from hawq_viz.components.activation import activation_panel, pick_omega, pick_trace
from hawq_viz.components.analyze import analyze_form, analyze_run
from hawq_viz.components.chart import chart
from hawq_viz.components.checklist import checklist_of
from hawq_viz.figures import sensitivity
from hawq_viz.viewmodels import activations, analyses

st.subheader("Sensitivity: what rounding each layer costs")
says, again = st.columns([4, 1], vertical_alignment="center")
with again:
    analyze_form()
analyze_run()

analysis = state.require_analysis(form_above=True)
both = bool(analysis.activations)
says.markdown(analyses.exactness(analysis))
if note := activations.exactness(analysis) if both else activations.without(analysis):
    st.caption(note)
if doubt := analyses.below_error(analysis):
    st.caption(doubt)
checklist_of(state.analysis_run(state.current()))
weights, inputs = st.columns(2, gap="small") if both else (st.container(), None)
with weights:
    chart(
        sensitivity.traces(analysis, half=both),
        key="traces",
        group="layers",
        alt=analyses.traces_alt(analysis),
        how_to_read=analyses.READ_TRACES,
        table=analyses.trace_table(analysis),
    )
    chart(
        sensitivity.omega_heatmap(analysis, half=both),
        key="omegas",
        group="layers",
        alt=analyses.omegas_alt(analysis),
        how_to_read=(
            "Ω is the trace times what rounding moves the weights, squared: the darker, the "
            "cheaper those bits are for that layer. Half of it is the predicted rise of the loss."
        ),
        table=analyses.omega_table(analysis),
    )
if inputs is not None:
    with inputs:
        chart(
            sensitivity.activation_traces(analysis),
            key="activation_traces",
            group="layers",
            alt=activations.traces_alt(analysis),
            how_to_read=(
                "The same for one value of a layer's input, at the first layer that reads it. "
                "**Click one** to see its values below."
            ),
            table=activations.trace_table(analysis),
            on_pick=partial(pick_trace, analysis),
        )
        chart(
            sensitivity.activation_heatmap(analysis),
            key="activation_omegas",
            group="layers",
            alt=activations.omegas_alt(analysis),
            how_to_read=(
                "Ω of rounding the input, in the same colours. The first-order term in the table "
                "and under the mouse is not in Ω."
            ),
            table=activations.omega_table(analysis),
            on_pick=partial(pick_omega, analysis),
        )
    activation_panel(analysis, state.planned_inputs(analysis))
st.markdown("##### How it was found")
st.table(analyses.settings(analysis), border="horizontal")
