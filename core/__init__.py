"""Crossview: cross-view geo-localization, from photo to place."""
