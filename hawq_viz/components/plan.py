"""A plan in a row of numbers."""

import streamlit as st

from hawq_viz.viewmodels import Summary


def metrics(summary: Summary) -> None:
    """Size, compression, Ω, predicted loss increase, and the uniform plan to beat."""
    size, smaller, omega, loss, rival = st.columns(5)
    size.metric("Size of the weights", summary.size)
    smaller.metric("Smaller than float32", summary.compression, help=summary.average_bits)
    omega.metric("Ω", summary.omega, help="Σ over the layers of average trace × ‖Q(W) − W‖².")
    loss.metric("Predicted loss rise, ½Ω", f"+{summary.loss_increase}")
    rival.metric(
        f"{summary.rival_name}, {summary.rival_size}",
        f"{summary.ratio} the Ω",
        help="The smallest uniform plan that is not smaller than this one. Above 1× this plan is "
        "the better of the two.",
    )
