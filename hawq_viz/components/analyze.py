"""Start an analysis in a worker process, and follow it."""

import streamlit as st

from engine import jobs
from engine.results import BIT_WIDTHS
from hawq_viz import state, viewmodels
from hawq_viz.components.runs import watch

FORM = "analyze_form"
DATA = {"sample": "the sample that comes along", "full": "all of it (fetched once)"}


def analyze_form() -> None:
    """A button that opens a form: on what to analyze, to what error."""
    with (
        st.popover(
            "Analyse again",
            icon=":material/search:",
            width="stretch",
            key=FORM,
            on_change="rerun",  # so that it can be closed
        ),
        st.form("analyze", border=False),
    ):
        st.radio("Images", list(DATA), format_func=DATA.get, key="analyze_data")
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
        st.form_submit_button("Analyse", type="primary", on_click=_launch, width="stretch")


def _launch() -> None:
    chosen = st.session_state
    chosen[FORM] = False
    try:
        run_id = jobs.launch(
            "analyze",
            state.current().workload,
            viewmodels.analyze_options(
                chosen["analyze_data"],
                chosen["analyze_bits"],
                chosen["analyze_error"],
                chosen["analyze_seed"],
            ),
        )
    except ValueError as error:
        st.session_state["analyze_refused"] = str(error)
    else:
        state.change(run=run_id)


def analyze_run() -> None:
    """Show the analysis that is under way, or the watched one once it has ended."""
    if refused := st.session_state.pop("analyze_refused", None):
        st.error(refused)
    view = state.current()
    run = viewmodels.watched(jobs.list_runs(), "analyze", view.workload, view.run)
    if run is None or run.id == view.analysis:
        return
    with st.container(border=True):
        watch(run.id, _finished, again="see the log, then press “Analyse again”.")


def _finished(run: jobs.RunView) -> None:
    if run.state == "finished":
        says, show = st.columns([4, 1], vertical_alignment="center")
        says.success(f"The analysis of {viewmodels.when(run)} is finished.")
        show.button(
            "Show it",
            on_click=state.change,
            kwargs={"analysis": run.id, "size": None},
            type="primary",
        )
