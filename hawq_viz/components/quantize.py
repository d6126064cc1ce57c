"""The runs of this network's plans: choose one, lay others over it, see what came out."""

from dataclasses import replace

import streamlit as st

from engine import jobs
from engine.analysis import Analysis
from engine.results import BitPlan
from hawq_viz import state
from hawq_viz.components.chart import chart
from hawq_viz.components.launch import launch_form
from hawq_viz.components.queue import queue
from hawq_viz.components.runs import delete_button, next_button, watch
from hawq_viz.components.training import training_charts, training_outcome
from hawq_viz.figures import bits, quantize
from hawq_viz.view import MOST_OVERLAID, encode
from hawq_viz.viewmodels import costs, measured, plans, runs, training


def quantize_page(analysis: Analysis, summary: plans.Summary) -> None:
    """The form that launches, and one run: that of the URL, else the plan's own, else the newest.

    Exactly one button stands out: to launch, or what the shown run asks for.
    """
    view = state.current()
    listed = runs.runs_of(state.list_runs(), runs.QUANTIZING, view.workload)
    own = runs.runs_of(listed, runs.QUANTIZING, view.workload, summary.plan)
    shown = next((run for run in listed if run.id == view.run), None) or next(
        iter(own + listed), None
    )
    asks = shown is not None and runs.asks_first(shown, summary.plan)
    live = shown is not None and shown.state in runs.LIVE
    launch_form(summary, primary=not asks, folded=live)
    queue(shown.id if shown is not None else "")
    if shown is None:
        _elsewhere(view.run)
        st.info("Nothing has been run yet: press “Quantize and fine-tune”.")
        _bits(analysis, summary.plan)
        return
    if shown.id != view.run:
        _elsewhere(view.run)
    overlaid = _choose(listed, shown, summary.plan, primary=asks)
    seen = [jobs.view(run_id) for run_id in (shown.id, *overlaid)]
    watch([run.id for run in seen], _live, _verdict)
    if overlaid:
        both = replace(view, compare=f"{shown.id},{overlaid[0]}")
        st.page_link(
            "../pages/runs.py",
            label="Lay the two side by side",
            icon=":material/compare_arrows:",
            query_params=encode(both),
        )
    left, right = st.columns([3, 2], gap="medium")
    with left:
        if shown.kind == "finetune":
            training_outcome(seen, analysis)
        else:
            _rounded(analysis, seen[0])
    with right:
        _bits(analysis, runs.planned(shown))


def _elsewhere(run_id: str) -> None:
    """Say so where a link names a run that is not here."""
    if run_id:
        try:
            jobs.view(run_id)
        except ValueError as error:
            st.warning(str(error))


def _choose(
    listed: list[jobs.RunView], shown: jobs.RunView, plan: BitPlan, *, primary: bool
) -> list[str]:
    """Choose the run and those drawn over it, and what to do; the ids of those over it."""
    which, over, act, delete = st.columns([5.2, 3, 1.9, 0.8], vertical_alignment="bottom")
    names = {run.id: runs.listed_name(run, plan) for run in listed}
    st.session_state["shown"] = shown.id
    which.selectbox(
        "Run",
        list(names),
        key="shown",
        format_func=names.get,
        on_change=lambda: state.change(run=st.session_state["shown"]),
    )
    others = [
        run.id for run in listed if shown.kind == run.kind == "finetune" and run.id != shown.id
    ]
    st.session_state["overlaid"] = [run for run in state.current().overlaid if run in others]
    overlaid = over.multiselect(
        "Draw over it",
        others,
        key="overlaid",
        format_func=names.get,
        placeholder="other fine-tunings" if others else "no other fine-tuning",
        max_selections=MOST_OVERLAID,
        disabled=not others,
        on_change=lambda: state.change(overlay=",".join(st.session_state["overlaid"])),
    )
    with act, st.container(gap="xxsmall"):
        next_button(shown, primary=primary)
        if shown.state == "finished":
            st.page_link("../pages/export.py", label="Take it away", icon=":material/inventory_2:")
    with delete:
        delete_button(shown)
    return overlaid


def _verdict(seen: list[jobs.RunView]) -> str:
    run = seen[0]
    if run.kind == "finetune":
        return training.training_verdict(run, seen[1:])
    return measured.verdict(run)


def _live(seen: list[jobs.RunView]) -> None:
    if seen[0].kind == "finetune":
        training_charts(seen)


def _rounded(analysis: Analysis, run: jobs.RunView) -> None:
    """What rounding alone left."""
    found = measured.evaluations(run)
    if not found:
        return
    chart(
        quantize.accuracies(found, measured.network_names(run.options)),
        key=f"accuracies_{run.id}",
        alt=measured.accuracies_alt(found, run.options),
        how_to_read=(f"{measured.images_sentence(found)} Bars are 95 % intervals."),
        table=measured.accuracy_table(analysis, run),
        table_open=True,
    )


def _bits(analysis: Analysis, plan: BitPlan) -> None:
    chart(
        bits.plan_bits(analysis, plan),
        key="quantized_bits",
        alt=plans.plan_alt(plan),
        how_to_read=costs.how_to_read_bits(plan),
        table=plans.plan_table(analysis, plan),
    )
