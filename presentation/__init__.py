"""Texts, times, JSON shapes and the state diagram that CLI and dashboard share."""
