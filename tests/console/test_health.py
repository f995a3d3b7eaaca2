"""What works and what does not, as a person sees it."""

from __future__ import annotations

from playwright.async_api import expect

from app.embedded import Engines
from tests.acceptance.conftest import fragile
from tests.acceptance.harness import Installation
from tests.console.browser import Console, browsing, console_of, needs_browser

__all__ = ["fragile"]

pytestmark = needs_browser
PEOPLE = [{"id": f"h{n}", "email": f"h{n}@example.org"} for n in range(5)]


async def test_a_fault_is_shown_with_its_words_until_it_is_over(console: Console) -> None:
    page, tranche = console.page, console.tranche
    await console.sign_in("/health")
    await expect(page.get_by_text("Nothing is wrong.")).to_be_visible()
    checks = page.get_by_role("region", name="Everything that was looked at")
    await expect(checks.get_by_role("row").filter(has_text="PostgreSQL")).to_contain_text("ok")
    await tranche.ask("POST", "/v1/destinations/hubspot/pause")
    wrong = page.get_by_role("region", name="What is wrong")
    await expect(wrong.get_by_role("row").filter(has_text="hubspot")).to_contain_text("paused by an administrator")
    await tranche.imported(PEOPLE)
    numbers = page.get_by_role("region", name="The backlog in numbers")
    await expect(numbers.get_by_role("row").filter(has_text="items pending")).to_contain_text("5")
    await expect(page.locator(".chart canvas")).to_have_count(2)
    assert await console.violations() == []
    await tranche.ask("POST", "/v1/destinations/hubspot/resume")
    await expect(page.get_by_text("Nothing is wrong.")).to_be_visible()
    await expect(numbers.get_by_role("row").filter(has_text="items pending")).to_contain_text("005")  # now, least, most

    await tranche.ask("POST", "/v1/destinations/hubspot/pause")
    await wrong.get_by_role("link", name="hubspot").click()
    await expect(page.get_by_role("heading", level=1)).to_contain_text("hubspot")


async def test_a_server_that_is_gone_is_said_and_what_is_shown_is_called_old(console: Console) -> None:
    page = console.page
    await console.sign_in("/health")
    await expect(page.get_by_text("Nothing is wrong.")).to_be_visible()
    await console.tranche.parts[1].child.stop(10)
    await expect(page.get_by_role("alert")).to_contain_text("cannot be reached")
    await expect(page.get_by_text("how it was then")).to_be_visible()
    console.complaints[:] = [each for each in console.complaints if "ERR_CONNECTION_REFUSED" not in each]
    await console.tranche.start_api()
    await expect(page.get_by_role("alert")).to_have_count(0)
    console.complaints[:] = [each for each in console.complaints if "ERR_CONNECTION_REFUSED" not in each]


async def test_while_postgresql_is_away_what_is_known_is_shown_as_old(
    fragile: Installation, own_engines: Engines
) -> None:
    await fragile.start_both()
    await fragile.imported(PEOPLE)
    async with browsing() as browser, console_of(browser, fragile) as console:
        page = console.page
        await console.sign_in("/records/contacts/h1")
        await expect(page.get_by_role("heading", name="Version 1")).to_be_visible()
        await page.get_by_role("link", name="Health").click()
        await expect(page.get_by_text("Nothing is wrong.")).to_be_visible()
        console.expected.add(503)
        await own_engines.postgres.kill()
        wrong = page.get_by_role("region", name="What is wrong")
        await expect(wrong.get_by_role("row").filter(has_text="PostgreSQL")).to_contain_text("cannot be reached")
        assert await console.violations() == []
        await page.go_back()
        await expect(page.get_by_text("this is how it was at most")).to_be_visible()
        await expect(page.get_by_text("h1@example.org").first).to_be_visible()
        await page.reload()
        await expect(page.get_by_role("alert")).to_contain_text("cannot be reached")
        await expect(page.get_by_label("API key")).to_have_count(0)  # nobody is signed out by an outage
        assert await console.violations() == []
        await own_engines.restart()
        await expect(page.get_by_role("heading", level=1)).to_have_text("h1")
