"""The frontier as it is looked at: drawn fast, though ten thousands of plans lie on it."""

from collections.abc import Sequence
from functools import lru_cache

import streamlit as st

from engine.results import BitPlan
from hawq_viz import state
from hawq_viz.components.certainty import with_band
from hawq_viz.components.chart import chart, clicked, zoomed
from hawq_viz.figures import frontier
from hawq_viz.figures.ground import Ground
from hawq_viz.figures.pins import pin_marks
from hawq_viz.figures.reached import measured_marks
from hawq_viz.viewmodels import activations, costs, pins, plans, sliders
from hawq_viz.viewmodels.reached import Reached
from hawq_viz.viewmodels.studies import Study

KEY = "frontier"
GROUNDS = 16  # kept in memory


def frontier_chart(study: Study, plan: BitPlan, points: Sequence[Reached]) -> None:
    """The frontier with what other rules reach and runs have measured, and the plan that is shown.

    Args:
        study: Over the cost that is drawn.
        plan: The shown one.
        points: What was measured.
    """
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
    kept = {pin.letter: pin.plan for pin in pins.pins_of(study, view.pins)}
    alike = {letter: own for letter, own in kept.items() if study.comparable(own)}
    axis = {"cost": study.cost, "largest": float(study.frontier.cost[-1])}
    over = [*measured_marks(points, **axis), *pin_marks(alike, **axis), *over]
    part = sliders.part_of(study, view.low, view.high)
    chart(
        _ground(study, limit, part, bool(view.band)).under(over),
        key=KEY,
        alt=plans.frontier_alt(study, plan),
        how_to_read=costs.how_to_read(study) + costs.beyond(study, plan, part),
        table=lambda: plans.frontier_table(study),
        on_pick=lambda: state.pick(study.cost, clicked(KEY)),
        on_zoom=lambda: _zoom(study),
    )
    if not study.analysis.activations:
        st.caption(activations.without(study.analysis))


def _zoom(study: Study) -> None:
    """Look at the part of the costs that was drawn as a box, or at all of them."""
    low, high = sliders.zoomed_part(study, zoomed(KEY))
    state.change(low=low, high=high)


@lru_cache(maxsize=GROUNDS)
def _ground(
    study: Study, limit: float | None, part: tuple[float, float] | None, band: bool
) -> Ground:
    figure = frontier.frontier(
        study.analysis,
        study.frontier,
        cost=study.cost,
        overlays=study.overlays,
        uniform=study.uniform,
        limit=limit,
        free=study.free,
        part=part,
        bits=study.bits,
    )
    return Ground.of(with_band(figure, study, part) if band else figure)
