"""Metrics, protocols and reports: what a model is worth, measured one way everywhere."""
