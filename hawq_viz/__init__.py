"""The app around the engine: dashboard, figures and command line."""
