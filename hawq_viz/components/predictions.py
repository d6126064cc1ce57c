"""Whether ½Ω held: over all measured plans of the network that is looked at."""

from collections.abc import Sequence
from dataclasses import asdict

import streamlit as st

from engine import jobs
from engine.analysis import Analysis
from engine.results import BitPlan
from hawq_viz import networks, state
from hawq_viz.components.chart import chart, clicked
from hawq_viz.components.run_table import look_at
from hawq_viz.components.runs import REFUSED
from hawq_viz.figures.predictions import predicted_and_measured
from hawq_viz.viewmodels import predictions
from hawq_viz.viewmodels.measured import measured_plans

KEY = "predictions"


def predicted(everything: Sequence[jobs.RunView], picked: Sequence[str]) -> None:
    """The chart of all its measured plans, or how to get some."""
    view, analysis = state.current(), state.chosen_analysis()
    own = [run for run in everything if run.workload == view.workload]
    found = predictions.predictions(measured_plans(own), analysis)
    st.markdown("##### Predicted against measured")
    if not found:
        st.info(
            f"No plan of {view.workload} has a measured loss yet: round some and measure them, to "
            "see whether ½Ω predicts how far the loss rises."
        )
        _measure(analysis, found, primary=not picked)
        return
    st.markdown(predictions.ranking_sentence(found))
    chart(
        predicted_and_measured(found, picked),
        key=KEY,
        alt=predictions.predictions_alt(found),
        how_to_read=predictions.HOW_TO_READ,
        table=predictions.prediction_table(found),
        on_pick=lambda: look_at(found[int(clicked(KEY))].runs[0].id),
    )
    _measure(analysis, found, primary=False)


def _measure(
    analysis: Analysis | None, found: Sequence[predictions.Prediction], *, primary: bool
) -> None:
    """The one way to more points: have plans measured, or first an analysis made."""
    if analysis is None:
        st.page_link(state.SENSITIVITY, label="Analyse it first", icon=":material/search:")
        return
    plans = predictions.worth_measuring(analysis, found)
    if not plans:
        return
    st.button(
        f"Measure {2 * len(plans)} more plans" if found else f"Measure {2 * len(plans)} plans",
        icon=":material/play_arrow:",
        help="Frontier plans of 3 to 6 bits on average, each with uniform bits, rounded and "
        "measured on the sample; nothing is trained",
        type="primary" if primary else "secondary",
        key="measure_plans",
        on_click=_launch,
        args=(plans,),
    )


def _launch(plans: Sequence[tuple[BitPlan, BitPlan]]) -> None:
    try:
        for plan, uniform in plans:
            told = {"plan": asdict(plan), "uniform": asdict(uniform), "data": "sample"}
            networks.launch("quantize", plan.workload, told)
    except ValueError as error:
        st.session_state[REFUSED] = str(error)
