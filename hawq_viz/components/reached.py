"""Plans that runs have measured: on the frontier, and what they keep."""

from collections.abc import Sequence

import streamlit as st

from hawq_viz import state
from hawq_viz.components.chart import chart
from hawq_viz.figures import reached as figures
from hawq_viz.viewmodels import reached
from hawq_viz.viewmodels.reached import Reached
from hawq_viz.viewmodels.runs import QUANTIZING, runs_of
from hawq_viz.viewmodels.studies import Study


def reached_here(study: Study) -> list[Reached]:
    """What runs of this network have measured, the newest first."""
    seen = runs_of(state.list_runs(), QUANTIZING, state.current().workload)
    return reached.reached(study, seen)


def reached_panel(study: Study, points: Sequence[Reached]) -> None:
    """What measured plans keep against what they cost."""
    if not points:
        st.caption(reached.EMPTY)
        return
    chart(
        figures.accuracies(points, cost=study.cost),
        key="reached",
        alt=reached.reached_alt(study, points),
        how_to_read=reached.READ,
        table=reached.reached_table(study, points),
    )
