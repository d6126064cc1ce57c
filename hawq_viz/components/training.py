"""Fine-tuning as it goes, and what it brought."""

from collections.abc import Sequence
from dataclasses import replace

import streamlit as st

from engine import jobs
from engine.analysis import Analysis
from hawq_viz.components.chart import chart, numbers
from hawq_viz.figures import finetune
from hawq_viz.viewmodels import training


def training_charts(seen: Sequence[jobs.RunView], called: Sequence[str] = ()) -> None:
    """The metric and the loss against steps; drawn in place at every tick.

    Args:
        seen: The runs, the watched one first.
        called: What to call them, if not by their own names.
    """
    courses = [training.course(run) for run in seen]
    if called:
        courses = [replace(one, name=name) for one, name in zip(courses, called, strict=True)]
    left, right = st.columns([3, 2], gap="small")
    with left:
        chart(
            finetune.accuracy(courses),
            key="live_accuracy",
            alt=training.accuracy_alt(courses),
            how_to_read=training.READ_ACCURACY,
            table=training.measurement_table(courses),
        )
    with right:
        chart(
            finetune.loss(courses),
            key="live_loss",
            alt=training.loss_alt(courses),
            how_to_read=training.READ_LOSS,
            table=training.loss_table(courses),
        )


def training_outcome(seen: Sequence[jobs.RunView], analysis: Analysis) -> None:
    """What was measured on all test images so far, and what was done."""
    run = seen[0]
    if not training.trained(run):
        return
    numbers(training.training_table(seen, analysis.parameters))
    st.caption(training.images_sentence(run))
    if run.state == "finished":
        st.markdown("##### What was done")
        st.table(training.done(run), border="horizontal")
