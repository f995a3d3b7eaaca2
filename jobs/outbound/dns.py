"""Looking up names without holding up others.

A look-up is a call in a thread, and one that is not answered holds its thread for some ten seconds, however soon its
caller stops waiting. Sessions for different people's URLs therefore have threads of their own.
"""

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, cast

from aiohttp.abc import AbstractResolver
from aiohttp.resolver import ThreadedResolver


class _Threads:
    """As much of an event loop as aiohttp's resolver asks for."""

    def __init__(self, count: int) -> None:
        self.executor = ThreadPoolExecutor(count, thread_name_prefix="lookup")

    async def getaddrinfo(self, host: str | None, port: int, **options: Any) -> Any:
        return await self._run(partial(socket.getaddrinfo, host, port, **options))

    async def getnameinfo(self, address: Any, flags: int = 0) -> Any:
        return await self._run(partial(socket.getnameinfo, address, flags))

    async def _run(self, ask: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self.executor, ask)


class _Resolver(ThreadedResolver):
    def __init__(self, count: int) -> None:
        self._threads = _Threads(count)
        super().__init__(cast(asyncio.AbstractEventLoop, self._threads))

    async def close(self) -> None:
        self._threads.executor.shutdown(wait=False, cancel_futures=True)


def make_resolver(threads: int) -> AbstractResolver:
    """For a connector of aiohttp, which closes it. So many names can be looked up at a time."""
    return _Resolver(threads)
