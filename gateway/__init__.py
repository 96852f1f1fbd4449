"""The gateway: a transparent HTTP relay before an Ollama server that records use."""
