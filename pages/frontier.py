"""Size against Ω: pick a plan, see its bits."""

import streamlit as st

from hawq_viz import state
from hawq_viz.components.chart import chart, clicked
from hawq_viz.components.plan import metrics, open_plan
from hawq_viz.figures import frontier
from hawq_viz.viewmodels import plans

study = state.require_study()
view = state.current()
plan = study.plan(view.size, view.bits)
slider = plans.size_slider(study, view.size)


def click() -> None:
    """Take the best plan of the size that was clicked."""
    state.change(size=clicked("frontier"))


def slide() -> None:
    """Take the best plan that fits."""
    state.change(size=st.session_state["budget"] * slider.bytes_per_unit)


st.subheader("Frontier: the best plan of every size")
metrics(plans.summarize(study.analysis, plan))
left, right = st.columns([3, 2], gap="medium")
with left:
    st.session_state["budget"] = slider.value
    st.slider(
        f"Size at most ({slider.unit})",
        slider.low,
        slider.high,
        step=slider.step,
        format=slider.format,
        key="budget",
        on_change=slide,
        help="The keyboard's way to pick: the arrow keys go from plan to plan.",
    )
    chart(
        frontier.frontier(study.analysis, study.frontier, picked=plan, overlays=study.overlays),
        key="frontier",
        alt=plans.frontier_alt(study, plan),
        how_to_read=(
            "Each point is one choice of bits for all layers; none of its size has a smaller Ω. "
            "**Click a point** to pick it. The gap up to the squares is what mixing bits gains. "
            "The paper's rule never gives fewer bits where the trace is larger; greedy buys the "
            "most Ω per byte, step by step."
        ),
        table=plans.frontier_table(study),
        on_pick=click,
    )
with right:
    with st.container(horizontal=True, vertical_alignment="center", gap="xxsmall"):
        if st.button("Quantize this plan", icon=":material/compress:", type="primary"):
            st.switch_page("../pages/quantize.py", query_params=state.encode(view))
        st.download_button(
            "",
            plans.plan_file(plan),
            "plan.json",
            "application/json",
            icon=":material/download:",
            on_click="ignore",
            help="Download this plan as plan.json",
        )
        open_plan(study.analysis)
        st.button(
            "",
            icon=":material/undo:",
            key="undo",
            on_click=state.undo,
            disabled=not state.can_undo(),
            help="Undo: back to the plan picked before",
        )
        st.button(
            "",
            icon=":material/close:",
            key="clear",
            on_click=state.change,
            kwargs={"size": None},
            disabled=view.size is None and not view.bits,
            help="Clear: back to the plan this page suggests",
        )
    if view.bits:
        st.caption(plans.opened_says(study, plan))
    chart(
        frontier.plan_bits(study.analysis, plan),
        key="plan_bits",
        alt=plans.plan_alt(plan),
        how_to_read="Bits of each layer, from the input (top) to the output.",
        table=plans.plan_table(study.analysis, plan),
    )
