"""OAuth 2's authorization code flow with PKCE, for a program on somebody's own machine (RFC 8252, RFC 7636).

The browser is sent to the vendor, and comes back to a port of the loopback interface with a code, which is exchanged
for tokens.
"""

import asyncio
import base64
import hashlib
import html
import secrets
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import parse_qs, urlencode, urlsplit

import aiohttp
import msgspec

from app.cli.client.errors import UsageError

_LOOPBACK: Final = {"127.0.0.1": "127.0.0.1", "localhost": "127.0.0.1", "::1": "::1"}
_LONGEST_LINE: Final = 16_384
_SECONDS: Final = 30.0
"""That the exchange of the code may take."""
_PAGE: Final = "<!doctype html><meta charset=utf-8><title>Tranche</title><p>{}</p>"


class Application(msgspec.Struct, frozen=True, kw_only=True):
    """As it is registered with the vendor."""

    authorize_url: str
    token_url: str
    client_id: str
    client_secret: str = ""
    scope: str = ""
    redirect_uri: str
    """On the loopback interface, with a port; the vendor compares it with the one that is registered."""


class _Callback:
    """Waits for the browser to come back."""

    def __init__(self, path: str, state: str) -> None:
        self._path = path
        self._state = state
        self.code: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = (await reader.readline())[:_LONGEST_LINE].decode("latin-1").split(" ")
            status, words = self._answer(line[1] if len(line) == 3 and line[0] == "GET" else "")
            body = _PAGE.format(html.escape(words)).encode()
            fields = ["Content-Type: text/html", f"Content-Length: {len(body)}", "Connection: close"]
            writer.write("\r\n".join([f"HTTP/1.1 {status}", *fields, "", ""]).encode() + body)
            await writer.drain()
        except (ConnectionError, ValueError):
            pass
        finally:
            writer.close()

    def _answer(self, target: str) -> tuple[str, str]:
        parts = urlsplit(target)
        if parts.path != self._path or self.code.done():
            return "404 Not Found", "There is nothing here."
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if not secrets.compare_digest(query.get("state", ""), self._state):
            return "400 Bad Request", "This answer is not for the request that was made; start again."
        if "code" not in query:
            why = ": ".join(filter(None, [query.get("error"), query.get("error_description")])) or "there is no code"
            self.code.set_exception(UsageError(f"the vendor did not allow it: {why}"))
            return "200 OK", f"Not connected: {why}."
        self.code.set_result(query["code"])
        return "200 OK", "Connected. You can close this window and go back to the terminal."


async def obtain_refresh_token(application: Application, announce: Callable[[str], None], seconds: float) -> str:
    """Have somebody allow the application in a browser, at the URL that `announce` gets, within so many seconds.

    Raises:
        UsageError: the redirect URI cannot be listened on, it was refused, or nobody answered in time.
    """
    redirect = urlsplit(application.redirect_uri)
    host = _LOOPBACK.get(redirect.hostname or "")
    if redirect.scheme != "http" or host is None or not redirect.port:
        raise UsageError("--redirect-uri must be http://127.0.0.1:PORT/… or http://localhost:PORT/…")
    verifier, state = secrets.token_urlsafe(64), secrets.token_urlsafe(24)
    callback = _Callback(redirect.path or "/", state)
    try:
        server = await asyncio.start_server(callback.serve, host, redirect.port, limit=_LONGEST_LINE)
    except OSError as error:
        raise UsageError(f"cannot listen on {host}:{redirect.port}: {error.strerror}; see --redirect-uri") from error
    async with server:
        announce(_authorize_url(application, verifier, state))
        try:
            async with asyncio.timeout(seconds):
                code = await callback.code
        except TimeoutError as error:
            raise UsageError(f"nobody allowed it within {seconds:g} s; start again") from error
    return await _exchange(application, code, verifier)


def _authorize_url(application: Application, verifier: str, state: str) -> str:
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    query = {
        "response_type": "code",
        "client_id": application.client_id,
        "redirect_uri": application.redirect_uri,
        "state": state,
        "code_challenge": challenge,
        "code_challenge_method": "S256",
    }
    if application.scope:
        query["scope"] = application.scope
    joined = "&" if urlsplit(application.authorize_url).query else "?"
    return application.authorize_url + joined + urlencode(query)


async def _exchange(application: Application, code: str, verifier: str) -> str:
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": application.redirect_uri,
        "client_id": application.client_id,
        "code_verifier": verifier,
    }
    if application.client_secret:
        form["client_secret"] = application.client_secret
    timeout = aiohttp.ClientTimeout(total=_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session,
            session.post(
                application.token_url, data=form, headers={"Accept": "application/json"}, allow_redirects=False
            ) as response,
        ):
            status, body = response.status, await response.content.read(65_536)
    except (aiohttp.ClientError, OSError) as error:
        raise UsageError(f"the token endpoint could not be reached: {error or type(error).__name__}") from error
    try:
        document = msgspec.json.decode(body)
    except ValueError:
        document = None
    answer: dict[str, Any] = document if isinstance(document, dict) else {}
    if not 200 <= status < 300:
        said = ": ".join(str(answer[name]) for name in ("error", "error_description") if answer.get(name))
        raise UsageError(f"the token endpoint answered {status}" + (f": {said}" if said else ""))
    token = answer.get("refresh_token")
    if not isinstance(token, str) or not token:
        raise UsageError(
            "the vendor issued no refresh token: ask for one with --scope (often offline_access or refresh_token)"
        )
    return token
