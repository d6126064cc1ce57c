"""One activation from close by: its values, and the levels that rounding leaves."""

import streamlit as st

from engine.analysis import Analysis
from hawq_viz import state
from hawq_viz.components.chart import chart, clicked
from hawq_viz.figures import histogram
from hawq_viz.viewmodels import activations


def activation_panel(analysis: Analysis, planned: dict[str, int]) -> None:
    """Choose an activation and bits; see its histogram with that grid, and its numbers.

    Args:
        analysis: With at least one activation.
        planned: Activation bits of the picked plan.
    """
    view = state.current()
    found, bits = activations.chosen(analysis, view.activation, view.at, planned)
    st.markdown("##### One input from close by")
    which, width = st.columns([3, 2], vertical_alignment="bottom")
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
    st.session_state["at"] = bits
    width.segmented_control(
        "Bits",
        analysis.bit_widths,
        key="at",
        on_change=lambda: state.change(at=st.session_state["at"] or bits),
    )
    left, right = st.columns([3, 2], gap="medium")
    with left:
        chart(
            histogram.histogram(found, bits),
            key="histogram",
            alt=activations.histogram_alt(found, bits),
            how_to_read=(
                "Every value goes to the nearest line. More bits, closer lines; values beyond the "
                "last line are clipped to it."
            ),
            table=activations.histogram_table(found, bits),
        )
    right.table(activations.about(found, bits), border="horizontal")


def pick_trace(analysis: Analysis) -> None:
    """Look closely at the activation that was clicked among the traces."""
    state.change(activation=analysis.activations[int(clicked("activation_traces"))].name)


def pick_omega(analysis: Analysis) -> None:
    """The same in the heatmap, at the bits that were clicked."""
    index, bits = divmod(int(clicked("activation_omegas")), 10)
    state.change(activation=analysis.activations[index].name, at=bits)
