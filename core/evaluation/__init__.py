"""Metrics, protocols and reports: every model is measured in one way."""
