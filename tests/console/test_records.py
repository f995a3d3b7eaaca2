"""Records: found, and with all that became of them."""

from __future__ import annotations

from playwright.async_api import expect

from tests.console.browser import Console, needs_browser
from tests.console.sample import fill

pytestmark = needs_browser


async def test_a_record_is_found_and_tells_its_story(console: Console) -> None:
    sample = await fill(console.tranche)
    page = console.page
    await console.sign_in("/records")
    await expect(page.get_by_role("row")).to_have_count(12)  # the header, and all but the invalid one
    assert await console.violations() == []
    await page.get_by_label("Search by").select_option("email")
    await page.get_by_label("Value").fill("c1@example.org")
    await page.get_by_role("button", name="Search").click()
    await expect(page.get_by_role("row")).to_have_count(2)
    assert "email=c1%40example.org" in page.url
    await page.reload()
    await expect(page.get_by_label("Value")).to_have_value("c1@example.org")
    await page.get_by_role("link", name="c1", exact=True).click()

    await expect(page.get_by_role("heading", level=1)).to_have_text("c1")
    changes = page.get_by_role("region", name="Changes of version 2")
    await expect(changes.get_by_role("row").filter(has_text="first_name")).to_contain_text("Ada 1")
    await expect(changes.get_by_role("row").filter(has_text="phone")).to_contain_text("+44 20 7946 0000")
    await expect(changes.get_by_role("row")).to_have_count(3)  # what did not change is left out
    there = page.get_by_role("region", name="At every destination")
    await expect(there.get_by_role("row").filter(has_text="hubspot")).to_contain_text("2 / 2")
    held = (await console.tranche.sandbox.contacts())["c1"]["id"]
    await expect(there).to_contain_text(str(held))
    assert await console.violations() == []

    await console.tranche.imported([{"id": "a/b c.js", "email": "ab@example.org"}])
    await console.open("/records/contacts/a%2Fb%20c.js")
    await expect(page.get_by_role("heading", level=1)).to_have_text("a/b c.js")
    await console.open("/records/contacts/c2")
    await expect(page.get_by_role("link", name=f"dead letter {sample.dead_letter}")).to_be_visible()
    console.expected.add(404)  # of what it is now
    await console.open("/records/contacts/u0")
    await expect(page.get_by_text("This record is no more")).to_be_visible()
    await expect(page.get_by_text("The record was deleted.")).to_be_visible()
    await page.get_by_text("Undone by").get_by_role("link").click()
    await expect(page.get_by_role("heading", level=1)).to_contain_text("Undo job")


async def test_the_items_of_a_job_are_filtered_by_what_became_of_them(console: Console) -> None:
    sample = await fill(console.tranche)
    page = console.page
    await console.sign_in(f"/jobs/{sample.job}")
    rows = page.get_by_role("region", name="Items").get_by_role("row")
    cause = page.get_by_role("region", name="Causes").get_by_role("row").filter(has_text="INVALID_EMAIL")
    await cause.get_by_role("link").click()
    await expect(rows).to_have_count(2)
    await expect(rows.last).to_contain_text("/email")
    await page.get_by_label("Where").select_option("hubspot")
    await expect(page.get_by_role("heading", name="No item matches")).to_be_visible()
    await page.get_by_label("Code").select_option("")
    await page.get_by_label("Status").select_option("failed")
    await expect(rows).to_have_count(2)
    await expect(rows.last).to_contain_text("1 attempt")
    await expect(rows.last.get_by_role("link", name=f"dead letter {sample.dead_letter}")).to_be_visible()
    assert await console.violations() == []
    await page.go_back()
    await page.go_back()
    await expect(page.get_by_label("Where")).to_have_value("hubspot")
    await page.get_by_role("link", name=sample.job).click()
    await page.get_by_role("link", name="11 ok").click()
    await expect(rows).to_have_count(12)
