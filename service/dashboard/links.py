"""Links between pages; each keeps the time that is shown."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlencode

from herdbook.service.http.paths import segment

Value = str | int | None


class Links:
    """The links of one page.

    Attributes:
        as_of: The time that the page shows, as requested; None for now.
        node: The node of the page, for links to models; empty if there is only one, or
            for a page of all nodes.
        several: Whether there are several nodes.
    """

    def __init__(
        self, as_of: str | None = None, node: str = "", *, several: bool = False
    ) -> None:
        self.as_of = as_of
        self.several = several
        self.node = node

    def to(self, path: str, **query: Value) -> str:
        """Return a page at the same time; values that are None or empty are omitted.

        Args:
            path: Its path, encoded where necessary.
            query: Its query; a trailing ``_`` of a name is removed.
        """
        return joined_link(path, {**query, "as_of": self.as_of})

    def model(self, name: str, word: str = "", **query: Value) -> str:
        """Return the page of a model, or a page below it, on the same node."""
        return self.to(model_path(name, word), **{"node": self.node, **query})

    def event(self, position: int) -> str:
        """Return the page of an event."""
        return self.to(f"/log/{position}")


def model_path(name: str, word: str = "") -> str:
    """Return the path of a model's page, or of a page below it."""
    path = f"/models/{segment(name)}"
    return f"{path}/{word}" if word else path


def joined_link(path: str, query: Mapping[str, Value]) -> str:
    """Return a path with the non-empty values of a query."""
    given = {
        name.rstrip("_"): str(value)
        for name, value in query.items()
        if value is not None and value != ""
    }
    return f"{path}?{urlencode(given)}" if given else path
