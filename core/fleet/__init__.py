"""Several Ollama servers with one log: which there are, and a manager for each."""
