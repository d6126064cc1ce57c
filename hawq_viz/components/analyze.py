"""Start an analysis in a worker process, and follow it."""

import streamlit as st

from engine import jobs
from engine.analysis import COSTS
from engine.results import BIT_WIDTHS
from hawq_viz import networks, state
from hawq_viz.components.checklist import checklist_of
from hawq_viz.components.runs import REFUSED, delete_button, next_button, refusal, watch
from hawq_viz.viewmodels import analyses, runs

FORM = "analyze_form"
DATA = {"sample": "the sample that comes along", "full": "all of it (fetched once)"}


def analyze_form() -> None:
    """A button that opens a form: on what to analyze, to what error."""
    with (
        st.popover(
            "New analysis",
            icon=":material/search:",
            width="stretch",
            key=FORM,
            on_change="rerun",  # so that it can be closed
        ),
        st.form("analyze", border=False),
    ):
        st.session_state.setdefault("analyze_data", state.current().data or "sample")
        st.radio(
            "Images",
            list(DATA),
            format_func=DATA.get,
            key="analyze_data",
            disabled=networks.is_own(state.current().workload),  # it brings its own
        )
        st.pills(
            "Bit widths",
            list(BIT_WIDTHS),
            selection_mode="multi",
            default=[bits for bits in BIT_WIDTHS if bits > 1],
            key="analyze_bits",
        )
        st.slider(
            "Standard error to reach in every layer (%)",
            2,
            50,
            10,
            key="analyze_error",
            help="Half the error takes four times the images; each is used once at most.",
        )
        st.number_input("Seed", 0, 2**31 - 1, 0, key="analyze_seed")
        st.checkbox(
            "Inputs of layers too",
            value=True,
            key="analyze_activations",
            help="Their traces come from the same backward passes as those of the weights.",
        )
        st.form_submit_button("Analyse", type="primary", on_click=_launch, width="stretch")


def _launch() -> None:
    chosen = st.session_state
    chosen[FORM] = False
    try:
        run_id = networks.launch(
            "analyze",
            state.current().workload,
            analyses.analyze_options(
                chosen["analyze_data"],
                chosen["analyze_bits"],
                chosen["analyze_error"],
                chosen["analyze_seed"],
                chosen["analyze_activations"],
            ),
        )
    except ValueError as error:
        st.session_state[REFUSED] = str(error)
    else:
        state.change(run=run_id)


def analyze_run() -> None:
    """Show the analysis that is under way, or the watched one once it has ended."""
    refusal()
    view = state.current()
    run = runs.watched(state.list_runs(), "analyze", view.workload, view.run)
    if run is None or run.id == view.analysis:
        return
    with st.container(border=True):
        says, act, delete = st.columns([6, 2, 0.8], vertical_alignment="center")
        with says:
            watch([run.id], lambda _: None, _finished)
        with act:
            if run.state == "finished":
                st.button(
                    "Show it",
                    on_click=state.change,
                    kwargs={"analysis": run.id, **dict.fromkeys(COSTS)},
                    type="primary",
                    width="stretch",
                )
            else:
                next_button(run, primary=True)
        with delete:
            delete_button(run)
        if run.state != "finished":
            checklist_of(run)


def _finished(seen: list[jobs.RunView]) -> str:
    return f"The analysis of {runs.when(seen[0])} is finished."
