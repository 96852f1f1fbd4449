"""Verbs that start programs, and verbs for the Ollama server."""
