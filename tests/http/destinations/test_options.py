"""Options of a destination over HTTP: kept as given if they can be used, refused by name if not."""

from __future__ import annotations

from typing import Any

import asyncpg
import msgspec
import pytest

from app.auth import service
from app.settings import Settings
from tests.http.conftest import Api, person, serve
from tests.http.destinations.test_circuits import tranche

NEW = {"name": "crm", "base_url": "https://crm.example", "token": "s3cret-token"}
GOOD: dict[str, dict[str, Any]] = {
    "hubspot": {"batch_size": 50, "properties": {"Plan": "tier"}, "time_zone": "Europe/Berlin"},
    "salesforce": {"api_version": "61.0", "fields": {"company": None}, "rate": 5},
    "http": {"path": "/v1/people", "auth_header": "X-Api-Key", "auth_scheme": "", "idempotent": True},
}


@pytest.mark.parametrize("kind", GOOD)
async def test_a_destination_of_every_kind_is_added_with_its_options(api: Api, kind: str) -> None:
    body = msgspec.json.encode(NEW | {"kind": kind, "options": GOOD[kind]})
    added = await api.request("POST", "/v1/destinations", data=body)

    assert added.status == 201, added.body
    assert (added.json()["kind"], added.json()["options"]) == (kind, GOOD[kind])


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("hubspot", {"propertys": {}}, "options.propertys: hubspot has no such option; there are: "),
        ("salesforce", {"batch_size": 500}, "options.batch_size: Expected `int` <= 200."),
        ("http", {"read_path": 5}, "options.read_path: Expected `str | null`, got `int`."),
        ("http", {"fields": {"email": "id"}}, "'email' cannot go to 'id'"),
        ("salesforce", {"match_on": "mail"}, "options.match_on: there is no field 'mail'"),
    ],
)
async def test_a_wrong_option_is_a_400_that_names_it(api: Api, kind: str, options: dict[str, Any], words: str) -> None:
    body = msgspec.json.encode(NEW | {"kind": kind, "options": options})
    refused = await api.request("POST", "/v1/destinations", data=body)

    assert (refused.status, refused.json()["code"]) == (400, "INVALID_PARAMETER")
    assert words in refused.json()["detail"]
    assert (await api.get("/v1/destinations")).json()["destinations"] == []


async def add(api: Api, **changes: Any) -> None:
    body = msgspec.json.encode(NEW | {"kind": "hubspot"} | changes)
    assert (await api.request("POST", "/v1/destinations", data=body)).status == 201


async def change(api: Api, name: str = "crm", **body: Any) -> Any:
    return await api.request("PATCH", f"/v1/destinations/{name}", data=msgspec.json.encode(body))


async def test_options_change_one_by_one_and_null_is_the_default(api: Api) -> None:
    await add(api, options={"rate": 5, "batch_size": 50})
    changed = await change(api, options={"batch_size": None, "concurrency": 2})
    assert (changed.status, changed.json()["options"]) == (200, {"rate": 5, "concurrency": 2})
    assert (await api.get("/v1/destinations/crm")).json()["options"] == {"rate": 5, "concurrency": 2}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "give a token, credentials, options or types"),
        ({"options": {}}, "give a token, credentials, options or types"),
        ({"options": {"propertys": {}}}, "options.propertys: hubspot has no such option"),
        ({"options": {"batch_size": 500}}, "options.batch_size: Expected `int` <= 100."),
        ({"token": "a b"}, "printable ASCII"),
        ({"token": ""}, "printable ASCII"),
        ({"base_url": "https://elsewhere.example"}, "base_url"),
        ({"options": {"a\0": None}}, "hubspot has no such option"),
        ({"options": {"propertys": None}}, "options.propertys: hubspot has no such option"),
        ({"options": {"rate": 1e-320}}, "options.rate: Expected `float` >= 0.001."),
        ({"token": "x" * 5_000}, "longer than 4096"),
    ],
)
async def test_a_wrong_change_is_refused_and_changes_nothing(api: Api, body: dict[str, Any], words: str) -> None:
    await add(api, options={"rate": 5})
    before = (await api.get("/v1/destinations/crm")).body
    refused = await change(api, **body)
    assert (refused.status, refused.json()["code"]) == (400, "INVALID_PARAMETER")
    assert words in refused.json()["detail"]
    assert (await api.get("/v1/destinations/crm")).body == before


@pytest.mark.parametrize(
    "url",
    [
        "https://a\\b",
        "https://a..b",
        "https://.",
        f"https://{'a' * 70}.example",
        "https://x.example/" + "a" * 2_000,
        "https://x.example/a\\b",
    ],
    ids=lambda url: url[:20],
)
async def test_an_address_that_nobody_can_call_is_refused(api: Api, url: str) -> None:
    body = msgspec.json.encode(NEW | {"kind": "http", "base_url": url})
    refused = await api.request("POST", "/v1/destinations", data=body)
    assert (refused.status, refused.json()["code"]) == (400, "INVALID_PARAMETER")


@pytest.mark.parametrize(
    ("code", "detail", "left"),
    [
        ("DESTINATION_RATE_LIMIT", "x", None),
        ("CIRCUIT_OPEN", "the account lacks a property", None),
        ("CIRCUIT_OPEN", "opened by an operator", "CIRCUIT_OPEN"),
        ("DESTINATION_UNAVAILABLE", "x", "DESTINATION_UNAVAILABLE"),
    ],
)
async def test_other_options_end_the_waits_that_they_may_mend(
    api: Api, db: asyncpg.Connection, code: str, detail: str, left: str | None
) -> None:
    await add(api, options={"rate": 0.01})
    await db.execute(
        "UPDATE destinations SET blocked_until = now() + interval '90 s', blocked_code = $1, blocked_detail = $2",
        code,
        detail,
    )
    assert (await change(api, options={"rate": 50})).json()["error_code"] == left


async def test_what_a_removed_destination_is_owed_is_skipped_at_once(api: Api, db: asyncpg.Connection) -> None:
    """Though it waited for another try, or for its turn in a replay."""
    await add(api)
    await api.push([person(1)])
    await db.execute("UPDATE deliveries SET next_attempt_at = now() + interval '10 minutes'")
    await api.request("DELETE", "/v1/destinations/crm")
    assert await db.fetchval("SELECT next_attempt_at <= now() FROM deliveries")


async def test_what_is_not_there_or_not_ones_own_cannot_be_changed(api: Api, db: asyncpg.Connection) -> None:
    await add(api)
    assert (await change(api, "other", token="t")).status == 404
    stranger = api.as_key(await service.create_key(db, "other", ["admin"]))
    assert (await change(stranger, token="t")).status == 404
    await api.request("DELETE", "/v1/destinations/crm")
    assert (await change(api, token="t")).status == 404


async def test_the_audit_log_tells_who_changed_what_and_no_token(api: Api) -> None:
    await add(api)
    await change(api, token="another-token", options={"rate": 9})
    await api.request("POST", "/v1/destinations/crm/pause")
    await api.request("POST", "/v1/destinations/crm/resume")
    await api.request("DELETE", "/v1/destinations/crm")
    told = await api.get("/v1/audit-log?subject=destination:crm")
    entries = told.json()["entries"]
    assert [e["action"].removeprefix("destination.") for e in entries] == [
        "remove", "resume", "pause", "change", "add",
    ]  # fmt: skip
    assert entries[3]["detail"] == {"token": True, "credentials": "token", "options": {"rate": 9}}
    assert len({e["actor"] for e in entries}) == 1
    assert b"another-token" not in told.body


async def test_the_command_changes_a_destination_over_http_and_at_the_database(api: Api, settings: Settings) -> None:
    await add(api, kind="http", options={"fields": {"company": "firm"}, "rate": 5})
    assert api.key is not None
    here = ("--url", api.url, "--key", api.key)
    fields = ("--field", "phone=tel", "--default", "rate", "--batch-size", "7")
    changed = await tranche("change", "crm", "--token", "new", *fields, *here)
    assert (changed.exit_code, changed.output) == (0, "changed crm\n"), changed
    wanted: dict[str, Any] = {"fields": {"company": "firm", "phone": "tel"}, "batch_size": 7}
    assert (await api.get("/v1/destinations/crm")).json()["options"] == wanted
    engines = {
        "TRANCHE_DATABASE_URL": settings.database_url,
        "TRANCHE_REDIS_URL": settings.redis_url,
        "TRANCHE_SECRET_KEY": settings.secret_key,
    }
    changed = await tranche("change", "crm", "--option", "path=/v2/people", "--tenant", "acme", **engines)
    assert (changed.exit_code, changed.output) == (0, "changed crm\n"), changed
    assert (await api.get("/v1/destinations/crm")).json()["options"] == wanted | {"path": "/v2/people"}
    for words, reason in (
        (("crm",), "give a token, credentials, options or types"),
        (("crm", "--concurrency", "0"), "options.concurrency"),
        (("nobody", "--token", "t"), "There is no destination 'nobody'"),
    ):
        wrong = await tranche("change", *words, *here)
        assert wrong.exit_code != 0
        assert reason in f"{wrong.exception} {wrong.output}"


async def test_an_inward_address_is_refused_with_what_to_do(api: Api, settings: Settings, api_key: str) -> None:
    """Here and at the database, unless the operator names the network; names are judged when they are called."""
    inward = ("https://127.0.0.1:8001", "https://2852039166", "http://localhost:8001", "http://api.example.com")
    bare = msgspec.structs.replace(settings, destination_private="")
    async with serve(bare) as url:
        strict = Api(api.session, url, api_key)
        for base_url in inward:
            refused = await strict.request(
                "POST", "/v1/destinations", data=msgspec.json.encode(NEW | {"kind": "http", "base_url": base_url})
            )
            assert (refused.status, refused.json()["code"]) == (400, "INVALID_PARAMETER"), base_url
            assert "TRANCHE_DESTINATION_PRIVATE" in refused.json()["detail"], base_url
    engines = {
        "TRANCHE_DATABASE_URL": settings.database_url,
        "TRANCHE_REDIS_URL": settings.redis_url,
        "TRANCHE_SECRET_KEY": settings.secret_key,
    }
    words = ("add", "crm", "--kind", "http", "--base-url", inward[0], "--token", "t", "--tenant", "acme")
    wrong = await tranche(*words, **engines)
    assert "TRANCHE_DESTINATION_PRIVATE" in str(wrong.exception)
    added = await tranche(*words, **engines, TRANCHE_DESTINATION_PRIVATE="127.0.0.0/8")
    assert added.exit_code == 0, added
    (listed,) = (await api.get("/v1/destinations")).json()["destinations"]
    assert listed["base_url"] == inward[0]


async def test_the_field_that_records_are_looked_for_by_is_checked_with_every_change(api: Api) -> None:
    await add(api, types=["companies"])  # the e-mail address is the default, and does not concern them
    refused = await change(api, options={"match_on": "email"})
    assert refused.status == 400
    assert "companies by name, domain, phone" in refused.json()["detail"]
    assert (await change(api, options={"match_on": "domain"})).status == 200
    refused = await change(api, types=["contacts"])
    assert (refused.status, "options.match_on" in refused.json()["detail"]) == (400, True)
    assert (await change(api, options={"fields": {"domain": None}})).status == 400
    assert (await change(api, options={"match_on": {}}, types=["contacts"])).status == 200


async def test_a_preset_is_for_contacts_alone_and_shown_by_its_name(api: Api) -> None:
    await add(api, kind="http", options={"preset": "braze", "fields": {"company": None}})
    found = (await api.get("/v1/destinations/crm")).json()
    assert found["options"] == {"preset": "braze", "fields": {"company": None}}
    assert found["types"] == ["contacts"]

    body = NEW | {"name": "all", "kind": "http", "options": {"preset": "braze"}, "types": ["contacts", "companies"]}
    refused = await api.request("POST", "/v1/destinations", data=msgspec.json.encode(body))
    assert refused.status == 400
    assert "cannot share the path '/users/track'" in refused.json()["detail"]

    refused = await change(api, options={"preset": "mailchimp"})
    assert refused.status == 400
    assert "the preset mailchimp needs list_id: the id of the audience" in refused.json()["detail"]
    changed = await change(api, options={"preset": "mailchimp", "values": {"list_id": "a1"}})
    assert (changed.status, changed.json()["options"]["values"]) == (200, {"list_id": "a1"})


async def test_a_path_of_an_update_for_one_type_makes_the_destination_one_for_contacts(api: Api) -> None:
    one = {"body": "{record}", "item": {"id": "{id}"}}
    await add(api, kind="http", options={**one, "update": {"path": "/{type}/{remote_id}"}})
    assert (await api.get("/v1/destinations/crm")).json()["types"] is None
    changed = await change(api, options={"update": {"path": "/people/{remote_id}"}})
    assert (changed.status, changed.json()["types"]) == (200, ["contacts"])
