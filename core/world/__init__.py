"""Rendered towns at 0 N, 0 E: streets, buildings and trees with two independent captures.

An offline generator: it imports no model, and the shipped program never renders.
"""
