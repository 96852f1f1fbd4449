"""Operations that clients started, and how to find them again."""

from __future__ import annotations
