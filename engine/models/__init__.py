"""Architectures the workloads are made of."""
