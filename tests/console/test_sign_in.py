"""Signing in, and what a session is good for."""

from __future__ import annotations

from playwright.async_api import expect

from app.audit.queries import OPERATOR
from app.auth import service, sessions
from app.cli.local import place
from tests.console.browser import Console, needs_browser

pytestmark = needs_browser


async def test_a_key_opens_a_session_that_no_script_can_read(console: Console) -> None:
    await console.sign_in()
    (cookie,) = await console.page.context.cookies()
    assert (cookie["name"], cookie["httpOnly"], cookie["secure"], cookie["sameSite"]) == (
        "__Host-tranche",
        True,
        True,
        "Strict",
    )
    assert console.tranche.key not in await console.page.content()
    assert await console.page.evaluate("document.cookie + JSON.stringify(localStorage)") == "{}"
    await console.page.reload()
    await expect(console.page.get_by_role("heading", name="Jobs", exact=True)).to_be_visible()


async def test_a_wrong_key_is_refused_in_the_words_of_the_api(console: Console) -> None:
    console.expected.add(401)
    await console.open()
    await console.page.get_by_label("API key").fill("trn_nonsense")
    await console.page.get_by_role("button", name="Sign in").click()
    await expect(console.page.get_by_role("alert")).to_contain_text("unknown, revoked or misspelled")
    await expect(console.page.get_by_label("API key")).to_be_focused()


async def test_signing_out_ends_the_session_on_the_server(console: Console) -> None:
    await console.sign_in()
    (cookie,) = await console.page.context.cookies()
    await console.page.get_by_role("button", name="Sign out").click()
    await expect(console.page.get_by_label("API key")).to_be_visible()
    answer = await console.tranche.ask("GET", "/v1/jobs", headers={"Authorization": f"Bearer {cookie['value']}"})
    assert answer.status == 401


async def test_whoever_revokes_the_key_ends_the_session(console: Console) -> None:
    made = (await console.tranche.ask("POST", "/v1/keys", json={"scopes": ["read"]})).json()
    await console.sign_in(key=made["key"])
    await console.tranche.ask("DELETE", f"/v1/keys/{made['key_id']}")
    await expect(console.page.get_by_text("The session has ended")).to_be_visible(timeout=30_000)


async def test_a_job_is_followed_to_its_end(console: Console) -> None:
    people = [{"id": f"c{n}", "email": f"c{n}@example.org" if n else "nobody"} for n in range(20)]
    answer = await console.tranche.push(people)
    await console.sign_in(f"/jobs/{answer.json()['job_id']}")
    await expect(console.page.get_by_role("heading", level=1)).to_contain_text("completed")
    await expect(console.page.get_by_text("INVALID_EMAIL")).to_be_visible()
    assert await console.violations() == []
    await console.page.get_by_role("link", name="Jobs").click()
    jobs = console.page.get_by_role("region", name="Jobs")
    await jobs.get_by_role("link", name="Import").click()
    await expect(console.page.get_by_role("heading", level=1)).to_contain_text("Import job")


async def test_a_link_signs_in_once(console: Console) -> None:
    """As `tranche up` prints one."""
    async with place.connection(console.tranche.settings) as connection:
        tenant_id = await service.find_tenant(connection, "acme")
        (key,) = await service.list_keys(connection, tenant_id)
        opened = await sessions.open_session(connection, tenant_id, key.key_id, seconds=60, actor=OPERATOR)
    await console.open(f"#{opened.secret}")
    await expect(console.page.get_by_role("button", name="Sign out")).to_be_visible()
    assert opened.secret not in console.page.url
    assert await console.page.evaluate("history.length") <= 2
    await console.page.context.clear_cookies()
    console.expected.add(401)
    await console.open("/?again")
    await console.open(f"#{opened.secret}")
    await expect(console.page.get_by_label("API key")).to_be_visible()
