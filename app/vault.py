"""Encrypts secrets at rest: AES-256-GCM, bound to the tenant and the thing that they belong to."""

from __future__ import annotations

import base64
import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from app.errors import SettingsError

_NONCE: Final = 12
DESTINATION: Final = "destination"
WEBHOOK_ENDPOINT: Final = "webhook endpoint"


class Vault:
    """Seals and opens with one key.

    Raises:
        SettingsError: `TRANCHE_SECRET_KEY` is missing or not 32 bytes of base64.
    """

    def __init__(self, secret_key: str) -> None:
        try:
            key = base64.b64decode(secret_key, validate=True)
        except ValueError:  # binascii.Error is one, and so is a letter beyond ASCII
            key = b""
        if len(key) != 32:
            raise SettingsError(
                "TRANCHE_SECRET_KEY must be 32 random bytes in base64; make one with: openssl rand -base64 32"
            )
        self._cipher = AESGCM(key)

    def seal(self, secret: str, *, tenant_id: int, name: str, kind: str = DESTINATION) -> bytes:
        """`kind` and `name` say whose secret it is; nothing else can pass it off as its own."""
        nonce = os.urandom(_NONCE)
        return nonce + self._cipher.encrypt(nonce, secret.encode(), _context(kind, tenant_id, name))

    def open(self, sealed: bytes, *, tenant_id: int, name: str, kind: str = DESTINATION) -> str:
        """
        Raises:
            SettingsError: it was sealed with another key.
        """
        context = _context(kind, tenant_id, name)
        try:
            return self._cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], context).decode()
        except InvalidTag as error:
            raise SettingsError(
                f"the credentials of {kind} {name!r} were encrypted with another TRANCHE_SECRET_KEY"
            ) from error


def _context(kind: str, tenant_id: int, name: str) -> bytes:
    return f"tranche:{kind}:{tenant_id}:{name}".encode()
