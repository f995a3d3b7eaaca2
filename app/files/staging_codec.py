"""How raw items are stored between two processes: the items of a staged chunk, and the sources of items that failed."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple

import msgspec

from app.files.workbook.addresses import Grid
from app.resources.decoding import Noted, Piece, UnreadablePiece
from app.vocabulary.outcomes_wire import FieldError, ItemWarning
from app.vocabulary.states import ErrorCode, WarningCode


class _Packed(msgspec.Struct, array_like=True, gc=False):
    """An `Unfit` or a `Noted` on its way."""

    errors: list[tuple[str, str, str]]
    record_id: str | None
    cells: list[str] | None
    text: str
    item: bytes | None = None
    """Of a `Noted`, with its `warnings`."""
    warnings: list[tuple[str, str, str]] = []


class _Numbered(msgspec.Struct, omit_defaults=True):
    pieces: list[bytes | _Packed]
    lines: list[int]
    """A place and its line, for the first piece and for each one that does not begin in the line after the one before:
    most rows take one line."""
    grid: Grid | None = None


class Staged(NamedTuple):
    """The pieces of a chunk, and where they were: their lines, and of a workbook the cells."""

    pieces: list[Piece]
    lines: Sequence[int]
    grid: Grid | None


_encode: Final = msgspec.msgpack.Encoder().encode
_decode_pieces: Final = msgspec.msgpack.Decoder(list[bytes | _Packed] | _Numbered).decode
_decode_sources: Final = msgspec.msgpack.Decoder(dict[int, bytes | _Packed]).decode


def encode_pieces(pieces: Sequence[Piece], lines: Sequence[int] = (), grid: Grid | None = None) -> bytes:
    """MessagePack; to be compressed by whoever stores it. `lines`: where each piece begins, where there are lines."""
    packed = [_pack(piece) for piece in pieces]
    return _encode(_Numbered(packed, _shorten(lines), grid) if lines else packed)


def decode_pieces(data: bytes) -> Staged:
    stored = _decode_pieces(data)
    if isinstance(stored, list):
        return Staged([_unpack(piece) for piece in stored], (), None)
    lines = _lengthen(stored.lines, len(stored.pieces))
    return Staged([_unpack(piece) for piece in stored.pieces], lines, stored.grid)


def _shorten(lines: Sequence[int]) -> list[int]:
    places = [0, *(place for place, (a, b) in enumerate(pairwise(lines), 1) if b != a + 1)]
    return [number for place in places for number in (place, lines[place])]


def _lengthen(short: list[int], count: int) -> list[int]:
    places, firsts = short[::2], short[1::2]
    return [
        number
        for (start, end), line in zip(pairwise([*places, count]), firsts, strict=True)
        for number in range(line, line + end - start)
    ]


def encode_sources(sources: Mapping[int, Piece]) -> bytes:
    """Pieces by item index."""
    return _encode({index: _pack(p.item if isinstance(p, Noted) else p) for index, p in sources.items()})


def decode_sources(data: bytes) -> dict[int, Piece]:
    return {index: _unpack(piece) for index, piece in _decode_sources(data).items()}


def _pack(piece: Piece) -> Any:
    if isinstance(piece, UnreadablePiece):
        errors = [(str(error.code), error.pointer, error.detail) for error in piece.errors]
        return _Packed(errors, piece.record_id, piece.cells, piece.text)
    if isinstance(piece, Noted):
        warnings = [(str(one.code), one.pointer, one.detail) for one in piece.warnings]
        return _Packed([], None, None, "", piece.item, warnings)
    return piece if type(piece) is bytes else bytes(piece)


def _unpack(piece: bytes | _Packed) -> Piece:
    if isinstance(piece, bytes):
        return piece
    if piece.item is not None:
        return Noted(
            piece.item, [ItemWarning(WarningCode(c), pointer, detail) for c, pointer, detail in piece.warnings]
        )
    errors = [FieldError(ErrorCode(code), pointer, detail) for code, pointer, detail in piece.errors]
    return UnreadablePiece(errors, piece.record_id, piece.cells, piece.text)
