"""Background tasks, cancellation, time slices and tracking of changes to models."""

from __future__ import annotations
