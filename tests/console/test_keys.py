"""Keys and the audit log."""

from __future__ import annotations

from typing import Any

from playwright.async_api import expect

from tests.console.browser import Console, needs_browser

pytestmark = needs_browser


async def _may(console: Console, key: str) -> int:
    """The status of the answer to this key."""
    answer: Any = await console.tranche.ask("GET", "/v1/session", headers={"Authorization": f"Bearer {key}"})
    return int(answer.status)


async def test_a_key_is_made_renewed_and_revoked_and_the_audit_log_says_so(console: Console) -> None:
    page = console.page
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await console.sign_in("/keys")
    await expect(page.get_by_role("row").filter(has_text="of this session")).to_be_visible()
    assert await console.violations() == []

    console.expected.add(400)
    await page.get_by_role("link", name="Create a key").click()
    await page.get_by_role("button", name="Create a key").click()
    await expect(page.get_by_role("alert")).to_contain_text("Scopes are")
    assert await console.violations() == []
    await page.get_by_label("Name").fill("nightly import")
    await page.get_by_label("import: send items").check()
    await page.get_by_label("Valid until the end of").fill("2099-12-31")
    await page.get_by_label("Items at most").fill("60000")
    await page.get_by_role("button", name="Create a key").click()
    secret = page.locator("#secret code")
    first = await secret.inner_text()
    assert await _may(console, first) == 200
    await expect(page.locator("#secret")).to_be_focused()
    await page.get_by_role("button", name="Copy").click()
    await expect(page.locator("#live")).to_have_text("Copied.")
    assert await page.evaluate("navigator.clipboard.readText()") == first
    row = page.get_by_role("row").filter(has_text="nightly import")
    await expect(row).to_contain_text("60000 items in 60 s")
    assert await console.violations() == []

    await page.get_by_role("link", name="Change: nightly import").click()
    await page.get_by_label("Items at most").fill("")
    await page.get_by_label("Valid until the end of").fill("")
    await page.get_by_role("button", name="Save").click()
    await expect(row).to_contain_text("those of the service")
    assert first not in await page.content()  # it was shown once

    await page.get_by_role("link", name="Renew: nightly import").click()
    await page.get_by_label("The present secret stays valid for").select_option("no longer")
    await page.get_by_role("button", name="Renew").click()
    second = await secret.inner_text()
    assert (await _may(console, first), await _may(console, second)) == (401, 200)

    await page.get_by_role("button", name="Revoke: nightly import").click()
    await page.get_by_role("button", name="Keep it as it is").click()
    assert await _may(console, second) == 200
    await page.get_by_role("button", name="Revoke: nightly import").click()
    await page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    await expect(row).to_have_count(0)
    assert await _may(console, second) == 401
    await page.get_by_role("link", name="Show revoked ones too").click()
    await expect(row).to_contain_text("revoked")

    key_id = await row.get_by_role("code").first.inner_text()
    await console.open(f"/audit?subject=key:{key_id}")
    actions = page.get_by_role("region", name="Audit log").get_by_role("row")
    await expect(actions).to_have_count(5)
    for n, action in enumerate(("key.revoke", "key.rotate", "key.change", "key.create"), 1):
        await expect(actions.nth(n)).to_contain_text(action)
    assert await console.violations() == []
    await page.get_by_label("Only what concerns").fill("")
    await page.get_by_role("button", name="Show").click()
    await expect(actions.filter(has_text="destination.add")).to_be_visible()
    await actions.filter(has_text="destination.add").get_by_role("link", name="only this").click()
    await expect(actions).to_have_count(2)


async def test_keys_are_not_shown_to_whoever_may_not_see_them(console: Console) -> None:
    made = (await console.tranche.ask("POST", "/v1/keys", json={"scopes": ["read"]})).json()
    await console.sign_in("/audit", key=made["key"])
    await expect(console.page.get_by_role("row").filter(has_text="key.create").first).to_be_visible()
    await expect(console.page.get_by_role("link", name="Keys", exact=True)).to_have_count(0)
    await expect(console.page.get_by_role("link", name="Records", exact=True)).to_be_visible()
