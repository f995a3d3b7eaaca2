"""Bodies that arrive: how many, how large, and what becomes of those that nobody waits for."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import asyncpg
import msgspec
import pytest
import zstandard

from app.auth import service
from app.errors import Overloaded, QuotaExceeded
from app.http.body.limits import Shares
from app.settings import Settings
from tests.http.conftest import Api, aiohttp_session, person, serve
from tests.stopwatch import stopwatch

Db: TypeAlias = "asyncpg.Connection[Any]"
WHOLE = 5_000_000


@asynccontextmanager
async def half_sent(
    api: Api, count: int, *, sent: bytes = b"{", fields: str = f"Content-Length: {WHOLE}\r\n"
) -> AsyncIterator[list[asyncio.StreamReader]]:
    """So many requests whose bodies begin, and do not go on."""
    port = int(api.url.rpartition(":")[2])
    key = "" if api.key is None else f"Authorization: Bearer {api.key}\r\n"
    opened = []
    try:
        for number in range(count):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            opened.append((reader, writer))
            head = (
                f"POST /v1/contacts:bulk HTTP/1.1\r\nHost: x\r\n{key}Idempotency-Key: half-{number}\r\n"
                f"Content-Type: application/json\r\n{fields}\r\n"
            )
            writer.write(head.encode() + sent)
        yield [reader for reader, _ in opened]
    finally:
        for _, writer in opened:
            writer.close()


async def read_end(reader: asyncio.StreamReader, seconds: float = 45) -> bytes | None:
    """What came until the connection was closed; None: it is still open."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            return await reader.read()
    return None


async def other(db: Db, api: Api) -> Api:
    return api.as_key(await service.create_key(db, "other", ["import"]))


async def test_half_sent_bodies_of_one_key_leave_others_their_room(settings: Settings, api_key: str, db: Db) -> None:
    """Each announces 5 MB, so ten of them are more than the key may hold; the tenant next door notices nothing."""
    async with serve(settings) as url, aiohttp_session() as session:
        api = Api(session, url, api_key)
        async with half_sent(api, 40) as readers:
            refused: list[bytes] = []

            async def collect(reader: asyncio.StreamReader) -> None:
                refused.append(await reader.read())

            collecting = [asyncio.create_task(collect(reader)) for reader in readers]
            async with asyncio.timeout(45):
                while len(refused) < 40 - settings.body_memory_key // WHOLE:
                    await asyncio.sleep(0.02)
            await asyncio.sleep(0.3)
            assert len(refused) == 40 - settings.body_memory_key // WHOLE
            for answer in refused:
                assert answer.startswith(b"HTTP/1.1 429 "), answer
                assert b"retry-after: 1" in answer.lower()
                assert b"connection: close" in answer.lower()
                assert b"TRANCHE_BODY_MEMORY_KEY" in answer
            assert (await api.push([person(1)])).status == 429
            assert (await (await other(db, api)).push([person(1)])).status == 207
            for task in collecting:
                task.cancel()
        async with asyncio.timeout(60):
            while (await api.push(b"{" + b" " * 4_000_000)).status != 400:
                await asyncio.sleep(0.05)


async def test_their_number_is_bounded_as_well(settings: Settings, api_key: str, db: Db) -> None:
    few = msgspec.structs.replace(settings, max_requests_key=3, max_requests_tenant=5)
    async with serve(few) as url, aiohttp_session() as session:
        api = Api(session, url, api_key)
        sibling = api.as_key(await service.create_key(db, "acme", ["import"]))
        small = "Content-Length: 100\r\n"
        async with half_sent(api, 3, fields=small), half_sent(sibling, 2, fields=small):
            await asyncio.sleep(0.3)
            of_key, of_tenant = await api.push([person(1)]), await sibling.push([person(1)])
            for answer, setting in ((of_key, "MAX_REQUESTS_KEY"), (of_tenant, "MAX_REQUESTS_TENANT")):
                assert (answer.status, answer.json()["code"]) == (429, "QUOTA_EXCEEDED")
                assert f"TRANCHE_{setting}" in answer.json()["detail"]
                assert int(answer.headers["Retry-After"]) >= 1
            assert (await (await other(db, api)).push([person(1)])).status == 207


@pytest.mark.parametrize("packed", ["gzip", "zstd"])
async def test_what_a_body_inflates_to_counts(settings: Settings, api_key: str, packed: str) -> None:
    """A few kilobytes that inflate to megabytes hold megabytes."""
    tight = msgspec.structs.replace(settings, body_memory_key=3_000_000)
    large = b'{"items":[' + b" " * 4_000_000
    body = gzip.compress(large) if packed == "gzip" else zstandard.ZstdCompressor().compress(large)
    async with serve(tight) as url, aiohttp_session() as session:
        api = Api(session, url, api_key)
        answer = await api.push(body, headers={"Content-Encoding": packed})
        assert (answer.status, answer.json()["code"]) == (429, "QUOTA_EXCEEDED")
        few = msgspec.json.encode({"items": [person(1)]})
        small = gzip.compress(few) if packed == "gzip" else zstandard.ZstdCompressor().compress(few)
        assert (await api.push(small, headers={"Content-Encoding": packed})).status == 207


async def test_a_window_that_a_body_asks_for_counts(settings: Settings, api_key: str) -> None:
    """A frame of a few bytes makes its reader keep 8 MB until it ends."""
    tight = msgspec.structs.replace(settings, body_memory_key=7_000_000)
    compressor = zstandard.ZstdCompressor(level=19).compressobj()
    begun = compressor.compress(b" " * 100) + compressor.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    async with serve(tight) as url, aiohttp_session() as session:
        api = Api(session, url, api_key)
        fields = "Content-Length: 1000\r\nContent-Encoding: zstd\r\n"
        async with half_sent(api, 1, sent=begun, fields=fields) as (reader,):
            assert (await read_end(reader) or b"").startswith(b"HTTP/1.1 429 ")


async def test_chunked_bodies_grow_into_their_room(settings: Settings, api_key: str) -> None:
    tight = msgspec.structs.replace(settings, body_memory_key=1_000_000)
    async with serve(tight) as url, aiohttp_session() as session:
        api = Api(session, url, api_key)
        chunk = b"%x\r\n" % 400_000 + b" " * 400_000 + b"\r\n"
        fields = "Transfer-Encoding: chunked\r\n"
        async with half_sent(api, 2, sent=chunk, fields=fields) as readers:
            assert [await read_end(reader, 0.5) for reader in readers] == [None, None]
            async with half_sent(api, 1, sent=chunk, fields=fields) as (reader,):
                assert (await read_end(reader) or b"").startswith(b"HTTP/1.1 429 ")


@pytest.mark.parametrize("key", [None, "trn_wrong", "forged", "unauthorised"])
async def test_who_may_not_send_is_not_waited_for(api: Api, db: Db, key: str | None) -> None:
    """The answer comes before the body, and the connection ends with it."""
    if key == "forged":
        key = (await service.create_key(db, "acme", ["import"]))[:-8] + "00000000"
    elif key == "unauthorised":
        key = await service.create_key(db, "acme", ["read"])
    async with half_sent(api.as_key(key), 1) as (reader,):
        async with stopwatch() as passed:
            status = (await reader.readuntil(b"\r\n\r\n")).lower()
        assert passed.seconds < 0.4, "it was waited for"
        assert status.startswith((b"http/1.1 401", b"http/1.1 403"))
        assert b"connection: close" in status
        assert await read_end(reader) is not None


async def test_strangers_with_half_sent_bodies_keep_nobody_out(api: Api, settings: Settings) -> None:
    """As many as hold all the drains there are, and more."""
    async with half_sent(api.as_key(None), 300) as readers:
        async with stopwatch() as passed:
            assert (await api.push([person(1)])).status == 207
        assert passed.seconds < 2
        ends = await asyncio.gather(*(read_end(reader) for reader in readers))
        assert all(end is not None and end.startswith(b"HTTP/1.1 401") for end in ends)


async def test_who_asks_before_sending_is_not_asked_to(api: Api) -> None:
    """`Expect: 100-continue`: the refusal comes instead of the invitation."""
    fields = f"Content-Length: {WHOLE}\r\nExpect: 100-continue\r\n"
    async with half_sent(api.as_key(None), 1, sent=b"", fields=fields) as (reader,):
        answer = await read_end(reader)
        assert answer is not None
        assert answer.startswith(b"HTTP/1.1 401")
        assert b"100 Continue" not in answer


def test_no_tenant_holds_more_than_it_leaves() -> None:
    settings = Settings(body_memory=100, body_memory_tenant=60, body_memory_key=60)
    shares = Shares(settings, "body_memory", "bytes")
    for tenant, fits in ((1, 50), (2, 25), (3, 13)):
        for _ in range(fits):
            shares.take((tenant, "k"), 1)
        with pytest.raises(Overloaded):
            shares.take((tenant, "k"), 1)
    shares.take((4, "k"), 6)
    for tenant, amount in ((1, 50), (2, 25), (3, 13), (4, 6)):
        shares.give_back((tenant, "k"), amount)
    assert shares.total == 0
    with pytest.raises(QuotaExceeded, match="key"):
        shares.take((1, "k"), 61)
    shares.take((1, "k"), 40)
    with pytest.raises(QuotaExceeded, match="tenant"):
        shares.take((1, "other"), 30)
