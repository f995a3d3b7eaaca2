"""Every view of the console, and an address of each at which there is something to see."""

from __future__ import annotations

import re
from typing import Any, Final

from playwright.async_api import expect

from app.console import api
from tests.console.browser import Console
from tests.console.sample import Sample

MODES: Final[dict[str, dict[str, Any]]] = {
    "light": {"color_scheme": "light", "viewport": {"width": 1100, "height": 760}},
    "dark": {"color_scheme": "dark", "viewport": {"width": 1100, "height": 760}},
    "narrow": {"color_scheme": "light", "viewport": {"width": 320, "height": 700}},
}
"""Of a window, by name."""
_VIEW: Final = re.compile(r'^  \["(/[^"]*)", "([^"]+)"', re.MULTILINE)


def views() -> dict[str, str]:
    """Patterns of addresses, as `VIEWS` of the page has them, by a name for each."""
    listed = _VIEW.findall(api.ASSETS["main.js"].content.decode())
    return {pattern.strip("/").replace("/", "-").replace(":", "") or "start": pattern for pattern, _ in listed}


def address(pattern: str, sample: Sample) -> str:
    """One that shows something of the sample.

    Raises:
        KeyError: nobody has said yet what there is to see; say it in `Sample.addresses`.
    """
    return sample.addresses[pattern] if ":" in pattern else sample.addresses.get(pattern, pattern)


async def settle(console: Console, path: str) -> None:
    """Open a view, and wait until it has what it shows."""
    await console.open(path)
    await expect(console.page.get_by_role("heading", level=1)).to_be_visible()
    await expect(console.page.locator("[aria-busy]")).to_have_count(0)
    await console.page.wait_for_load_state("networkidle")
