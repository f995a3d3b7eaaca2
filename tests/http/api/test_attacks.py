"""What attacks on the running service found: each stays found."""

from __future__ import annotations

import asyncio
from typing import Any, TypeAlias

import asyncpg
import msgspec

from app.settings import Settings
from tests.http.conftest import Api, aiohttp_session, person, serve

Db: TypeAlias = "asyncpg.Connection[Any]"


async def test_an_item_tells_of_its_faults_without_stammering(api: Api) -> None:
    body = b'{"items":[{"id":"c1","email":"   "},{"id":"c2","email":"c2@example.com","company":"a\nb"}]}'
    empty, broken = (await api.push(body)).json()["items"]
    assert empty["errors"][0]["detail"].startswith("email is empty")
    assert broken["errors"][0]["detail"] == (
        "company is not valid JSON: invalid control character at character 2; correct it"
    )


async def test_bodies_that_never_arrive_keep_nobody_out(settings: Settings, api_key: str) -> None:
    """One key with a few idle connections took every place there was, for ever."""
    few = msgspec.structs.replace(settings, max_requests_tenant=3, body_timeout=3.0)
    async with serve(few) as url, aiohttp_session() as session:
        api = Api(session, url, api_key)
        port = int(url.rpartition(":")[2])
        head = (
            "POST /v1/contacts:bulk HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {api_key}\r\nContent-Length: 100\r\n"
        )
        stalled = []
        for number in range(3):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"{head}Idempotency-Key: stalled-{number}\r\n\r\n".encode() + b'{"items":[')
            stalled.append((reader, writer))
        await asyncio.sleep(1.0)  # or an import of ours takes the place of the last
        for _ in range(100):
            if (await api.push([person(1)])).status == 429:
                break
            await asyncio.sleep(0.02)
        async with asyncio.timeout(60):
            answers = [await reader.read() for reader, _ in stalled]
        for number, answer in enumerate(answers):
            assert answer.startswith(b"HTTP/1.1 408 "), answer
            assert b"BODY_TIMEOUT" in answer
            assert f"idempotency-key: stalled-{number}".encode() in answer.lower()
        for _, writer in stalled:
            writer.close()
        assert (await api.push([person(2)])).status == 207


async def test_what_stands_still_still_tells_what_it_met(api: Api, db: Db) -> None:
    """A refused token was hidden behind the circuit that it had opened, in every place a human looks."""
    new = {"name": "hubspot", "kind": "hubspot", "base_url": "https://crm.example", "token": "t"}
    assert (await api.request("POST", "/v1/destinations", data=msgspec.json.encode(new))).status == 201
    pushed = (await api.push([person(1)])).json()
    await db.execute(
        "UPDATE deliveries SET states = 'r', attempt = 1, "
        'errors = \'{"0": {"code": "DESTINATION_UNAVAILABLE", "detail": "HubSpot answered 401"}}\''
    )
    await db.execute(
        "INSERT INTO record_syncs (tenant_id, destination_id, type_id, record_id, state, state_version, error_code, "
        "error_detail) SELECT tenant_id, destination_id, 1, 'c1', 'retry', 1, 'DESTINATION_UNAVAILABLE', "
        "'HubSpot answered 401' FROM destinations"
    )
    await db.execute(
        "UPDATE destinations SET blocked_until = now() + interval '30 s', blocked_code = 'CIRCUIT_OPEN', "
        "blocked_detail = 'the circuit is open'"
    )
    item = (await api.get(pushed["items_url"])).json()["items"][0]["destinations"]["hubspot"]
    contact = (await api.get("/v1/contacts/c1")).json()["destinations"]["hubspot"]
    for shown in (item, contact):
        assert shown["error_code"] == "CIRCUIT_OPEN"
        assert shown["detail"] == "the circuit is open; the last attempt: HubSpot answered 401"


async def test_an_address_that_nobody_can_call_is_refused(api: Api) -> None:
    """Each was taken, and then failed every contact until its attempts ran out."""
    for address in ("http://[::1", "http://crm.example:99999", "http://crm.example:0", "http://:80"):
        new = {"name": "crm", "kind": "hubspot", "base_url": address, "token": "secret-token"}
        refused = await api.request("POST", "/v1/destinations", data=msgspec.json.encode(new))
        assert (refused.status, refused.json()["code"]) == (400, "INVALID_PARAMETER"), address
    for number, address in enumerate(("https://[2606:4700::1]:8080/base", "https://crm.example:443", "https://crm")):
        new = {"name": f"crm{number}", "kind": "hubspot", "base_url": address, "token": "secret-token"}
        taken = await api.request("POST", "/v1/destinations", data=msgspec.json.encode(new))
        assert taken.status == 201, address
