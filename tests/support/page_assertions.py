"""What a page looks like and is made of, asked in the browser that shows it."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Page

SCRIPTS = Path(__file__).parents[1] / "browser"


def pale(page: Page) -> list[str]:
    """Return the words that do not stand out from what is behind them, as AA wants."""
    return _asked(page, "pale")


def wide(page: Page) -> list[str]:
    """Return what makes a page wider than the screen."""
    return _asked(page, "wide")


def lacks(page: Page) -> list[str]:
    """Return what a page lacks for who does not see it."""
    return _asked(page, "lacks")


def _asked(page: Page, script: str) -> list[str]:
    found: list[str] = page.evaluate((SCRIPTS / f"{script}.js").read_text("utf-8"))
    return found
