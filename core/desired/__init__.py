"""The desired set of models: read it, plan the steps to it, apply them."""

from __future__ import annotations
