"""Verbs for the log: history, comparison, verification, backup, proof."""
