"""Aerial imagery: its sources, and cutting tiles from it."""
