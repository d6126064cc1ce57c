"""All runs: find them, compare two, see whether predictions held."""

import streamlit as st

st.subheader("Runs")
