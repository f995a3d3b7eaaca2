"""The fault proxy does to connections what it says, and nothing once it is healed."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest

from tests.chaos.proxy import HOST, Proxy, Setting


class Echo:
    """A server that answers each line with `echo LINE`, and remembers what it heard."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                self.heard.append(line)
                writer.write(b"echo " + line)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()


@pytest.fixture
async def echo() -> AsyncIterator[tuple[Echo, Proxy]]:
    server = Echo()
    listening = await asyncio.start_server(server.serve, HOST, 0)
    async with Proxy("test", listening.sockets[0].getsockname()[1]) as proxy:
        proxy.seed(1)
        yield server, proxy
    listening.close()


async def connect(proxy: Proxy) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(HOST, proxy.port)


async def ask(line: tuple[asyncio.StreamReader, asyncio.StreamWriter], text: bytes = b"hello\n") -> bytes:
    reader, writer = line
    writer.write(text)
    await writer.drain()
    async with asyncio.timeout(3):
        return await reader.readline()


async def test_pass_and_latency(echo: tuple[Echo, Proxy]) -> None:
    _, proxy = echo
    line = await connect(proxy)
    assert await ask(line) == b"echo hello\n"
    proxy.set(Setting(mode="latency", low=0.1, high=0.1))
    began = time.monotonic()
    assert await ask(line) == b"echo hello\n"
    assert time.monotonic() - began >= 0.2
    proxy.heal()
    began = time.monotonic()
    assert await ask(line) == b"echo hello\n"
    assert time.monotonic() - began < 0.1
    line[1].close()


async def test_reset_ends_old_and_new_connections(echo: tuple[Echo, Proxy]) -> None:
    server, proxy = echo
    old = await connect(proxy)
    await ask(old)
    proxy.set(Setting(mode="reset"))
    with pytest.raises(ConnectionResetError):
        await old[0].readline()
    with pytest.raises(ConnectionError):
        await ask(await connect(proxy))
    proxy.heal()
    line = await connect(proxy)
    assert await ask(line) == b"echo hello\n"
    assert server.heard == [b"hello\n", b"hello\n"]


async def test_black_hole_stalls_the_old_and_swallows_the_new(echo: tuple[Echo, Proxy]) -> None:
    server, proxy = echo
    old, gone = await connect(proxy), await connect(proxy)
    await ask(old, b"1\n")
    await ask(gone, b"2\n")
    proxy.set(Setting(mode="black_hole"))
    new = await connect(proxy)
    for line, text in ((old, b"3\n"), (gone, b"4\n"), (new, b"5\n")):
        line[1].write(text)
    await asyncio.sleep(0.2)
    assert server.heard == [b"1\n", b"2\n"]
    gone[1].close()
    await asyncio.sleep(0.2)
    proxy.heal()
    async with asyncio.timeout(2):
        assert await old[0].readline() == b"echo 3\n"
    with pytest.raises(ConnectionResetError):
        await new[0].readline()
    await asyncio.sleep(0.1)
    assert server.heard == [b"1\n", b"2\n", b"3\n"], "what was swallowed or given up must never arrive"


async def test_lost_answers(echo: tuple[Echo, Proxy]) -> None:
    server, proxy = echo
    line = await connect(proxy)
    proxy.set(Setting(mode="lost_answers"))
    with pytest.raises(ConnectionResetError):
        await ask(line)
    assert server.heard == [b"hello\n"]


async def test_half_close(echo: tuple[Echo, Proxy]) -> None:
    server, proxy = echo
    line = await connect(proxy)
    proxy.set(Setting(mode="half_close"))
    assert await ask(line) == b"", "the client sees the end, not an answer"
    assert server.heard == [b"hello\n"]
    line[1].write(b"more\n")
    await asyncio.sleep(0.1)
    assert server.heard == [b"hello\n", b"more\n"]


async def test_throttle(echo: tuple[Echo, Proxy]) -> None:
    _, proxy = echo
    line = await connect(proxy)
    proxy.set(Setting(mode="throttle", rate=5_000))
    began = time.monotonic()
    assert await ask(line, b"x" * 999 + b"\n") == b"echo " + b"x" * 999 + b"\n"
    assert time.monotonic() - began > 0.3
    line[1].close()


async def test_cut_after_so_many_bytes(echo: tuple[Echo, Proxy]) -> None:
    _, proxy = echo
    line = await connect(proxy)
    await ask(line, b"x" * 50 + b"\n")
    proxy.set(Setting(mode="cut", after=30))
    line[1].write(b"12345\n")
    assert await line[0].readline() == b"echo 12345\n"
    line[1].write(b"y" * 22 + b"\n")
    got = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := await line[0].read(100):
            got += piece
    assert isinstance(line[0].exception(), ConnectionResetError)
    assert len(got) <= 30 - len(b"echo 12345\n")


async def test_a_server_that_is_away_is_a_reset(echo: tuple[Echo, Proxy]) -> None:
    async with Proxy("away", 1) as away:
        line = await connect(away)
        with pytest.raises(ConnectionResetError):
            await line[0].readline()


async def test_nothing_is_left_on_leaving(echo: tuple[Echo, Proxy]) -> None:
    _, proxy = echo
    proxy.set(Setting(mode="black_hole"))
    line = await connect(proxy)
    async with asyncio.timeout(2):
        await proxy.__aexit__()
    with pytest.raises(ConnectionResetError):
        await line[0].readline()
