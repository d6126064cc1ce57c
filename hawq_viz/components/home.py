"""The chosen network: what it is, what its frontier promises, what is wrong with it."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache

import streamlit as st

from engine.analysis import Analysis
from engine.jobs import RunView
from engine.results import BitPlan
from hawq_viz import networks, state
from hawq_viz.components.chart import chart
from hawq_viz.components.checklist import checklist_of
from hawq_viz.components.costs import shown_plan
from hawq_viz.components.runs import REFUSED, next_button, watch
from hawq_viz.components.weights import delete_weights
from hawq_viz.figures.ground import Ground, Overlaid
from hawq_viz.figures.overview import overview
from hawq_viz.figures.sketch import sketch
from hawq_viz.viewmodels import analyses, certainty, checklist, plans, runs, workloads
from hawq_viz.viewmodels.checklist import plain
from hawq_viz.viewmodels.studies import Study

GLANCES = 16  # kept in memory


def network_card(study: Study | None, seen: Sequence[RunView]) -> None:
    """What the network is, in words and numbers, and how certain its analysis is."""
    name = state.current().workload
    analysis = study.analysis if study is not None else None
    with st.container(border=True):
        st.markdown(f"**{plain(workloads.called(name))}** {plain(workloads.does(name))}.")
        found = workloads.facts(name, analysis, seen)
        for fact, cell in zip(found, st.columns(max(1, len(found))), strict=False):
            cell.metric(fact.label, fact.text, help=fact.source)
        if analysis is not None:
            made_by = state.analysis_run(state.current())
            source = analyses.analysis_name(made_by) if made_by else "it comes with the network"
            st.caption(workloads.certainty(analysis, source))
        st.caption(f"**Images:** {workloads.images(name)}.")
        look(analysis, seen)
        delete_weights()


def look(analysis: Analysis | None, seen: Sequence[RunView]) -> None:
    """What to know of the network in words, where it was looked at; else a button that has it."""
    name = state.current().workload
    told = [
        run for run in runs.runs_of(seen, ("check", "analyze"), name) if "checklist" in run.results
    ]
    looked = next(iter(told), None)
    if checklist.findings(looked, analysis) is not None:
        checklist_of(looked, analysis)
        return
    run = next(iter(runs.runs_of(seen, ("check",), name)), None)
    if run is not None:
        watch([run.id], lambda _: None, lambda _: "Looked at.")
        next_button(run, primary=False)
        return
    st.button(
        "What is wrong with this network?",
        icon=":material/checklist:",
        help="A worker runs it on four images and says in words what keeps it from being analyzed",
        on_click=_look,
        args=(name,),
    )


def _look(name: str) -> None:
    try:
        networks.launch("check", name, {"data": "sample"})
    except ValueError as error:
        st.session_state[REFUSED] = str(error)


def promise(study: Study) -> None:
    """The frontier at a glance, and what its picked or suggested plan promises."""
    plan, _ = shown_plan(study)
    summary = plans.summarize(study.analysis, plan, study.cost, study.latency)
    _, rise_is = certainty.sources(study, plan)
    st.markdown(workloads.promise(summary, suggested=state.is_clear()), help=rise_is)
    figure, until_drawn = _glance(study, json.dumps(asdict(plan)))
    chart(
        figure,
        key="overview",
        alt=workloads.overview_alt(study, plan),
        how_to_read="Each point of the line is a plan: further left is smaller, further down is "
        "closer to the network before rounding. Squares have the same bits in every layer.",
        table=lambda: plans.frontier_table(study),
        until_drawn=until_drawn,
    )


@lru_cache(maxsize=GLANCES)
def _glance(study: Study, plan: str) -> tuple[Overlaid, str]:
    """The frontier with a plan, given as JSON, and a sketch of it: ready for the next visitor.

    What comes before the browser begins with the page is drawn with its first elements, a third of
    a second sooner.
    """
    figure = overview(
        study.analysis,
        study.frontier,
        cost=study.cost,
        picked=BitPlan(**json.loads(plan)),
        uniform=study.uniform,
        bits=study.bits,
    )
    return Ground.of(figure).under(()), sketch(figure)
