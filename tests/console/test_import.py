"""A file is imported by somebody who never types a command."""

from __future__ import annotations

from playwright.async_api import FilePayload, expect

from tests.console.browser import Console, needs_browser
from tests.console.messy_file import FAULTS, ROWS, messy_csv

pytestmark = needs_browser


def as_file(name: str, content: bytes) -> FilePayload:
    return FilePayload(name=name, mimeType="text/csv", buffer=content)


async def violations_everywhere(console: Console) -> list[str]:
    """In light and dark, and on a narrow screen."""
    found = []
    for scheme, width in (("light", 1280), ("dark", 1280), ("light", 320)):
        await console.page.emulate_media(color_scheme=scheme)
        await console.page.set_viewport_size({"width": width, "height": 800})
        found += [f"{scheme} {width}: {each}" for each in await console.violations()]
        assert await console.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{width} scrolls"
    await console.page.set_viewport_size({"width": 1280, "height": 800})
    return found


async def test_a_messy_file_is_looked_at_checked_and_imported(console: Console) -> None:
    page = console.page
    await console.sign_in("/import")
    await page.get_by_label("File", exact=True).set_input_files(as_file("kunden.csv", messy_csv()))
    await expect(page.get_by_label("Type of record")).to_have_value("contacts")
    await expect(page.get_by_label("Encoding")).to_have_value("windows-1252")
    await expect(page.get_by_role("cell", name="Jürgen 0")).to_be_visible()
    proposed = {
        "Kundennummer": "id",
        "E-Mail-Adresse": "email",
        "Vorname": "first_name",
        "Telefon": "phone",
        "Lieblingsfarbe": "attribute",
    }
    for column, field in proposed.items():
        await expect(page.get_by_label(f"{column} becomes")).to_have_value(field)
    await page.get_by_label("Vorname becomes").select_option("last_name")
    await page.get_by_label("Kundennummer becomes").select_option("ignored")
    await expect(page.get_by_text("Nothing fills id yet")).to_be_visible()
    await page.get_by_label("Kundennummer becomes").select_option("id")
    assert await violations_everywhere(console) == []

    await page.get_by_role("button", name="Check without writing").click()
    await expect(page.locator("main")).to_contain_text(f"{FAULTS} of {ROWS} rows would fail")
    await expect(page.get_by_role("row", name="created 48")).to_be_visible()
    await expect(page.get_by_role("row", name="INVALID_EMAIL 6")).to_be_visible()
    assert await violations_everywhere(console) == []
    assert await console.tranche.contacts() == []

    await page.get_by_role("button", name="Import", exact=True).click()
    await expect(page.get_by_role("heading", level=1)).to_contain_text("Import job")
    stored = await console.tranche.get("/v1/contacts/k0")
    assert (stored["email"], stored["last_name"], stored["attributes"]) == (
        "p0@example.org",
        "Jürgen 0",
        {"Lieblingsfarbe": "grün"},
    )


async def test_a_large_file_shows_its_progress_and_warns_whoever_leaves(console: Console) -> None:
    page = console.page
    await console.sign_in("/import")
    rows = "".join(f"c{n},c{n}@example.org,{'x' * 200}\r\n" for n in range(5_000))
    await page.get_by_label("File", exact=True).set_input_files(as_file("all.csv", f"id,email,note\r\n{rows}".encode()))
    session = await page.context.new_cdp_session(page)
    await session.send("Network.enable")
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 100_000}
    await session.send("Network.emulateNetworkConditions", slow)
    await page.get_by_role("button", name="Import", exact=True).click()
    await expect(page.get_by_role("progressbar", name="Sending")).to_be_visible()
    await page.get_by_role("link", name="Jobs").click()
    await expect(page.get_by_role("dialog")).to_contain_text("still being sent")
    await page.get_by_role("button", name="Keep it as it is").click()
    await session.send("Network.emulateNetworkConditions", {**slow, "uploadThroughput": -1})
    await expect(page.get_by_role("heading", level=1)).to_contain_text("Import job", timeout=60_000)
    job_id = page.url.rsplit("/", 1)[1]
    await console.open()
    job = await console.tranche.finished(job_id)
    assert job["summary"]["succeeded"] == 5_000
