"""What a page looks like and is made of, asked in the browser that shows it."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Page

SCRIPTS = Path(__file__).parents[1] / "browser"


def low_contrast(page: Page) -> list[str]:
    """Return the words that do not stand out from what is behind them, as AA wants."""
    return _evaluate(page, "low_contrast")


def overflowing(page: Page) -> list[str]:
    """Return what makes a page wider than the screen."""
    return _evaluate(page, "overflowing")


def inaccessible(page: Page) -> list[str]:
    """Return what a page lacks for who does not see it."""
    return _evaluate(page, "inaccessible")


def _evaluate(page: Page, script: str) -> list[str]:
    found: list[str] = page.evaluate((SCRIPTS / f"{script}.js").read_text("utf-8"))
    return found
