"""`/v1/session`: signing in with an API key, as the console does."""

from datetime import datetime
from functools import partial
from typing import Final

import msgspec

from app.auth import service, sessions, tokens
from app.auth.authorization import FOLLOWING
from app.auth.principals import key_scope
from app.http import session_cookie
from app.http.headers import Fields
from app.http.operation import Answer, Reply, operation
from app.http.principal import Principal
from app.kit.postgres.database import Connection
from app.kit.snapshots import Snapshots

PATH: Final = "/v1/session"
_operation: Final = partial(operation, tag="keys", access=FOLLOWING)
_NO_STORE: Final = "no-store"


class SessionInfo(msgspec.Struct, frozen=True):
    """Who calls: the key, or that of the session."""

    tenant: str
    key_id: str
    name: str
    """Of the key."""
    scopes: list[str]
    expires_at: datetime | None
    """When the session ends, or the key; null: never."""


@_operation("GET", PATH, answers=Answer("Who calls.", cache=_NO_STORE))
async def read_session(principal: Principal, connection: Connection) -> SessionInfo:
    """Who calls.

    What an API key or a session may do, and until when.
    """
    return await _describe(connection, principal, principal.expires_at)


@_operation("POST", PATH, answers=Answer("The session, as a cookie.", 201, headers=("SetCookie",), cache=_NO_STORE))
async def open_session(
    principal: Principal, fields: Fields, connection: Connection, snapshots: Snapshots
) -> Reply[SessionInfo]:
    """Sign in.

    A browser exchanges an API key for a cookie, so that the page need not keep the key: for eight hours, or until
    `DELETE /v1/session`, or until the key is revoked. Requests that change something need the header field
    `Tranche-Console` beside the cookie. The session that this is asked with ends.
    """
    before = _session(fields)
    async with connection.transaction():
        await _end(before, principal, connection)
        opened = await sessions.open_session(connection, principal.tenant_id, principal.key_id, actor=principal.key_id)
        found = await _describe(connection, principal, opened.expires_at)
    await _void(before, snapshots)
    return Reply(found, 201, {"Set-Cookie": session_cookie.write(opened.secret, sessions.SECONDS)})


@_operation("DELETE", PATH, answers=Answer("Signed out.", 204, headers=("SetCookie",)))
async def end_session(
    principal: Principal, fields: Fields, connection: Connection, snapshots: Snapshots
) -> Reply[None]:
    """Sign out.

    The session ends at once; an API key that is sent in its place is left as it is.
    """
    ended = _session(fields)
    await _end(ended, principal, connection)
    await _void(ended, snapshots)
    return Reply(None, 204, {"Set-Cookie": session_cookie.write("", 0)})


async def _describe(connection: Connection, principal: Principal, expires_at: datetime | None) -> SessionInfo:
    key = await service.read_key(connection, principal.tenant_id, principal.key_id)
    ends = [each for each in (expires_at, key.expires_at) if each is not None]
    return SessionInfo(key.tenant, key.key_id, key.name, key.scopes, min(ends, default=None))


async def _end(token: tokens.Token | None, principal: Principal, connection: Connection) -> None:
    if token is not None:
        await sessions.end_session(connection, token.tenant_id, token.key_id, actor=principal.key_id)


async def _void(token: tokens.Token | None, snapshots: Snapshots) -> None:
    if token is not None:
        await snapshots.void(key_scope(token.tenant_id, token.key_id))


def _session(fields: Fields) -> tokens.Token | None:
    """What the request was authenticated by, if that is a session."""
    token = tokens.parse((fields.one("authorization") or "").partition(" ")[2].strip())
    return token if token is not None and token.session else None
