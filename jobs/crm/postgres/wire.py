"""As much of PostgreSQL's protocol as an adapter needs: version 3.0, chapter "Frontend/Backend Protocol" of its manual.

The server is whatever a tenant names, so nothing that it says is believed: lengths are bounded, and so is the work for
the password's hash. asyncpg, which the service uses for its own database, ends the whole process at some malformed
messages, and computes whatever hash a server asks for.
"""

import asyncio
import hashlib
import stringprep
import struct
import unicodedata
from typing import Any, Final

from jobs.crm.scram import Scram, ScramError

MAX_ANSWER_BYTES: Final = 8_000_000
"""Of one call."""
_VERSION: Final = 196_608
TLS_REQUEST: Final = struct.pack("!ii", 8, 80_877_103)
_PASSWORD: Final = b"p"
_SCRAM: Final = b"SCRAM-SHA-256"
_BOOL, _INTEGERS = 16, frozenset({20, 21, 23})
"""Types of results that are no texts."""

Row = dict[str, Any]


class ServerError(Exception):
    """What PostgreSQL says; fields of appendix "Error and Notice Message Fields"."""

    def __init__(self, fields: dict[str, str]) -> None:
        super().__init__(fields.get("M", ""))
        self.code = fields.get("C", "")
        self.message = fields.get("M", "")
        self.detail = fields.get("D", "")
        self.column = fields.get("c")
        self.function = fields.get("R")


class MalformedError(Exception):
    """What came is not this protocol, or more than anybody needs; in words for people."""


class UnsupportedError(Exception):
    """The server asks for a way of authentication that there is not."""


class Wire:
    """One connection. Besides its own errors its methods raise whatever a stream raises."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, encrypted: bool) -> None:
        self._reader = reader
        self._writer = writer
        self.encrypted = encrypted
        self.server = ""
        """Its version, such as `18.1`."""
        self.left = MAX_ANSWER_BYTES
        """Bytes that it may still answer."""
        self._tag = ""

    async def start(self, user: str, password: str, database: str) -> None:
        """Log in."""
        wanted = {"user": user, "database": database, "application_name": "tranche", "client_encoding": "UTF8"}
        pairs = b"".join(_text(part) for pair in wanted.items() for part in pair) + b"\0"
        self._writer.write(struct.pack("!ii", len(pairs) + 8, _VERSION) + pairs)
        scram = Scram(_prepare(password).encode())  # PostgreSQL takes the user of the startup message
        while True:
            kind, body = await self._receive()
            if kind == b"R":
                try:
                    self._authenticate(struct.unpack_from("!i", body)[0], body[4:], user, password, scram)
                except ScramError as error:
                    raise MalformedError(str(error)) from error
            elif kind == b"Z":
                return
            elif kind != b"K":
                raise _odd(kind)

    def _authenticate(self, wanted: int, body: bytes, user: str, password: str, scram: Scram) -> None:
        match wanted:
            case 0:
                return
            case 3 if self.encrypted:
                self._send(_PASSWORD, _text(password))
            case 5:
                inner = _md5(password.encode() + user.encode())
                self._send(_PASSWORD, _text("md5" + _md5(inner.encode() + body[:4])))
            case 10 if _SCRAM in body.split(b"\0"):
                first = scram.first()
                self._send(_PASSWORD, _SCRAM + b"\0" + struct.pack("!i", len(first)) + first)
            case 11:
                self._send(_PASSWORD, scram.last(body))
            case 12:
                scram.verify(body)
            case _:
                raise UnsupportedError

    async def execute(self, script: str) -> str:
        """Statements whose rows nobody needs; the tag of the last one, such as `COMMIT`."""
        self._send(b"Q", _text(script))
        await self._answers()
        return self._tag

    async def fetch(self, query: str, *arguments: str) -> list[Row]:
        """The rows of a statement with parameters, in one exchange; and so behind a pooler as well."""
        self._send(b"P", b"\0" + _text(query) + struct.pack("!h", 0))
        values = b"".join(struct.pack("!i", len(value := text.encode())) + value for text in arguments)
        self._send(b"B", b"\0\0" + struct.pack("!hh", 0, len(arguments)) + values + struct.pack("!h", 0))
        self._send(b"D", b"P\0")
        self._send(b"E", b"\0" + struct.pack("!i", 0))
        self._send(b"S", b"")
        return await self._answers()

    async def _answers(self) -> list[Row]:
        await self._writer.drain()
        self._tag = ""
        columns: list[tuple[str, int]] = []
        rows: list[Row] = []
        error: ServerError | None = None
        while True:
            kind, body = await self._receive(raising=False)
            if kind == b"Z":
                break
            if kind == b"E":
                error = error or _error(body)
            elif kind == b"T":
                columns = _columns(body)
            elif kind == b"D":
                rows.append(_row(body, columns))
            elif kind == b"C":
                self._tag = body.rstrip(b"\0").decode()
            elif kind not in _DONE:
                raise _odd(kind)
        if error is not None:
            raise error
        return rows

    async def _receive(self, *, raising: bool = True) -> tuple[bytes, bytes]:
        """The next message that is not for information only."""
        while True:
            head = await self._reader.readexactly(5)
            length = int.from_bytes(head[1:]) - 4
            self.left -= length + 5
            if length < 0 or length >= 1 << 31:
                raise MalformedError("what it answered is not PostgreSQL's protocol")
            if self.left < 0:
                raise MalformedError(f"the answer is larger than {MAX_ANSWER_BYTES} bytes")
            kind, body = head[:1], await self._reader.readexactly(length)
            if kind == b"S":
                name, value, _ = body.split(b"\0")
                if name == b"server_version":
                    self.server = value[:40].decode().partition(" ")[0]
            elif kind == b"E" and raising:
                raise _error(body)
            elif kind not in (b"N", b"A"):
                return kind, body

    def _send(self, kind: bytes, body: bytes) -> None:
        self._writer.write(kind + struct.pack("!i", len(body) + 4) + body)

    @property
    def closed(self) -> bool:
        return self._writer.is_closing() or self._reader.at_eof() or self._reader.exception() is not None

    def close(self) -> None:
        """Take leave of a server that has nothing to do for us."""
        if not self._writer.is_closing():
            self._send(b"X", b"")
            self._writer.close()

    def abort(self) -> None:
        self._writer.transport.abort()


_DONE: Final = frozenset({b"1", b"2", b"n", b"I", b"s"})


def _prepare(password: str) -> str:
    """SASLprep (RFC 4013); what it forbids is taken as it is, as libpq does."""
    if password.isascii():
        return password
    mapped = (" " if stringprep.in_table_c12(c) else c for c in password if not stringprep.in_table_b1(c))
    return unicodedata.normalize("NFKC", "".join(mapped))


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()  # the protocol's, of servers before version 10


def _text(text: str) -> bytes:
    content = text.encode()
    if b"\0" in content:
        raise MalformedError("a NUL character cannot be sent")
    return content + b"\0"


def _error(body: bytes) -> ServerError:
    fields = [field for field in body.split(b"\0") if field]
    return ServerError({chr(field[0]): field[1:].decode(errors="replace") for field in fields})


def _columns(body: bytes) -> list[tuple[str, int]]:
    """Name and type of each."""
    (count,), at = struct.unpack_from("!h", body), 2
    found: list[tuple[str, int]] = []
    for _ in range(count):
        end = body.index(b"\0", at)
        found.append((body[at:end].decode(), struct.unpack_from("!ihi", body, end + 1)[2]))
        at = end + 19
    return found


def _row(body: bytes, columns: list[tuple[str, int]]) -> Row:
    (count,), at = struct.unpack_from("!h", body), 2
    if count != len(columns):
        raise MalformedError("what it answered is not PostgreSQL's protocol")
    row: Row = {}
    for name, kind in columns:
        (length,), at = struct.unpack_from("!i", body, at), at + 4
        row[name] = None
        if length >= 0:
            value = body[at : at + length].decode()
            row[name] = value == "t" if kind == _BOOL else int(value) if kind in _INTEGERS else value
            at += length
    return row


def _odd(kind: bytes) -> MalformedError:
    return MalformedError(f"what it answered ({kind!r}) is not what it was asked")
