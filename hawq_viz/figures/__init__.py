"""Results in, Plotly figures out: no Streamlit, so notebooks draw what the dashboard draws."""
