"""Request bodies: read and inflated piece by piece, within bounds, so that none is ever held whole unasked."""

import asyncio
import contextlib
import math
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final

import msgspec

from app.errors import ClientGone, TooLarge
from app.http.body.decompression import ENCODINGS, Inflater, open_inflater
from app.http.errors import BodyStalled, UnsupportedEncoding
from app.http.headers import Fields

_SLOWEST: Final = 1_000
"""Bytes a second, on average, once a body has had its time: a slower one holds a place for hours."""
_FREE_INFLATION: Final = 10_000_000
"""Bytes that may come out of however few."""
_DRAIN_BYTES: Final = 32_000_000
_DRAIN_SECONDS: Final = 2.0
_DRAIN_SILENCE: Final = 0.5
"""Seconds: who sends nothing for so long is waiting for the answer, or for nothing."""
_SKIMMED: Final = 65_536
_DRAINS: Final = 20
"""Connections on which that is done at a time; beyond them a connection is closed at once."""


class Drains:
    """How many connections of this process are being drained."""

    def __init__(self) -> None:
        self.count = 0


class Inbox:
    """An ASGI `receive` that knows whether the whole body was taken.

    A client that is still sending when the connection goes often sees a broken pipe and never the answer. What is left
    is therefore taken and dropped, within bounds, after the answer went out (RFC 9112, section 9.6).
    """

    def __init__(self, scope: Any, receive: Any) -> None:
        self._receive = receive
        self._open = False
        self._invited = False
        self._left = 0.0
        """Bytes still to come, as far as the header says."""
        for name, value in scope["headers"]:
            if name == b"transfer-encoding" or (name == b"content-length" and value != b"0"):
                self._open = True
                self._left += int(value[:15]) if value.isdigit() else math.inf
            elif name == b"expect":
                self._invited = True

    async def __call__(self) -> Any:
        self._invited = False
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        # That a body of a declared length is complete, a server says with one more message; nobody needs to ask for it.
        if not message.get("more_body", False) or self._left <= 0:
            self._open = False
        return message

    @property
    def open(self) -> bool:
        """Some of the body may still come."""
        return self._open

    async def skim(self) -> None:
        """Take the body if it is small and there already: the connection then need not be closed, which costs more than
        a refusal does."""
        if self._open and not self._invited and self._left <= _SKIMMED:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_DRAIN_SILENCE):
                    while self._open:
                        await self()

    async def drain(self, drains: Drains) -> None:
        """Take what still comes, unless the client waits to be asked for it, which it then never is."""
        if not self._open or self._invited or drains.count >= _DRAINS:
            return
        drains.count += 1
        coming: asyncio.Future[Any] | None = None
        left = _DRAIN_BYTES
        clock = asyncio.get_running_loop().time
        until = clock() + _DRAIN_SECONDS
        try:
            while self._open and left > 0 and clock() < until:
                coming = asyncio.ensure_future(self())
                await asyncio.wait({coming}, timeout=_DRAIN_SILENCE)
                if not coming.done():
                    return
                left -= len(coming.result().get("body", b""))
        finally:
            drains.count -= 1
            if coming is not None and not coming.done():
                coming.cancel()
                await asyncio.wait({coming})


async def hear_end(receive: Any) -> None:
    """Until the client is gone; its body was taken."""
    while (await receive())["type"] != "http.disconnect":
        pass


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    size: int
    """Bytes, before and after inflation."""
    remedy: str
    """What to do about a larger one."""
    seconds: float
    """Longest wait for more of it."""
    inflation: float = math.inf
    """Most times its size that it may inflate to, if that is much."""
    tick: float = math.inf
    """Seconds of waiting after which an empty piece comes out."""


def _need_not_know(size: int) -> None:
    pass


def open_body(
    receive: Any, fields: Fields, limits: Limits, hold: Callable[[int], None] = _need_not_know
) -> AsyncGenerator[bytes]:
    """The pieces of a body as they arrive, inflated, 64 KB each at the most; to be closed (`aclosing`).

    Other requests get their turn between two pieces. `hold` is called with the bytes that inflating keeps,
    before it does, and may raise.

    Raises:
        UnsupportedEncoding: the encoding is neither gzip, zstd nor identity.
        TooLarge: it has, or inflates to, more than the limits allow.
        MalformedRequest: the compressed data is corrupt or cut off.
        BodyStalled: it does not arrive in time.
        ClientGone: the connection closed early.
    """
    inflater = open_inflater(fields.all("content-encoding").strip().lower() or "identity", hold)
    if inflater is None:
        raise UnsupportedEncoding(
            "A body is sent as it is, or with Content-Encoding gzip or zstd.",
            headers={"Accept-Encoding": ", ".join(ENCODINGS)},
        )
    declared = fields.one("content-length") or ""
    if declared.isdecimal() and int(declared[:20]) > limits.size:
        raise _too_large(limits)
    return _stream(receive, inflater, limits)


async def read_body(
    receive: Any,
    fields: Fields,
    *,
    limit: int,
    seconds: float,
    remedy: str,
    hold: Callable[[int], None] = _need_not_know,
) -> bytes:
    """A whole body of at most `limit` bytes; raises what `open_body` does."""
    limits = Limits(size=limit, seconds=seconds, remedy=remedy)
    async with contextlib.aclosing(open_body(receive, fields, limits, hold)) as pieces:
        return b"".join([piece async for piece in pieces])


async def _stream(receive: Any, inflater: Inflater, limits: Limits) -> AsyncGenerator[bytes]:
    arrivals = _Arrivals(receive, limits)
    inflated = 0
    try:
        while not arrivals.complete:
            data = await arrivals.next()
            if data is None:
                yield b""
                continue
            first = True
            for piece in inflater.feed(data):
                inflated += len(piece)
                if inflated > limits.size:
                    raise _too_large(limits)
                if inflated > max(_FREE_INFLATION, limits.inflation * arrivals.size):
                    raise TooLarge(
                        f"The body inflates to more than {limits.inflation:g} times its size; send it less compressed."
                    )
                if not (first and piece):
                    await asyncio.sleep(0)
                first = False
                if piece:
                    yield piece
        inflater.finish()
    finally:
        await arrivals.close()


class _Arrivals:
    """What comes over the connection, and how long that takes."""

    def __init__(self, receive: Any, limits: Limits) -> None:
        self._receive = receive
        self._limits = limits
        self._pending: asyncio.Task[Any] | None = None
        self._waited = 0.0
        self._silence = 0.0
        self.size = 0
        """Bytes so far."""
        self.complete = False

    async def next(self) -> bytes | None:
        """The next bytes; None: there were none for as long as a tick."""
        if self._pending is None:
            self._pending = asyncio.ensure_future(self._receive())
        clock = asyncio.get_running_loop().time
        began = clock()
        limits = self._limits
        await asyncio.wait({self._pending}, timeout=min(limits.tick, limits.seconds - self._silence))
        self._waited += clock() - began
        self._silence += clock() - began
        if self._waited > limits.seconds and self.size < _SLOWEST * self._waited:
            raise _stalled()
        if not self._pending.done():
            if self._silence >= limits.seconds:
                raise _stalled()
            return None
        message, self._pending, self._silence = self._pending.result(), None, 0.0
        if message["type"] == "http.disconnect":
            raise ClientGone()
        data: bytes = message.get("body", b"")
        self.size += len(data)
        if self.size > limits.size:
            raise _too_large(limits)
        self.complete = not message.get("more_body", False)
        return data

    async def close(self) -> None:
        if self._pending is not None:
            self._pending.cancel()
            await asyncio.wait({self._pending})


def _stalled() -> BodyStalled:
    return BodyStalled(headers={"Connection": "close"})


def _too_large(limits: Limits) -> TooLarge:
    return TooLarge(f"The body has more than {limits.size} bytes (counted after inflation). {limits.remedy}")
