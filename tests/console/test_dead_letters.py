"""Dead letters: found by cause, understood, and replayed or dropped with their number first."""

from __future__ import annotations

import uuid
from typing import Any

from playwright.async_api import expect

from tests.acceptance.harness import people
from tests.console.browser import Console, browsing, console_of, needs_browser

pytestmark = needs_browser


async def _refused(console: Console, count: int) -> None:
    """A CRM that refuses the first `count` of ten records for good."""
    items: list[dict[str, Any]] = people(10)
    await console.tranche.sandbox.misbehave(reject={"keys": [item["id"] for item in items[:count]]})
    await console.tranche.finished(await console.tranche.imported(items))


async def test_what_a_crm_refused_is_replayed_after_it_is_mended(console: Console) -> None:
    page, tranche = console.page, console.tranche
    await _refused(console, 3)
    await console.sign_in("/dead-letters")
    await expect(page.get_by_role("row", name="DESTINATION_REJECTED")).to_contain_text("hubspot")
    assert await console.violations() == []
    await page.get_by_role("link", name="DESTINATION_REJECTED").click()
    await expect(page.get_by_role("checkbox", name="Select dead letter")).to_have_count(3)
    assert await console.violations() == []

    await page.get_by_role("region", name="Dead letters").get_by_role("link").first.click()
    await expect(page.get_by_role("heading", level=1)).to_contain_text("Dead letter")
    await expect(page.get_by_text('"email": "').first).to_be_visible()
    await expect(page.get_by_role("region", name="Calls")).to_contain_text("send")
    assert await console.violations() == []
    await page.get_by_role("button", name="Drop").click()
    await page.get_by_label("Reason").fill("left the company")
    assert await console.violations() == []
    await page.get_by_role("dialog").get_by_role("button", name="Drop").click()
    await expect(page.locator(".notice")).to_contain_text("1 dead letter is dropped.")
    await expect(page.get_by_text("left the company").first).to_be_visible()

    await console.open("/dead-letters/list?destination=hubspot")
    await page.get_by_label("All 2 that match the filter").check()
    await page.get_by_role("button", name="Replay").click()
    await expect(page.get_by_role("dialog")).to_contain_text("2 dead letters are replayed")
    await expect(page.get_by_role("dialog")).to_contain_text("hubspot, DESTINATION_REJECTED: 2")
    await page.get_by_role("dialog").get_by_role("button", name="Keep it as it is").click()
    assert len((await tranche.get("/v1/dead-letters"))["dead_letters"]) == 2
    await page.get_by_role("button", name="Replay").click()
    await expect(page.get_by_role("dialog")).to_be_visible()
    # Another one comes while the question is open; it was not in the number.
    await tranche.sandbox.misbehave(reject={"keys": ["late"]})
    await tranche.finished(await tranche.imported([{"id": "late", "email": "late@example.org"}]))
    await tranche.sandbox.recover()
    await page.get_by_role("dialog").get_by_role("button", name="Replay").click()
    await expect(page.locator(".notice")).to_contain_text("2 dead letters are replayed.")
    await page.get_by_role("link", name="Follow the job").click()
    await expect(page.get_by_role("heading", level=1)).to_contain_text("Replay job completed")
    (left,) = (await tranche.get("/v1/dead-letters"))["dead_letters"]
    assert left["record_id"] == "late"
    await console.open("/dead-letters/list?error_code=DESTINATION_REJECTED")
    await page.get_by_label("All 1 that match the filter").check()
    await page.get_by_role("button", name="Drop").click()
    await expect(page.get_by_role("dialog")).to_contain_text("hubspot, DESTINATION_REJECTED: 1")
    await page.get_by_label("Reason").fill("came too late")
    await page.get_by_role("dialog").get_by_role("button", name="Drop").click()
    await expect(page.get_by_role("heading", name="None of these")).to_be_visible()
    await console.open("/dead-letters")
    await expect(page.get_by_role("heading", name="No dead letters")).to_be_visible()


async def test_what_has_arrived_after_all_is_settled(console: Console) -> None:
    """Nobody makes a CRM forget what it answered here: the code is written as a worker leaves it."""
    page, tranche = console.page, console.tranche
    await _refused(console, 2)
    await console.sign_in("/dead-letters/list")
    await expect(page.get_by_role("checkbox", name="Select dead letter")).to_have_count(2)
    await page.get_by_role("button", name="Select this page").click()
    await expect(page.get_by_text("2 selected").first).to_be_visible()
    await expect(page.get_by_role("button", name="Settle as arrived")).to_have_count(0)
    await tranche.rows("UPDATE dead_letters SET error_code = 'OUTCOME_UNKNOWN', state = 'dead'")
    await page.reload()
    await page.get_by_role("checkbox", name="Select dead letter").first.check()
    await page.get_by_role("button", name="Settle as arrived").click()
    await expect(page.get_by_role("dialog")).to_contain_text("1 dead letter is settled")
    await page.get_by_label("Reason").fill("seen there")
    await page.get_by_role("dialog").get_by_role("button", name="Settle as arrived").click()
    await expect(page.locator(".notice")).to_contain_text("1 dead letter is settled.")
    await expect(page.get_by_role("checkbox", name="Select dead letter")).to_have_count(1)


async def test_what_an_undo_left_is_shown_with_who_changed_it_and_restored(console: Console) -> None:
    page, tranche = console.page, console.tranche
    first = await tranche.imported([{"id": "x", "first_name": "Ada", "email": "x@example.org"}])
    await tranche.finished(first)
    await tranche.finished(await tranche.imported([{"id": "x", "first_name": "Grace", "email": "x@example.org"}]))
    undone = (await tranche.ask("POST", f"/v1/jobs/{first}/undo")).json()
    await tranche.finished(undone["job_id"])
    await console.sign_in("/dead-letters/list?kind=undo")
    await page.get_by_role("region", name="Dead letters").get_by_role("link").first.click()
    await expect(page.get_by_role("heading", name="Why the undo left it")).to_be_visible()
    assert await console.violations() == []
    await page.get_by_role("button", name="Replay").click()
    await expect(page.get_by_role("dialog")).to_contain_text("although somebody changed them since")
    await page.get_by_role("dialog").get_by_role("button", name="Replay").click()
    await expect(page.locator(".notice")).to_contain_text("1 dead letter is replayed.")


async def test_a_saga_that_failed_is_dropped_with_a_reason(console: Console) -> None:
    """None is made to fail here: its row is written, as a worker leaves it."""
    page, tranche = console.page, console.tranche
    job_id = await tranche.imported(people(1))
    await tranche.finished(job_id)
    await tranche.rows(
        """INSERT INTO sagas (tenant_id, saga_id, workflow, subject, state, attempts, error, actor, finished_at)
        SELECT tenant_id, $1, 'consistency', job_id, 'failed', 9, 'no luck', 'k', now() FROM jobs
        RETURNING saga_id""",
        uuid.uuid4(),
    )
    await console.sign_in("/dead-letters")
    await expect(page.get_by_role("heading", name="Failed undos and compensations")).to_be_visible()
    assert await console.violations() == []
    await page.get_by_role("button", name="Drop").click()
    await page.get_by_label("Reason").fill("restored elsewhere")
    await page.get_by_role("dialog").get_by_role("button", name="Drop").click()
    await expect(page.get_by_role("heading", name="Failed undos and compensations")).to_have_count(0)


async def test_whoever_only_reads_decides_nothing_on_a_small_dark_screen(console: Console) -> None:
    await _refused(console, 2)
    made = (await console.tranche.ask("POST", "/v1/keys", json={"scopes": ["read"]})).json()
    options: dict[str, Any] = {"color_scheme": "dark", "viewport": {"width": 320, "height": 640}}
    async with browsing() as browser, console_of(browser, console.tranche, **options) as small:
        page = small.page
        await small.sign_in("/dead-letters", key=made["key"])
        await page.get_by_role("link", name="DESTINATION_REJECTED").click()
        await expect(page.get_by_role("region", name="Dead letters")).to_contain_text("hubspot")
        await expect(page.get_by_role("button", name="Replay")).to_have_count(0)
        await expect(page.locator("td input")).to_have_count(0)
        assert await page.evaluate("document.documentElement.scrollWidth") == 320
        assert await small.violations() == []
        await page.get_by_role("region", name="Dead letters").get_by_role("link").first.click()
        await expect(page.get_by_role("heading", name="Lineage")).to_be_visible()
        await expect(page.locator("main button")).to_have_count(0)
        assert await page.evaluate("document.documentElement.scrollWidth") == 320
        assert await small.violations() == []
