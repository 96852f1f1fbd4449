"""Checks of a page's appearance and accessibility, run in the browser."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Page

SCRIPTS = Path(__file__).parents[2] / "browser"


def low_contrast(page: Page) -> list[str]:
    """Return the texts with less contrast than WCAG AA requires."""
    return _evaluate(page, "low_contrast")


def overflowing(page: Page) -> list[str]:
    """Return the elements that make a page wider than the screen."""
    return _evaluate(page, "overflowing")


def inaccessible(page: Page) -> list[str]:
    """Return the accessibility problems of a page."""
    return _evaluate(page, "inaccessible")


def _evaluate(page: Page, script: str) -> list[str]:
    found: list[str] = page.evaluate((SCRIPTS / f"{script}.js").read_text("utf-8"))
    return found
