"""How raw items are stored between two processes: the items of a staged chunk, and the sources of items that failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from app.domain.outcomes import ErrorCode, WarningCode
from app.domain.rows import Noted, Piece, Unfit
from app.domain.rules import FieldError, ItemWarning


class _Packed(msgspec.Struct, array_like=True, gc=False):
    """An `Unfit` or a `Noted` on its way."""

    errors: list[tuple[str, str, str]]
    contact_id: str | None
    cells: list[str] | None
    text: str
    item: bytes | None = None
    """Of a `Noted`, with its `warnings`."""
    warnings: list[tuple[str, str, str]] = []


_encode: Final = msgspec.msgpack.Encoder().encode
_decode_pieces: Final = msgspec.msgpack.Decoder(list[bytes | _Packed]).decode
_decode_sources: Final = msgspec.msgpack.Decoder(dict[int, bytes | _Packed]).decode


def encode_pieces(pieces: Sequence[Piece]) -> bytes:
    """MessagePack; to be compressed by whoever stores it."""
    return _encode([_pack(piece) for piece in pieces])


def decode_pieces(data: bytes) -> list[Piece]:
    return [_unpack(piece) for piece in _decode_pieces(data)]


def encode_sources(sources: Mapping[int, Piece]) -> bytes:
    """Pieces by item index."""
    return _encode({index: _pack(p.item if isinstance(p, Noted) else p) for index, p in sources.items()})


def decode_sources(data: bytes) -> dict[int, Piece]:
    return {index: _unpack(piece) for index, piece in _decode_sources(data).items()}


def _pack(piece: Piece) -> Any:
    if isinstance(piece, Unfit):
        errors = [(str(error.code), error.pointer, error.detail) for error in piece.errors]
        return _Packed(errors, piece.contact_id, piece.cells, piece.text)
    if isinstance(piece, Noted):
        warnings = [(str(one.code), one.pointer, one.detail) for one in piece.warnings]
        return _Packed([], None, None, "", piece.item, warnings)
    return piece if type(piece) is bytes else bytes(piece)


def _unpack(piece: bytes | _Packed) -> Piece:
    if isinstance(piece, bytes):
        return piece
    if piece.item is not None:
        return Noted(
            piece.item,
            [ItemWarning(WarningCode(c), pointer, detail) for c, pointer, detail in piece.warnings],
        )
    errors = [FieldError(ErrorCode(code), pointer, detail) for code, pointer, detail in piece.errors]
    return Unfit(errors, piece.contact_id, piece.cells, piece.text)
