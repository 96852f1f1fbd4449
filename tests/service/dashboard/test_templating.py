"""Templates are filled in slices."""

from __future__ import annotations

from herdbook.service.dashboard.templating import rendered, rendered_in_slices


async def test_page_built_in_slices_is_the_same() -> None:
    values = {"wanted": "/", "wrong": "a\u202eb <b>", "remedy": "c"}

    page = await rendered_in_slices("login.html", **values)

    assert page == rendered("login.html", **values)
    assert "a\\u202eb &lt;b&gt;" in page
