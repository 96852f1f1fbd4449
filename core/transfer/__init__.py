"""Copies of a log: backups, exports and imports."""
