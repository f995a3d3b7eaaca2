"""What is left of rows that name erased records. Pure."""

import hashlib
import hmac
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec

from app.files.staging_codec import decode_sources, encode_sources
from app.kit.compression import pack, unpack
from app.resources.declaration import Kind, Resource
from app.resources.decoding import Noted, UnreadablePiece
from app.resources.documents import Document
from app.vocabulary import outcomes_wire
from app.vocabulary.outcomes_wire import FieldError

NOTE: Final = "erased"
"""In place of words that may repeat what was erased."""
_SHORTEST: Final = 6
"""Characters of an id within a text, or of a value: a shorter one may mean anything."""
_IDENTIFYING: Final = (Kind.EMAIL, Kind.PHONE)


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


def clean_outcomes(
    packed: bytes, sources: bytes | None, ids: Collection[str], values: Collection[str]
) -> tuple[bytes, bytes | None] | None:
    """The outcomes of a chunk and its failed rows without these records; `None`: it has none of them.

    A row without an id is one of theirs if it has one of the values that are known of them.
    """
    found = outcomes_wire.decode_items(unpack(packed))
    rows = decode_sources(unpack(sources)) if sources else {}
    hit = {outcome.index for outcome in found if outcome.id in ids}
    # A row that could not be read has no id of its own, but may have one of these in its text.
    nameless = {outcome.index for outcome in found if outcome.id is None}
    for index in rows.keys() - hit:
        if _mentions(rows[index], ids) or (index in nameless and _has(_text(rows[index]), values)):
            hit.add(index)
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
    if isinstance(piece, UnreadablePiece) and (
        piece.record_id in ids or any(cell in ids for cell in piece.cells or ())
    ):
        return True
    return _has(_text(piece), [f'"{record_id}"' for record_id in ids])


def _text(piece: Any) -> str:
    if isinstance(piece, UnreadablePiece):
        return "\n".join([piece.text, *(piece.cells or ())])
    item = piece.item if isinstance(piece, Noted) else bytes(piece)
    return item.decode(errors="replace")


def _has(text: str, parts: Iterable[str]) -> bool:
    return any(part in text for part in parts)


def clean_event(body: str, type: str, ids: Collection[str]) -> str | None:
    """The event without these records; `None`: it has none of them."""
    event = msgspec.json.decode(body)
    hit = [item for item in event["data"].get("items") or () if item.get("id") in ids and item.get("type") == type]
    for item in hit:
        item.update(id=None, detail=NOTE)
    return msgspec.json.encode(event).decode() if hit else None


def identifying_values(resource: Resource, documents: Iterable[Document]) -> set[str]:
    """E-mail addresses and phone numbers: what they say identifies a person."""
    names = [field.name for field in resource.fields if field.kind in _IDENTIFYING]
    found = {text for document in documents for name in names for text in _texts(document.get(name))}
    return {text for text in found if len(text) >= _SHORTEST}


class Words(msgspec.Struct, frozen=True):
    """By what a text may name erased records."""

    ids: Collection[str]
    values: Sequence[str]
    """The longest first."""

    def found_in(self, texts: Iterable[Any]) -> "Words":
        """Those of them that occur: with few of them many texts are cleaned quickly."""
        joined = "\n".join(text for one in texts for text in _texts(one))
        return Words(
            {record_id for record_id in self.ids if record_id in joined},
            [value for value in self.values if value in joined],
        )

    def clean(self, value: Any) -> Any:
        """JSON in which no text has one of the values, is one of the ids, or has one as a word that is too long to mean
        anything else."""
        if isinstance(value, str):
            return self._clean(value)
        if isinstance(value, list):
            return [self.clean(one) for one in value]
        if isinstance(value, dict):
            return {name: self.clean(one) for name, one in value.items()}
        return value

    def _clean(self, text: str) -> str:
        if text in self.ids:
            return NOTE
        for record_id in self.ids:
            if len(record_id) >= _SHORTEST and record_id in text:
                text = re.sub(rf"(?<!\w){re.escape(record_id)}(?!\w)", NOTE, text)
        for value in self.values:
            text = text.replace(value, NOTE)
        return text


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one)
