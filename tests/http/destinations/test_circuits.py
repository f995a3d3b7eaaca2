"""`/v1/destinations/{name}/circuit`: circuits as people see and set them. No worker runs here."""

from __future__ import annotations

import asyncio
from typing import Any, TypeAlias

import asyncpg
import msgspec
from click.testing import CliRunner, Result

from app.auth import service
from app.cli.destinations import destinations
from app.settings import Settings
from tests.http.conftest import Answer, Api, person

Db: TypeAlias = "asyncpg.Connection[Any]"
PATH = "/v1/destinations/hubspot/circuit"


async def add(api: Api) -> None:
    new = {"name": "hubspot", "kind": "hubspot", "base_url": "https://crm.example", "token": "t"}
    assert (await api.request("POST", "/v1/destinations", data=msgspec.json.encode(new))).status == 201


async def order(api: Api, **words: Any) -> Answer:
    return await api.request("POST", PATH, data=msgspec.json.encode(words))


async def change(db: Db, circuit: str, before: str, after: str, seconds: float = 0, ago: float = 0) -> None:
    await db.execute(
        "INSERT INTO circuit_changes (tenant_id, destination_id, at, circuit, before, after, opens, seconds, detail) "
        "SELECT tenant_id, destination_id, now() - make_interval(secs => $5), $1, $2, $3, 1, $4, 'timed out' "
        "FROM destinations",
        circuit,
        before,
        after,
        seconds,
        ago,
    )


async def test_opening_by_hand_is_said_everywhere_at_once(api: Api, db: Db) -> None:
    """Before any worker hears of it: nothing is due, and whatever waits says why and for how long."""
    await add(api)
    pushed = (await api.push([person(1)])).json()
    opened = await order(api, state="open", seconds=90)
    assert opened.status == 200, opened.body
    told = opened.json()
    assert told["circuit"]["state"] == "open"
    assert (told["error_code"], told["detail"]) == ("CIRCUIT_OPEN", "opened by an operator")
    assert 88 <= told["retry_after_seconds"] <= 90
    item = (await api.get(pushed["items_url"])).json()["items"][0]["destinations"]["hubspot"]
    assert item["error_code"] == "CIRCUIT_OPEN"
    assert 88 <= item["retry_after_seconds"] <= 90
    closed = await order(api, state="closed")
    assert (closed.json()["circuit"]["state"], closed.json()["error_code"]) == ("closed", None)
    override = msgspec.json.decode(await db.fetchval("SELECT circuit_override FROM destinations"))
    assert override["state"] == "closed"
    audit = await db.fetch(
        "SELECT actor, action, subject FROM audit_log WHERE action LIKE 'circuit.%' ORDER BY audit_id"
    )
    assert [(row["action"], row["subject"]) for row in audit] == [
        ("circuit.open", "destination:hubspot"),
        ("circuit.close", "destination:hubspot"),
    ]
    key_id = await db.fetchval("SELECT key_id FROM api_keys")
    assert {row["actor"] for row in audit} == {key_id}


async def test_without_a_time_it_is_open_for_an_hour(api: Api) -> None:
    await add(api)
    assert 3590 <= (await order(api, state="open")).json()["retry_after_seconds"] <= 3600


async def test_orders_that_make_no_sense_are_refused(api: Api, db: Db) -> None:
    await add(api)
    for words in (
        {},
        {"state": "half_open"},
        {"state": "open", "seconds": 0},
        {"state": "open", "seconds": -1},
        {"state": "open", "seconds": 604_801},
        {"state": "open", "seconds": "long"},
        {"state": "closed", "seconds": 5},
        {"state": "open", "for": 5},
    ):
        answer = await order(api, **words)
        assert answer.status == 400, words
        assert answer.json()["detail"]
    for body in (b"", b"[]", b"\xff", b'{"state":"open","seconds":1e999}'):
        assert (await api.request("POST", PATH, data=body)).status == 400, body
    assert (await api.get(f"{PATH}?limit=0")).status == 400
    assert (await api.request("POST", "/v1/destinations/other/circuit", data=b'{"state":"open"}')).status == 404
    for odd in ("other", "a%00b", "%FF", "a%2Fb", ".."):
        path = f"/v1/destinations/{odd}/circuit"
        assert (await api.get(path)).status == 404, odd
        assert (await api.request("POST", path, data=b'{"state":"open"}')).status == 404, odd
    assert await db.fetchval("SELECT count(*) FROM audit_log WHERE action LIKE 'circuit.%'") == 0
    reader = api.as_key(await service.create_key(db, "acme", ["read"]))
    assert (await order(reader, state="open")).status == 403
    assert (await reader.get(PATH)).status == 200
    stranger = api.as_key(await service.create_key(db, "other", ["admin"]))
    assert (await order(stranger, state="open")).status == 404


async def test_a_destination_shows_the_circuit_of_its_own_connection(api: Api, db: Db) -> None:
    await add(api)
    fresh = (await api.get("/v1/destinations/hubspot")).json()["circuit"]
    assert fresh == {"state": "closed", "since": None, "retry_after_seconds": 0, "openings_24h": 0, "detail": None}
    await change(db, "connection", "closed", "open", seconds=30, ago=90_000)
    await change(db, "connection", "half_open", "closed", ago=80_000)
    await change(db, "crm", "closed", "open", seconds=30, ago=20)
    await change(db, "connection", "closed", "open", seconds=30, ago=10)
    (listed,) = (await api.get("/v1/destinations")).json()["destinations"]
    assert listed["circuit"]["state"] == "open"
    assert 18 <= listed["circuit"]["retry_after_seconds"] <= 20
    assert (listed["circuit"]["openings_24h"], listed["circuit"]["detail"]) == (1, "timed out")
    history = (await api.get(f"{PATH}?limit=2")).json()
    assert history["circuit"] == listed["circuit"] | {"retry_after_seconds": history["circuit"]["retry_after_seconds"]}
    assert [(c["circuit"], c["after"]) for c in history["changes"]] == [
        ("connection", "open"),
        ("connection", "closed"),
    ]
    assert len((await api.get(PATH)).json()["changes"]) == 3


async def test_an_opening_whose_time_is_over_tries_and_is_forgotten_in_the_end(api: Api, db: Db) -> None:
    """The circuits' own memory ends as well: without a word from them nothing looks broken for ever."""
    await add(api)
    await change(db, "connection", "closed", "open", seconds=30, ago=40)
    assert (await api.get("/v1/destinations/hubspot")).json()["circuit"]["state"] == "half_open"
    await db.execute("UPDATE circuit_changes SET at = at - interval '1 hour'")
    assert (await api.get("/v1/destinations/hubspot")).json()["circuit"]["state"] == "closed"


async def tranche(*words: str, **environ: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, destinations, list(words), env=environ)


async def test_the_list_says_what_opened_a_circuit(api: Api, db: Db) -> None:
    """Also where the words that the destination waits with do not: another worker wrote them, or nothing waits."""
    await add(api)
    await change(db, "connection", "closed", "open", seconds=30, ago=10)
    await db.execute("UPDATE circuit_changes SET detail = 'HubSpot answered 401: the token is expired'")
    listed = await tranche("list", "--url", api.url, "--key", str(api.key))
    assert "circuit open: HubSpot answered 401: the token is expired" in listed.output


async def test_the_commands_open_and_close(api: Api, db: Db, settings: Settings) -> None:
    """With a key they speak to the API; an operator at the database names a tenant."""
    await add(api)
    assert api.key is not None
    here = ("--url", api.url, "--key", api.key)
    opened = await tranche("open", "hubspot", "--for", "60", *here)
    assert (opened.exit_code, opened.output) == (0, "opened the circuit of hubspot for 60 s\n"), opened
    listed = await tranche("list", *here)
    assert "CIRCUIT_OPEN for 60 s: opened by an operator  circuit open" in listed.output
    engines = {
        "TRANCHE_DATABASE_URL": settings.database_url,
        "TRANCHE_REDIS_URL": settings.redis_url,
        "TRANCHE_SECRET_KEY": settings.secret_key,
    }
    closed = await tranche("close", "hubspot", "--tenant", "acme", **engines)
    assert (closed.exit_code, closed.output) == (0, "closed the circuit of hubspot\n"), closed
    assert (await api.get("/v1/destinations/hubspot")).json()["circuit"]["state"] == "closed"
    assert await db.fetchval("SELECT actor FROM audit_log WHERE action = 'circuit.close'") == "tranche"
    wrong = await tranche("close", "hubspot", "--shared", *here)
    assert "--tenant" in str(wrong.exception), "what tenants share is no tenant's to close"
    shared = await tranche("open", "hubspot", "--shared", "--for", "60", "--tenant", "acme", **engines)
    assert (shared.exit_code, shared.output) == (0, "opened the shared circuit of hubspot for 60 s\n"), shared
    override = msgspec.json.decode(await db.fetchval("SELECT circuit_override FROM destinations"))
    assert (override["state"], override["circuit"]) == ("open", "crm")
    subject = await db.fetchval("SELECT subject FROM audit_log ORDER BY audit_id DESC LIMIT 1")
    assert subject == "crm:hubspot:https://crm.example"
    wrong = await tranche("open", "hubspot", "--for", "-1", *here)
    assert wrong.exit_code != 0
    assert "seconds" in wrong.output
