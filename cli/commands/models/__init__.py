"""Verbs for models: list, pull, load, configure, delete."""
