"""Destinations: what keeps records from going there, and what an operator does about it."""

from __future__ import annotations

from playwright.async_api import expect

from tests.acceptance.harness import people
from tests.console.browser import Console, browsing, console_of, needs_browser

pytestmark = needs_browser


async def test_a_circuit_is_opened_for_a_while_and_closed(console: Console) -> None:
    page = console.page
    await console.sign_in("/destinations")
    await expect(page.get_by_role("row", name="hubspot")).to_contain_text("not held")
    assert await console.violations() == []
    await page.get_by_role("link", name="hubspot").click()
    await page.get_by_label("Send nothing for").select_option("10 minutes")
    await page.get_by_role("button", name="Open the circuit").click()
    await expect(page.get_by_role("dialog")).to_contain_text("No calls to hubspot are made for 10 minutes")
    await page.get_by_role("dialog").get_by_role("button", name="Open the circuit").click()
    await expect(page.get_by_role("heading", name="Circuit open", exact=True)).to_be_visible()
    job_id = await console.tranche.imported(people(1))
    assert await console.tranche.counts(job_id) == {"pending": 1}
    await expect(page.locator(".facts")).to_contain_text("1, the oldest for")
    assert await console.violations() == []
    await page.get_by_role("button", name="Close the circuit").click()
    await expect(page.get_by_role("heading", name="Circuit closed", exact=True)).to_be_visible()
    changes = page.get_by_role("region", name="Recent changes of the circuit").get_by_role("row")
    await expect(changes).to_have_count(3)
    await console.tranche.finished(job_id)
    assert await console.tranche.counts(job_id) == {"ok": 1}


async def test_a_destination_is_tested_with_a_canary(console: Console) -> None:
    page = console.page
    await console.sign_in("/destinations/hubspot")
    await page.get_by_label("with a canary").check()
    await page.get_by_role("button", name="Test it").click()
    await expect(page.get_by_text("The destination works.", exact=False).first).to_be_visible()
    await expect(page.get_by_role("region", name="What the test saw")).to_contain_text("canary")
    assert await console.violations() == []
    await console.tranche.sandbox.misbehave(status={"code": 401})
    await page.get_by_role("button", name="Test it").click()
    await expect(page.get_by_text("The destination does not work.").first).to_be_visible()


async def test_a_destination_is_added_held_changed_synced_and_removed(console: Console) -> None:
    page, tranche = console.page, console.tranche
    await tranche.finished(await tranche.imported(people(3)))
    await console.sign_in("/destinations")
    await page.get_by_role("link", name="Add a destination").click()
    await page.get_by_label("Name").fill("second")
    await page.get_by_label("Kind").select_option("hubspot")
    await page.get_by_label("Base URL").fill(tranche.sandbox.base_url)
    await page.get_by_label("Token", exact=True).fill("pat-test")
    await page.get_by_label("Options as JSON").fill('{"rat": 5}')
    console.expected.add(400)
    await page.get_by_role("button", name="Add a destination").click()
    await expect(page.get_by_role("alert")).to_contain_text("options.rat: hubspot has no such option")
    assert await console.violations() == []
    await page.get_by_label("Options as JSON").fill('{"rate": 5')
    await page.get_by_role("button", name="Add a destination").click()
    await expect(page.get_by_role("alert")).to_contain_text("Options: this is not JSON")
    await page.get_by_label("Options as JSON").fill('{"rate": 5}')
    await page.get_by_role("button", name="Add a destination").click()
    await expect(page.get_by_role("heading", level=1, name="second active")).to_be_visible()

    await page.get_by_role("button", name="Pause").click()
    await expect(page.get_by_text("Deliveries wait until it is resumed.")).to_be_visible()
    await page.get_by_role("button", name="Resume").click()
    await page.get_by_text("Change credentials").first.click()
    await page.get_by_label("Token", exact=True).fill("pat-other")
    await page.get_by_role("button", name="Change credentials").click()
    await expect(page.locator(".notice", has_text="The credentials are changed")).to_be_visible()
    assert "pat-other" not in await page.content()
    await expect(page.get_by_label("Token", exact=True)).to_have_value("")
    await page.get_by_text("Change options").first.click()
    await page.get_by_label("Options as JSON").fill('{"rate": 0}')
    await page.get_by_role("button", name="Change options").click()
    await expect(page.get_by_role("alert")).to_contain_text("rate")
    assert await console.violations() == []

    await page.get_by_label("What to do").select_option("Send everything again")
    await page.get_by_role("button", name="Start the sync").click()
    await expect(page.get_by_role("dialog")).to_contain_text("Every record that goes to second is sent again")
    await page.get_by_role("dialog").get_by_role("button", name="Start the sync").click()
    await expect(page.get_by_role("heading", level=1)).to_contain_text("Sync job completed")

    await console.open("/destinations/second")
    await page.get_by_role("button", name="Remove").click()
    await expect(page.get_by_role("dialog")).to_contain_text("are skipped (0), and its 0 open dead letters")
    await page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    await expect(page.get_by_role("row", name="hubspot")).to_be_visible()
    await expect(page.get_by_role("row", name="second")).to_have_count(0)


async def test_whoever_only_reads_changes_nothing_on_a_small_dark_screen(console: Console) -> None:
    made = (await console.tranche.ask("POST", "/v1/keys", json={"scopes": ["read"]})).json()
    options = {"color_scheme": "dark", "viewport": {"width": 320, "height": 640}}
    async with browsing() as browser, console_of(browser, console.tranche, **options) as small:
        await small.sign_in("/destinations", key=made["key"])
        await expect(small.page.get_by_role("link", name="hubspot")).to_be_visible()
        await expect(small.page.get_by_role("link", name="Add a destination")).to_have_count(0)
        assert await small.violations() == []
        await small.page.get_by_role("link", name="hubspot").click()
        await expect(small.page.get_by_role("heading", name="Recent changes of the circuit")).to_be_visible()
        await expect(small.page.locator("main button")).to_have_count(0)
        assert await small.page.evaluate("document.documentElement.scrollWidth") == 320
        assert await small.violations() == []
