"""The bytes of an item → a row that can be stored, or a rejection with all its errors.

The usual item is decoded once, by msgspec, with its constraints checked on the way. Whatever that refuses is
read again by `app.resources.diagnosis`, which knows the same rules and words for every fault.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType

from app.resources import diagnosis, rules
from app.resources.declaration import FLOAT_BOUND, MAX_ID, MAX_INT, Resource, define
from app.resources.documents import ALL_ATTRIBUTES, ATTRIBUTE
from app.vocabulary.outcomes_wire import FieldError, ItemWarning
from app.vocabulary.states import ErrorCode

_Counter = Annotated[int, Meta(ge=0, le=MAX_INT)]
_IfVersion = Annotated[_Counter, Meta(description="The version the record must have; 0: it must not exist.")]
_SourceVersion = Annotated[_Counter, Meta(description="An item older than the stored one is superseded.")]
_Deleted = Annotated[bool, Meta(description="True: the record is removed, here and at the destinations.")]
_Key = Annotated[str, Meta(min_length=1, max_length=rules.MAX_KEY)]
_Value = (
    str
    | Annotated[int, Meta(ge=-MAX_INT, le=MAX_INT)]
    | Annotated[float, Meta(gt=-FLOAT_BOUND, lt=FLOAT_BOUND)]
    | bool
    | list[Any]
    | dict[str, Any]
    | None
)
_Attributes = Annotated[
    dict[_Key, _Value],
    Meta(description="Merged key by key: a null value removes the key, null instead of an object all keys."),
]
_Id = Annotated[str, Meta(min_length=1, max_length=MAX_ID, description="The business key.")]


def define_item(resource: Resource) -> Any:
    own: list[tuple[Any, ...]] = [("attributes", _Attributes | UnsetType | None, UNSET)] if resource.attributes else []
    return define(
        f"{resource.title}Item",
        f"A {resource.singular} as it is sent. Absent leaves a field as it is, null clears it; an unknown field fails "
        "the item.",
        [
            ("id", _Id),
            *resource.as_item(),
            *own,
            ("deleted", _Deleted | UnsetType | None, UNSET),
            ("if_version", _IfVersion | UnsetType | None, UNSET),
            ("source_version", _SourceVersion | UnsetType | None, UNSET),
        ],
        module=__name__,
        kw_only=True,
        forbid_unknown_fields=True,
        gc=False,
    )


item_of: Final = lru_cache(maxsize=512)(define_item)


class _Deletion(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """An item that says nothing but that its record is removed."""

    id: _Id
    deleted: bool
    if_version: _Counter | UnsetType | None = UNSET
    source_version: _Counter | UnsetType | None = UNSET


class Accepted(msgspec.Struct, gc=False):
    """An item that can be stored: no NUL, valid UTF-8, every number within 64 bits.

    `document` has what it names, as it is stored (`app.resources.documents`); `cleared` the names without a value,
    and `attributes` where all of them are to be cleared. `deleted`: the record is removed, and the document empty.
    `if_version` 0 asks that the record does not exist; None for it and for `source_version` means not given.
    `size` is in bytes as sent.
    """

    index: int
    record_id: str
    document: bytes
    cleared: list[str] | None
    source_version: int | None
    if_version: int | None
    size: int
    deleted: bool = False


class Rejected(msgspec.Struct, frozen=True, gc=False):
    """An item that fails and would fail again; `record_id` is None when no sound id could be read."""

    index: int
    record_id: str | None
    errors: list[FieldError]


class UnreadablePiece(msgspec.Struct, frozen=True, gc=False):
    """Takes the position of a part of a file that cannot become an item, and says why."""

    errors: list[FieldError]
    record_id: str | None = None
    """Where one could be read."""
    cells: list[str] | None = None
    """Of a CSV row that does not fit its header, as they were sent."""
    text: str = ""
    """What was sent where not even cells could be read."""


class Noted(msgspec.Struct, frozen=True):
    """An item, and what was noticed about the row of the file that it was made of."""

    item: bytes
    warnings: list[ItemWarning]


Piece = bytes | msgspec.Raw | UnreadablePiece | Noted
"""The JSON of an item, whatever it is worth, or the reason why there is none."""


class _Named(msgspec.Struct, gc=False):
    id: str


_TINY: Final = 16
"""Bytes of items that are examined once, however often they come: a batch can have thousands of one."""
_EXAMINED_WEIGHT: Final = 64

_members: Final = msgspec.structs.astuple
_decode_id = msgspec.json.Decoder(_Named).decode
_decode_deletion = msgspec.json.Decoder(_Deletion).decode
_DELETION_NAMES: Final = _Deletion.__struct_fields__
_encode = msgspec.json.Encoder().encode
_encode_lines = msgspec.json.Encoder().encode_lines
_BEGIN, _END = b"{}"
_OPEN: Final = b'"attributes":{'
_NAMED: Final = f'"{ATTRIBUTE}'.encode()
_ESCAPED_NUL: Final = rb"\u0000"


def key_order(pieces: Sequence[bytes | msgspec.Raw]) -> list[int] | None:
    """Indexes of the items in the order of their ids, before the items are read.

    None if an id cannot be read so quickly, or appears twice.
    """
    try:
        ids = [_decode_id(piece).id for piece in pieces]
    except (ValueError, RecursionError):
        return None
    if len(set(ids)) < len(ids):
        return None
    return sorted(range(len(ids)), key=ids.__getitem__)


def read_ids(pieces: Sequence[Piece]) -> list[str | None]:
    """The id of each piece; None where it has none that could be stored.

    An item that is accepted in the end has the id that is read here.
    """
    ids: list[str | None] = []
    for piece in pieces:
        if type(piece) is Noted:
            piece = piece.item
        try:
            found = piece.record_id if type(piece) is UnreadablePiece else _decode_id(piece).id  # type: ignore[arg-type]
        except (ValueError, RecursionError):
            found = None
        ids.append(None if found is None or "\0" in found else found)
    return ids


class Laborious(Exception):
    """More items must be read thoroughly than there is time for now."""


class Effort:
    """How much was read thoroughly, and what came of it: that takes many times as long as the usual reading."""

    def __init__(self, most: int | None = None) -> None:
        """`most`: beyond this `spent`, `Laborious` is raised."""
        self.most = most
        self.spent = 0
        """Bytes that were read thoroughly, and some for each item."""
        self._findings: dict[int | bytes, diagnosis.Finding] = {}

    def examine(self, index: int, raw: bytes, examine: Callable[[bytes], diagnosis.Finding]) -> diagnosis.Finding:
        key = raw if len(raw) <= _TINY else index
        finding = self._findings.get(key)
        if finding is None:
            self.spent += len(raw) + _EXAMINED_WEIGHT
            if self.most is not None and self.spent > self.most:
                raise Laborious
            finding = self._findings[key] = examine(raw)
        return finding


class ItemReader:
    def __init__(self, resource: Resource) -> None:
        item: Any = item_of(resource)
        self.resource = resource
        self._item = item
        self._decode = msgspec.json.Decoder(item).decode
        self._decode_list: Callable[[bytes], list[Any]] = msgspec.json.Decoder(list[item]).decode
        self._fields = item.__struct_fields__
        self._sound = [
            (attrgetter(field.name), *sound)
            for field in resource.fields
            if (sound := rules.sound_values(field)) is not None
        ]
        self._attributes = resource.attributes
        self._examine = diagnosis.Examiner(resource).examine
        # Files with many shorter items shall not take long.
        self._shortest = len(b'{"id":"1"}' if resource.required == ("id",) else b'{"id":"1","deleted":true}')

    def read(
        self,
        raws: Sequence[bytes | msgspec.Raw],
        *,
        max_item_bytes: int,
        indexes: Sequence[int] | None = None,
        effort: Effort | None = None,
    ) -> list[Accepted | Rejected]:
        """One row an item, in order: what is wrong with an item is said in its `Rejected`.

        `indexes` are the items' places in the request, where they are not simply counted from 0.

        Raises:
            Laborious: the effort would become too much.
        """
        effort = effort or Effort()
        places = range(len(raws)) if indexes is None else indexes
        pieces = [bytes(raw) for raw in raws]
        # Most batches have no backslash at all, and one look at all of it is cheaper than a thousand at its parts.
        together = b",".join(pieces)
        rows: list[Accepted | Rejected] = []
        if pieces and max(map(len, pieces)) <= max_item_bytes and self._read_together(places, pieces, together, rows):
            return rows
        escaped_nul = b"\\" in together and _ESCAPED_NUL in together
        for index, raw in zip(places, pieces, strict=True):
            if len(raw) > max_item_bytes:
                rows.append(_too_large(index, raw, max_item_bytes))
            elif len(raw) < self._shortest or (escaped_nul and _ESCAPED_NUL in raw):
                rows.append(self._read_thoroughly(index, raw, effort))
            else:
                rows.append(self._read_one(index, raw) or self._read_thoroughly(index, raw, effort))
        return rows

    def _read_thoroughly(self, index: int, raw: bytes, effort: Effort) -> Accepted | Rejected:
        finding = effort.examine(index, raw, self._examine)
        if finding.errors:
            return Rejected(index, finding.record_id, finding.errors)
        members = finding.members
        if members.get("deleted"):
            return _make_deletion(index, members["id"], members.get("source_version"), members.get("if_version"), raw)
        return self._make_row(index, self._item(**members), len(raw))

    def _read_together(
        self, indexes: Sequence[int], raws: Sequence[bytes], together: bytes, rows: list[Accepted | Rejected]
    ) -> bool:
        """Read usual items all at once, `together` joined by commas: sound ones, whose text has no backslash, null,
        array or nested object. False if there may be others: then nothing was read.

        Whatever `_read_one` checks of one item is checked here of all of them.
        """
        if b"\\" in together or b"null" in together or b"[" in together:
            return False
        try:
            items = self._decode_list(b"[" + together + b"]")
        except (ValueError, RecursionError):
            return False
        count = len(raws)
        if len(items) != count or not all(raw[0] == _BEGIN and raw[-1] == _END for raw in raws):
            # As all begin and end like objects, and there is no array, the commas between two of them are between
            # items.
            return False
        ids = [item.id for item in items]
        joined = "".join(ids)
        if joined.split() != [joined]:
            return False
        for read, all_sound, _ in self._sound:
            if not all_sound([value for value in map(read, items) if value is not UNSET]):
                return False
        attributes = [item.attributes for item in items] if self._attributes else [UNSET] * count
        source_versions = [item.source_version for item in items]
        if_versions = [item.if_version for item in items]
        for item in items:
            if item.deleted is not UNSET:
                return False
            item.id = item.source_version = item.if_version = UNSET
        text = _encode_lines(items)
        if text.count(b"{") != 2 * count - attributes.count(UNSET):
            return False
        # The same texts are in both, escaped in neither: what the items have more of are names that came twice.
        left_out = 3 * count - source_versions.count(UNSET) - if_versions.count(UNSET) + joined.count(":")
        if together.count(b":") != text.count(b":") + left_out:
            return False
        lines = map(_name_attributes, text.split(b"\n"), attributes)
        for index, raw, line, record_id, source_version, if_version in zip(
            indexes, raws, lines, ids, source_versions, if_versions, strict=False
        ):
            rows.append(
                Accepted(
                    index,
                    record_id,
                    line,
                    None,
                    None if source_version is UNSET else source_version,
                    None if if_version is UNSET else if_version,
                    len(raw),
                )
            )
        return True

    def _read_one(self, index: int, raw: bytes) -> Accepted | None:
        """The row of a sound item without an escaped NUL; None if only the thorough reading can decide."""
        try:
            item = self._decode(raw)
        except (ValueError, RecursionError):  # msgspec's errors and UnicodeDecodeError are ValueErrors
            return _read_deletion(index, raw)
        if item.id != item.id.strip() or item.deleted:
            return None
        for read, _, sound in self._sound:
            value = read(item)
            if value is not UNSET and value is not None and not sound(value):
                return None
        names = len(self._fields) - _members(item).count(UNSET)
        attributes = item.attributes if self._attributes else UNSET
        row = self._make_row(index, item, len(raw))
        if type(attributes) is dict:
            nested = len(attributes)
            if b"[" in row.document or row.document.rfind(b"{") > 0:
                counted = rules.count_names(attributes)
                if counted is None:
                    return None
                nested = counted
            names += nested
        return row if raw.count(b":") == names or _has_names(raw, names) else None

    def _make_row(self, index: int, item: Any, size: int) -> Accepted:
        """Uses the item up: what is left of it is its document."""
        record_id, attributes = item.id, item.attributes if self._attributes else UNSET
        source_version = None if item.source_version is UNSET else item.source_version
        if_version = None if item.if_version is UNSET else item.if_version
        item.id = item.deleted = item.source_version = item.if_version = UNSET
        if self._attributes:
            item.attributes = UNSET
        document = _encode(item)
        if attributes:
            keys = _encode({ATTRIBUTE + key: value for key, value in attributes.items()})
            document = keys if document == b"{}" else document[:-1] + b"," + keys[1:]
        cleared = None
        if attributes is None or b"null" in document:
            cleared = [name for name, value in zip(self._fields, _members(item), strict=True) if value is None]
            if attributes is None:
                cleared.append(ALL_ATTRIBUTES)
            elif attributes is not UNSET:
                cleared += [ATTRIBUTE + key for key, value in attributes.items() if value is None]
        return Accepted(index, record_id, document, cleared or None, source_version, if_version, size)


@lru_cache(maxsize=512)
def reader_of(resource: Resource) -> ItemReader:
    return ItemReader(resource)


def _name_attributes(line: bytes, given: Any) -> bytes:
    """The document of an item whose JSON this is, but for its id: no text of it has a quote, and no value is an object
    or an array, so a comma and a quote are the start of a key."""
    if given is UNSET:
        return line
    head, _, tail = line.partition(_OPEN)
    return head + _NAMED + tail[1:-1].replace(b',"', b"," + _NAMED) if given else head.rstrip(b",") + b"}"


def _read_deletion(index: int, raw: bytes) -> Accepted | None:
    try:
        item = _decode_deletion(raw)
    except (ValueError, RecursionError):
        return None
    names = len(_DELETION_NAMES) - _members(item).count(UNSET)
    if not item.deleted or item.id != item.id.strip() or not _has_names(raw, names):
        return None
    return _make_deletion(index, item.id, item.source_version, item.if_version, raw)


def _make_deletion(index: int, record_id: str, source_version: Any, if_version: Any, raw: bytes) -> Accepted:
    source = None if source_version is UNSET else source_version
    expected = None if if_version is UNSET else if_version
    return Accepted(index, record_id, b"{}", None, source, expected, len(raw), True)


def _has_names(raw: bytes, names: int) -> bool:
    """Whether this valid JSON has no more names than the `names` different ones that decoding left.

    Every name ends in a quote and a colon, with nothing but white space between them, so there are at most as
    many names as such pairs. Text can hold more of them (`\\":`); the thorough reading decides then.
    """
    return raw.translate(None, b" \t\r\n").count(b'":') == names


def _too_large(index: int, raw: bytes, max_item_bytes: int) -> Rejected:
    detail = f"the item has {len(raw)} bytes; at most {max_item_bytes} are allowed; send less in attributes"
    return Rejected(index, diagnosis.read_id(raw), [FieldError(ErrorCode.ITEM_TOO_LARGE, "", detail)])
