"""The table of layers: lock, tie, or change bits by hand; every change is in the view at once."""

from pathlib import Path

import streamlit as st

from engine.results import BitPlan
from hawq_viz import state
from hawq_viz.view import LIMITS
from hawq_viz.viewmodels import layers
from hawq_viz.viewmodels.studies import Study

HERE = Path(__file__).parent
KEY = "layers"
HELP = (
    "**Lock** a layer, or **tie** layers by a letter: the frontier is found anew among the plans "
    "that keep to it. Change **Bits**, and the plan is yours: ≠ marks what the frontier would do."
)
HELPS = {
    "weights": "How many weights the layer has",
    "trace": "Average Hessian trace of its weights: how much the loss feels them",
    "bits": "Of the shown plan. Change one, and the plan is yours",
    "lock": "Hold the layer at these bits on the whole frontier",
    "tie": "Layers of one letter share their bits",
    "input_bits": "Bits of what the layer reads, in the shown plan",
    "input_lock": "Hold what the layer reads at these bits",
}

_mount = st.components.v2.component(
    "hawq_viz_layers",
    html='<div class="layers" role="region" tabindex="0" aria-label="Layers"><table></table></div>',
    css=(HERE / "layers.css").read_text(),
    js=(HERE / "layers.js").read_text(),
    isolate_styles=False,
)


def layers_panel(study: Study, plan: BitPlan) -> None:
    """Allowed bit widths, and a row a layer."""
    view = state.current()
    known = study.analysis.bit_widths
    allowed = state.held(study.analysis).widths or known
    st.session_state["widths"] = list(allowed)
    bar = st.container(horizontal=True, vertical_alignment="center", gap="xsmall")
    bar.segmented_control(
        "Bits that layers may have",
        known,
        selection_mode="multi",
        key="widths",
        label_visibility="collapsed",
        on_change=_allow,
        args=(known,),
    )
    bar.button(
        "Free all",
        key="free",
        on_click=state.unlimit,
        disabled=not any(getattr(view, name) for name in LIMITS),
        help="Take all locks and ties away, and allow all bits. Undo brings them back.",
    )

    def edit() -> None:
        """Take what was chosen in a row."""
        told = st.session_state[KEY].edit
        limits = view.locked, view.alocked, view.tied
        state.change(**layers.edited(study.analysis, plan, told, *limits))

    _mount(
        key=KEY,
        data={
            **layers.layer_table(study, plan, view.locked, view.alocked, view.tied),
            "helps": HELPS,
        },
        on_edit_change=edit,
    )
    st.caption(HELP)


def _allow(known: tuple[int, ...]) -> None:
    chosen = set(st.session_state["widths"])
    state.change(widths="" if chosen in (set(), set(known)) else "".join(map(str, sorted(chosen))))
