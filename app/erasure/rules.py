"""What is left of rows that name erased records. Pure."""

import hashlib
import hmac
import re
from collections.abc import Collection
from typing import Any, Final

import msgspec

from app.files.staging_codec import decode_sources, encode_sources
from app.kit.compression import pack, unpack
from app.resources.decoding import Noted, UnreadablePiece
from app.vocabulary import outcomes_wire
from app.vocabulary.outcomes_wire import FieldError

NOTE: Final = "erased"
"""In place of words that may repeat what was erased."""
_WORD: Final = 6


class _Named(msgspec.Struct):
    id: str | None = None


class _Answer(msgspec.Struct):
    items: list[_Named] = []


_read_answer: Final = msgspec.json.Decoder(_Answer).decode


def id_hash(key: bytes, type_id: int, record_id: str) -> bytes:
    return hmac.digest(key, f"{type_id}\0{record_id}".encode(), hashlib.sha256)


def names(answer: bytes, ids: Collection[str]) -> bool:
    """Whether a stored answer has an item of one of them."""
    return any(item.id in ids for item in _read_answer(unpack(answer)).items)


def clean_outcomes(packed: bytes, sources: bytes | None, ids: Collection[str]) -> tuple[bytes, bytes | None] | None:
    """The outcomes of a chunk and its failed rows without these records; `None`: it has none of them."""
    found = outcomes_wire.decode_items(unpack(packed))
    rows = decode_sources(unpack(sources)) if sources else {}
    hit = {outcome.index for outcome in found if outcome.id in ids}
    # A row that could not be read has no id of its own, but may have one of these in its text.
    hit |= {index for index, piece in rows.items() if index not in hit and _mentions(piece, ids)}
    if not hit:
        return None
    for outcome in found:
        if outcome.index in hit:
            outcome.id = None
            if outcome.errors:
                outcome.errors = [FieldError(error.code, "", NOTE) for error in outcome.errors]
            outcome.warnings = msgspec.UNSET
    left = {index: piece for index, piece in rows.items() if index not in hit}
    return pack(outcomes_wire.encode_items(found)), pack(encode_sources(left)) if left else None


def _mentions(piece: Any, ids: Collection[str]) -> bool:
    if isinstance(piece, UnreadablePiece):
        return piece.record_id in ids or any(cell in ids for cell in piece.cells or ()) or _within(piece.text, ids)
    item = piece.item if isinstance(piece, Noted) else bytes(piece)
    return _within(item.decode(errors="replace"), ids)


def _within(text: str, ids: Collection[str]) -> bool:
    return any(f'"{record_id}"' in text for record_id in ids)


def clean_event(body: str, type: str, ids: Collection[str]) -> str | None:
    """The event without these records; `None`: it has none of them."""
    event = msgspec.json.decode(body)
    hit = [item for item in event["data"].get("items") or () if item.get("id") in ids and item.get("type") == type]
    for item in hit:
        item.update(id=None, detail=NOTE)
    return msgspec.json.encode(event).decode() if hit else None


def clean_words(value: Any, ids: Collection[str]) -> Any:
    """JSON in which no text is one of these ids, or has one as a word that is too long to mean anything else."""
    if isinstance(value, str):
        if value in ids:
            return NOTE
        for record_id in ids:
            if len(record_id) >= _WORD and record_id in value:
                value = re.sub(rf"(?<!\w){re.escape(record_id)}(?!\w)", NOTE, value)
        return value
    if isinstance(value, list):
        return [clean_words(one, ids) for one in value]
    if isinstance(value, dict):
        return {name: clean_words(one, ids) for name, one in value.items()}
    return value
