"""Quantize a plan in a worker process, and show what was measured."""

import streamlit as st

from engine import jobs
from engine.analysis import Analysis
from engine.results import BitPlan
from hawq_viz import state, viewmodels
from hawq_viz.components.chart import chart, numbers
from hawq_viz.components.runs import watch
from hawq_viz.figures import frontier, quantize

DATA = {"sample": "the sample's test images", "full": "all of them (fetched once)"}


def quantize_button(summary: viewmodels.Summary) -> None:
    """Ask on which images to measure the picked plan, and start."""
    data, another, start = st.columns([5, 3, 3], vertical_alignment="bottom")
    data.radio("Measure on", list(DATA), format_func=DATA.get, key="quantize_data", horizontal=True)
    another.page_link("../pages/frontier.py", label="Pick another plan", icon=":material/timeline:")
    start.button(
        "Quantize and measure",
        icon=":material/play_arrow:",
        type="primary",
        width="stretch",
        on_click=_launch,
        args=(summary,),
    )
    if refused := st.session_state.pop("quantize_refused", None):
        st.error(refused)


def _launch(summary: viewmodels.Summary) -> None:
    options = viewmodels.quantize_options(summary, st.session_state["quantize_data"])
    try:
        run_id = jobs.launch("quantize", summary.plan.workload, options)
    except ValueError as error:
        st.session_state["quantize_refused"] = str(error)
    else:
        state.change(run=run_id)


def quantize_runs(analysis: Analysis, plan: BitPlan) -> None:
    """Choose among the runs of this network, and show one: the plan's own first."""
    view = state.current()
    runs = viewmodels.runs_of(jobs.list_runs(), "quantize", view.workload)
    left, right = st.columns([3, 2], gap="medium")
    with left:
        if not runs:
            st.info("Nothing has been measured yet: press “Quantize and measure”.")
        else:
            plan = _chosen_run(analysis, plan, runs)
    with right:
        chart(
            frontier.plan_bits(analysis, plan),
            key="quantized_bits",
            alt=viewmodels.plan_alt(plan),
            how_to_read="Bits of each layer, from the input (top) to the output.",
            table=viewmodels.plan_table(analysis, plan),
        )


def _chosen_run(analysis: Analysis, plan: BitPlan, runs: list[jobs.RunView]) -> BitPlan:
    """Choose a run and watch it; its plan."""
    view = state.current()
    names = {run.id: viewmodels.quantize_name(run, plan) for run in runs}
    own = viewmodels.runs_of(runs, "quantize", view.workload, plan)
    st.session_state["quantized"] = view.run if view.run in names else (own or runs)[0].id
    st.selectbox(
        "Measured so far",
        list(names),
        key="quantized",
        format_func=names.get,
        on_change=lambda: state.change(run=st.session_state["quantized"]),
    )
    watch(
        st.session_state["quantized"],
        lambda run: _results(analysis, run),
        again="see the log, then press “Quantize and measure” again.",
    )
    return viewmodels.measured_plan(jobs.view(st.session_state["quantized"]))


def _results(analysis: Analysis, run: jobs.RunView) -> None:
    found = viewmodels.evaluations(run)
    if not found:
        return
    if run.state == "finished":
        st.markdown(viewmodels.verdict(found, run.options))
    chart(
        quantize.accuracies(found, viewmodels.network_names(run.options)),
        key=f"accuracies_{run.id}",
        alt=viewmodels.accuracies_alt(found, run.options),
        how_to_read=(
            f"{viewmodels.images_sentence(found)} Bars are 95 % intervals; the uniform network is "
            "the smallest that is not smaller than the plan."
        ),
    )
    numbers(viewmodels.accuracy_table(analysis, run.options, found))
