"""How sensitive each layer's weights and input are, how that was found, and a form to redo it."""

from functools import partial

import streamlit as st

from hawq_viz import state
from hawq_viz.components.activation import activation_panel, pick_input_omega, pick_input_trace
from hawq_viz.components.analyze import analyze_form, analyze_run
from hawq_viz.components.certainty import further_button
from hawq_viz.components.chart import chart
from hawq_viz.components.checklist import checklist_of
from hawq_viz.components.layer import layer_panel, pick_omega, pick_trace, sort_control
from hawq_viz.figures import sensitivity
from hawq_viz.viewmodels import activations, analyses, detail

st.subheader("Sensitivity: what rounding each layer costs")
says, again = st.columns([4, 1], vertical_alignment="center")
with again:
    analyze_form()
analyze_run()

analysis = state.require_analysis(form_above=True)
with again:
    further_button(analysis, "further")
both = bool(analysis.activations)
with says:
    st.markdown(analyses.WHAT)
    st.caption(analyses.exactness(analysis))
if note := activations.exactness(analysis) if both else activations.without(analysis):
    st.caption(note)
if doubt := analyses.below_error(analysis):
    st.caption(doubt)
checklist_of(state.analysis_run(state.current()), analysis)
sort_control(analysis)
view = state.current()
order = analyses.ordered(analysis, view.sort, view.at)
plan, plan_of_inputs = state.planned(analysis)
layer, _ = detail.chosen(analysis, view.layer, view.at, plan)
weights, inputs = st.columns(2, gap="small") if both else (st.container(), None)
with weights:
    chart(
        sensitivity.traces(analysis, order=order, marked=layer.name, half=both),
        key="traces",
        group="layers",
        alt=analyses.traces_alt(analysis, view.sort, view.at),
        how_to_read=analyses.READ_TRACES
        + " **Click a layer** to see it [from close by](#one-layer-from-close-by).",
        table=analyses.trace_table(analysis),
        on_pick=partial(pick_trace, analysis),
    )
    chart(
        sensitivity.omega_heatmap(analysis, order=order, marked=layer.name, half=both),
        key="omegas",
        group="layers",
        alt=analyses.omegas_alt(analysis),
        how_to_read=(
            "Ω is the trace times what rounding moves the weights, squared: the darker, the "
            "cheaper those bits are for that layer. Half of it is the predicted rise of the loss."
        ),
        table=analyses.omega_table(analysis),
        on_pick=partial(pick_omega, analysis),
    )
if inputs is not None:
    found, _ = activations.chosen(analysis, view.activation, view.at, plan_of_inputs)
    with inputs:
        chart(
            sensitivity.activation_traces(analysis, order=order, marked=found.name),
            key="activation_traces",
            group="layers",
            alt=activations.traces_alt(analysis),
            how_to_read=(
                "The same for one value of a layer's input, at the first layer that reads it. "
                "**Click one** to see its values [below](#one-input-from-close-by)."
            ),
            table=activations.trace_table(analysis),
            on_pick=partial(pick_input_trace, analysis),
        )
        chart(
            sensitivity.activation_heatmap(analysis, order=order, marked=found.name),
            key="activation_omegas",
            group="layers",
            alt=activations.omegas_alt(analysis),
            how_to_read=(
                "Ω of rounding the input, in the same colours. The first-order term in the table "
                "and under the mouse is not in Ω."
            ),
            table=activations.omega_table(analysis),
            on_pick=partial(pick_input_omega, analysis),
        )
layer_panel(analysis, plan)
if both:
    activation_panel(analysis, plan_of_inputs)
st.markdown("##### How it was found")
st.table(analyses.settings(analysis), border="horizontal")
