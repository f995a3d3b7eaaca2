"""Tokens for one event stream: `trs_` + base64url of (tenant, key id, expiry, HMAC).

A browser's EventSource can send no header, so what it is allowed has to be in the address, and addresses end up in logs
and histories: hence a token that shows the progress of one job for a while, and opens nothing else. It is signed with
the stored hash of the API key that asked for it. So it needs no storage of its own, and ends with that key.
"""

import base64
import binascii
import hashlib
import hmac
import time
import uuid
from datetime import UTC, datetime
from typing import Final

import msgspec

from app.auth.queries import find_key
from app.auth.service import find_principal
from app.auth.tokens import MAX_TENANT
from app.errors import NotFound
from app.http.principal import Principal
from app.kit.postgres.database import Connection

_PREFIX: Final = "trs_"
_ID_BYTES: Final = 6
_TIME_BYTES: Final = 6
_HEAD: Final = 4 + _ID_BYTES + _TIME_BYTES
_MAC: Final = 32
_LENGTH: Final = len(_PREFIX) + (_HEAD + _MAC) // 3 * 4
_CONTEXT: Final = b"tranche:stream:"


class _Parsed(msgspec.Struct, frozen=True):
    """A token taken apart; nothing of it is true before `is_genuine`."""

    tenant_id: int
    key_id: str
    expires: int
    """Unix time in seconds."""
    head: bytes
    mac: bytes

    def is_genuine(self, secret_hash: bytes, job_id: uuid.UUID, *, now: float) -> bool:
        """Whether the key of this hash signed it for this job, and it has not expired."""
        return hmac.compare_digest(self.mac, _sign(secret_hash, self.head, job_id)) and now < self.expires


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
    head = (
        principal.tenant_id.to_bytes(4, "big") + bytes.fromhex(principal.key_id) + expires.to_bytes(_TIME_BYTES, "big")
    )
    token = _PREFIX + base64.urlsafe_b64encode(head + _sign(key.secret_hash, head, job_id)).decode()
    return StreamToken(token, f"/v1/jobs/{job_id}/events?token={token}", datetime.fromtimestamp(expires, UTC))


async def authenticate(connection: Connection, token: str, job_id: uuid.UUID) -> Principal | None:
    """Who had this token made, with the scopes of the key as they are now; `None` if it is not good for this job.

    Raises:
        Unauthorized, TenantDisabled: as the key itself would be refused.
    """
    parsed = _parse(token)
    if parsed is None:
        return None
    return await find_principal(
        connection, parsed.tenant_id, parsed.key_id, lambda stored: parsed.is_genuine(stored, job_id, now=time.time())
    )


def _parse(text: str) -> _Parsed | None:
    """`None` for anything that cannot be such a token, whatever it is."""
    if not text.startswith(_PREFIX) or len(text) != _LENGTH:
        return None
    try:
        raw = base64.b64decode(text[len(_PREFIX) :], altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    tenant_id = int.from_bytes(raw[:4], "big")
    if len(raw) != _HEAD + _MAC or tenant_id > MAX_TENANT:
        return None
    return _Parsed(
        tenant_id,
        raw[4 : 4 + _ID_BYTES].hex(),
        int.from_bytes(raw[4 + _ID_BYTES : _HEAD], "big"),
        raw[:_HEAD],
        raw[_HEAD:],
    )


def _sign(secret_hash: bytes, head: bytes, job_id: uuid.UUID) -> bytes:
    return hmac.digest(secret_hash, _CONTEXT + head + job_id.bytes, hashlib.sha256)
