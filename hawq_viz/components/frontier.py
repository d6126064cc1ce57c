"""The frontier as it is looked at: drawn fast, though ten thousands of plans lie on it."""

from functools import lru_cache

import streamlit as st

from engine.results import BitPlan
from hawq_viz import state
from hawq_viz.components.chart import chart, clicked
from hawq_viz.figures import frontier
from hawq_viz.figures.ground import Ground
from hawq_viz.viewmodels import activations, costs, plans
from hawq_viz.viewmodels.studies import Study

KEY = "frontier"
GROUNDS = 16  # kept in memory


def frontier_chart(study: Study, plan: BitPlan) -> None:
    """The frontier with what other rules reach, and the plan that is shown."""
    view = state.current()
    limit = view.budget if state.several(study.analysis) else None
    own = plans.is_own(plan) and study.comparable(plan)
    over = frontier.marks(
        study.analysis,
        study.frontier,
        plan,
        cost=study.cost,
        ahead=study.least(plan) if own else None,
    )
    chart(
        _ground(study, limit).under(over),
        key=KEY,
        alt=plans.frontier_alt(study, plan),
        how_to_read=costs.how_to_read(study),
        table=lambda: plans.frontier_table(study),
        on_pick=lambda: state.pick(study.cost, clicked(KEY)),
    )
    if not study.analysis.activations:
        st.caption(activations.without(study.analysis))


@lru_cache(maxsize=GROUNDS)
def _ground(study: Study, limit: float | None) -> Ground:
    return Ground.of(
        frontier.frontier(
            study.analysis,
            study.frontier,
            cost=study.cost,
            overlays=study.overlays,
            uniform=study.uniform,
            limit=limit,
            free=study.free,
            bits=study.bits,
        )
    )
