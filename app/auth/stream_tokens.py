"""Tokens that let a browser's EventSource follow one job: made for the holder of an API key, and checked."""

from __future__ import annotations

import time
import uuid
from datetime import UTC, datetime

import msgspec

from app.auth import stream_token_format
from app.auth.queries import find_key
from app.auth.service import find_principal
from app.errors import NotFound
from app.http.principal import Principal
from app.kit.postgres.database import Connection


class StreamToken(msgspec.Struct, frozen=True):
    """`events_url` carries the token; until it expires it may be opened again and again, as EventSource does."""

    token: str
    """Shows the events of this job, and nothing else."""
    events_url: str
    """With the token: for `new EventSource(…)`, which may come again until the token expires."""
    expires_at: datetime


async def make(connection: Connection, principal: Principal, job_id: uuid.UUID, *, seconds: float) -> StreamToken:
    """
    Raises:
        NotFound: the key was revoked meanwhile.
    """
    key = await find_key(connection, principal.tenant_id, principal.key_id)
    if key is None:
        raise NotFound("The API key was revoked.")
    expires = int(time.time() + seconds)
    token = stream_token_format.make(principal.tenant_id, principal.key_id, key.secret_hash, job_id, expires=expires)
    return StreamToken(token, f"/v1/jobs/{job_id}/events?token={token}", datetime.fromtimestamp(expires, UTC))


async def authenticate(connection: Connection, token: str, job_id: uuid.UUID) -> Principal | None:
    """Who had this token made, with the scopes of the key as they are now; `None` if it is not good for this job.

    Raises:
        Unauthorized, TenantDisabled: as the key itself would be refused.
    """
    parsed = stream_token_format.parse(token)
    if parsed is None:
        return None
    return await find_principal(
        connection, parsed.tenant_id, parsed.key_id, lambda stored: parsed.is_genuine(stored, job_id, now=time.time())
    )
