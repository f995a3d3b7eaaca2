"""Sessions: what somebody is signed in by, who showed an API key once.

A session may do what its key may, and ends with it. The secret of one is like that of a key, and is good for whatever
takes one; a browser has it as a cookie (`app.http.session_cookie`), where no script can read it.
"""

import os
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from app.audit.queries import write_audit
from app.auth import queries as rows
from app.auth import tokens
from app.kit.postgres.database import Connection

SECONDS: Final = 8 * 3600.0
LINK_SECONDS: Final = 600.0
"""Of a session that a link opens: the page exchanges it for another one at once."""


class NewSession(msgspec.Struct, frozen=True):
    secret: str
    expires_at: datetime


async def open_session(
    connection: Connection, tenant_id: int, key_id: str, *, seconds: float = SECONDS, actor: str
) -> NewSession:
    """A session of a key. The secret is stored nowhere."""
    session_id, random = os.urandom(tokens.ID_BYTES), os.urandom(tokens.SECRET_BYTES)
    secret, token = tokens.make(tenant_id, session_id, random, prefix=tokens.SESSION_PREFIX)
    expires_at = datetime.now(UTC) + timedelta(seconds=seconds)
    async with connection.transaction():
        await rows.delete_expired_sessions(connection, tenant_id)
        await rows.insert_session(connection, tenant_id, token.key_id, key_id, token.secret_hash, expires_at)
        await write_audit(connection, tenant_id, actor, "session.open", f"session:{token.key_id}", {"key": key_id})
    return NewSession(secret, expires_at)


async def end_session(connection: Connection, tenant_id: int, session_id: str, *, actor: str) -> None:
    """Asked twice, the first time counts."""
    async with connection.transaction():
        if await rows.delete_session(connection, tenant_id, session_id) is not None:
            await write_audit(connection, tenant_id, actor, "session.end", f"session:{session_id}")
