"""The Ollama API: requests, and answers with types and bounds."""

from __future__ import annotations
