"""The five steps as cards, the newest run where it needs someone, and the recent ones."""

from collections.abc import Sequence

import streamlit as st

from engine.jobs import RunView
from hawq_viz import state
from hawq_viz.components.runs import next_button, refusal, watch
from hawq_viz.components.weights import choose_network
from hawq_viz.view import View, encode
from hawq_viz.viewmodels import journey, runs

ICONS = {
    journey.DONE: ":green[:material/check_circle:]",
    journey.NOW: ":primary[:material/arrow_circle_right:]",
    journey.LATER: ":material/circle:",
}


def steps(way: Sequence[journey.Step], *, primary: bool) -> None:
    """The five steps beside each other, each with its state, why it is taken, and one button.

    Args:
        way: The steps.
        primary: Whether the next one stands out; not where a run asks for something first.
    """
    chosen = journey.stands_out(way)
    for number, (step, cell) in enumerate(
        zip(way, st.columns(len(way), gap="small"), strict=True), 1
    ):
        with (
            cell,
            st.container(border=True, height="stretch", vertical_alignment="distribute"),
        ):
            with st.container(gap="xxsmall"):
                st.markdown(
                    f"{ICONS[step.state]} :small[{step.state}]  \n**{number}. {step.title}**"
                )
                st.caption(step.why)
            if step.page == "home":
                choose_network(step.label)
            elif st.button(
                step.label,
                key=f"step_{number}",
                type="primary" if primary and step is chosen else "secondary",
                width="stretch",
            ):
                st.switch_page(f"../pages/{step.page}.py", query_params=encode(state.current()))


def latest_run(run: RunView | None, *, primary: bool) -> None:
    """The newest run of the network, where it is at work or did not come to its end."""
    refusal()
    if run is None:
        return
    with st.container(border=True):
        says, act = st.columns([6, 2], vertical_alignment="center")
        with says:
            st.markdown(f":small[{journey.KINDS[run.kind][0]}: {runs.run_title(run)}]")
            watch([run.id], lambda _: None, lambda seen: f"{runs.run_title(seen[0])} is finished.")
        with act:
            next_button(run, primary=primary)


def recent_runs(seen: Sequence[RunView]) -> None:
    """The newest runs, each a link to the page that shows it."""
    st.markdown("##### Recent runs")
    lines = journey.recent(seen)
    if not lines:
        st.caption("None yet. Whatever you start is listed here, also from the command line.")
    with st.container(gap=None):
        for line in lines:
            st.page_link(
                f"../pages/{line.page}.py",
                label=journey.in_a_row(line),
                icon=line.icon,
                query_params=encode(View(**line.view)),
            )
