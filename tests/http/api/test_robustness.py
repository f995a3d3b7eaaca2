"""Whatever comes in, nothing is answered with 5xx; whoever crowds in, nobody else is kept waiting."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import msgspec
import pytest

from app.api.openapi.document import make_document
from app.api.routes import OPERATIONS
from app.settings import PREFIX, Settings
from tests import stored
from tests.fuzz.mutations import SLOTS, make_case
from tests.http.conftest import Answer, Api, aiohttp_session, free_port, person, serve
from tests.http.records.test_contacts import add
from tests.http.world import ABSENT

HERE = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_schemathesis_finds_nothing_undocumented(settings: Settings, api_key: str) -> None:
    """Positive and negative data, examples, boundaries and links, as `schemathesis.toml` beside this says."""
    operator = "the-operators-own-token"
    async with (
        serve(msgspec.structs.replace(settings, operator_token=operator, limit_address="0")) as url,
        aiohttp_session() as session,
    ):
        await Api(session, url, api_key).push([person(1)])
        command = [sys.executable, "-m", "schemathesis.cli", "run", url + "/openapi.json", "--no-color"]
        environment = os.environ | {"TRANCHE_API_KEY": api_key, "TRANCHE_OPERATOR_TOKEN": operator}
        process = await asyncio.create_subprocess_exec(
            *command,
            env=environment | {"PYTHONPATH": str(HERE.parents[1])},
            cwd=HERE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await asyncio.wait_for(process.communicate(), 840)
    assert process.returncode == 0, output.decode()[-6000:]
    assert b"Authentication failed" not in output, "an operation was only ever refused"
    operations = sum(len(methods) for methods in make_document(OPERATIONS, Settings())["paths"].values())
    told = f"{operations - 1} selected"  # the document that it has loaded is left out
    assert told.encode() in output


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_mutated_bodies_never_break_the_service() -> None:
    """`make fuzz` with few bodies: every operation that takes one, every way of writing and sending it."""
    command = [sys.executable, "-m", "tests.fuzz", "--bodies", "20000", "--service", "0.2", "--processes", "2"]
    environment = os.environ | {"PYTHONPATH": str(HERE.parents[1])}
    process = await asyncio.create_subprocess_exec(
        *command, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output = (await process.communicate())[0].decode()
    assert process.returncode == 0, output
    assert "failures: 0" in output
    assert {one.operation.id for one in SLOTS} <= set(output.split())
    most = [int(peak) for peak in re.findall(r"\d+ → (\d+)", output)]
    assert len(most) == 2
    assert max(most) < 400, output


def test_a_mutated_request_can_be_repeated() -> None:
    made = [make_case(4, number, ABSENT, "key", "operator") for number in range(300)]
    assert made == [make_case(4, number, ABSENT, "key", "operator") for number in range(300)]
    assert len({case.body for case in made}) > 250


async def test_odd_requests_on_the_wire_are_refused_politely(api: Api) -> None:
    """Sent by hand, as no client library would."""
    host, _, port = api.url.removeprefix("http://").partition(":")
    auth = f"authorization: Bearer {api.key}\r\n".encode()
    start = b"POST /v1/contacts:bulk HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
    body = b'content-length: 12\r\n\r\n{"items":[]}'
    sound = start + auth + b"idempotency-key: k\r\n"
    cases = [
        (sound + body, b"207"),
        (start.replace(b"contacts:bulk", b"contacts%3Abulk") + auth + b"idempotency-key: k\r\n" + body, b"207"),
        (sound + b"idempotency-key: k\r\n" + body, b"400"),
        (sound + auth + body, b"400"),
        (sound + b"content-type: application/json\r\ncontent-type: text/csv\r\n" + body, b"400"),
        (sound + b"x-request-id: a\r\nx-request-id: b\r\n" + body, b"207"),
        (sound + b"prefer: wait=\xff\xfe, \x80\r\naccept: \xff/\xfe\r\nif-none-match: \xf0\r\n" + body, b"207"),
        (sound + b"content-encoding: \xff\r\n" + body, b"415"),
        (sound + b"content-type: \xff/json\r\n" + body, b"415"),
        (start + auth + b"idempotency-key: \xff\r\n" + body, b"400"),
        (start + b"authorization: Bearer \xff\xfe\r\n" + body, b"401"),
        (start + b"authorization: \r\n" + body, b"401"),
        (sound + b"content-length: 99\r\n\r\n{", b""),
        (b"GET /v1/contacts/%FF%00%2f..%2f HTTP/1.1\r\nhost: x\r\nconnection: close\r\n" + auth + b"\r\n", b"404"),
        (b"GET /v1/jobs?%00=%FF&cursor=%%% HTTP/1.1\r\nhost: x\r\nconnection: close\r\n" + auth + b"\r\n", b"400"),
        (b"BREW /v1/jobs HTTP/1.1\r\nhost: x\r\nconnection: close\r\n" + auth + b"\r\n", b"405"),
        (b"GET /v1/jobs HTTP/1.1\r\nhost: a b\xff\r\nconnection: close\r\n" + auth + b"\r\n", b"400"),
    ]
    for sent, status in cases:
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(sent)
        if not status:
            writer.write_eof()
        answer = await asyncio.wait_for(reader.read(), 45)
        writer.close()
        if status:
            assert answer.startswith(b"HTTP/1.1 " + status), (sent, answer)
        assert not answer.startswith(b"HTTP/1.1 5"), (sent, answer)


async def test_who_still_sends_gets_the_answer_and_no_broken_pipe(api: Api) -> None:
    for _ in range(20):
        assert (await api.push(b"x" * 6_000_000)).status == 400
        assert (await api.as_key(None).push(b"x" * 6_000_000)).status == 401
        assert (await api.request("POST", "/nowhere", data=b"x" * 6_000_000)).status == 404


async def test_head_and_options_follow_get(api: Api) -> None:
    path = (await api.push([person(1)])).headers["Location"]
    got, head = await api.get(path), await api.request("HEAD", path)
    assert (head.status, head.body) == (200, b"")
    assert head.headers["ETag"] == got.headers["ETag"]
    assert int(head.headers["Content-Length"]) == len(got.body)
    options = await api.request("OPTIONS", "/v1/destinations")
    assert (options.status, options.headers["Allow"]) == (204, "GET, HEAD, OPTIONS, POST")
    refused = await api.request("PUT", "/v1/destinations")
    assert (refused.status, refused.headers["Allow"]) == (405, "GET, HEAD, OPTIONS, POST")
    assert refused.json()["code"] == "METHOD_NOT_ALLOWED"
    assert (await api.get("/v1/nothing")).json()["code"] == "NOT_FOUND"


@asynccontextmanager
async def serve_apart(settings: Settings) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """The service as it runs in production: a granian process, settings from the environment."""
    port = free_port()
    environment = os.environ | {
        PREFIX + name.upper(): str(getattr(settings, name))
        for name in Settings.__struct_fields__
        if getattr(settings, name) != getattr(Settings(), name)
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "granian", "--interface", "asgi", "--factory", "app.main:factory"),
        *("--port", str(port), "--no-log"),
        env=environment | {"PYTHONPATH": str(HERE.parents[1])},
    )
    url = f"http://127.0.0.1:{port}"
    try:
        async with asyncio.timeout(60), aiohttp.ClientSession() as session:
            while True:
                try:
                    async with session.get(url + "/health/ready") as answer:
                        if answer.status == 200:
                            break
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.05)
        yield url, process
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.wait_for(process.wait(), 60)


class Turnstile:
    """Lets everybody ask once, and whoever is refused once more when it is open."""

    def __init__(self) -> None:
        self.refused = 0
        self.open = asyncio.Event()

    async def insist(self, api: Api) -> Answer:
        """The same request under the same key until it is answered."""
        items = [person(i) for i in range(20)]
        while True:
            answer = await api.push(items, key="one")
            if answer.status == 207:
                return answer
            # Where the machine is busy some of the crowd are told that the service is: they come again as well.
            assert answer.status in (409, 503), answer.body
            self.refused += 1
            await self.open.wait()
            await asyncio.sleep(int(answer.headers["Retry-After"]))


@pytest.mark.slow
async def test_a_thousand_requests_with_one_key_have_one_effect(
    settings: Settings, api_key: str, db: asyncpg.Connection[Any]
) -> None:
    """And meanwhile others are served: the crowd does not hold the pool, though the first of it is stuck."""
    waits = dict.fromkeys(("db_acquire_timeout", "db_lock_timeout", "db_statement_timeout"), 120.0)
    async with serve_apart(msgspec.structs.replace(settings, **waits)) as (url, _), aiohttp_session() as session:
        api = Api(session, url, api_key)
        await api.push([person(0, first_name="Before"), person(10_000)])
        turnstile = Turnstile()
        async with db.transaction():
            await db.execute("SELECT FROM records WHERE record_id = 'c0' FOR UPDATE")
            crowd = [asyncio.create_task(turnstile.insist(api)) for _ in range(1000)]
            # A transaction may take a minute; on a busy machine not all of the crowd are there by then.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(45):
                    while turnstile.refused < 999:
                        assert (await api.get("/v1/contacts/c10000")).status == 200
                        await asyncio.sleep(0.05)
            assert turnstile.refused
            assert not any(task.done() for task in crowd)
        turnstile.open.set()
        answers = await asyncio.gather(*crowd)
    assert len({answer.body for answer in answers}) == 1
    assert sum("Idempotency-Replayed" not in answer.headers for answer in answers) == 1
    assert await db.fetchval("SELECT count(*) FROM jobs") == 2
    assert [row["version"] for row in await stored.history(db) if row["record_id"] == "c7"] == [1]


async def test_the_service_ends_without_waiting_for_who_waits(
    settings: Settings, api_key: str, db: asyncpg.Connection[Any]
) -> None:
    """An import and a poll, both held; each gets its answer at once."""
    async with serve_apart(settings) as (url, process), aiohttp_session() as session:
        api = Api(session, url, api_key)
        await add(api)
        job = (await api.push([person(1)])).headers["Location"]
        poll = asyncio.create_task(api.get(job, {"Prefer": "wait=25"}))
        held = asyncio.create_task(api.push([person(2)], key="k", headers={"Prefer": "wait=25"}))
        async with asyncio.timeout(20):
            while not await db.fetchval("SELECT answering_until FROM idempotency_keys WHERE key = 'k'"):
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.3)
        started = time.monotonic()
        process.terminate()
        assert (await poll).status == 200
        assert (await held).json()["effects"]["hubspot"] == "pending"
        assert time.monotonic() - started < 15, "each would have waited for longer"
        assert await asyncio.wait_for(process.wait(), 60) == 0
    assert await db.fetchval("SELECT answering_until FROM idempotency_keys WHERE key = 'k'") is None
