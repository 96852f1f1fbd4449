"""Copies of a log: backup and restore."""
