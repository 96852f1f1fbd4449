"""A tiny builder of elements: everything is escaped, and nothing is styled inline."""

from __future__ import annotations

from markupsafe import Markup, escape

Content = Markup | str
"""What an element holds: markup as it is, text to be escaped."""


def element(tag: str, *content: Content, **attributes: str | float | None) -> Markup:
    """Return an element.

    Args:
        tag: Its name.
        content: What it holds.
        attributes: Its attributes; ``_`` stands for ``-`` and is left out at the end,
            one that is None is left out.
    """
    told = Markup("").join(
        Markup(' {}="{}"').format(name.rstrip("_").replace("_", "-"), _text(value))
        for name, value in attributes.items()
        if value is not None
    )
    inside = Markup("").join(escape(part) for part in content)
    return Markup("<{}{}>{}</{}>").format(tag, told, inside, tag)


def picture(*content: Content, title: str, **attributes: str | float | None) -> Markup:
    """Return an SVG with its alternative in words."""
    return element(
        "svg",
        element("title", title),
        *content,
        role="img",
        xmlns="http://www.w3.org/2000/svg",
        aria_label=title,
        **attributes,
    )


def percent(share: float) -> str:
    """Return a share, 0 to 1, as a length: what it is of is left to the page."""
    return f"{min(max(share, 0.0), 1.0) * 100:.3f}".rstrip("0").rstrip(".") + "%"


def _text(value: str | float) -> str:
    return (
        f"{value:.2f}".rstrip("0").rstrip(".")
        if isinstance(value, float)
        else f"{value}"
    )
