"""`GET /v1/jobs/{id}/events`: progress as it happens."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
import pytest

from app.job_status.live import events_api
from app.settings import PREFIX, Settings
from tests.conftest import SECRET_KEY
from tests.http.conftest import Api, aiohttp_session, free_port, serve
from tests.http.made_jobs import Db, advance, complete, make_job
from tests.stopwatch import stopwatch


class Event(msgspec.Struct):
    name: str
    id: int
    job: Any
    at: float


class Stream:
    """What a client reads, as the standard says it is to be read."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self.answer = answer
        self.comments: list[str] = []
        self.retry: int | None = None

    async def __aiter__(self) -> AsyncIterator[Event]:
        fields: dict[str, str] = {}
        async for raw in self.answer.content:
            line = raw.decode().removesuffix("\n")
            if line.startswith(":"):
                self.comments.append(line)
            elif line:
                name, _, value = line.partition(": ")
                fields[name] = value
            else:
                if "retry" in fields:
                    self.retry = int(fields["retry"])
                if "data" in fields:
                    job = msgspec.json.decode(fields["data"])
                    yield Event(fields["event"], int(fields["id"]), job, time.monotonic())
                fields = {}


@asynccontextmanager
async def follow(api: Api, job_id: str, **headers: str) -> AsyncIterator[Stream]:
    sent = {"Authorization": f"Bearer {api.key}", "Accept": "text/event-stream"}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    async with api.session.get(f"{api.url}/v1/jobs/{job_id}/events", headers=sent) as answer:
        assert answer.status == 200
        yield Stream(answer)


async def test_progress_comes_as_it_happens_and_then_the_end(api: Api, db: Db) -> None:
    job_id = await make_job(db)
    seen: list[Event] = []
    async with follow(api, job_id) as stream:
        assert stream.answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert stream.answer.headers["Cache-Control"] == "no-store"
        async with asyncio.timeout(60):
            async for event in stream:
                seen.append(event)
                if len(seen) == 1:
                    assert stream.retry == 1000
                if len(seen) < 4:
                    await advance(db, job_id)
                elif event.name != "end":
                    await complete(db, job_id)
    assert [(event.name, event.id) for event in seen] == [
        ("progress", 1),
        ("progress", 2),
        ("progress", 3),
        ("progress", 4),
        ("end", 5),
    ]
    assert [event.job["progress"]["processed"] for event in seen] == [2_000, 3_000, 4_000, 5_000, 10_000]
    assert seen[-1].job == (await api.get(f"/v1/jobs/{job_id}")).json()
    assert seen[-1].job["state"] == "completed"


async def test_a_busy_job_does_not_flood_its_followers(api: Api, db: Db) -> None:
    """Four events a second, each of them of its moment, and the last one without delay."""
    job_id = await make_job(db, items=1_000_000)
    seen: list[Event] = []

    async def listen() -> None:
        async with follow(api, job_id) as stream:
            async for event in stream:
                seen.append(event)  # noqa: PERF401 - each as it comes

    listening = asyncio.create_task(listen())
    started = time.monotonic()
    async with asyncio.timeout(60):
        while time.monotonic() - started < 2.0 or len(seen) < 4:
            await advance(db, job_id)
            await asyncio.sleep(0.01)
    final = await complete(db, job_id)
    ended = time.monotonic()
    async with stopwatch() as passed:
        await listening
    assert len(seen) <= 4 * (ended - started) + 2
    assert [event.id for event in seen] == sorted({event.id for event in seen})
    assert (seen[-1].name, seen[-1].id) == ("end", final)
    assert passed.seconds < 0.8


async def test_who_comes_again_goes_on_where_it_was(api: Api, db: Db) -> None:
    job_id = await make_job(db)
    await advance(db, job_id)

    async def first(last: str) -> Event:
        async with follow(api, job_id, Last_Event_ID=last) as stream, asyncio.timeout(60):
            async for event in stream:
                return event
        raise AssertionError("the stream ended without an event")

    assert (await first("1")).id == 2
    for unknown in ("", "x", "-1", "1.5", "\u0663", "9" * 30):
        assert (await first(unknown)).id == 2, unknown
    same = asyncio.create_task(first("2"))
    await asyncio.sleep(0.6)
    assert not same.done()
    await advance(db, job_id)
    assert (await same).id == 3

    final = await complete(db, job_id)
    assert ((await first("3")).name, (await first("3")).id) == ("end", final)
    over = await api.get(f"/v1/jobs/{job_id}/events", {"Last-Event-ID": str(final)})
    assert (over.status, over.body) == (204, b"")


async def test_silence_is_filled_and_the_stream_ends_in_time(
    settings: Settings, api_key: str, db: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events_api, "KEEP_ALIVE", 0.3)
    job_id = await make_job(db)
    brief = msgspec.structs.replace(settings, stream_seconds=2.0)
    async with serve(brief) as url, aiohttp_session() as session:
        started = time.monotonic()
        async with stopwatch() as passed, follow(Api(session, url, api_key), job_id) as stream:
            seen = [event async for event in stream]
        assert time.monotonic() - started > 1.9
        assert passed.seconds < 2.6
    assert [event.id for event in seen] == [1]
    assert 3 <= len(stream.comments) <= 7


async def test_what_cannot_be_followed(api: Api, db: Db) -> None:
    job_id = await make_job(db)
    path = f"/v1/jobs/{job_id}/events"
    assert (await api.get(path, {"Accept": "application/json"})).status == 406
    assert (await api.get(path + "?since=1")).status == 400
    assert (await api.get("/v1/jobs/x/events")).status == 404
    assert (await api.as_key(None).get(path)).status == 401
    head = await asyncio.wait_for(api.request("HEAD", path), 20)
    assert (head.status, head.body) == (200, b"")
    assert head.headers["Content-Type"] == "text/event-stream; charset=utf-8"


async def test_followers_who_hang_up_leave_nothing_behind(api: Api, db: Db) -> None:
    """A hundred of them come and go; the next one is served, and no query is made for those who went."""
    job_id = await make_job(db)

    async def visit() -> None:
        async with follow(api, job_id) as stream, asyncio.timeout(60):
            async for _ in stream:
                return

    await asyncio.gather(*(visit() for _ in range(100)))
    # What a follower costs while nothing happens: its looks at the revision are the service's last queries.
    last = None
    async with asyncio.timeout(60):
        while (look := await db.fetchval(_LAST_LOOK)) != last:
            last = look
            await asyncio.sleep(0.6)
    await asyncio.wait_for(visit(), 20)


_LAST_LOOK = """
SELECT max(query_start) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'tranche api'
"""


async def test_a_server_that_is_told_to_stop_ends_its_streams(settings: Settings, api_key: str, db: Db) -> None:
    job_id = await make_job(db)
    port = free_port()
    environment = os.environ | {
        f"{PREFIX}DATABASE_URL": settings.database_url,
        f"{PREFIX}REDIS_URL": settings.redis_url,
        f"{PREFIX}SECRET_KEY": SECRET_KEY,
    }
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app.cli.main", "serve", "--port", str(port), env=environment
    )
    try:
        async with aiohttp_session() as session:
            api = Api(session, f"http://127.0.0.1:{port}", api_key)
            async with asyncio.timeout(60):
                while True:
                    try:
                        assert (await api.get("/health/live")).status == 200
                        break
                    except aiohttp.ClientConnectionError:
                        await asyncio.sleep(0.1)
            async with follow(api, job_id) as stream:
                seen = []
                async for event in stream:
                    seen.append(event.id)
                    server.send_signal(signal.SIGTERM)
                    started = time.monotonic()
                assert time.monotonic() - started < settings.stream_seconds / 2, "it ended by itself"
        assert seen == [1]
        assert await asyncio.wait_for(server.wait(), 60) == 0
    finally:
        if server.returncode is None:
            server.kill()
            await server.wait()
