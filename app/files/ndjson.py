"""NDJSON bytes as lines. Nothing is decoded here, so bytes that are no UTF-8 harm their own line alone."""

import codecs
from typing import Final

import msgspec

from app.files.encoding import refuse_foreign
from app.files.json_document import MalformedBody

MAX_LINE: Final = 1_048_576
"""Bytes, the line break not counted."""
_HEAD: Final = 4
_SPACE: Final = b" \t\r"


class NdjsonLine(msgspec.Struct, frozen=True, gc=False):
    """The bytes of a line that is not blank, or `None` for a line longer than `MAX_LINE`."""

    number: int
    data: bytes | None


class NdjsonLines:
    """Bytes → lines; a byte order mark of UTF-8 is tolerated.

    Raises:
        MalformedBody: from `feed` and `finish`, when the file begins like UTF-16 or UTF-32.
    """

    def __init__(self) -> None:
        self.line = 0
        """Lines read so far, blank ones too."""
        self._head: bytes | None = b""
        self._parts: list[bytes] = []
        self._size = 0
        self._skipping = False

    def feed(self, data: bytes) -> list[NdjsonLine]:
        if self._head is not None:
            self._head += data
            if len(self._head) < _HEAD:
                return []
            data = self._begin(self._head)
        pieces = data.split(b"\n")
        rest = pieces.pop()
        if not pieces:
            self._keep(rest)
            return []
        begun = self._end(pieces[0])
        found = [] if begun is None else [begun]
        number, self.line = self.line, self.line + len(pieces) - 1
        for piece in pieces[1:]:
            number += 1
            if len(piece) > MAX_LINE and len(piece.removesuffix(b"\r")) > MAX_LINE:
                found.append(NdjsonLine(number, None))
            elif piece and piece.strip(_SPACE):  # most blank lines are empty
                found.append(NdjsonLine(number, piece.removesuffix(b"\r")))
        self._keep(rest)
        return found

    def finish(self) -> list[NdjsonLine]:
        if self._head is not None:
            return [*self.feed(self._begin(self._head)), *self.finish()]
        line = self._end(b"") if self._parts or self._skipping else None
        return [] if line is None else [line]

    def _begin(self, head: bytes) -> bytes:
        self._head = None
        refuse_foreign(head)
        wide = any(head[at : at + 3 : 2] == b"\0\0" for at in (0, 1))
        if wide or head[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            raise MalformedBody("the body is UTF-16 or UTF-32; NDJSON must be sent as UTF-8", 0)
        return head.removeprefix(codecs.BOM_UTF8)

    def _keep(self, rest: bytes) -> None:
        self._size += len(rest)
        if self._size > MAX_LINE + 1:  # the last byte may be half of a line break
            self._skipping = True
            self._parts.clear()
        elif rest:
            self._parts.append(rest)

    def _end(self, piece: bytes) -> NdjsonLine | None:
        self._keep(piece)
        data = b"".join(self._parts).removesuffix(b"\r")
        skipped = self._skipping or len(data) > MAX_LINE
        self._parts, self._size, self._skipping = [], 0, False
        self.line += 1
        if skipped:
            return NdjsonLine(self.line, None)
        return NdjsonLine(self.line, data) if data.strip(_SPACE) else None
