"""The Ollama API: requests, and typed answers within bounds."""

from __future__ import annotations
