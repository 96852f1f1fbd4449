"""Build elements: every value is escaped, and there are no inline styles."""

from __future__ import annotations

import re
from typing import Final

from markupsafe import Markup, escape

Content = Markup | str
"""The content of an element: markup unchanged, text to be escaped."""

_INVISIBLE: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e"
    "\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
"""Characters that change how a text reads without being visible. The joiners U+200C and
U+200D are not among them: scripts and emoji need them."""


def visible(value: object) -> object:
    r"""Return a value; in a text, invisible characters are escaped, as ``\u202e``.

    A text from outside could reverse the line that it is in.
    """
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return _INVISIBLE.sub(lambda found: ascii(found[0])[1:-1], value)


def as_typed(value: object) -> Markup:
    """Return a value for a form field, which sends it back unchanged."""
    text = _INVISIBLE.sub(lambda found: f"&#{ord(found[0])};", str(escape(value)))
    return Markup(text)  # noqa: S704 - escaped above


def element(tag: str, *content: Content, **attributes: str | float | None) -> Markup:
    """Return an element.

    Args:
        tag: Its name.
        content: Its content.
        attributes: Its attributes; ``_`` becomes ``-``, or nothing at the end of a
            name. Attributes that are None are omitted.
    """
    written = Markup("").join(
        Markup(' {}="{}"').format(name.rstrip("_").replace("_", "-"), _text(value))
        for name, value in attributes.items()
        if value is not None
    )
    inside = Markup("").join(escape(visible(part)) for part in content)
    return Markup("<{}{}>{}</{}>").format(tag, written, inside, tag)


def picture(*content: Content, title: str, **attributes: str | float | None) -> Markup:
    """Return an SVG with its text alternative."""
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
    """Return a share, 0 to 1, as a percentage."""
    return f"{min(max(share, 0.0), 1.0) * 100:.3f}".rstrip("0").rstrip(".") + "%"


def _text(value: str | float) -> str:
    return (
        f"{value:.2f}".rstrip("0").rstrip(".")
        if isinstance(value, float)
        else str(visible(value))
    )
