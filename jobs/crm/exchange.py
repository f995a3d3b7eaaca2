"""One tenant's way to one CRM, and each HTTP exchange with it, so that an adapter need not know how aiohttp fails.

The one question that matters after a failure is whether the CRM may have acted: `NoAnswer.sent` answers it by
watching whether the first byte of the body left, not by guessing from the kind of exception.
"""

import socket
import ssl
import time
from collections.abc import Mapping
from typing import Any, ClassVar, Final

import aiohttp
import msgspec
from aiohttp.abc import AbstractStreamWriter
from yarl import URL

from app.tracing import spans
from app.tracing.spans import Kind
from jobs.crm.port import Authorization, Authorizer, Headers, NoToken, Timeouts
from jobs.outbound.messages import USER_AGENT
from jobs.outbound.ssrf import AddressRefused
from jobs.outbound.tracebacks import drop_tracebacks

MAX_ANSWER_BYTES: Final = 8_000_000
SCHEMES: Final = ("http://", "https://")
DISCONNECTED: Final = "the connection ended without an answer"
_LEAST_LEFT: Final = 0.5
"""Seconds that even the last call of a push is given, and without which a call is not made again: it would only be in
doubt."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The CRM answered; `body` is what could be read of it, and `trouble` says why that is not all."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float
    trouble: str = ""
    timed_out: bool = False

    @property
    def well(self) -> bool:
        """2xx."""
        return 200 <= self.status < 300

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
    timed_out: bool = False
    refused: bool = False
    """It was not called, because nobody may be sent there."""
    no_token: NoToken | None = None
    """It was not called, or not again after a 401, because of this."""
    status: None = None
    well: ClassVar[bool] = False

    def json(self) -> None:
        """There is no body."""


class Body(msgspec.Struct, frozen=True):
    """A body that is encoded already."""

    content: bytes
    content_type: str


class Connection:
    """Makes the calls of an adapter. Raises `ValueError`: the base URL cannot be used."""

    def __init__(
        self,
        *,
        session: aiohttp.ClientSession,
        base_url: str,
        authorizer: Authorizer,
        timeouts: Timeouts,
        header: str = "Authorization",
        scheme: str = "Bearer",
    ) -> None:
        if not base_url.startswith(SCHEMES):
            raise ValueError("the base URL must start with https:// or http://")
        self.base_url = base_url.rstrip("/")
        self.timeouts = timeouts
        self._session = session
        self._authorizer = authorizer
        self._header = header
        self._scheme = scheme

    def left(self, spent: float) -> float | None:
        """Seconds for another call of a push, after so many: all of them are within one total timeout, which the lease
        goes by. `None`: all of it."""
        return max(self.timeouts.total - spent, _LEAST_LEFT) if spent else None

    async def call(
        self,
        method: str,
        path: str,
        payload: object,
        identity: Headers,
        *,
        headers: dict[str, str] | None = None,
        seconds: float | None = None,
    ) -> Answer | NoAnswer:
        """One exchange; one more, if the first is answered 401 and there is another token. `path` is encoded already;
        `seconds` is what is left of the total timeout, if not all."""
        began = time.monotonic()
        until = began + min(self.timeouts.total, seconds or self.timeouts.total)
        authorization = await self._authorizer.authorize()
        if isinstance(authorization, Authorization) and until - time.monotonic() < min(_LEAST_LEFT, until - began) / 2:
            authorization = NoToken(detail="the access token came too late for this call")
        if isinstance(authorization, NoToken):
            return _not_called(authorization, began)
        answer = await self._call(method, path, payload, identity, headers, authorization, until)
        if answer.status == 401:
            anew = await self._authorizer.renew(authorization)
            if isinstance(anew, NoToken):
                return _not_called(anew, began)
            if anew is not None and until - time.monotonic() >= _LEAST_LEFT:
                answer = await self._call(method, path, payload, identity, headers, anew, until)
        return answer

    async def _call(
        self,
        method: str,
        path: str,
        payload: object,
        identity: Headers,
        headers: dict[str, str] | None,
        authorization: Authorization,
        until: float,
    ) -> Answer | NoAnswer:
        left = max(until - time.monotonic(), 0.001)
        timeouts = Timeouts(min(self.timeouts.connect, left), min(self.timeouts.total, left))
        base_url, token = authorization.base_url or self.base_url, authorization.token
        shown = {self._header: f"{self._scheme} {token}" if self._scheme else token} if token else authorization.fields
        url: str | URL = base_url + path
        if "?" in path or "%" in path:
            url = URL(f"{URL(base_url)}{path}", encoded=True)
        with spans.span(method, Kind.CLIENT, identity.trace, {"http.request.method": method}) as span:
            answer = await send(
                self._session,
                method,
                url,
                payload=payload,
                headers={**identify(identity), **span.context.fields(), **(headers or {}), **shown},
                timeouts=timeouts,
            )
            span.note({"http.response.status_code": answer.status})
            if answer.status is None or answer.status >= 400:
                span.fail(str(answer.status or "no_answer"))
        return answer


def _not_called(no_token: NoToken, began: float) -> NoAnswer:
    seconds = time.monotonic() - began
    return NoAnswer(sent=False, detail=no_token.detail, seconds=seconds, no_token=no_token)


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
    """Send `payload` as JSON (`None`: no body), or a `Body` as it is, and read the whole answer.

    Nothing the network does is raised; cancelling is.
    """
    if isinstance(payload, Body):
        body = _WatchedBody(payload.content, content_type=payload.content_type)
    else:
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
            skip_auto_headers=["Content-Type"] if payload is None else None,  # some refuse JSON that is empty
        ) as response:
            received, trouble, timed_out = await _read(response)
            return Answer(
                status=response.status,
                headers=response.headers,
                body=received,
                seconds=time.monotonic() - started,
                trouble=trouble,
                timed_out=timed_out,
            )
    except (aiohttp.ClientError, OSError, UnicodeError) as error:  # TimeoutError is an OSError
        seconds = time.monotonic() - started
        detail = DISCONNECTED if body.refused else describe_failure(error, seconds)
        refused = isinstance(_inner(error), AddressRefused)
        drop_tracebacks(error)
        sent = (body.started or method in ("GET", "HEAD")) and not refused
        timed_out = isinstance(error, TimeoutError) and not refused
        return NoAnswer(sent=sent, detail=detail, seconds=seconds, timed_out=timed_out, refused=refused)


async def _read(response: aiohttp.ClientResponse) -> tuple[bytes, str, bool]:
    """What could be read, why that is not all, and whether it did not come in time."""
    content = bytearray()
    try:
        async for chunk in response.content.iter_chunked(65_536):
            content += chunk
            if len(content) > MAX_ANSWER_BYTES:
                response.close()
                return b"", f"the answer is larger than {MAX_ANSWER_BYTES} bytes", False
    except (aiohttp.ClientError, OSError, ValueError) as error:
        drop_tracebacks(error)
        return (
            bytes(content),
            f"the answer broke off ({describe_failure(error, None)})",
            isinstance(error, TimeoutError),
        )
    return bytes(content), "", False


def describe_failure(error: BaseException, seconds: float | None) -> str:
    """What went wrong, for whoever gave the URL: without address and port, which show how names resolve here."""
    if isinstance(error, TimeoutError):
        return "timed out" if seconds is None else f"timed out after {seconds:.1f} s"
    inner = _inner(error)
    if isinstance(inner, AddressRefused):
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


def identify(headers: Headers) -> dict[str, str]:
    """The header fields by which a CRM knows the call, without characters that a header cannot hold."""
    request_id = "".join(c for c in headers.request_id if c.isascii() and c.isprintable())
    return {"X-Request-ID": request_id, "X-Event-ID": headers.event_id}
