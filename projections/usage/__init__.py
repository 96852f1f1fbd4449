"""How models are used: requests, tokens, durations and errors over time."""
