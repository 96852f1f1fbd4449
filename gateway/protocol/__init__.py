"""The paths of Ollama's APIs, and what is read and written of HTTP."""
