"""SCRAM (RFC 5802, RFC 7677), the client's side, without channel binding.

The server is whatever a tenant names: the work for a password's hash is bounded, and the server must show that it knows
the password as well.
"""

import base64
import hashlib
import hmac
import secrets
from typing import Final, Literal

MAX_ITERATIONS: Final = 1_000_000
"""Of the password's hash. The default of servers is 4,096; two thousand million would take minutes."""

Hash = Literal["sha256", "sha512"]


class ScramError(Exception):
    """The server is not to be trusted; in words for people."""


class Scram:
    """One exchange. Its methods raise `ScramError`, and `ValueError` or `KeyError` for what is not SCRAM."""

    def __init__(self, password: bytes, *, user: str = "", algorithm: Hash = "sha256") -> None:
        """`user` as the protocol has it, empty where it is known by other means."""
        self._password = password
        self._hash = algorithm
        self._nonce = base64.b64encode(secrets.token_bytes(18))
        name = user.replace("=", "=3D").replace(",", "=2C").encode()
        self._bare = b"n=" + name + b",r=" + self._nonce
        self._signature: bytes | None = None

    def first(self) -> bytes:
        return b"n,," + self._bare

    def last(self, said: bytes) -> bytes:
        """The answer to the server's first message."""
        found = dict(part.split(b"=", 1) for part in said.split(b","))
        nonce, salt, iterations = found[b"r"], base64.b64decode(found[b"s"]), int(found[b"i"][:12])
        if not nonce.startswith(self._nonce) or not 0 < iterations <= MAX_ITERATIONS:
            raise ScramError("the server asks for too long a computation of the password's hash")
        salted = hashlib.pbkdf2_hmac(self._hash, self._password, salt, iterations)
        key = self._hmac(salted, b"Client Key")
        final = b"c=biws,r=" + nonce
        signed = b",".join((self._bare, said, final))
        proof = bytes(a ^ b for a, b in zip(key, self._hmac(self._digest(key), signed), strict=True))
        self._signature = self._hmac(self._hmac(salted, b"Server Key"), signed)
        return final + b",p=" + base64.b64encode(proof)

    def verify(self, said: bytes) -> None:
        """The server knows the password as well."""
        shown = base64.b64decode(said.partition(b"v=")[2])
        if self._signature is None or not hmac.compare_digest(shown, self._signature):
            raise ScramError("the server does not know the password that it asks for")

    def _hmac(self, key: bytes, message: bytes) -> bytes:
        return hmac.digest(key, message, self._hash)

    def _digest(self, content: bytes) -> bytes:
        return hashlib.new(self._hash, content).digest()
