"""Background tasks, cancellation, time slices and who changes which model."""

from __future__ import annotations
