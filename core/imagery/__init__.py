"""Aerial imagery: where it comes from and how tiles are cut from it."""
