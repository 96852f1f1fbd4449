"""Archives: the oldest events of a log, moved to a compressed file."""
