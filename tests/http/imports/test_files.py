"""CSV and NDJSON bodies: files as they come out of other systems, each row with its own outcome."""

from __future__ import annotations

import asyncio
import csv
import gzip
import io
import random
from typing import Any

import asyncpg
import msgspec
import zstandard

from app.files.encoding import WORKBOOK
from app.settings import Settings
from tests.http.conftest import Answer, Api, aiohttp_session, person, serve

CSV = {"Content-Type": "text/csv"}
NDJSON = {"Content-Type": "application/x-ndjson"}
HEADER = ("Customer Id", "First Name", "Last Name", "Company", "City", "Phone 1", "Email", "Website")
MAP = "?map=Customer%20Id:id&map=Phone+1:phone"


def export(rows: int = 100) -> list[list[str]]:
    """What a CRM exports: quoted commas, line breaks, odd phones, an e-mail address that is none."""
    return [
        [
            f"DD37Cf93aecA{n:03}",
            f"Šeryl {n}",
            'O"Brien' if n % 7 == 0 else "Baxter",
            "Rasmussen, Group" if n % 3 else "Line one\nLine two",
            "East Leonard" if n % 5 else "",
            f"(496)978-3969x{n}",
            "no address" if n == 41 else f"zuniga{n}@smith.example",
            f"http://www.stephenson.example/{n}",
        ]
        for n in range(rows)
    ]


def write(rows: list[list[str]], header: tuple[str, ...] = HEADER) -> bytes:
    out = io.StringIO()
    csv.writer(out).writerows([header, *rows])
    return out.getvalue().encode()


async def push_csv(api: Api, body: bytes | str, query: str = "", *, key: str | None = None, **more: str) -> Answer:
    headers = CSV | {name.replace("_", "-"): value for name, value in more.items()}
    return await api.push(body if isinstance(body, bytes) else body.encode(), query=query, key=key, headers=headers)


def told(answer: Answer) -> list[tuple[str | None, str, str]]:
    assert answer.status == 207, answer.body
    return [
        (
            item.get("id"),
            item.get("result") or item["error_code"],
            (item.get("errors") or [{"detail": ""}])[0]["detail"],
        )
        for item in answer.json()["items"]
    ]


async def test_an_export_of_a_hundred_rows_arrives(api: Api, db: asyncpg.Connection[Any]) -> None:
    rows = export()
    body = write(rows)
    answer = await push_csv(api, body, MAP, key="k")
    assert answer.status == 207
    assert answer.json()["summary"] == {"total": 100, "succeeded": 99, "failed": 1, "retry": 0}
    assert [item["id"] for item in answer.json()["items"]] == [row[0] for row in rows]
    assert answer.json()["items"][41]["error_code"] == "INVALID_EMAIL"
    contact = (await api.get(f"/v1/contacts/{rows[0][0]}")).json()
    assert (contact["first_name"], contact["last_name"]) == ("Šeryl 0", 'O"Brien')
    assert (contact["company"], contact["phone"]) == ("Line one\nLine two", "(496)978-3969x0")
    assert contact["attributes"] == {"Website": "http://www.stephenson.example/0"}
    again = await push_csv(api, body, MAP, key="k")
    assert (again.body, again.headers["Idempotency-Replayed"]) == (answer.body, "true")
    packed = await push_csv(api, gzip.compress(body), MAP, Content_Encoding="gzip")
    assert {item.get("result") for item in packed.json()["items"]} == {"unchanged", None}
    packed = await push_csv(api, zstandard.compress(body), MAP, Content_Encoding="zstd")
    assert packed.json()["summary"]["succeeded"] == 99
    assert await db.fetchval("SELECT count(*) FROM records") == 99


async def test_encodings(api: Api) -> None:
    text = "ID;E-Mail;Company\r\nc1;c1@example.com;Köln € Bonn\r\n"
    for body, charset in (
        (text.encode(), ""),
        (text.encode("utf-8-sig"), ""),
        (text.encode("utf-8-sig"), "; charset=utf-8"),
        (text.encode("utf-16"), ""),
        (text.encode("utf-16"), "; charset=UTF-16"),
        (b"\xfe\xff" + text.encode("utf-16-be"), ""),
        (text.encode("utf-16-be"), "; charset=utf-16be"),
        (text.encode("cp1252"), "; charset=windows-1252"),
        (text.encode("cp1252"), "; charset=iso-8859-1"),
    ):
        answer = await api.push(body, headers={"Content-Type": "text/csv" + charset})
        assert answer.json()["summary"]["succeeded"] == 1, (body, charset)
        assert (await api.get("/v1/contacts/c1")).json()["company"] == "Köln € Bonn", (body, charset)


async def test_windows_1252_is_refused_until_it_is_named(api: Api) -> None:
    body = "id,email,company\nc1,c1@example.com,Bar\nc2,c2@example.com,Café\n".encode("cp1252")
    refused = await push_csv(api, body, key="k")
    assert (refused.status, refused.json()["code"]) == (400, "MALFORMED_REQUEST")
    for words in ("0xE9", f"offset {body.index(0xE9)}", "line 3", "charset=windows-1252"):
        assert words in refused.json()["detail"]
    assert (await api.get("/v1/jobs")).json()["jobs"] == []
    taken = await api.push(body, key="k", headers={"Content-Type": "text/csv; charset=windows-1252"})
    assert taken.json()["summary"]["succeeded"] == 2
    assert (await api.get("/v1/contacts/c2")).json()["company"] == "Café"


async def test_a_broken_row_fails_alone_and_names_its_line(api: Api) -> None:
    body = (
        "id,email,company,if_version\n"
        'c1,c1@example.com,"two\nlines",\n'
        "c2,c2@example.com\n"
        "c3,c3@example.com,Smith, Jones & Co,\n"
        ",,,\n"
        'c4,c4@example.com,"open,\n'
        "c5,c5@example.com,x\0y,\n"
        "c6,c6@example.com,,soon\n"
        ",c7@example.com,,\n"
        f"c8,c8@example.com,{'x' * 70_000},\n"
        f"c9,c9@example.com,{'x' * 200_000},\n"
        "ca,ca@example.com,,0\n"
    )
    answer = await push_csv(api, body)
    outcomes = told(answer)
    assert [outcome[:2] for outcome in outcomes] == [
        ("c1", "created"),
        (None, "INVALID_FIELD"),
        (None, "INVALID_FIELD"),
        (None, "INVALID_FIELD"),
        ("c5", "INVALID_FIELD"),
        ("c6", "INVALID_FIELD"),
        (None, "MISSING_FIELD"),
        ("c8", "ITEM_TOO_LARGE"),
        (None, "ITEM_TOO_LARGE"),
        ("ca", "created"),
    ]
    details = [outcome[2] for outcome in outcomes]
    assert details[1] == "line 4: the row has 2 cells, the header 4"
    assert details[2].startswith("line 5: the row has 5 cells, the header 4; is a value")
    assert details[3] == "line 7: a quote is opened in this line and never closed"
    assert details[8].startswith("line 12: ")
    assert (await api.get("/v1/contacts/c1")).json()["company"] == "two\nlines"
    listed = (await api.get(answer.json()["items_url"] + "?status=failed")).json()["items"]
    assert [item["index"] for item in listed] == [1, 2, 3, 4, 5, 6, 7, 8]


async def test_broken_rows_among_a_thousand(api: Api, db: asyncpg.Connection[Any]) -> None:
    """More rows than one part holds, so that the places of the sound ones must be kept over the parts."""
    lines = [f"c{n:04}" if n % 100 == 7 else f"c{n:04},c{n}@example.com" for n in range(1_000)]
    random.Random(1).shuffle(lines)
    outcomes = told(await push_csv(api, "id,email\n" + "\n".join(lines)))
    for line, (record_id, result, _) in zip(lines, outcomes, strict=True):
        assert (record_id, result) == ((line[:5], "created") if "," in line else (None, "INVALID_FIELD"))
    assert await db.fetchval("SELECT count(*) FROM records") == 990


async def test_options_hold_for_files_too(api: Api) -> None:
    body = "id,email\nc1,c1@example.com\nc2\n"
    aborted = told(await push_csv(api, body, "?atomic=true"))
    assert [result for _, result, _ in aborted] == ["ATOMIC_ABORTED", "INVALID_FIELD"]
    assert (await push_csv(api, body, "?dry_run=true")).json()["summary"]["succeeded"] == 1
    assert (await api.get("/v1/contacts/c1")).status == 404
    twice = "id,email,city\nc1,c1@example.com,A\nc1,c1@example.com,B\n"
    assert [r for _, r, _ in told(await push_csv(api, twice))] == ["DUPLICATE_IN_BATCH"] * 2
    assert [r for _, r, _ in told(await push_csv(api, twice, "?on_duplicate=last_wins"))] == ["superseded", "created"]
    brief = await push_csv(api, body, Prefer="return=minimal")
    assert [item["index"] for item in brief.json()["items"]] == [1]
    # An empty cell leaves the field as it is.
    assert (await api.get("/v1/contacts/c1")).json()["attributes"] == {"city": "B"}
    none = await push_csv(api, "id,email\n")
    assert (none.status, none.json()["summary"]["total"]) == (207, 0)


async def test_a_header_that_cannot_be_used_is_refused_whole(api: Api) -> None:
    for body, query, words in (
        ("Customer Id,Email\n1,a@example.com\n", "", ["'Customer Id'", "?map=Customer%20Id:id"]),
        ("id,Mail\n", "", ["no column 'email'", "?map=Mail:email"]),
        ("id,email,id\n", "", ["'id' more than once"]),
        ("id,,email\n", "", ["column 2 of 3 has no name"]),
        ("Customer,email\n", "?map=Custmer:id", ["'Custmer'", "did you mean 'Customer'?"]),
        ("id,email,E-Mail\n", "", ["'email' and 'E-Mail' would both fill 'email'"]),
        ("", "", ["empty"]),
        ("i\0d\0,\0e\0", "", ["NUL", "utf-16le"]),
    ):
        answer = await push_csv(api, body, query)
        assert (answer.status, answer.json()["code"]) == (400, "INVALID_HEADER"), (body, answer.body)
        assert all(word in answer.json()["detail"] for word in words), answer.json()["detail"]
    for query in (
        "?map=id",
        "?map=:id",
        "?map=a:id&map=a:phone",
        "?map=a:emial",
        "?map=a:id&ignore=a",
        "?map=%ff:id",
        "?mapping=a:id",
    ):
        answer = await push_csv(api, "id,email\n", query)
        assert (answer.status, answer.json()["code"]) == (400, "INVALID_PARAMETER"), query
    for headers in (NDJSON, {}):
        answer = await api.push(b'{"id":"1"}', query="?map=a:id", headers=headers)
        assert (answer.status, answer.json()["code"]) == (400, "INVALID_PARAMETER")
    assert (await api.get("/v1/jobs")).json()["jobs"] == []


async def test_types_that_are_not_taken(api: Api) -> None:
    for sent in (
        "text/csv; header=absent",
        "text/csv; charset=ebcdic",
        "application/x-ndjson; charset=utf-16",
        "text/tab",
    ):
        answer = await api.push(b"id,email\n", headers={"Content-Type": sent})
        assert (answer.status, answer.json()["code"]) == (415, "UNSUPPORTED_MEDIA_TYPE"), sent
        assert answer.headers["Accept-Post"] == f"application/json, application/x-ndjson, text/csv, {WORKBOOK}"


async def test_failed_rows_are_pushed_again_with_their_notes(api: Api) -> None:
    body = "error_code,error_detail,retry_after_seconds,id,email\nINVALID_EMAIL,no @,0,c1,c1@example.com\n"
    assert told(await push_csv(api, body)) == [("c1", "created", "")]
    assert (await api.get("/v1/contacts/c1")).json()["attributes"] == {}


async def test_one_poisoned_line_of_ndjson_fails_alone(api: Api) -> None:
    for media_type in ("application/x-ndjson", "application/ndjson", "application/jsonl; charset=utf-8"):
        lines = [
            msgspec.json.encode(person(1)),
            b'{"id":"c2","email":"c2\xff@example.com"}',
            b"",
            b'{"id":',
            b"[" * 5_000,
            b'{"id":"c5","email":"c5@example.com","company":"\\u0000"}',
            b"x" * 1_100_000,
            msgspec.json.encode(person(7)),
        ]
        answer = await api.push(b"\xef\xbb\xbf" + b"\r\n".join(lines), headers={"Content-Type": media_type})
        outcomes = told(answer)
        assert [result for _, result, _ in outcomes] in [
            [ok, *["INVALID_FIELD"] * 4, "ITEM_TOO_LARGE", ok] for ok in ("created", "unchanged")
        ]
        assert outcomes[5][2].startswith("line 7: ")
        assert answer.json()["items"][1]["errors"][0]["pointer"] == "/email"
    assert (await api.push(b"", headers=NDJSON)).json()["summary"]["total"] == 0
    wide = await api.push('{"id":"c1"}'.encode("utf-16"), headers=NDJSON)
    assert (wide.status, wide.json()["code"]) == (400, "MALFORMED_REQUEST")


async def test_another_reading_of_the_same_bytes_is_another_request(api: Api) -> None:
    body = b"id,email,Key\nc1,c1@example.com,\xc3\xa9\n"
    first = await push_csv(api, body, key="k")
    for query, content_type in (
        ("", "application/x-ndjson"),
        ("", "application/json"),
        ("", "text/csv; charset=windows-1252"),
        ("?map=Key:id", "text/csv"),
        ("?dry_run=true", "text/csv"),
    ):
        answer = await api.push(body, key="k", query=query, headers={"Content-Type": content_type})
        assert (answer.status, answer.json()["code"]) == (422, "IDEMPOTENCY_KEY_REUSED"), (query, content_type)
    same = await api.push(body, key="k", headers={"Content-Type": "TEXT/CSV; charset=utf-8"})
    assert same.body == first.body


async def test_a_key_is_one_request_however_its_columns_are_renamed(api: Api) -> None:
    body = "a,b\nc1,c1@example.com\n"
    first = await push_csv(api, body, "?map=a:id&map=b:email", key="k")
    assert (await push_csv(api, body, "?map=b:email&map=a:id", key="k")).body == first.body
    assert (await push_csv(api, body, "?map=b:id&map=a:email", key="k")).status == 422


async def test_more_than_one_request_answers_is_stored(settings: Settings, api_key: str) -> None:
    """Rows, or lines of any kind, or bytes: what they hold is decided afterwards."""
    tight = msgspec.structs.replace(settings, max_sync_items=10, max_sync_bytes=100_000)
    async with serve(tight) as url, aiohttp_session() as session:
        api = Api(session, url, api_key)
        rows = "".join(f"c{n},c{n}@example.com\n" for n in range(11))
        for body, headers in (
            (("id,email\n" + rows).encode(), CSV),
            (b"id,email\n" + b",\n" * 2_000, CSV),
            (b"{}\n" * 11, NDJSON),
            (b"\n" * 2_000, NDJSON),
            (gzip.compress(b"id,email" + b"\n" * 100_001), CSV | {"Content-Encoding": "gzip"}),
        ):
            answer = await api.push(body, headers=headers)
            assert (answer.status, answer.json()["state"]) == (202, "queued")
        fitting = ("id,email\n" + rows.partition("c10")[0]).encode()
        assert (await api.push(fitting, headers=CSV)).json()["summary"]["succeeded"] == 10


async def test_mutated_files_never_break_the_service(api: Api) -> None:
    """Bytes flipped, cut, doubled and torn out of sound files, the same ones each run."""
    dice = random.Random(9)
    sound = {
        "text/csv": write(export(4)).replace(b"Customer Id", b"id"),
        "text/csv; charset=utf-16": write(export(2)).replace(b"Customer Id", b"id").decode().encode("utf-16"),
        "application/x-ndjson": b"\n".join(msgspec.json.encode(person(n)) for n in range(5)),
    }
    splices = (b"\0", b"\xff", b'"', b'""', b",", b",,,,", b"\r", b"\n", b"\r\n", b"\xef\xbb\xbf", b"x" * 2_000)

    async def send(media_type: str, body: bytes) -> int:
        answer = await api.push(body, headers={"Content-Type": media_type})
        assert answer.status in (207, 400), (answer.status, media_type, body)
        return answer.status

    seen: set[int] = set()
    for media_type, whole in sound.items():
        bodies = []
        for _ in range(100):
            body = bytearray(whole)
            for _ in range(dice.randint(1, 4)):
                at = dice.randrange(len(body))
                match dice.randrange(3):
                    case 0:
                        body[at] = dice.randrange(256)
                    case 1:
                        del body[at : at + dice.randrange(40)]
                    case _:
                        body[at:at] = dice.choice(splices)
                body = body or bytearray(b"x")
            bodies.append(bytes(body))
        for start in range(0, len(bodies), 10):
            seen.update(await asyncio.gather(*(send(media_type, body) for body in bodies[start : start + 10])))
    assert seen == {207, 400}


async def test_a_column_is_left_out_or_means_two_things(api: Api) -> None:
    answer = await push_csv(api, "Email,City,Secret\na@b.de,Bonn,x\n", "?map=Email:id&ignore=Secret")
    assert answer.json()["summary"]["succeeded"] == 1, answer.body
    contact = (await api.get("/v1/contacts/a@b.de")).json()
    assert (contact["email"], contact["attributes"]) == ("a@b.de", {"City": "Bonn"})


async def test_a_workbook_sent_as_csv_is_named(api: Api) -> None:
    answer = await push_csv(api, b"PK\x03\x04\x14\0\x06\0" + bytes(range(256)))
    assert answer.status == 400
    assert "workbook" in answer.json()["detail"]
    assert "windows-1252" not in answer.json()["detail"]


async def test_white_space_around_an_id_fails_as_it_does_around_an_address(api: Api) -> None:
    answer = await api.push(b'{"items":[{"id":" 1 ","email":"a@b.de"},{"id":"1","email":" a@b.de"}]}')
    errors = [item["errors"][0]["detail"] for item in answer.json()["items"]]
    assert errors == ['id has white space around it; send "1"', 'email has white space around it; send "a@b.de"']
