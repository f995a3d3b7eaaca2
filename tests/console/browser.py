"""A real browser at the console, which notes whatever a page complains about."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page, async_playwright, expect

from tests.acceptance.harness import Installation

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (apt-get install chromium)")
PATIENCE = 30_000
"""Milliseconds that a page may need on a busy machine."""
expect.set_options(timeout=PATIENCE)
_QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_LISTEN = """
window.__violations = [];
addEventListener("securitypolicyviolation", (event) =>
  window.__violations.push(`${event.violatedDirective} ${event.blockedURI}`));
"""


class Console:
    """One page of the console, and what went wrong in it."""

    def __init__(self, page: Page, tranche: Installation) -> None:
        self.page = page
        self.tranche = tranche
        self.base = f"http://localhost:{tranche.port}/console"
        self.complaints: list[str] = []
        self.expected: set[int] = set()
        """Statuses that a test provokes, and that the browser notes as errors."""
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        page.on("console", lambda message: self._note(message.type, message.text))

    def _note(self, kind: str, text: str) -> None:
        if kind in ("error", "warning") and not any(f"status of {status} " in text for status in self.expected):
            self.complaints.append(f"{kind}: {text}")

    async def open(self, path: str = "") -> None:
        await self.page.goto(self.base + path)

    async def sign_in(self, path: str = "", key: str = "") -> None:
        self.expected.add(401)
        await self.open(path)
        await self.page.get_by_label("API key").fill(key or self.tranche.key)
        await self.page.get_by_role("button", name="Sign in").click()
        await expect(self.page.get_by_role("button", name="Sign out")).to_be_visible(timeout=PATIENCE)

    async def violations(self) -> list[str]:
        """Of WCAG, as axe finds them, and of the page's own policy."""
        found = await Axe().run(
            self.page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa", "best-practice"]}
        )
        policy: list[str] = await self.page.evaluate("window.__violations")
        return policy + [
            f"{each['id']}: {node['html']}" for each in found.response["violations"] for node in each["nodes"]
        ]


@asynccontextmanager
async def browsing() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=_QUIET)
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def console_of(browser: Browser, tranche: Installation, **options: Any) -> AsyncIterator[Console]:
    """A window of its own; at its end nothing may have been complained about."""
    # axe is put into the page by the test, past its policy; what the page itself does is still held to it.
    context = await browser.new_context(**options)
    await context.add_init_script(_LISTEN)
    console = Console(await context.new_page(), tranche)
    try:
        yield console
        assert await console.page.evaluate("window.__violations") == []
        assert console.complaints == []
    finally:
        await context.close()
