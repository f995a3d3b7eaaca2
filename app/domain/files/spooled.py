"""How pieces are kept between two processes: the items of a spooled chunk, and the sources of items that failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from app.domain.outcomes import ErrorCode
from app.domain.rows import Piece, Unfit
from app.domain.rules import FieldError


class _Packed(msgspec.Struct, array_like=True):
    """An `Unfit` on its way."""

    errors: list[tuple[str, str, str]]
    contact_id: str | None
    cells: list[str] | None
    text: str


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
    return _encode({index: _pack(piece) for index, piece in sources.items()})


def decode_sources(data: bytes) -> dict[int, Piece]:
    return {index: _unpack(piece) for index, piece in _decode_sources(data).items()}


def _pack(piece: Piece) -> Any:
    if isinstance(piece, Unfit):
        errors = [(str(error.code), error.pointer, error.detail) for error in piece.errors]
        return _Packed(errors, piece.contact_id, piece.cells, piece.text)
    return piece if type(piece) is bytes else bytes(piece)


def _unpack(piece: bytes | _Packed) -> Piece:
    if isinstance(piece, bytes):
        return piece
    errors = [FieldError(ErrorCode(code), pointer, detail) for code, pointer, detail in piece.errors]
    return Unfit(errors, piece.contact_id, piece.cells, piece.text)
