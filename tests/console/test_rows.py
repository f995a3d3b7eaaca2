"""Failed rows are corrected in a grid and sent again."""

from __future__ import annotations

from typing import Any

from playwright.async_api import expect

from tests import workbooks
from tests.acceptance.harness import until
from tests.console.browser import Console, needs_browser
from tests.console.messy_file import BAD_MAIL, FAULTS, NO_ID, ROWS, messy_csv
from tests.console.test_import import as_file, violations_everywhere

pytestmark = needs_browser


async def test_a_messy_file_reaches_the_crm_once_its_rows_are_mended_with_the_keyboard(console: Console) -> None:
    page = console.page
    await console.sign_in("/import")
    await page.get_by_label("File", exact=True).set_input_files(as_file("kunden.csv", messy_csv()))
    await page.get_by_role("button", name="Import", exact=True).click()
    await page.get_by_role("link", name="Fix failed rows").click()
    grid = page.get_by_role("grid", name="Failed rows")
    await expect(grid.locator('[aria-invalid="true"]')).to_have_count(FAULTS)
    await expect(grid.get_by_role("columnheader")).to_have_text(
        ["Row", "id", "email", "first_name", "phone", "Lieblingsfarbe"]
    )
    assert await violations_everywhere(console) == []

    # All of one fault at once, by the filter and the keyboard.
    await page.get_by_label("Show").select_option("INVALID_EMAIL")
    await expect(page.get_by_role("button", name="Apply to 6 shown rows")).to_be_visible()
    await expect(page.get_by_label("Column").locator("option:checked")).to_have_text("email")
    await page.get_by_label("Find").fill("(at)")
    await page.get_by_label("Replace by").fill("@")
    await page.keyboard.press("Enter")
    await expect(page.locator("main")).to_contain_text(f"{len(BAD_MAIL)} changed: {len(BAD_MAIL)} good, 0 still wrong")
    await expect(grid.locator('[aria-invalid="true"]')).to_have_count(0)

    # The others cell by cell.
    await page.get_by_label("Show").select_option("MISSING_FIELD")
    await grid.locator('[tabindex="0"]').focus()
    await page.keyboard.press("Control+Home")
    await page.keyboard.press("ArrowRight")
    for n in NO_ID:
        await page.keyboard.type(f"k{n}")
        await page.keyboard.press("Enter")
    await page.get_by_label("Show").select_option("INVALID_PHONE")
    await grid.locator('[tabindex="0"]').focus()
    await page.keyboard.press("Control+Home")
    for _ in range(4):
        await page.keyboard.press("ArrowRight")
    await page.keyboard.press("Enter")
    await page.keyboard.type("nothing that counts")
    await page.keyboard.press("Escape")
    await expect(grid.locator(":focus")).to_contain_text("none")
    await page.keyboard.type("still none")
    await page.keyboard.press("Enter")
    await expect(page.locator("main")).to_contain_text("10 changed: 9 good, 1 still wrong")
    await page.keyboard.press("ArrowUp")
    for n in range(3):
        await page.keyboard.press("F2")
        await page.keyboard.press("Control+A")
        await page.keyboard.type(f"+49 30 77{n}")
        await page.keyboard.press("Enter")
    await expect(page.locator("main")).to_contain_text("12 changed: 12 good, 0 still wrong")

    await page.get_by_role("button", name=f"Send these again ({FAULTS})").press("Enter")
    await expect(page.get_by_role("dialog")).to_contain_text(f"{FAULTS} corrected rows")
    await page.get_by_role("button", name="Send", exact=True).press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_contain_text("Import job completed")
    await console.tranche.all_synced()
    assert len(await console.tranche.contacts()) == ROWS
    stored = await console.tranche.get("/v1/contacts/k8")
    assert (stored["phone"], stored["attributes"]) == ("+49 30 770", {"Lieblingsfarbe": "grün"})


async def test_values_of_json_items_remain_what_they_were(console: Console) -> None:
    page = console.page
    item: dict[str, Any] = {"id": "j1", "email": "nobody", "attributes": {"score": 7, "tags": ["a", "b"], "zip": "007"}}
    answer = await console.tranche.push([item])
    await console.sign_in(f"/jobs/{answer.json()['job_id']}/rows")
    cell = page.get_by_role("grid").locator('[aria-invalid="true"]')
    await cell.dblclick()
    await page.keyboard.press("Control+A")
    await page.keyboard.type("ada@example.org")
    await page.keyboard.press("Tab")
    await page.get_by_role("button", name="Send these again (1)").click()
    await page.get_by_role("button", name="Send", exact=True).click()
    await expect(page.get_by_role("heading", level=1)).to_contain_text("Import job")
    stored = await console.tranche.get("/v1/contacts/j1")
    assert (stored["email"], stored["attributes"]) == ("ada@example.org", item["attributes"])


async def test_a_workbook_and_what_the_crm_refused_are_corrected_alike(console: Console) -> None:
    page, tranche = console.page, console.tranche
    await tranche.sandbox.misbehave(reject={"emails": ["w2@example.org"]})
    rows = [["Customer Id", "Email", "City"], *([f"w{n}", f"w{n}@example.org", "Ulm"] for n in range(4))]
    rows[2][1] = "nobody"
    await console.sign_in("/import")
    await page.get_by_label("File", exact=True).set_input_files(as_file("book.xlsx", workbooks.table(rows)))
    # Nothing is read of a workbook in the page, so the server's own words say what is missing.
    console.expected.add(400)
    await page.get_by_role("button", name="Import", exact=True).click()
    await expect(page.get_by_role("alert")).to_contain_text("Customer Id")
    await page.get_by_label("Columns by other names").fill("Customer Id:id")
    assert await violations_everywhere(console) == []
    await page.get_by_role("button", name="Import", exact=True).click()
    await expect(page.get_by_role("heading", level=1)).to_contain_text("completed with failures")
    await page.get_by_role("link", name="Fix failed rows").click()
    grid = page.get_by_role("grid")
    await expect(grid.get_by_role("rowheader")).to_have_count(2)
    await expect(grid.locator('[aria-invalid="true"]')).to_have_count(1)
    await expect(grid.get_by_role("rowheader").last).to_contain_text("hubspot:")

    for name, email in (("w1", "w1@example.org"), ("w2", "w2-new@example.org")):
        await grid.get_by_role("row").filter(has_text=name).locator('[data-column="2"]').dblclick()
        await page.keyboard.press("Control+A")
        await page.keyboard.type(email)
        await page.keyboard.press("Enter")
    await page.get_by_role("button", name="Send these again (2)").click()
    await page.get_by_role("button", name="Send", exact=True).click()
    await expect(page.get_by_role("heading", level=1)).to_contain_text("Import job completed")
    await tranche.all_synced()
    assert (await tranche.get("/v1/contacts/w2"))["email"] == "w2-new@example.org"


async def test_whoever_leaves_with_changes_is_asked_and_can_download_them(console: Console) -> None:
    page = console.page
    answer = await console.tranche.ask(
        "POST",
        "/v1/contacts:bulk",
        headers={"Idempotency-Key": "torn", "Content-Type": "text/csv"},
        data=b"id,email,phone\r\nx1,bad,+49 30 1\r\nx2,x2@example.org,1,2,3\r\n",
    )
    await console.sign_in(f"/jobs/{answer.json()['job_id']}/rows")
    grid = page.get_by_role("grid")
    await grid.locator('[data-row="0"][data-column="2"]').click()
    await page.keyboard.type("x1@example.org")
    await page.keyboard.press("Enter")
    await expect(page.locator("main")).to_contain_text("1 good")
    await page.get_by_role("link", name="Jobs", exact=True).click()
    await expect(page.get_by_role("dialog")).to_contain_text("1 rows that you changed")
    await page.get_by_role("button", name="Keep it as it is").click()
    async with page.expect_download() as download:
        await page.get_by_role("button", name="Download as CSV").click()
    content = (await (await download.value).path()).read_text("utf-8")
    assert "x1,x1@example.org,'+49 30 1\n" in content
    assert "x2,x2@example.org,1" in content


MEASURE = """
async () => {
  const grid = document.querySelector('[role=grid]');
  const frame = () => new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
  const timed = async (act) => {
    const from = performance.now();
    act();
    await frame();
    return performance.now() - from;
  };
  const steps = [];
  for (let i = 0; i < 40; i += 1) steps.push(await timed(() => { grid.scrollTop += 2600; }));
  const select = document.querySelector('main select');
  const filters = [];
  for (const value of ['INVALID_EMAIL', 'INVALID_PHONE', '']) {
    filters.push(await timed(() => { select.value = value; select.dispatchEvent(new Event('change')); }));
  }
  return { steps, filters, rows: document.querySelectorAll('[role=row]').length };
}
"""


async def test_thousands_of_failed_rows_scroll(console: Console) -> None:
    page = console.page
    total = 5_000
    lines = [f"c{n},{'bad' if n % 2 else f'c{n}@example.org'},{'1234' if n % 2 else 'none'}" for n in range(total)]
    body = "\r\n".join(["id,email,phone", *lines]).encode()
    headers = {"Idempotency-Key": "many", "Content-Type": "text/csv"}
    answer = await console.tranche.ask("POST", "/v1/contacts:bulk", headers=headers, data=body)
    job_id = answer.json()["job_id"]
    await console.tranche.finished(job_id)
    await console.sign_in(f"/jobs/{job_id}/rows")
    grid = page.get_by_role("grid")
    await expect(grid.get_by_role("rowheader").first).to_contain_text("1")
    await grid.locator('[tabindex="0"]').focus()

    async def at_end() -> bool:
        await page.keyboard.press("Control+End")
        return bool(await grid.locator(f'[aria-rowindex="{total + 1}"]').count())

    await until(at_end)
    await expect(grid.locator(":focus")).to_have_attribute("data-row", str(total - 1))
    measured = await page.evaluate(MEASURE)
    print(f"scroll steps (ms): {sorted(measured['steps'])[-5:]}, filters (ms): {measured['filters']}")
    assert measured["rows"] < 60
    await page.get_by_label("Show").select_option("INVALID_PHONE")
    await expect(page.get_by_role("button", name=f"Apply to {total // 2:,} shown rows")).to_be_visible()
