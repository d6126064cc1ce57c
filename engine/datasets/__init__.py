"""Image data behind the workloads."""
