"""Projections: views that are built from the events of the log."""
