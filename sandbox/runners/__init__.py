"""The sandbox's runners: loaded models and their memory."""

from __future__ import annotations
