"""Asks a token endpoint for an access token (RFC 6749; Salesforce's JWT bearer flow is RFC 7523).

A token endpoint is a URL of a tenant's choice like any other: it is called through the session that guards those. What
it answers is shown only as far as the specification gives it words for people.
"""

import base64
import time
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote

import aiohttp
import jwt
import msgspec

from app.destinations.credentials import (
    ClientCredentials,
    Grant,
    RefreshTokenCredentials,
    Renewed,
    SalesforceJwt,
    Stored,
    is_sendable,
    secrets_of,
)
from jobs.crm.port import NoToken, Timeouts
from jobs.outbound.messages import USER_AGENT, sanitize_message
from jobs.outbound.tracebacks import drop_tracebacks

_MOST_BYTES: Final = 65_536
_ASSERTION_SECONDS: Final = 180
"""Salesforce takes no assertion that is valid for longer."""
_JWT_BEARER: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_LATER: Final = frozenset({408, 425, 429})
_LONGEST: Final = 10 * 365 * 86_400.0
"""Seconds; a lifetime beyond it is none."""
_REMEDIES: Final = {
    "invalid_client": "Check client_id and client_secret, and set the credentials again",
    "unauthorized_client": "Allow the application this way of getting tokens, or use other credentials",
    "invalid_scope": "Check the scope, and set the credentials again",
}
_CONNECT: Final = "Connect the account again (tranche destinations connect NAME), or set other credentials"
_APPROVE: Final = "Let the user approve the connected app, and check username, certificate and login_url"


class Granted(msgspec.Struct, frozen=True):
    """What is stored from now on."""

    stored: Stored


async def ask(
    session_to: Callable[[str], aiohttp.ClientSession],
    credentials: Renewed,
    timeouts: Timeouts,
    now: Callable[[], float] = time.time,
) -> Granted | NoToken:
    """One call to the token endpoint, through the session for its URL. Nothing that the network does is raised."""
    url, form, headers = _request(credentials, now())
    began = now()
    try:
        async with session_to(url).post(
            url,
            data=form,
            headers={"User-Agent": USER_AGENT, "Accept": "application/json", **headers},
            timeout=aiohttp.ClientTimeout(total=timeouts.total, sock_connect=timeouts.connect),
            allow_redirects=False,
        ) as response:
            status, body = response.status, await response.content.read(_MOST_BYTES)
    except (aiohttp.ClientError, OSError, UnicodeError) as error:  # TimeoutError is an OSError
        drop_tracebacks(error)
        words = sanitize_message(str(error) or type(error).__name__, *secrets_of(Stored(credentials=credentials)))
        return NoToken(detail=f"the token endpoint could not be reached: {words}")
    return _read(credentials, status, body, began)


def _request(credentials: Renewed, now: float) -> tuple[str, dict[str, str], dict[str, str]]:
    """URL, form and header fields."""
    if isinstance(credentials, SalesforceJwt):
        url = credentials.login_url.rstrip("/")
        claims = {
            "iss": credentials.client_id,
            "sub": credentials.username,
            "aud": url,
            "exp": int(now) + _ASSERTION_SECONDS,
        }
        assertion = jwt.encode(claims, credentials.private_key, algorithm="RS256")
        return f"{url}/services/oauth2/token", {"grant_type": _JWT_BEARER, "assertion": assertion}, {}
    form = {"grant_type": "client_credentials"}
    if isinstance(credentials, RefreshTokenCredentials):
        form = {"grant_type": "refresh_token", "refresh_token": credentials.refresh_token}
    elif credentials.scope:
        form["scope"] = credentials.scope
    if credentials.client_auth == "basic":
        # Each part is form-encoded before it is joined (RFC 6749, 2.3.1).
        pair = f"{quote(credentials.client_id, safe='')}:{quote(credentials.client_secret, safe='')}"
        return credentials.token_url, form, {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
    form["client_id"] = credentials.client_id
    if credentials.client_secret:
        form["client_secret"] = credentials.client_secret
    return credentials.token_url, form, {}


def _read(credentials: Renewed, status: int, body: bytes, began: float) -> Granted | NoToken:
    try:
        document = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        document = None
    answer: dict[str, Any] = document if isinstance(document, dict) else {}
    if 200 <= status < 300:
        token = answer.get("access_token")
        if isinstance(token, str) and is_sendable(token):
            return Granted(_granted(credentials, token, answer, began))
        return NoToken(detail=f"the token endpoint answered {status} without an access token")
    said = _said(credentials, answer)
    detail = f"the token endpoint answered {status}" + (f": {said}" if said else "")
    if status >= 500 or status in _LATER:
        return NoToken(detail=detail)
    remedy = _REMEDIES.get(str(answer.get("error")), _remedy(credentials))
    return NoToken(detail=detail, remedy=remedy)


def _granted(credentials: Renewed, token: str, answer: dict[str, Any], began: float) -> Stored:
    anew = answer.get("refresh_token")
    if isinstance(credentials, RefreshTokenCredentials) and isinstance(anew, str) and anew:
        credentials = msgspec.structs.replace(credentials, refresh_token=anew)
    instance = answer.get("instance_url")
    seconds = _seconds(answer.get("expires_in"))
    return Stored(
        credentials=credentials,
        grant=Grant(
            access_token=token,
            issued_at=began,
            expires_at=None if seconds is None else began + seconds,
            instance_url=instance.rstrip("/") if isinstance(instance, str) and instance else None,
        ),
    )


def _seconds(value: object) -> float | None:
    """A number, or, as some servers have it, the text of one."""
    try:
        seconds = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else None
    except ValueError:
        return None
    return seconds if seconds is not None and 0 <= seconds <= _LONGEST else None


def _said(credentials: Renewed, answer: dict[str, Any]) -> str:
    """`error` and `error_description`, or what some servers have in their place."""
    parts = [answer.get("error"), answer.get("error_description") or answer.get("message")]
    text = ": ".join(dict.fromkeys(part for part in parts if isinstance(part, str) and part))
    return sanitize_message(text, *secrets_of(Stored(credentials=credentials)))


def _remedy(credentials: Renewed) -> str:
    match credentials:
        case SalesforceJwt():
            return _APPROVE
        case ClientCredentials():
            return _REMEDIES["invalid_client"]
        case _:
            return _CONNECT
