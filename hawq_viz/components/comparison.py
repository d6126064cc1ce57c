"""Two runs side by side: outcomes, costs, bits, curves, and what was asked otherwise."""

import pandas as pd
import streamlit as st

from engine import jobs
from hawq_viz.components.chart import chart, numbers
from hawq_viz.components.runs import watch
from hawq_viz.components.training import training_charts
from hawq_viz.figures import comparison as figures
from hawq_viz.viewmodels import comparison, runs

SAME = "None: the same network, plan, recipe, seed, images and versions."


def compare(a: jobs.RunView, b: jobs.RunView) -> None:
    """What came of both, then what they have and were asked that differs."""
    called = comparison.names(a, b)
    st.markdown(f"##### {runs.plain(called[0])} &nbsp;·&nbsp; {runs.plain(called[1])}")
    st.markdown(comparison.verdict(a, b))
    _table("Measured", comparison.measured_table(a, b), "Nothing has been measured.")
    left, right = st.columns([2, 3], gap="medium")
    with left:
        _table("What they cost", comparison.costs_table(a, b), "Neither has a plan.")
    with right:
        _table("Settings that differ", comparison.settings_that_differ(a, b), SAME)
    plans = comparison.plans_of(a, b)
    if plans is None:
        st.info(comparison.no_bits(a, b))
    else:
        st.markdown("###### Bits")
        chart(
            figures.bits(*plans, called),
            key="compared_bits",
            alt=comparison.bits_alt(*plans, called),
            how_to_read=f"{comparison.bits_differ(*plans)} A line joins the two where they do.",
            table=comparison.bits_table(*plans),
        )
    _curves(a, b)


def _table(heading: str, table: pd.DataFrame, empty: str) -> None:
    st.markdown(f"###### {heading}")
    if len(table):
        numbers(table)
    else:
        st.caption(empty)


def _curves(a: jobs.RunView, b: jobs.RunView) -> None:
    """Training curves over each other, kept fresh while either lives."""
    called = comparison.names(a, b)
    drawn = [i for i, run in enumerate((a, b)) if run.kind == "finetune"]
    if not drawn:
        return
    st.markdown("###### Training")
    if why := comparison.drawn_alone(a, b):
        st.caption(why)
        drawn = drawn[:1]
    watch(
        [(a, b)[i].id for i in drawn],
        lambda seen: training_charts(seen, [called[i] for i in drawn]),
        None,
    )
