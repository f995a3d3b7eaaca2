"""Pieces of a file gathered into chunks, each of which is later written in one transaction."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest

import msgspec

from app.files.readers import Portion
from app.resources.decoding import Noted, Piece, UnreadablePiece


class Chunk(msgspec.Struct, frozen=True):
    """Some pieces of a file that follow one another; the first is the `first_index`-th, from 0."""

    first_index: int
    pieces: list[Piece]
    lines: list[int] = []
    """As in `Portion`."""


class Chunker:
    """Cuts at `items` pieces or `size` bytes of them, whichever comes first; a larger piece is a chunk of its own."""

    def __init__(self, *, items: int, size: int) -> None:
        self._most_items = items
        self._most_bytes = size
        self._pieces: list[Piece] = []
        self._lines: list[int] = []
        self._bytes = 0
        self._first = 0

    @property
    def count(self) -> int:
        """Pieces so far."""
        return self._first + len(self._pieces)

    def feed(self, portion: Portion) -> Iterator[Chunk]:
        """The chunks that are full; the pieces are taken while they are asked for."""
        for piece, line in zip_longest(portion.pieces, portion.lines):
            size = measure(piece)
            if self._pieces and (len(self._pieces) >= self._most_items or self._bytes + size > self._most_bytes):
                yield self._cut()
            self._pieces.append(piece)
            self._bytes += size
            if line is not None:
                self._lines.append(line)

    def finish(self) -> Chunk | None:
        """What is left, if anything."""
        return self._cut() if self._pieces else None

    def _cut(self) -> Chunk:
        chunk = Chunk(self._first, self._pieces, self._lines)
        self._first += len(self._pieces)
        self._pieces, self._lines, self._bytes = [], [], 0
        return chunk


def measure(piece: Piece) -> int:
    """Bytes, about: for limits of what is held."""
    if isinstance(piece, UnreadablePiece):
        return len(piece.text) + sum(map(len, piece.cells or ())) + 100
    return len(piece.item) + 100 if isinstance(piece, Noted) else len(piece)
