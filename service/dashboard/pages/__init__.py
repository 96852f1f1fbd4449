"""The pages of the dashboard, a module for each."""

from __future__ import annotations
