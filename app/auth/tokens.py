"""The shape of an API key: `trn_` + base62 of (tenant, key id, secret, CRC-32).

That of a session begins with `trc_`, and its checksum covers that as well: no key becomes one by a typing error.

The checksum lets a mistyped or cut-off key be refused without asking the database, and secret scanners know a
true one when they see it. The tenant inside makes the look-up lead with it.
"""

import hashlib
import zlib
from typing import Final

import msgspec

PREFIX: Final = "trn_"
SESSION_PREFIX: Final = "trc_"
_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_VALUE: Final = {c: i for i, c in enumerate(_ALPHABET)}
ID_BYTES: Final = 6
SECRET_BYTES: Final = 20
_BYTES: Final = 4 + ID_BYTES + SECRET_BYTES + 4
MAX_TENANT: Final = 2**31 - 1
"""What PostgreSQL's integer holds. The checksum is no secret, so anybody can make a key that names more."""
_LENGTH: Final = 46  # base62 digits that 34 bytes need


class Token(msgspec.Struct, frozen=True):
    tenant_id: int
    key_id: str
    """Of a session: its own id."""
    secret_hash: bytes
    """SHA-256: the secret has 160 random bits, so no slow hash is needed."""
    session: bool = False


def make(tenant_id: int, key_id: bytes, secret: bytes, *, prefix: str = PREFIX) -> tuple[str, Token]:
    """The key to hand out once, and what to store of it."""
    payload = tenant_id.to_bytes(4, "big") + key_id[:ID_BYTES] + secret
    number = int.from_bytes(payload + _checksum(payload, prefix), "big")
    digits = []
    for _ in range(_LENGTH):
        number, digit = divmod(number, 62)
        digits.append(_ALPHABET[digit])
    token = prefix + "".join(reversed(digits))
    parsed = parse(token)
    assert parsed is not None
    return token, parsed


def parse(token: str) -> Token | None:
    """`None` for anything that cannot be a key of ours, whatever it is."""
    if not token.startswith((PREFIX, SESSION_PREFIX)) or len(token) != len(PREFIX) + _LENGTH:
        return None
    number = 0
    for character in token[len(PREFIX) :]:
        digit = _VALUE.get(character)
        if digit is None:
            return None
        number = number * 62 + digit
    if number >= 1 << (8 * _BYTES):
        return None
    raw = number.to_bytes(_BYTES, "big")
    payload, checksum = raw[:-4], raw[-4:]
    prefix = token[: len(PREFIX)]
    if _checksum(payload, prefix) != checksum:
        return None
    tenant_id = int.from_bytes(payload[:4], "big")
    if tenant_id > MAX_TENANT:
        return None
    secret_hash = hashlib.sha256(payload[4 + ID_BYTES :]).digest()
    return Token(tenant_id, payload[4 : 4 + ID_BYTES].hex(), secret_hash, prefix == SESSION_PREFIX)


def _checksum(payload: bytes, prefix: str) -> bytes:
    return zlib.crc32(payload, 0 if prefix == PREFIX else zlib.crc32(prefix.encode())).to_bytes(4, "big")
