"""Webhook endpoints: what they were sent, what failed, and sending it again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from playwright.async_api import expect

from tests.acceptance.harness import Installation
from tests.console.browser import Console, browsing, console_of, needs_browser

pytestmark = needs_browser
SETTINGS: dict[str, Any] = {"webhook_private": "127.0.0.0/8"}


class Receiver:
    """Refuses for good while it is broken."""

    def __init__(self) -> None:
        self.broken = False
        self.types: list[str] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        if self.broken:
            return web.Response(status=400, text="not today")
        self.types.append((await request.json())["type"])
        return web.Response(status=204)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    app = web.Application()
    app.router.add_post("/", made.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    yield made
    await runner.cleanup()


async def _press(console: Console, name: str) -> None:
    """A button that asks first."""
    await console.page.get_by_role("button", name=name).click()
    await console.page.get_by_role("dialog").get_by_role("button", name=name).click()


async def test_what_did_not_arrive_is_sent_again(tranche: Installation, receiver: Receiver) -> None:
    await tranche.start_api(**SETTINGS)
    await tranche.start_worker(**SETTINGS)
    async with browsing() as browser, console_of(browser, tranche) as console:
        page = console.page
        await console.sign_in("/webhooks")
        await expect(page.get_by_role("heading", name="No webhook endpoints yet")).to_be_visible()
        assert await console.violations() == []
        await page.get_by_role("link", name="Add an endpoint").click()
        await page.get_by_label("URL").fill("ftp://example.org")
        console.expected |= {400, 422}
        await page.get_by_role("button", name="Add an endpoint").click()
        await expect(page.get_by_role("alert")).to_be_visible()
        assert await console.violations() == []
        await page.get_by_label("URL").fill(receiver.url)
        await page.get_by_label("job.finished").check()
        await page.get_by_role("button", name="Add an endpoint").click()
        await expect(page.locator(".notice code")).to_contain_text("whsec_")
        secret = await page.locator(".notice code").inner_text()
        assert await console.violations() == []
        await page.get_by_role("link", name="To the endpoint").click()

        receiver.broken = True
        for number in (1, 2):
            await page.get_by_role("button", name="Send a test event").click()
            await expect(page.get_by_role("article")).to_have_count(number)
        await expect(page.locator("article .badge.bad")).to_have_count(2)
        await expect(page.get_by_role("region", name="Attempts of message").first).to_contain_text("400")
        assert await console.violations() == []

        receiver.broken = False
        await page.get_by_role("button", name="Send again").first.click()
        await expect(page.locator("article .badge.good")).to_have_count(1)
        await page.get_by_role("button", name="Replay all failed").click()
        await expect(page.get_by_role("dialog")).to_contain_text("1 message that is failed is sent again")
        await page.get_by_role("dialog").get_by_role("button", name="Replay all failed").click()
        await expect(page.locator("article .badge.good")).to_have_count(2)
        assert receiver.types == ["webhook.test"] * 2
        await page.get_by_label("State").select_option("failed")
        await expect(page.get_by_text("No messages.")).to_be_visible()
        assert page.url.endswith("?state=failed")

        await _press(console, "New secret")
        await expect(page.locator(".notice code")).to_contain_text("whsec_")
        assert await page.locator(".notice code").inner_text() != secret
        await page.reload()
        await expect(page.get_by_text("Old secret until")).to_be_visible()
        assert "whsec_" not in await page.content()
        await _press(console, "Disable")
        await expect(page.get_by_role("heading", level=1)).to_contain_text("disabled")
        await page.get_by_role("button", name="Enable").click()
        await expect(page.get_by_role("heading", level=1)).to_contain_text("active")

        place = page.url.removeprefix(console.base)
        options: dict[str, Any] = {"color_scheme": "dark", "viewport": {"width": 320, "height": 640}}
        async with console_of(browser, tranche, **options) as small:
            await small.sign_in(place.partition("?")[0])
            await expect(small.page.get_by_role("article")).to_have_count(2)
            assert await small.page.evaluate("document.documentElement.scrollWidth") == 320
            assert await small.violations() == []

        await _press(console, "Remove")
        await expect(page.get_by_role("heading", name="No webhook endpoints yet")).to_be_visible()


async def test_whoever_only_reads_sees_no_webhooks(console: Console) -> None:
    made = (await console.tranche.ask("POST", "/v1/keys", json={"scopes": ["read"]})).json()
    await console.sign_in(key=made["key"])
    await expect(console.page.get_by_role("link", name="Jobs")).to_be_visible()
    await expect(console.page.get_by_role("link", name="Webhooks")).to_have_count(0)
