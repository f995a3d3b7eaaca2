"""A body on its way into the spool: whole or not at all, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import itertools
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest
import uuid_utils.compat

from app.errors import ClientGone, DatabaseUnavailable, KeyBusy, KeyReused, Overloaded
from app.files.readers import Family, Form
from app.imports import upload as import_upload
from app.imports import upload_queries
from app.imports.cancel import queries as cancel_queries
from app.imports.service import ImportRequest, Options, Replay
from app.imports.upload import Accepted202
from app.resource_types.catalog import Catalog
from tests.db.conftest import ROUTE, Desk, forget_answers, people
from tests.types import CONTACTS

BODY = b"id,email\n" + b"".join(b"c%d,c%d@example.com\n" % (n, n) for n in range(500))
STEP = 1_000


async def arrive(
    body: bytes, at: int = 0, act: Callable[[], Awaitable[Any]] | None = None, *, size: int = STEP
) -> AsyncIterator[bytes]:
    """The body in pieces; something happens before the piece with this number."""
    for number, start in enumerate(range(0, len(body), size)):
        if act is not None and number == at:
            await act()
        yield body[start : start + size]


async def receive(
    desk: Desk,
    body: AsyncIterator[bytes],
    *,
    key: str = "k",
    clock: Callable[[], float] = time.monotonic,
    chunk: int = 20,
    **options: Any,
) -> Accepted202 | Replay:
    upload = ImportRequest(
        tenant_id=desk.tenant_id,
        key_id="test",
        request_id="request",
        resource=CONTACTS,
        route=ROUTE,
        key=key,
        options=Options(**options),
        form=Form(family=Family.CSV),
    )
    settings = msgspec.structs.replace(desk.settings, import_chunk_items=chunk)
    return await import_upload.receive(
        desk.database, upload, body, settings, catalog=Catalog(), new_id=uuid_utils.compat.uuid7, clock=clock
    )


async def accepted(desk: Desk, body: AsyncIterator[bytes], **options: Any) -> Accepted202:
    answer = await receive(desk, body, **options)
    assert isinstance(answer, Accepted202)
    return answer


async def left(desk: Desk) -> tuple[list[str], int, int]:
    """States of jobs, rows of the spool, keys."""
    states = await desk.rows("SELECT state FROM jobs ORDER BY job_id")
    (staged,) = await desk.rows("SELECT coalesce(sum(item_count), 0)::int AS n FROM staged_chunks")
    (keys,) = await desk.rows("SELECT count(*)::int AS n FROM idempotency_keys")
    return [row["state"] for row in states], staged["n"], keys["n"]


async def test_the_bounds_of_a_chunk(desk: Desk) -> None:
    """Items or bytes, whichever comes first; an item that is larger is a chunk of its own."""
    tight = msgspec.structs.replace(desk.settings, import_chunk_bytes=1_000)
    desk.settings = tight
    long = b"x,x@example.com,%s\n" % (b"y" * 5_000)
    body = BODY.replace(b"id,email\n", b"id,email,city\n", 1).replace(b".com\n", b".com,\n") + long + b"z,z@b.c,\n"
    await accepted(desk, arrive(body))
    chunks = await desk.rows("SELECT first_index, item_count FROM staged_chunks ORDER BY first_index")
    counts = [chunk["item_count"] for chunk in chunks]
    assert [chunk["first_index"] for chunk in chunks] == [0, *itertools.accumulate(counts)][:-1]
    assert (sum(counts), counts[-2:], max(counts)) == (502, [1, 1], 20)
    job = (await desk.rows("SELECT items, bytes, step, form::text FROM jobs"))[0]
    assert (job["items"], job["bytes"], job["step"]) == (502, len(body), "check")
    assert msgspec.json.decode(job["form"])["header"] == ["id", "email", "city"]


async def test_ids_are_hashed_as_postgresql_hashes_them(desk: Desk) -> None:
    body = 'id,email\nä,1\n,2\nx\n"a\x1fb\x1ec",4\n'.encode()
    await accepted(desk, arrive(body))
    (chunk,) = await desk.rows(
        "SELECT id_hashes, hashtextextended('ä', 0) AS a, hashtextextended(E'a\\x1fb\\x1ec', 0) AS b FROM staged_chunks"
    )
    assert chunk["id_hashes"] == [chunk["a"], None, None, chunk["b"]]
    await accepted(desk, arrive(b"id,email\n,1\nx\n"), key="none")
    assert [None, None] in [row["id_hashes"] for row in await desk.rows("SELECT id_hashes FROM staged_chunks")]


async def test_a_silent_upload_is_given_up_by_whoever_sweeps_first(desk: Desk) -> None:
    """Two sweepers at once; the upload that was only slow learns of it, the next one under the key goes on."""

    async def sweep() -> int:
        async with desk.database.connection() as connection:
            async with connection.transaction():
                given_up = await upload_queries.abandon_stale(connection, desk.tenant_id)
            for job_id in given_up:
                assert await cancel_queries.remove_staged(connection, desk.tenant_id, job_id)
        return len(given_up)

    async def fall_silent() -> None:
        assert await sweep() == 0
        await desk.execute("UPDATE jobs SET receiving_until = now()")
        await desk.execute("UPDATE idempotency_keys SET answering_until = now()")
        assert sorted(await asyncio.gather(sweep(), sweep())) == [0, 1]
        states, staged, _ = await left(desk)
        assert (states, staged) == (["canceled"], 0)

    with pytest.raises(Overloaded, match="stopped"):
        await receive(desk, arrive(BODY, 10, fall_silent))
    (row,) = await desk.rows("SELECT error FROM jobs")
    assert msgspec.json.decode(row["error"])["code"] == "UPLOAD_INTERRUPTED"
    assert (await accepted(desk, arrive(BODY))).items == 500
    assert await left(desk) == (["canceled", "queued"], 500, 1)


async def test_the_key_of_a_silent_upload_is_free_before_anybody_sweeps(desk: Desk) -> None:
    async def fall_silent_and_be_overtaken() -> None:
        await desk.execute("UPDATE jobs SET receiving_until = now()")
        await desk.execute("UPDATE idempotency_keys SET answering_until = now()")
        await desk.push(people(1), key="k")

    with pytest.raises(Overloaded, match="stopped"):
        await receive(desk, arrive(BODY, 10, fall_silent_and_be_overtaken))
    states, staged, keys = await left(desk)
    assert (states, staged, keys) == (["canceled", "completed"], 0, 1)
    assert isinstance(await desk.send(people(1), key="k"), Replay)


async def test_a_body_without_a_word_for_long_keeps_its_lease(desk: Desk) -> None:
    """Empty pieces say that time passes."""
    now = 0.0

    async def trickle() -> AsyncIterator[bytes]:
        nonlocal now
        yield BODY[:4_000]
        for _ in range(6):
            now += desk.settings.receive_lease / 4
            await desk.execute("UPDATE jobs SET receiving_until = now() + interval '1 s'")
            await desk.execute("UPDATE idempotency_keys SET answering_until = now() + interval '1 s'")
            yield b""
            leases = await desk.rows(
                "SELECT 1 FROM jobs JOIN idempotency_keys USING (job_id)"
                " WHERE receiving_until > now() + interval '10 s' AND answering_until = receiving_until"
            )
            assert len(leases) == 1
        yield BODY[4_000:]

    assert (await accepted(desk, trickle(), clock=lambda: now)).items == 500


async def test_whoever_comes_second_waits_or_is_told_the_first_answer(desk: Desk) -> None:
    async def come_second() -> None:
        for attempt in (receive(desk, arrive(BODY)), desk.send(people(1), key="k")):
            with pytest.raises(KeyBusy) as caught:
                await attempt
            assert caught.value.retry_after is not None
            assert 1 <= caught.value.retry_after <= 5

    first = await accepted(desk, arrive(BODY, 10, come_second))
    again = await receive(desk, arrive(BODY, size=77))
    assert isinstance(again, Replay)
    assert (again.status, again.body) == (202, first.body)
    for body, options in ((BODY[:-1], {}), (BODY, {"dry_run": True}), (b"no CSV", {})):
        with pytest.raises(KeyReused):
            await receive(desk, arrive(body), **options)
    assert await left(desk) == (["queued"], 500, 1)


async def test_two_that_come_at_once_leave_one_job(desk: Desk) -> None:
    answers = await asyncio.gather(*(receive(desk, arrive(BODY)) for _ in range(5)), return_exceptions=True)
    assert {type(answer) for answer in answers} <= {Accepted202, Replay, KeyBusy}
    assert sum(isinstance(answer, Accepted202) for answer in answers) == 1
    assert await left(desk) == (["queued"], 500, 1)


async def test_a_chunk_that_a_crash_has_forgotten_is_noticed(desk: Desk) -> None:
    """Chunks do not wait for the disk: a crash of PostgreSQL may forget some of them, or the whole job."""
    for statement in (
        "DELETE FROM staged_chunks WHERE first_index = 20",
        "WITH gone AS (DELETE FROM jobs), free AS (DELETE FROM idempotency_keys) DELETE FROM staged_chunks",
    ):

        async def forget(statement: str = statement) -> None:
            await desk.execute(statement)

        with pytest.raises(DatabaseUnavailable, match="lost a part"):
            await receive(desk, arrive(BODY, 10, forget))
        _, staged, keys = await left(desk)
        assert (staged, keys) == (0, 0)
        await desk.execute("DELETE FROM jobs")
    assert (await accepted(desk, arrive(BODY))).items == 500


async def test_a_body_that_is_taken_whole_is_not_given_up_any_more(desk: Desk) -> None:
    """What a lost answer to COMMIT looks like: the process believes that it failed."""
    done = await accepted(desk, arrive(BODY))
    arrival = upload_queries.Arrival(
        tenant_id=desk.tenant_id, job_id=done.job_id, type="contacts", request_id="", key_id="", options="",
        route=ROUTE, key="k",
        lease=1, retention=1,
    )  # fmt: skip
    async with desk.database.connection() as connection, connection.transaction():
        await upload_queries.give_up(connection, arrival, upload_queries.JobState.FAILED, "{}")
        assert await upload_queries.abandon_stale(connection, desk.tenant_id) == []
        assert not await cancel_queries.remove_staged(connection, desk.tenant_id, done.job_id)
    assert await left(desk) == (["queued"], 500, 1)


async def test_a_client_that_goes_leaves_nothing_but_a_canceled_job(desk: Desk) -> None:
    async def go() -> None:
        raise ClientGone

    for number in (0, 10):
        with pytest.raises(ClientGone):
            await receive(desk, arrive(BODY, number, go))
    assert await left(desk) == (["canceled"], 0, 0)


async def test_memory_is_that_of_a_chunk_whatever_the_size(desk: Desk) -> None:
    """Ten and forty megabytes, the second one as a replay too."""
    line = b"c%07d,c%07d@example.com," + b"x" * 160 + b"\n"

    async def send(megabytes: int) -> AsyncIterator[bytes]:
        yield b"id,email,note\n"
        for n in range(megabytes * 20):
            yield b"".join(line % (n * 250 + i, i) for i in range(250))

    peaks = []
    for megabytes, key in ((2, "warm"), (10, "a"), (40, "b"), (40, "b")):
        tracemalloc.start()
        try:
            await receive(desk, send(megabytes), key=key, chunk=1_000)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert max(peaks) < 12_000_000
    assert peaks[2] < peaks[1] * 1.3


async def test_a_key_is_not_forgotten_while_its_body_arrives(desk: Desk) -> None:
    """However short the time is for which answers are kept: it begins with the answer."""

    async def forget() -> None:
        await desk.rows("UPDATE idempotency_keys SET expires_at = now() - interval '1 minute'")
        await forget_answers(desk, 0)

    first = await accepted(desk, arrive(BODY, 10, forget))
    again = await receive(desk, arrive(BODY))
    assert again == Replay(202, first.body)
