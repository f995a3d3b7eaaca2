"""The HTTP client of the API: it knows which responses are worth another try, and how long to wait for it."""

import asyncio
import email.utils
import importlib.metadata
import math
import random
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from itertools import count
from typing import IO, Any, Final, Self, TypeVar
from urllib.parse import urlsplit

import aiohttp
import msgspec

from app.cli.client.clock import Deadline
from app.cli.client.errors import BrokenDownload, ClientError, NotFoundError, RefusedError, TimedOutError, UsageError
from app.cli.client.rate_limits import RateLimits
from app.cli.client.wire import read, read_problem

T = TypeVar("T")

CONNECT_TIMEOUT: Final = 10.0
TOTAL_TIMEOUT: Final = 90.0
LEAST_TIMEOUT: Final = 5.0
"""Seconds that an answer is waited for, however little time is left."""
STALL_TIMEOUT: Final = 90.0
"""Seconds without a piece of a body going out or, after the last, without an answer."""
BACKOFF_BASE: Final = 0.5
BACKOFF_CAP: Final = 30.0
_LATER: Final = frozenset({408, 425, 429})


class Response(msgspec.Struct, frozen=True):
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def is_final(self) -> bool:
        """Whether the same request would get this answer again. A conflict that passes says when."""
        if self.status in _LATER or self.status >= 500:
            return False
        return self.status != 409 or self.retry_after is None

    @property
    def retry_after(self) -> float | None:
        """Seconds from now, out of either form of `Retry-After` (RFC 9110, 10.2.3)."""
        value = self.headers.get("Retry-After", "").strip()
        if value.replace(".", "", 1).isascii() and value.replace(".", "", 1).isdigit():
            return float(value)
        try:
            return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
        except (ValueError, TypeError, IndexError):
            return None


def given(options: Mapping[str, T | None]) -> dict[str, T]:
    """Without those that are None."""
    return {name: value for name, value in options.items() if value is not None}


def check_url(url: str) -> str:
    """The base address without a trailing slash.

    Raises:
        UsageError: it is no http(s) address.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise UsageError(f"--url {url!r}: write it like http://127.0.0.1:8000")
    if parts.username or parts.password:
        raise UsageError("--url must not carry a user name or password")
    return url.rstrip("/")


def check_key(key: str) -> str:
    """The API key, trimmed. Its value is never part of a message.

    Raises:
        UsageError: there is none, or it cannot be in a header.
    """
    key = key.strip()
    if not key:
        raise UsageError("no API key: set TRANCHE_API_KEY or give --key")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise UsageError("the API key has characters that no key has; was it copied whole?")
    return key


class ApiClient:
    """One API as one client sees it; used as `async with`."""

    _session: aiohttp.ClientSession

    def __init__(
        self,
        url: str,
        key: str,
        *,
        deadline: Deadline,
        notify: Callable[[str], None] = lambda text: None,
        rng: random.Random | None = None,
        first_contact: float | None = None,
        least: float | None = None,
    ) -> None:
        """`first_contact`: seconds after which an address where nobody has answered yet is abandoned, however much
        time is left; None: the deadline alone counts. `least`: instead of `LEAST_TIMEOUT`."""
        self.url = check_url(url)
        self.clock = deadline.clock
        self.deadline = deadline
        self.first_contact = first_contact
        self._least = LEAST_TIMEOUT if least is None else least
        self.notify = notify
        self.limits = RateLimits()
        self._key = check_key(key)
        self._rng = rng or random.Random()  # noqa: S311 -- jitter, not a secret

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            headers={
                "Authorization": f"Bearer {self._key}",
                "User-Agent": f"tranche/{importlib.metadata.version('tranche')}",
                "Accept": "application/json",
            },
            connector=aiohttp.TCPConnector(limit=0),
            # The server's cookies are nothing to us, and a shared jar would be state between requests.
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def ask(self, method: str, path: str, body: Any = None) -> bytes:
        """The body of the response to a JSON request; `body` is encoded unless it is None.

        Raises:
            RefusedError, TimedOutError: see `call`.
        """
        sent = None if body is None else msgspec.json.encode(body)
        headers = None if sent is None else {"Content-Type": "application/json"}
        return (await self.call(method, path, headers=headers, body=sent)).body

    async def list(self, path: str, member: str, params: Mapping[str, str] | None = None) -> AsyncIterator[msgspec.Raw]:
        """Every element of a list that comes in pages, where each page has them as `member`."""
        query = dict(params or {})
        while True:
            body = (await self.call("GET", path, params=query)).body
            self.deadline.renew()
            page = read(body, dict[str, msgspec.Raw], self.url)
            for element in read(bytes(page.get(member, b"")), list[msgspec.Raw], self.url):
                yield element
            cursor: str | None = msgspec.json.decode(page.get("next_cursor", b"null"))
            if cursor is None:
                return
            query["cursor"] = cursor

    async def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Response:
        """Send until there is an answer that decides: the same request each time, so it must be safe to repeat.

        Raises:
            RefusedError: the request will never be taken.
            TimedOutError: no deciding answer came in time.
        """
        began, tries = self.clock.now(), 0
        while True:
            await self.await_tokens("requests")
            answer, retry_after = None, None
            total = min(TOTAL_TIMEOUT, max(self._least, self.deadline.left()))
            timeout = aiohttp.ClientTimeout(total, min(CONNECT_TIMEOUT, self.first_contact or CONNECT_TIMEOUT))
            try:
                async with self._request(
                    method, path, timeout, params=params, headers=headers or {}, data=body
                ) as response:
                    answer = await self._read(response)
            except (aiohttp.ClientError, OSError) as error:
                trouble = self._explain(error, total)
            if answer is not None:
                self.first_contact = None
                if answer.status < 300 or answer.status == 304:
                    return answer
                if answer.is_final:
                    raise refuse(answer, self.url)
                trouble, retry_after = f"the server answered {answer.status}", answer.retry_after
            await self.pause(trouble, tries, retry_after, began)
            tries += 1

    async def pause(self, trouble: str, tries: int, retry_after: float | None = None, began: float = math.inf) -> None:
        """Wait before the next try, for as long as the server says or else for a while that grows with `tries`.

        Raises:
            TimedOutError: there is no time for another, or nobody has answered at all since `began`.
        """
        wait = self.back_off(tries) if retry_after is None else retry_after
        if self.first_contact is not None:
            left = began + self.first_contact - self.clock.now()
            if left <= 0:
                raise TimedOutError(
                    f"{trouble}: is it running (`tranche up`, `tranche serve`), and is this its address (--url, "
                    "TRANCHE_URL)?"
                )
            wait = min(wait, left)
        if wait > self.deadline.left():
            raise TimedOutError(f"{trouble}; timed out", retry_after=retry_after)
        self.notify(f"{trouble}; trying again in {wait:.1f} s")
        await self.clock.sleep(wait)

    async def await_tokens(self, what: str) -> None:
        """Wait while the service has said that no request, or item, is left to this key.

        Raises:
            TimedOutError: there is none in time.
        """
        wait = self.limits.wait(what, 1, self.clock.now())
        if wait <= 0:
            return
        if wait > self.deadline.left():
            raise TimedOutError(f"the rate limit of {what} allows the next one in {wait:.0f} s", retry_after=wait)
        self.notify(f"the rate limit of {what} is used up; going on in {wait:.1f} s")
        await self.clock.sleep(wait)

    async def _read(self, response: aiohttp.ClientResponse) -> Response:
        self.limits.note(response.headers, self.clock.now())
        return Response(response.status, response.headers, await response.read())

    def back_off(self, tries: int) -> float:
        """Full jitter: seconds, random between nothing and a bound that doubles with every try."""
        return self._rng.uniform(0.0, min(BACKOFF_CAP, BACKOFF_BASE * 2.0 ** min(tries, 16)))

    def _request(
        self, method: str, path: str, timeout: aiohttp.ClientTimeout, *, headers: Mapping[str, str], **sent: Any
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        return self._session.request(
            method,
            self.url + path,
            headers={"X-Request-ID": uuid.uuid4().hex, **headers},
            # A redirect would carry the key to another place.
            allow_redirects=False,
            timeout=timeout,
            **sent,
        )

    async def upload(
        self,
        path: str,
        *,
        params: Sequence[tuple[str, str]],
        headers: Mapping[str, str],
        pieces: Iterator[bytes],
        moved: Callable[[], None],
    ) -> tuple[Response | None, str]:
        """One attempt to POST a body of any length: the answer, or why there is none.

        An answer that comes before the body has gone out ends the sending: it is a refusal. `moved` is called after
        each piece.

        Raises:
            ClientError: `pieces` raised it; the server gets half a body, which it drops.
        """
        loop = asyncio.get_running_loop()
        faults: list[ClientError] = []

        async def feed() -> AsyncIterator[bytes]:
            try:
                for piece in pieces:
                    # A refusal may be there already, and the connection closed: reading has to come before writing,
                    # which would fail and take the answer with it.
                    await asyncio.sleep(0)
                    if piece:
                        yield piece
                    limit.reschedule(loop.time() + STALL_TIMEOUT)
                    moved()
            except ClientError as error:
                faults.append(error)
                raise

        try:
            async with (
                asyncio.timeout(STALL_TIMEOUT) as limit,
                self._request(
                    "POST",
                    path,
                    aiohttp.ClientTimeout(total=None, connect=CONNECT_TIMEOUT),
                    params=params,
                    headers=headers,
                    data=feed(),
                ) as response,
            ):
                answer = await self._read(response)
                response.close()
                return answer, ""
        except (aiohttp.ClientError, OSError) as error:
            if faults:
                raise faults[0] from error
            return None, self._explain(error, STALL_TIMEOUT)

    async def download(
        self,
        path: str,
        *,
        params: Mapping[str, str],
        media_type: str,
        began: Callable[[Mapping[str, str]], None] = lambda fields: None,
    ) -> AsyncIterator[bytes]:
        """A body of any length, piece by piece; `began` gets the header fields of the response first.

        What was passed on cannot be taken back, so nothing is tried again.

        Raises:
            RefusedError: the server refused.
            BrokenDownload: the body broke off, or there was no response.
        """
        timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT_TIMEOUT, sock_read=STALL_TIMEOUT)
        headers = {"Accept": media_type}
        try:
            async with self._request("GET", path, timeout, params=params, headers=headers) as response:
                if response.status != 200:
                    answer = await self._read(response)
                    if answer.is_final:
                        raise refuse(answer, self.url)
                    raise BrokenDownload(f"the server answered {answer.status}", retry_after=answer.retry_after)
                began(response.headers)
                async for piece in response.content.iter_any():
                    yield piece
        except (aiohttp.ClientError, OSError) as error:
            raise BrokenDownload(self._explain(error, STALL_TIMEOUT)) from error

    async def save(self, path: str, *, params: Mapping[str, str], media_type: str, out: IO[bytes]) -> None:
        """Download to the end of a file, from the beginning again where the connection breaks.

        Raises:
            RefusedError: the server refused.
            TimedOutError: no download came to its end in time.
        """
        begin = out.tell()
        for tries in count():
            try:
                async for piece in self.download(path, params=params, media_type=media_type):
                    out.write(piece)
                out.flush()
                return
            except BrokenDownload as error:
                broken = error
            await self.pause(broken.detail, tries, broken.retry_after)
            out.seek(begin)
            out.truncate()

    def _explain(self, error: Exception, seconds: float) -> str:
        """Why there was no answer, when another try may bring one."""
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            raise RefusedError(f"{self.url}: the certificate is not trusted ({error})") from error
        if isinstance(error, aiohttp.InvalidURL):
            raise UsageError(f"--url {self.url!r} is no address") from error
        if isinstance(error, aiohttp.ClientConnectorError):
            return f"cannot reach {self.url}"
        if isinstance(error, TimeoutError):
            return f"no answer from {self.url} within {seconds:.0f} s"
        return f"the connection to {self.url} broke ({type(error).__name__})"


_REFUSALS: Final = {401: "the API key was not accepted", 403: "the API key may not do this", 413: "too large"}


def refuse(response: Response, url: str) -> RefusedError:
    """The error for a response that is final, in words that say what to do."""
    problem = read_problem(response.body)
    said = (problem.detail or problem.title).rstrip(".") or "no reason was given"
    trail = f" [request {problem.request_id}]" if problem.request_id else ""
    if response.status == 401:
        said += ". Check TRANCHE_API_KEY or --key"
    if what := _REFUSALS.get(response.status):
        return RefusedError(f"{what} ({response.status}): {said}{trail}")
    if response.status == 404:
        return NotFoundError(f"the server refused the request (404 {problem.code}): {said}{trail}")
    if 300 <= response.status < 400:
        target = response.headers.get("Location", "")
        return RefusedError(f"{url} redirects ({response.status}) to {target!r}; give the final address as --url")
    if problem.code.startswith("IDEMPOTENCY_KEY_"):
        said += " -- the answers of the earlier run are no longer there; start over with --fresh"
    code = f" {problem.code}" if problem.code else ""
    return RefusedError(f"the server refused the request ({response.status}{code}): {said}{trail}")
