"""Frozen, checked values: settings, plans, sites and results. No behaviour, no files."""
