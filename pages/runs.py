"""All runs: find them, compare two, see whether predictions held."""

import streamlit as st

from hawq_viz import state
from hawq_viz.components.comparison import compare
from hawq_viz.components.one_run import show_run
from hawq_viz.components.predictions import predicted
from hawq_viz.components.queue import queue
from hawq_viz.components.run_table import filters, picked_runs, table, twins
from hawq_viz.components.runs import refusal

everything = state.list_runs()
st.subheader("Runs: find one, compare two, see whether predictions held")
if everything:
    listed, picked = filters(everything), picked_runs(everything)
    table(listed, [run.id for run in picked])
    twins(listed, picked)
    refusal()
    queue(picked[0].id if len(picked) == 1 else "")
    if len(picked) == 2:
        compare(*picked)
    elif picked:
        show_run(*picked)
    predicted(everything, [run.id for run in picked])
else:
    st.info("Nothing has been run yet: quantize a plan, and it is listed here.")
    st.page_link("../pages/quantize.py", label="Quantize a plan", icon=":material/compress:")
