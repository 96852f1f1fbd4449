"""The gateway: a transparent HTTP relay in front of Ollama that records use."""
