"""One activation from close by: its values, and the levels that rounding leaves."""

from collections.abc import Mapping

import streamlit as st

from engine.analysis import Analysis
from hawq_viz import state
from hawq_viz.components.chart import chart, clicked
from hawq_viz.components.layer import bits_control, convergence, equation
from hawq_viz.figures import histogram
from hawq_viz.figures import layer as figures
from hawq_viz.figures.theme import GREEN
from hawq_viz.viewmodels import activations, detail


def activation_panel(analysis: Analysis, planned: Mapping[str, int]) -> None:
    """Choose an activation and bits; see its histogram with that grid, and its numbers.

    Args:
        analysis: With at least one activation.
        planned: Activation bits of the picked plan.
    """
    view = state.current()
    found, bits = activations.chosen(analysis, view.activation, view.at, planned)
    st.markdown("##### One input from close by")
    which, width, whence = st.columns([3, 3, 2.5], vertical_alignment="bottom")
    names = {x.name: activations.activation_name(x) for x in analysis.activations}
    st.session_state["activation"] = found.name
    which.selectbox(
        "Input of",
        list(names),
        format_func=names.get,
        key="activation",
        on_change=lambda: state.change(activation=st.session_state["activation"]),
        help="Or click it in a chart above.",
    )
    bits_control(width, analysis, "at", bits)
    equation(whence, analysis, found, bits)
    left, right = st.columns(2, gap="medium")
    rounded = histogram.of_activation(found, bits)
    with left:
        chart(
            histogram.histogram(rounded),
            key="histogram",
            alt=activations.histogram_alt(found, rounded),
            how_to_read=(
                "Every value goes to the nearest line. More bits, closer lines; values beyond the "
                "last line are clipped to it."
            ),
            table=activations.histogram_table(rounded),
        )
        st.table(activations.about(found, rounded), border="horizontal")
    with right:
        chart(
            figures.omegas(found, bits, planned.get(found.name), GREEN),
            key="input_omegas",
            alt=detail.omegas_alt(found, planned.get(found.name)),
            how_to_read=detail.READ_OMEGAS,
            table=detail.omegas_table(found),
            on_pick=lambda: state.change(at=int(clicked("input_omegas"))),
        )
        convergence(analysis, found)


def pick_input_trace(analysis: Analysis) -> None:
    """Look closely at the activation that was clicked among the traces."""
    state.change(activation=analysis.activations[int(clicked("activation_traces"))].name)


def pick_input_omega(analysis: Analysis) -> None:
    """The same in the heatmap, at the bits that were clicked."""
    index, bits = divmod(int(clicked("activation_omegas")), 10)
    state.change(activation=analysis.activations[index].name, at=bits)
