"""One HTTP exchange with a CRM, told so that an adapter need not know how aiohttp fails.

The one question that matters after a failure is whether the CRM may have acted: `NoAnswer.sent` answers it by
watching whether the first byte of the body left, not by guessing from the kind of exception.
"""

from __future__ import annotations

import email.utils
import re
import socket
import ssl
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import aiohttp
import msgspec
from aiohttp.abc import AbstractStreamWriter
from yarl import URL

from jobs.crm.port import Headers, Timeouts
from jobs.egress import Refused
from jobs.tracebacks import drop_tracebacks

MAX_ANSWER_BYTES: Final = 8_000_000
DETAIL_LENGTH: Final = 300
_LONG_SECRET: Final = 8
"""Characters of a secret that no word has in it by chance."""
USER_AGENT: Final = "tranche"
DISCONNECTED: Final = "the connection ended without an answer"


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The CRM answered; `body` is what could be read of it, and `trouble` says why that is not all."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float
    trouble: str = ""

    def json(self) -> Any:
        """The body, or `None` where it is cut, empty or no JSON."""
        if self.trouble:
            return None
        try:
            return msgspec.json.decode(self.body)
        except (ValueError, RecursionError):
            return None


class NoAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """No status line came. `sent` is false only if not a byte of the body left: then nothing was done."""

    sent: bool
    detail: str
    seconds: float
    refused: bool = False
    """It was not called, because nobody may be sent there."""
    status: None = None


class _WatchedBody(aiohttp.BytesPayload):
    """A body that remembers that sending it began, and is sent once.

    When a kept connection ends without an answer, aiohttp sends PUT and DELETE again by itself. That is not its
    to decide: the first call may have been done.
    """

    started = False
    refused = False

    async def write(self, writer: AbstractStreamWriter) -> None:
        self._start()
        await super().write(writer)

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        self._start()
        await super().write_with_length(writer, content_length)

    def _start(self) -> None:
        if self.started:
            self.refused = True
            raise ConnectionError(DISCONNECTED)
        self.started = True


async def send(
    session: aiohttp.ClientSession,
    method: str,
    url: str | URL,
    *,
    payload: object,
    headers: Mapping[str, str],
    timeouts: Timeouts,
) -> Answer | NoAnswer:
    """Send `payload` as JSON (`None`: no body) and read the whole answer.

    Nothing the network does is raised; cancelling is.
    """
    content = b"" if payload is None else msgspec.json.encode(payload)
    body = _WatchedBody(content, content_type="application/json")
    limits = aiohttp.ClientTimeout(
        total=timeouts.total,
        sock_connect=timeouts.connect,
        ceil_threshold=timeouts.total + 1,  # by default aiohttp rounds what is over 5 s up to whole seconds
    )
    started = time.monotonic()
    try:
        async with session.request(
            method,
            url,
            data=None
            if method in ("GET", "HEAD")
            else body,  # an empty body is watched as well: it follows the headers
            headers={"User-Agent": USER_AGENT, "Accept": "application/json", **headers},
            timeout=limits,
            allow_redirects=False,
        ) as response:
            received, trouble = await _read(response)
            return Answer(
                status=response.status,
                headers=response.headers,
                body=received,
                seconds=time.monotonic() - started,
                trouble=trouble,
            )
    except (aiohttp.ClientError, OSError, UnicodeError) as error:  # TimeoutError is an OSError
        seconds = time.monotonic() - started
        detail = DISCONNECTED if body.refused else _describe(error, seconds)
        refused = isinstance(_inner(error), Refused)
        drop_tracebacks(error)
        sent = (body.started or method in ("GET", "HEAD")) and not refused
        return NoAnswer(sent=sent, detail=detail, seconds=seconds, refused=refused)


async def _read(response: aiohttp.ClientResponse) -> tuple[bytes, str]:
    content = bytearray()
    try:
        async for chunk in response.content.iter_chunked(65_536):
            content += chunk
            if len(content) > MAX_ANSWER_BYTES:
                response.close()
                return b"", f"the answer is larger than {MAX_ANSWER_BYTES} bytes"
    except (aiohttp.ClientError, OSError, ValueError) as error:
        drop_tracebacks(error)
        return bytes(content), f"the answer broke off ({_describe(error, None)})"
    return bytes(content), ""


def _describe(error: BaseException, seconds: float | None) -> str:
    """What went wrong, for whoever gave the URL: without address and port, which say what a name stands for here."""
    if isinstance(error, TimeoutError):
        return "timed out" if seconds is None else f"timed out after {seconds:.1f} s"
    inner = _inner(error)
    if isinstance(inner, Refused):
        return str(inner.strerror)
    if isinstance(inner, ssl.SSLError):
        # "certificate has expired" and the like.
        reason = getattr(inner, "verify_message", "") or (inner.reason or "").replace("_", " ").lower()
        return "the TLS connection failed" + (f": {reason}" if reason else "")
    return next((words for kind, words in _WORDS.items() if isinstance(inner, kind)), "the connection failed")


_WORDS: Final[dict[type[BaseException], str]] = {
    socket.gaierror: "its host name cannot be resolved",
    ConnectionRefusedError: "the connection was refused",
    aiohttp.ServerDisconnectedError: DISCONNECTED,
    ConnectionError: "the connection broke off",
    aiohttp.ClientPayloadError: "the connection broke off",
    aiohttp.InvalidURL: "its address cannot be called",
    UnicodeError: "its address cannot be called",
    aiohttp.ClientResponseError: "what it answered is not HTTP",
}


def _inner(error: BaseException) -> BaseException:
    """What aiohttp wraps."""
    return getattr(error, "os_error", None) or getattr(error, "certificate_error", None) or error


def identify(told: Headers) -> dict[str, str]:
    """The header fields that tell a CRM which call this is; what a header cannot hold is left out of them."""
    request_id = "".join(c for c in told.request_id if c.isascii() and c.isprintable())
    return {"X-Request-ID": request_id, "X-Event-ID": told.event_id}


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds that `Retry-After` asks for, as a number or a date (RFC 9110, 10.2.3), if it does."""
    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.replace(".", "", 1).isdigit():
        return float(value)
    try:
        date = email.utils.parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError):
        return None
    return max(0.0, ((date if date.tzinfo else date.replace(tzinfo=UTC)) - now).total_seconds())


def for_humans(text: str, secret: str) -> str:
    """One line of at most 300 characters that does not contain `secret`, whatever the CRM chose to echo."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if len(secret) >= _LONG_SECRET:
        line = line.replace(secret, "***")
    elif secret:
        # Taken out of the middle of words, a short one would be told by the gaps.
        line = re.sub(rf"(?<![A-Za-z0-9]){re.escape(secret)}(?![A-Za-z0-9])", "***", line)
    return line if len(line) <= DETAIL_LENGTH else line[: DETAIL_LENGTH - 1] + "…"
