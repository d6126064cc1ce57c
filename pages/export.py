"""Take a quantized network away: in files that are as small as promised, and run."""

import streamlit as st

from hawq_viz.components.export import export_page

st.subheader("Export: take the quantized network away")
export_page()
