"""`/v1/jobs/{id}/items`: pages of an unfinished job, and the CSV of what did not make it."""

from __future__ import annotations

import csv
import io
from typing import Any, TypeAlias

import asyncpg
import msgspec
import pytest

from app.deliveries import queries
from app.destinations import service
from app.files.staging_codec import encode_sources
from app.kit.compression import pack
from app.kit.encryption import Vault
from tests.conftest import LOOPBACK, SECRET_KEY
from tests.http.conftest import Answer, Api, person

Db: TypeAlias = "asyncpg.Connection[Any]"
CSV = {"Accept": "text/csv"}
SEND_CSV = {"Content-Type": "text/csv"}
SENT = "?sent=true"


async def add_destination(db: Db, name: str) -> int:
    tenant = await db.fetchval("SELECT tenant_id FROM tenants WHERE name = 'acme'")
    new = service.NewDestination(name=name, kind="hubspot", base_url="http://127.0.0.1:1", token="t")
    await service.add_destination(db, Vault(SECRET_KEY), tenant, new, private=LOOPBACK)
    found: int = await db.fetchval("SELECT destination_id FROM destinations WHERE name = $1", name)
    return found


async def settle(db: Db, destination: int, states: str, errors: dict[str, dict[str, str]]) -> None:
    """What a worker leaves behind of the only delivery to a destination."""
    indexes = await db.fetchval("SELECT indexes FROM deliveries WHERE destination_id = $1", destination)
    counted = queries.count_failures(msgspec.convert(errors, dict[str, queries.ItemError]), indexes)
    await db.execute(
        "UPDATE deliveries SET states = $2, errors = $3::text::jsonb, failures = $4::text::jsonb, state = 'done' "
        "WHERE destination_id = $1",
        destination,
        states,
        msgspec.json.encode(errors).decode(),
        msgspec.json.encode(counted).decode(),
    )


def table(answer: Answer) -> list[list[str]]:
    assert answer.status == 200, answer.body
    return list(csv.reader(io.StringIO(answer.body.decode(), newline="")))


async def test_failed_rows_are_fixed_in_their_own_columns_and_pushed_again(api: Api) -> None:
    """No `map=` the second time: the column names say what they mean."""
    sent = (
        "Customer Id,E-Mail,Phone,Stadt\r\n"
        "1,ok@example.com,+49 1,Köln\r\n"
        "2,nonsense,+49 2,=1+1\r\n"
        '3,c@example.com,none,"a, ""b"""\r\n'
        "4,d@example.com\r\n"
    ).encode()
    query = "?map=Customer%20Id:id&map=E-Mail:email"
    job = (await api.push(sent, query=query, headers=SEND_CSV)).json()
    answer = await api.get(job["items_url"], CSV)
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8; header=present"
    assert answer.headers["Content-Disposition"] == f'attachment; filename="job-{job["job_id"]}-failed.csv"'
    assert "Link" not in answer.headers
    assert answer.body.count(b"\r\n") == answer.body.count(b"\n") == 4
    header, *rows = table(answer)
    assert header == ["error_code", "error_detail", "retry_after_seconds", "id", "E-Mail", "Phone", "Stadt"]
    assert [[row[0], *row[2:]] for row in rows] == [
        ["INVALID_EMAIL", "0", "2", "nonsense", "'+49 2", "'=1+1"],
        ["INVALID_PHONE", "0", "3", "c@example.com", "none", 'a, "b"'],
        ["INVALID_FIELD", "0", "4", "d@example.com"],
    ]
    assert rows[2][1].startswith("line 5: the row has 2 cells")

    again = (await api.push(answer.body, headers=SEND_CSV)).json()
    assert [item.get("error_code") for item in again["items"]] == [row[0] for row in rows]

    fixed = answer.body.replace(b"nonsense", b"b@example.com").replace(b"none", b"030 1")
    fixed = fixed.replace(b"4,d@example.com", b"4,d@example.com,+49 4,Bonn")
    healed = (await api.push(fixed, headers=SEND_CSV)).json()
    assert healed["summary"] == {"total": 3, "succeeded": 3, "failed": 0, "retry": 0}
    contact = (await api.get("/v1/contacts/2")).json()
    assert (contact["phone"], contact["attributes"]) == ("+49 2", {"Stadt": "=1+1"})
    assert (await api.get("/v1/contacts/4")).json()["phone"] == "+49 4"


async def test_rows_that_a_destination_refused_come_as_they_are_stored(api: Api, db: Db) -> None:
    hubspot, other = await add_destination(db, "hubspot"), await add_destination(db, "other")
    items = [person(n, source_version=5, if_version=0, attributes={"city": "Bonn", "n": 5}) for n in range(4)]
    job = (await api.push([*items, {"id": "bad", "email": "x"}])).json()
    refused = {"code": "DESTINATION_REJECTED", "detail": "no such property"}
    await settle(db, hubspot, "ofdo", {"1": refused, "2": {"code": "RETRIES_EXHAUSTED", "detail": "gave up"}})
    await settle(db, other, "offo", {"1": refused, "2": refused})

    header, *rows = table(await api.get(job["items_url"], CSV))
    assert header[3:] == [
        *["id", "email", "first_name", "last_name", "phone", "company", "if_version", "source_version"],
        *["city"],
    ]
    assert rows[0] == [
        *["DESTINATION_REJECTED", "hubspot: no such property; other: no such property", "0"],
        *["c1", "c1@example.com", "Name 1", "", "", "", "", "5", "Bonn"],
    ]
    assert [(row[0], row[3]) for row in rows] == [
        ("DESTINATION_REJECTED", "c1"),
        ("RETRIES_EXHAUSTED", "c2"),
        ("INVALID_EMAIL", "bad"),
    ]

    async def ids(query: str) -> list[str]:
        return [row[3] for row in table(await api.get(f"{job['items_url']}?{query}", CSV))[1:]]

    assert await ids("destination=hubspot") == ["c1", "c2"]
    assert await ids("destination=hubspot&status=dead") == ["c2"]
    assert await ids("destination=db") == await ids("status=failed") == ["bad"]
    assert await ids("error_code=DESTINATION_REJECTED") == ["c1", "c2"]
    assert await ids("error_code=RETRIES_EXHAUSTED&destination=other") == []
    assert await ids("status=retry") == []
    narrowed = table(await api.get(f"{job['items_url']}?error_code=DESTINATION_REJECTED", CSV))
    assert narrowed[2][:2] == ["DESTINATION_REJECTED", "other: no such property; hubspot: gave up"]


@pytest.mark.parametrize(
    "query", ["status=ok", "status=pending&destination=h", "status=skipped&destination=h", "status=retry&destination=h"]
)
async def test_a_csv_of_what_did_not_fail_is_refused(api: Api, query: str) -> None:
    job = (await api.push([person(1)])).json()
    answer = await api.get(f"{job['items_url']}?{query}", CSV)
    assert (answer.status, answer.json()["code"]) == (400, "INVALID_PARAMETER")
    assert "JSON or NDJSON" in answer.json()["detail"]


async def test_failed_json_items_come_back_as_they_were_sent(api: Api) -> None:
    """Null and numbers too, which a CSV cannot hold; corrected, they do what they were meant to do."""
    await api.push([{**person(1), "phone": "+49 30 1234", "attributes": {"a": 1, "b": 2}}])
    bad = {**person(1), "email": "nonsense", "phone": None, "attributes": {"a": 2.5, "b": None, "c": [1]}}
    job = (await api.push([person(2), bad, {"id": "c3", "nick": 1}])).json()
    answer = await api.get(job["items_url"] + SENT)
    assert answer.status == 200, answer.body
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    assert answer.headers["Content-Disposition"] == f'attachment; filename="job-{job["job_id"]}-failed.ndjson"'
    first, second = answer.body.splitlines()
    assert msgspec.json.decode(first) == bad
    assert msgspec.json.decode(second) == {"id": "c3", "nick": 1}
    ndjson = {"Content-Type": "application/x-ndjson"}
    again = (await api.push(answer.body, headers=ndjson)).json()
    assert [item["error_code"] for item in again["items"]] == ["INVALID_EMAIL", "UNKNOWN_FIELD"]
    corrected = first.replace(b"nonsense", b"c1@example.com")
    assert (await api.push(corrected, headers=ndjson)).json()["items"][0]["result"] == "updated"
    stored = (await api.get("/v1/contacts/c1")).json()
    assert stored.get("phone") is None
    assert stored["attributes"] == {"a": 2.5, "c": [1]}


async def test_failed_ndjson_comes_in_pages_and_by_status_where_asked(api: Api) -> None:
    job = (await api.push([{"id": f"c{n}", "email": "x"} for n in range(5)] + [person(9)])).json()
    path: str | None = job["items_url"] + SENT + "&status=failed&limit=2"
    seen: list[str] = []
    while path:
        answer = await api.get(path, {"Accept": "application/x-ndjson"})
        seen += [msgspec.json.decode(line)["id"] for line in answer.body.splitlines()]
        link = answer.headers.get("Link")
        path = None if link is None else link.partition("<")[2].partition(">")[0]
    assert seen == [f"c{n}" for n in range(5)]
    for query, accept, code in (
        (SENT, "application/json", "NOT_ACCEPTABLE"),
        (SENT + "&status=ok", "*/*", "INVALID_PARAMETER"),
    ):
        assert (await api.get(job["items_url"] + query, {"Accept": accept})).json()["code"] == code


async def test_items_to_be_sent_again_say_when(api: Api, db: Db) -> None:
    job = (await api.push([person(1)])).json()
    outcome = [{"index": 0, "id": "c1", "status": "retry", "error_code": "LOCK_TIMEOUT", "retry_after_seconds": 7}]
    await db.execute(
        'UPDATE job_chunks SET outcomes = $1, sources = $2, failures = \'{"LOCK_TIMEOUT": {"count": 1}}\'',
        pack(msgspec.json.encode(outcome)),
        pack(encode_sources({0: msgspec.json.encode(person(1))})),
    )
    (row,) = table(await api.get(job["items_url"], CSV))[1:]
    assert (row[0], row[2], row[3]) == ("LOCK_TIMEOUT", "7", "c1")


async def test_a_csv_comes_in_pages_where_a_limit_is_given(api: Api) -> None:
    job = (await api.push([{"id": f"c{n}", "email": "x"} for n in range(5)])).json()
    path: str | None = job["items_url"] + "?limit=2"
    seen: list[str] = []
    while path:
        answer = await api.get(path, CSV)
        header, *rows = table(answer)
        assert header[0] == "error_code"
        seen += [row[3] for row in rows]
        link = answer.headers.get("Link")
        path = None if link is None else link.partition("<")[2].partition(">")[0]
    assert seen == [f"c{n}" for n in range(5)]


async def test_a_job_without_failures_gives_a_header_alone(api: Api) -> None:
    job = (await api.push(b"id,email\r\n1,a@example.com\r\n", headers=SEND_CSV)).json()
    assert table(await api.get(job["items_url"], CSV)) == [
        ["error_code", "error_detail", "retry_after_seconds", "id", "email"]
    ]


async def test_who_follows_an_unfinished_job_sees_each_item_once(api: Api, db: Db) -> None:
    """Chunks are decided out of order: pages stop before the first that is not, and go on from there."""
    job = (await api.push([person(n) for n in range(6)])).json()
    await db.execute("UPDATE jobs SET state = 'running'")
    await db.execute(
        "INSERT INTO staged_chunks (tenant_id, job_id, first_index, item_count, step, id_hashes, rows) "
        "SELECT tenant_id, job_id, f, 1, 'apply', '{1}', '' FROM jobs, unnest('{3,4}'::int[]) f"
    )
    answer = await api.get(job["items_url"] + "?limit=2")
    assert [item["index"] for item in answer.json()["items"]] == [0, 1]
    assert "Retry-After" not in answer.headers
    cursor = answer.json()["next_cursor"]
    answer = await api.get(f"{job['items_url']}?cursor={cursor}")
    assert [item["index"] for item in answer.json()["items"]] == [2]
    assert int(answer.headers["Retry-After"]) >= 1
    cursor = answer.json()["next_cursor"]
    for query in (f"cursor={cursor}", f"cursor={cursor}&status=failed"):
        answer = await api.get(f"{job['items_url']}?{query}")
        assert answer.json() == {"items": [], "next_cursor": cursor}
    whole = await api.get(job["items_url"], CSV)
    assert cursor in whole.headers["Link"]

    await db.execute("DELETE FROM staged_chunks WHERE first_index = 3")
    await db.execute("UPDATE jobs SET state = 'completed'; DELETE FROM staged_chunks")
    answer = await api.get(f"{job['items_url']}?cursor={cursor}")
    assert [item["index"] for item in answer.json()["items"]] == [3, 4, 5]
    assert answer.json()["next_cursor"] is None


async def test_a_canceled_job_shows_what_was_decided(api: Api, db: Db) -> None:
    """With a hole where a chunk was not processed any more; nothing is waited for."""
    job = (await api.push([person(n) for n in range(3)])).json()
    await db.execute(
        "UPDATE jobs SET state = 'canceled', items = 9; UPDATE job_chunks SET first_index = 0;"
        "INSERT INTO staged_chunks (tenant_id, job_id, first_index, item_count, step, id_hashes, rows) "
        "SELECT tenant_id, job_id, 3, 6, 'apply', '{1}', '' FROM jobs"
    )
    answer = (await api.get(job["items_url"])).json()
    assert [item["index"] for item in answer["items"]] == [0, 1, 2]
    assert answer["next_cursor"] is None


@pytest.mark.parametrize("accept", ["application/json", "application/x-ndjson", "text/csv"])
async def test_outcomes_past_their_retention_are_gone(api: Api, db: Db, accept: str) -> None:
    job = (await api.push([person(1)])).json()
    await db.execute("UPDATE jobs SET trimmed_at = now(); DELETE FROM job_chunks")
    answer = await api.get(job["items_url"], {"Accept": accept})
    assert (answer.status, answer.json()["code"]) == (410, "OUTCOMES_EXPIRED")


async def test_a_code_that_nothing_can_have_finds_nothing(api: Api) -> None:
    job = (await api.push([{"id": "1"}])).json()
    for code in ("NO_SUCH_CODE", "%00", "%22"):
        assert (await api.get(f"{job['items_url']}?error_code={code}")).json()["items"] == []


async def test_what_waits_for_a_blocked_destination_is_found_by_its_reason(api: Api, db: Db) -> None:
    """The reason is the destination's own; no item has it written down."""
    await add_destination(db, "hubspot")
    job = (await api.push([person(1), {"id": "bad"}])).json()
    await db.execute(
        "UPDATE destinations SET blocked_until = now() + '1 min', blocked_code = 'CIRCUIT_OPEN', blocked_detail = 'x'"
    )
    for query in ("error_code=CIRCUIT_OPEN", "error_code=CIRCUIT_OPEN&destination=hubspot&status=pending"):
        found = (await api.get(f"{job['items_url']}?{query}")).json()["items"]
        assert [item["index"] for item in found] == [0], query
