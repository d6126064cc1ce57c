"""The pages of the dashboard: thin scripts that `hawq_viz/app.py` shows."""
