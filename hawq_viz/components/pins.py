"""Up to three pinned plans beside the shown one."""

import streamlit as st

from engine.results import BitPlan
from hawq_viz import state
from hawq_viz.components.chart import chart, numbers
from hawq_viz.figures import pins as figures
from hawq_viz.view import MOST_PINS
from hawq_viz.viewmodels import layers, pins
from hawq_viz.viewmodels.studies import Study


def pin_button(plan: BitPlan) -> None:
    """Keep the shown plan to compare others with it."""
    view = state.current()
    reason = pins.why_not(view.pins, plan, MOST_PINS)
    st.button(
        "Pin",
        icon=":material/keep:",
        key="pin",
        disabled=bool(reason),
        help=reason or "Pin this plan, to compare others with it",
        on_click=lambda: state.change(pins=pins.pinned(view.pins, plan)),
    )


def pins_panel(study: Study, plan: BitPlan) -> None:
    """The pinned plans layer by layer, and their sums; each can be shown again or let go."""
    view = state.current()
    kept = pins.pins_of(study, view.pins)
    if not kept:
        st.caption(pins.EMPTY)
        return
    with st.container(horizontal=True, gap="xsmall"):
        for pin in kept:
            st.button(
                f"Show {pin.letter}",
                key=f"show_{pin.place}",
                disabled=not pins.differing(plan, pin.plan),
                on_click=_show,
                args=(pin.plan,),
            )
            st.button(
                f"Unpin {pin.letter}",
                icon=":material/keep_off:",
                key=f"unpin_{pin.place}",
                on_click=_unpin,
                args=(pin.place,),
            )
    numbers(pins.sums_table(plan, kept))
    chart(
        figures.comparison(study.analysis, pins.rows(plan, kept)),
        key="pinned",
        alt=pins.comparison_alt(plan, kept),
        how_to_read=pins.READ,
        table=lambda: pins.bits_table(study.analysis, plan, kept),
    )


def _show(plan: BitPlan) -> None:
    state.change(**layers.by_hand(plan.weight_bits, plan.activation_bits))


def _unpin(place: int) -> None:
    state.change(pins=pins.unpinned(state.current().pins, place))
