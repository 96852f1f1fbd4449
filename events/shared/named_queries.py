"""Files with SQL queries, each under a line ``-- name: <name>``."""

from __future__ import annotations


def named_queries(text: str) -> dict[str, str]:
    """Return the queries of a file by name, without their comments."""
    queries = {}
    for part in text.split("-- name: ")[1:]:
        name, _, body = part.partition("\n")
        lines = [line for line in body.splitlines() if not line.startswith("--")]
        queries[name] = "\n".join(lines).strip()
    return queries
