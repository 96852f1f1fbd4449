"""Templates: values are escaped, and a missing value is an error."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from herdbook.core import ModelState
from herdbook.core.concurrency.time_slice import TimeSlice
from herdbook.presentation.facts import SYMBOLS
from herdbook.presentation.wording import NOTHING
from herdbook.projections.sentences import bytes_text
from herdbook.service.api.health import VERSION
from herdbook.service.dashboard.charts.markup import as_typed, visible
from herdbook.service.dashboard.static_files import static_link


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
        finalize=visible,
    )
    environment.globals |= {
        "NOTHING": NOTHING,
        "VERSION": VERSION,
        "static_link": static_link,
        "symbol": lambda state: SYMBOLS[ModelState(state)],
    }
    environment.filters["bytes"] = bytes_text
    environment.filters["as_typed"] = as_typed
    environment.filters["with_code"] = _with_code
    environment.filters["starting_a_sentence"] = _starting_a_sentence
    environment.filters["merged"] = lambda query, **changes: {**query, **changes}
    for name in environment.list_templates():
        environment.get_template(name)  # compiled now, not during a request
    return environment


def _with_code(text: str) -> Markup:
    """Return a text with what stands between backticks as code."""
    parts = [escape(part) for part in text.split("`")]
    parts[1::2] = [Markup("<code>{}</code>").format(part) for part in parts[1::2]]
    return Markup("").join(parts)


def _starting_a_sentence(subject: str) -> str:
    """Return the subject of an error with a capital letter, unless it is a name."""
    first, space, _ = subject.partition(" ")
    is_word = space and first.isalpha() and first.islower()
    return subject[0].upper() + subject[1:] if is_word else subject


TEMPLATES: Final = _environment()


async def rendered_in_slices(template: str, **values: object) -> str:
    """Return a rendered template; other tasks run in between.

    A page of a thousand models takes a quarter of a second.
    """
    parts, time_slice = [], TimeSlice()
    for part in TEMPLATES.get_template(template).generate(**values):
        parts.append(part)
        await time_slice.checkpoint()
    return "".join(parts)


def rendered(template: str, **values: object) -> str:
    """Render a template at once; ``rendered_in_slices`` lets other tasks run."""
    return TEMPLATES.get_template(template).render(**values)
