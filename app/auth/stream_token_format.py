"""Tokens for one event stream: `trs_` + base64url of (tenant, key id, expiry, HMAC).

A browser's EventSource can send no header, so what it is allowed has to be in the address, and addresses end up in logs
and histories: hence a token that shows the progress of one job for a while, and opens nothing else. It is signed with
the stored hash of the API key that asked for it. So it needs no storage of its own, and ends with that key.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import uuid
from typing import Final

import msgspec

from app.auth.tokens import MAX_TENANT

PREFIX: Final = "trs_"
_ID_BYTES: Final = 6
_TIME_BYTES: Final = 6
_HEAD: Final = 4 + _ID_BYTES + _TIME_BYTES
_MAC: Final = 32
_LENGTH: Final = len(PREFIX) + (_HEAD + _MAC) // 3 * 4
_CONTEXT: Final = b"tranche:stream:"


class StreamToken(msgspec.Struct, frozen=True):
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


def make(tenant_id: int, key_id: str, secret_hash: bytes, job_id: uuid.UUID, *, expires: int) -> str:
    head = tenant_id.to_bytes(4, "big") + bytes.fromhex(key_id) + expires.to_bytes(_TIME_BYTES, "big")
    return PREFIX + base64.urlsafe_b64encode(head + _sign(secret_hash, head, job_id)).decode()


def parse(text: str) -> StreamToken | None:
    """`None` for anything that cannot be such a token, whatever it is."""
    if not text.startswith(PREFIX) or len(text) != _LENGTH:
        return None
    try:
        raw = base64.b64decode(text[len(PREFIX) :], altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    tenant_id = int.from_bytes(raw[:4], "big")
    if len(raw) != _HEAD + _MAC or tenant_id > MAX_TENANT:
        return None
    return StreamToken(
        tenant_id,
        raw[4 : 4 + _ID_BYTES].hex(),
        int.from_bytes(raw[4 + _ID_BYTES : _HEAD], "big"),
        raw[:_HEAD],
        raw[_HEAD:],
    )


def _sign(secret_hash: bytes, head: bytes, job_id: uuid.UUID) -> bytes:
    return hmac.digest(secret_hash, _CONTEXT + head + job_id.bytes, hashlib.sha256)
