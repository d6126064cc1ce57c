"""One layer from close by: its weights, its channels, and where its numbers come from."""

from collections.abc import Mapping

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from engine.analysis import ActivationSensitivity, Analysis, LayerSensitivity
from hawq_viz import state
from hawq_viz.components.chart import chart, clicked
from hawq_viz.figures import histogram
from hawq_viz.figures import layer as figures
from hawq_viz.figures.theme import BLUE, GREEN
from hawq_viz.viewmodels import activations, analyses, detail


def sort_control(analysis: Analysis) -> None:
    """Choose what the layers are sorted by in all charts of them."""
    view = state.current()
    st.session_state["sort"] = view.sort
    st.segmented_control(
        "Sort layers by",
        list(analyses.SORTS),
        key="sort",
        format_func=lambda sort: analyses.sort_name(analysis, sort, view.at),
        on_change=lambda: state.change(sort=st.session_state["sort"] or ""),
        label_visibility="collapsed",
    )


def layer_panel(analysis: Analysis, planned: Mapping[str, int]) -> None:
    """Choose a layer and bits; see Ω's formula with its numbers, its weights and its channels.

    Args:
        analysis: With at least one layer.
        planned: Weight bits of the picked plan.
    """
    view = state.current()
    layer, bits = detail.chosen(analysis, view.layer, view.at, planned)
    st.markdown("##### One layer from close by")
    which, width, whence = st.columns([3, 3, 2.5], vertical_alignment="bottom")
    st.session_state["layer"] = layer.name
    which.selectbox(
        "Layer",
        analysis.names,
        key="layer",
        on_change=lambda: state.change(layer=st.session_state["layer"]),
        help="Or click it in a chart of the weights, above.",
    )
    bits_control(width, analysis, "layer_at", bits)
    equation(whence, analysis, layer, bits)
    left, right = st.columns(2, gap="medium")
    with left:
        _weights(analysis, layer, bits)
        chart(
            figures.channels(layer),
            key="channels",
            alt=detail.channels_alt(layer),
            how_to_read=detail.channels_read(layer),
            table=detail.channels_table(layer),
        )
    with right:
        chart(
            figures.omegas(layer, bits, planned.get(layer.name)),
            key="layer_omegas",
            alt=detail.omegas_alt(layer, planned.get(layer.name)),
            how_to_read=detail.READ_OMEGAS,
            table=detail.omegas_table(layer),
            on_pick=lambda: state.change(at=int(clicked("layer_omegas"))),
        )
        convergence(analysis, layer)


def bits_control(place: DeltaGenerator, analysis: Analysis, key: str, bits: int) -> None:
    """A choice of the bits at which things are looked at.

    Args:
        place: Where it goes.
        analysis: Whose bit widths there are.
        key: Unique on the page.
        bits: The chosen ones.
    """
    st.session_state[key] = bits
    place.segmented_control(
        "Bits",
        analysis.bit_widths,
        key=key,
        on_change=lambda: state.change(at=st.session_state[key] or bits),
    )


def equation(
    place: DeltaGenerator,
    analysis: Analysis,
    one: LayerSensitivity | ActivationSensitivity,
    bits: int,
) -> None:
    """Ω with its numbers in it, and a button that tells where each of them comes from.

    Args:
        place: Where the button goes.
        analysis: Which the numbers are of.
        one: What is looked at.
        bits: Likewise.
    """
    with place.popover("Sources of the numbers", icon=":material/fact_check:", width="stretch"):
        st.table(detail.sources(analysis, one, bits), border="horizontal")
    st.latex(detail.formula(analysis, one, bits))


def convergence(analysis: Analysis, one: LayerSensitivity | ActivationSensitivity) -> None:
    """How the estimate of a trace went, mini-batch by mini-batch."""
    weights = isinstance(one, LayerSensitivity)
    values = analysis.batch_traces if weights else analysis.activation_batch_traces
    known = analysis.layers if weights else analysis.activations
    found = figures.course(values[:, known.index(one)], analysis.batch_sizes, analysis.relative_sem)
    name = one.name if weights else f"the input of {one.name}"
    chart(
        figures.convergence(found, BLUE if weights else GREEN),
        key="convergence" if weights else "activation_convergence",
        alt=detail.convergence_alt(name, found),
        how_to_read=detail.READ_CONVERGENCE if weights else activations.READ_CONVERGENCE,
        table=detail.convergence_table(found),
    )


def pick_trace(analysis: Analysis) -> None:
    """Look closely at the layer that was clicked among the traces."""
    state.change(layer=analysis.names[int(clicked("traces"))])


def pick_omega(analysis: Analysis) -> None:
    """The same in the heatmap, at the bits that were clicked."""
    index, bits = divmod(int(clicked("omegas")), 10)
    state.change(layer=analysis.names[index], at=bits)


def _weights(analysis: Analysis, layer: LayerSensitivity, bits: int) -> None:
    rounded = histogram.of_weights(analysis, layer, bits)
    if rounded is None:
        st.info(detail.WITHOUT_HISTOGRAMS)
        return
    chart(
        histogram.histogram(rounded),
        key="weights",
        alt=detail.weights_alt(layer, rounded),
        how_to_read=detail.READ_WEIGHTS,
        table=activations.histogram_table(rounded),
    )
