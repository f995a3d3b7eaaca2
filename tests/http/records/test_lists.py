"""Records in lists and in files."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import asyncpg
import msgspec
import pytest

from app.records import listing
from tests.http.conftest import Api, person


async def read_all(api: Api, path: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = (await api.get(f"{path}{cursor}")).json()
        found += page["records"]
        if page["next_cursor"] is None:
            return found
        cursor = f"{'&' if '?' in path else '?'}cursor={page['next_cursor']}"


async def test_a_list_has_every_record_once_in_the_order_of_ids(api: Api) -> None:
    await api.push([person(n, attributes={"n": n}) for n in range(25)])
    await api.push([{"id": "c3", "deleted": True}])
    found = await read_all(api, "/v1/contacts?limit=7")
    assert [record["id"] for record in found] == sorted(f"c{n}" for n in range(25) if n != 3)
    assert found[0] == found[0] | {"email": "c0@example.com", "attributes": {"n": 0}, "version": 1, "phone": None}
    assert (await api.get("/v1/companies")).json() == {"records": [], "next_cursor": None}


async def test_records_are_found_by_id_and_by_e_mail_address(api: Api) -> None:
    await api.push([person(n) for n in range(5)] + [person(9, email="c1@example.com")])
    found = (await api.get("/v1/contacts?ids=c1&ids=c4&ids=nobody")).json()["records"]
    assert [record["id"] for record in found] == ["c1", "c4"]
    assert [r["id"] for r in await read_all(api, "/v1/contacts?email=c1@example.com&limit=1")] == ["c1", "c9"]
    assert (await api.get("/v1/contacts?email=C1@example.com")).json()["records"] == []
    assert (await api.get("/v1/contacts?domain=x")).status == 400
    assert (await api.get("/v1/contacts?email=a@b.co&ids=c1")).status == 400


async def test_a_search_finds_what_records_are_now(
    api: Api, db: asyncpg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not what they were; in chunks that are older than their signatures too, and past any number of others."""
    monkeypatch.setattr(listing, "_MOST_PASSED", 2)
    await api.push([person(1, email="a@b.co"), person(2, email="a@b.co"), person(3, email="a@b.co"), person(4)])
    await db.execute("UPDATE record_versions SET signatures = NULL")
    for n in range(7):
        await api.push([person(10 + n)])
    await api.push([{"id": "c2", "email": "other@b.co"}, person(4, email="a@b.co"), {"id": "c3", "deleted": True}])
    await api.push([person(20)])
    await api.push([{"id": "c1", "email": "a@b.co", "phone": "1"}, {"id": "c5", "email": "a@b.co", "phone": "2"}])
    first = (await api.get("/v1/contacts?email=a@b.co&limit=1")).json()
    assert [r["id"] for r in first["records"]] == ["c4"]
    assert [r["id"] for r in await read_all(api, "/v1/contacts?email=a@b.co&limit=1")] == ["c4", "c1", "c5"]
    assert [r["id"] for r in await read_all(api, "/v1/contacts?email=other@b.co")] == ["c2"]
    assert await read_all(api, "/v1/contacts?email=nobody@b.co") == []
    assert await read_all(api, "/v1/contacts?email=%00") == []


async def test_companies_are_found_by_domain(api: Api) -> None:
    items = [{"id": "a", "name": "Acme", "domain": "acme.example"}, {"id": "b", "name": "B"}]
    body = msgspec.json.encode({"items": items})
    headers = {"Idempotency-Key": "companies", "Content-Type": "application/json"}
    assert (await api.request("POST", "/v1/companies:bulk", headers=headers, data=body)).status == 207
    assert [r["id"] for r in await read_all(api, "/v1/companies?domain=acme.example")] == ["a"]
    assert (await api.get("/v1/companies?email=a@b.co")).status == 400


async def test_what_changed_since_a_moment_is_listed_once_as_it_is_now(api: Api, db: asyncpg.Connection[Any]) -> None:
    await api.push([person(n) for n in range(30)])
    since = (await db.fetchval("SELECT clock_timestamp()")).isoformat().replace("+", "%2B")
    await api.push([person(1, phone="1")])
    await api.push([person(n, phone="2") for n in (1, 2, 3)] + [person(50)])
    await api.push([{"id": "c2", "deleted": True}, {"id": "c7", "deleted": True}])
    found = await read_all(api, f"/v1/contacts?updated_since={since}&limit=1")
    assert [(r["id"], r["phone"], r.get("deleted", False)) for r in found] == [
        ("c1", "2", False), ("c3", "2", False), ("c50", None, False), ("c2", None, True), ("c7", None, True),
    ]  # fmt: skip
    assert (await api.get("/v1/companies?updated_since=2020-01-01T00:00:00Z")).json()["records"] == []
    assert (await api.get("/v1/contacts?updated_since=2026-01-01T00:00:00")).status == 400
    assert (await api.get("/v1/contacts?cursor=x")).status == 400


async def test_an_export_is_a_file_that_can_be_imported_again(api: Api) -> None:
    people = [person(n, attributes={"plan": "gold", "email": "x"}, phone="=1+1") for n in range(3)]
    await api.push([*people, person(9), {"id": "gone", "deleted": True}])
    lines = (await api.get("/v1/contacts:export", {"Accept": "application/x-ndjson"})).body.splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["c0", "c1", "c2", "c9"]
    answer = await api.get("/v1/contacts:export", {"Accept": "text/csv"})
    assert answer.headers["Content-Disposition"] == 'attachment; filename="contacts.csv"'
    header, *rows = csv.reader(io.StringIO(answer.body.decode()))
    names = ["id", "email", "first_name", "last_name", "phone", "company", "attributes.email", "plan"]
    assert header == names
    assert rows[0] == ["c0", "c0@example.com", "Name 0", "", "'=1+1", "", "x", "gold"]
    assert len(rows) == 4


async def test_an_export_is_of_one_moment(api: Api, db: asyncpg.Connection[Any]) -> None:
    await api.push([person(n) for n in range(1_000)])
    await api.push([person(n + 1_000, attributes={"pad": "x" * 3_000}) for n in range(900)])
    async with api.session.get(
        f"{api.url}/v1/contacts:export", headers={"Authorization": f"Bearer {api.key}"}
    ) as answer:
        assert answer.status == 200
        first = await answer.content.readline()
        await api.push([person(n, first_name="later") for n in range(1_900)][:1_000])
        await api.push([person(5_000)])
        rest = await answer.read()
    records = [json.loads(line) for line in (first + rest).splitlines()]
    assert len(records) == 1_900
    assert not any(record["first_name"] == "later" for record in records)
