"""The chosen network, the journey in five steps and what is done of it, recent runs."""

import streamlit as st

st.subheader("Home")
