"""Encrypts secrets at rest: AES-256-GCM, bound to the tenant, the thing and the address that they belong to.

A ciphertext is `00 54 52 4e 02`, the 4-byte id of its key, a nonce of 12 bytes, then ciphertext and tag. Before it came
the older form, nonce, ciphertext and tag alone, which says neither its key nor the address; it is still read, and
`tranche secrets rotate` gives it the newer form.
"""

import base64
import hashlib
import hmac
import os
from typing import Final

from cachetools import LRUCache
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from app.errors import SettingsError

DESTINATION: Final = "destination"
WEBHOOK_ENDPOINT: Final = "webhook endpoint"
ERASURE_KEY: Final = "erasure key"
_MARK: Final = b"\x00TRN\x02"
_ID: Final = 4
_NONCE: Final = 12
_HEAD: Final = len(_MARK) + _ID
_BYTES: Final = 32
_HOW: Final = "make one with: openssl rand -base64 32"


def parse_keys(secret_key: str) -> list[bytes]:
    """The keys that `TRANCHE_SECRET_KEY` lists, separated by commas: the first one encrypts, all decrypt.
    Raises `ValueError`: there is none, or one is not 32 bytes of base64; the message never repeats it."""
    parts = [part.strip() for part in secret_key.split(",")]
    keys: list[bytes] = []
    for number, part in enumerate(parts, 1):
        try:
            key = base64.b64decode(part, validate=True)
        except ValueError:  # binascii.Error is one, and so is a letter beyond ASCII
            key = b""
        if len(key) != _BYTES:
            which = "" if len(parts) == 1 else f", and key {number} of {len(parts)} is not"
            raise ValueError(f"must be {_BYTES} random bytes in base64{which}; {_HOW}")
        if key not in keys:
            keys.append(key)
    return keys


def key_id(key: bytes) -> bytes:
    """Identifies a key without revealing it: it has 256 random bits."""
    return hashlib.sha256(b"tranche key id\0" + key).digest()[:_ID]


class Vault:
    """Seals with the first key, opens with any.
    Raises `SettingsError`: `TRANCHE_SECRET_KEY` is missing, or a key in it is not 32 bytes of base64."""

    def __init__(self, secret_key: str) -> None:
        try:
            keys = parse_keys(secret_key)
        except ValueError as error:
            raise SettingsError(f"TRANCHE_SECRET_KEY {error}") from error
        self._ciphers = {key_id(key): AESGCM(key) for key in keys}
        self._first = key_id(keys[0])

    @property
    def key_ids(self) -> list[str]:
        """In hex, the one that encrypts first."""
        return [one.hex() for one in self._ciphers]

    def seal(self, secret: str, *, tenant_id: int, name: str, kind: str = DESTINATION, address: str) -> bytes:
        """`kind` and `name` say whose secret it is, `address` where it may be sent; nothing else can use it.

        A destination's address is its base URL; a webhook endpoint's secret is sent nowhere, and has none ("").
        """
        head, nonce = _MARK + self._first, os.urandom(_NONCE)
        context = _context(head, kind, tenant_id, name, address)
        return head + nonce + self._ciphers[self._first].encrypt(nonce, secret.encode(), context)

    def open(self, sealed: bytes, *, tenant_id: int, name: str, kind: str = DESTINATION, address: str) -> str:
        """Raises `SettingsError`: its key is not among ours, or it was sealed for something else."""
        named = self.key_of(sealed)
        if named is not None and bytes.fromhex(named) in self._ciphers:
            head, body = sealed[:_HEAD], sealed[_HEAD:]
            context = _context(head, kind, tenant_id, name, address)
            secret = _decrypt(self._ciphers[head[-_ID:]], body, context)
            if secret is not None:
                return secret
        # One of four thousand million older ciphertexts begins as a newer one does.
        for cipher in self._ciphers.values():
            secret = _decrypt(cipher, sealed, f"tranche:{kind}:{tenant_id}:{name}".encode())
            if secret is not None:
                return secret
        whose = f"the credentials of {kind} {name!r}"
        if named is None:
            raise SettingsError(f"{whose} were encrypted with another TRANCHE_SECRET_KEY")
        if named not in self.key_ids:
            raise SettingsError(
                f"{whose} were encrypted with another TRANCHE_SECRET_KEY: key {named}, and ours are "
                f"{', '.join(self.key_ids)} (`tranche secrets list`)"
            )
        raise SettingsError(
            f"{whose} were encrypted for another name, tenant or address: the row was changed in the "
            f"database; set the secret again"
        )

    def is_current(self, sealed: bytes) -> bool:
        """Whether it has the newest form, under the key that encrypts."""
        return sealed.startswith(_MARK + self._first)

    @staticmethod
    def key_of(sealed: bytes) -> str | None:
        """The id of its key, in hex; `None`: it has the older form, which does not say."""
        return sealed[len(_MARK) : _HEAD].hex() if sealed.startswith(_MARK) else None


def _decrypt(cipher: AESGCM, body: bytes, context: bytes) -> str | None:
    try:
        return cipher.decrypt(body[:_NONCE], body[_NONCE:], context).decode()
    except (InvalidTag, ValueError):  # too short for a nonce
        return None


def _context(head: bytes, kind: str, tenant_id: int, name: str, address: str) -> bytes:
    return head + "\0".join((kind, str(tenant_id), name, address)).encode()


_SALT: Final = 16
_MOST_CIPHERS: Final = 256


class BulkCipher:
    """Encrypts what is kept for a short time, in any number, under keys that are derived from those of
    `TRANCHE_SECRET_KEY`: each process has its own, so that no key sees more nonces than AES-GCM allows.

    A ciphertext is the 4-byte id of the secret key, a salt of 16 bytes, a nonce of 12 bytes, then ciphertext and tag.
    """

    def __init__(self, secret_key: str, purpose: str) -> None:
        """Raises `ValueError`: see `parse_keys`."""
        keys = parse_keys(secret_key)
        self._keys = {key_id(key): key for key in keys}
        self._purpose = purpose.encode()
        self._hash_key = _derive(keys[0], self._purpose + b" names", b"")
        self._head = key_id(keys[0]) + os.urandom(_SALT)
        self._ciphers: LRUCache[bytes, AESGCM] = LRUCache(_MOST_CIPHERS)

    def hash(self, name: bytes) -> bytes:
        """A name that says nothing to whoever lacks the key: 16 bytes."""
        return hmac.digest(self._hash_key, name, "sha256")[:16]

    def seal(self, data: bytes, context: bytes) -> bytes:
        """`context`: whose it is, and what; nothing else opens it."""
        nonce = os.urandom(_NONCE)
        return self._head + nonce + self._cipher(self._head).encrypt(nonce, data, context)

    def open(self, sealed: bytes, context: bytes) -> bytes | None:
        """`None`: its key is not among ours, or it was sealed for something else."""
        head, nonce, body = sealed[: _ID + _SALT], sealed[_ID + _SALT :][:_NONCE], sealed[_ID + _SALT + _NONCE :]
        if head[:_ID] not in self._keys:
            return None
        try:
            return self._cipher(head).decrypt(nonce, body, context)
        except (InvalidTag, ValueError):
            return None

    def _cipher(self, head: bytes) -> AESGCM:
        cipher = self._ciphers.get(head)
        if cipher is None:
            cipher = self._ciphers[head] = AESGCM(_derive(self._keys[head[:_ID]], self._purpose, head[_ID:]))
        return cipher


def _derive(key: bytes, purpose: bytes, salt: bytes) -> bytes:
    """HKDF-Expand (RFC 5869) of one block: the key is uniformly random."""
    return hmac.digest(key, b"tranche " + purpose + b"\0" + salt + b"\x01", "sha256")
