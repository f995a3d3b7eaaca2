"""Failed items → a file that can be corrected and pushed again: CSV with the reasons, or NDJSON without them.

NDJSON has one line for each item, as it was sent; pushed as it is, it holds the same items. A row of a CSV that does
not fit its header becomes a JSON array of its cells, or a string of its text: neither is an item until it is corrected.

In a CSV the reasons come first, then the columns of the file that the items came from. Every name and cell is guarded
against being run by a spreadsheet, names that `map=` gave a meaning are replaced by that meaning, and reading such a
file takes all of it back (`app.files.csv_columns`): pushed as it is, without any `map=`, it holds the same items.

Items of JSON and NDJSON have no columns, so they get those of the fields and one for each key. A CSV knows text only:
`null` becomes an empty cell, which leaves a field as it is, and any other value that is no text comes back as text.
White space around a text is left out when it is read again, with a warning.
"""

import csv
import io
import json
import re
from collections.abc import Container, Iterable
from functools import lru_cache
from typing import Any, Final

import msgspec

from app.files.csv_columns import MAX_COLUMNS, NOTES, Columns, guard_key, understand
from app.files.csv_injection import neutralize, restore
from app.files.csv_mapping import ColumnNames, fold
from app.files.csv_reader import DELIMITERS
from app.files.readers import WORDING, Kept
from app.files.tables.table_reader import TABLES
from app.resources.decoding import Noted, Piece, UnreadablePiece
from app.resources.rules import MAX_KEY

_decode_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_text: Final = msgspec.json.Decoder(str).decode
_EMPTY: Final[dict[str, str]] = {}
_encode_json: Final = msgspec.json.Encoder().encode
_LINE_BREAKS: Final = re.compile(rb"[\r\n]+")


class Stored(msgspec.Struct, frozen=True):
    """An item as it was stored, where a destination refused it; `attributes` is a JSON object."""

    fields: dict[str, Any]
    attributes: str


class Texts(msgspec.Struct, frozen=True):
    """An item as a CSV can hold it: its fields by name, anything else by key."""

    fields: dict[str, str]
    extras: dict[str, str]


class Note(msgspec.Struct, frozen=True):
    """Why a row did not make it; `seconds` must pass before it is sent again."""

    code: str
    detail: str
    seconds: int


Source = Piece | Stored
"""What is known of an item: as it was sent, or as it was stored."""
FailedRow = tuple[Note, Source | None, str | None]
"""Why an item failed, what is known of it, and its id, which is used where nothing else is known."""


class TextReader:
    def __init__(self, names: ColumnNames) -> None:
        self.names = names
        self.max_keys = MAX_COLUMNS - len(names.fields)
        """Keys that the items of one file can have, if these are to be columns."""
        counters = ("if_version", "source_version")
        plain = msgspec.defstruct(
            "Plain",
            [
                *((name, int | str if name in counters else str, "") for name in names.fields),
                ("attributes", dict[str, str], {}),
            ],
            forbid_unknown_fields=True,
            gc=False,
        )
        # An item of nothing but text, as the rows of a CSV are.
        self._decode_plain: Any = msgspec.json.Decoder(plain).decode

    def read_source(self, source: Source | None) -> Texts | None:
        """The texts of an item; `None` if nothing is known of it, or it cannot be the row of a CSV."""
        if source is None or isinstance(source, UnreadablePiece):
            return None
        if isinstance(source, Stored):
            fields = {name: _as_text(_encode_json(value)) for name, value in source.fields.items()}
            return Texts(fields, read_stored_keys(source.attributes))
        return self.read_texts(bytes(source.item if isinstance(source, Noted) else source))

    def read_texts(self, piece: bytes) -> Texts | None:
        """The members of an item's JSON; `None` if it is no object, has a name twice, or one that no column can
        have."""
        if _repeats_names(piece):
            return None  # to choose one of them would make a sound item of one that was refused
        try:
            plain: Any = self._decode_plain(piece)
        except (ValueError, RecursionError):
            return _read_members(piece, self.names.by_name)
        fields = {name: str(getattr(plain, name)) for name in self.names.fields}
        return Texts(fields, plain.attributes) if _are_columns(plain.attributes) else None


@lru_cache(maxsize=512)
def texts_of(names: ColumnNames) -> TextReader:
    return TextReader(names)


def _repeats_names(piece: bytes) -> bool:
    try:
        once = msgspec.json.encode(msgspec.json.decode(piece))
        if once.count(b'":') == piece.translate(None, b" \t\r\n").count(b'":'):
            return False
        json.loads(piece, object_pairs_hook=_refuse_repeated)
    except _Repeated:
        return True
    except (ValueError, RecursionError):
        pass
    return False


class _Repeated(Exception):
    """A name appears twice in one object."""


def _refuse_repeated(pairs: list[tuple[str, object]]) -> None:
    if len({name for name, _ in pairs}) < len(pairs):
        raise _Repeated


def _read_members(piece: bytes, known: Container[str]) -> Texts | None:
    fields: dict[str, str] = {}
    extras: dict[str, str] = {}
    keyed: dict[str, str] = {}
    try:
        for name, raw in _decode_members(piece).items():
            value = bytes(raw).strip()
            if name == "attributes" and value[:1] == b"{":
                keyed = {key: _as_text(bytes(one).strip()) for key, one in _decode_members(value).items()}
            elif name in known:
                fields[name] = _as_text(value)
            elif name != "attributes" or value != b"null":
                extras[name] = _as_text(value)
    except (ValueError, RecursionError):
        return None
    extras |= keyed
    return Texts(fields, extras) if _are_columns(extras) else None


def _are_columns(keys: Iterable[str]) -> bool:
    return all(key and len(key) <= MAX_KEY and "\0" not in key for key in keys)


def _as_text(value: bytes) -> str:
    if value[:1] == b'"':
        return _decode_text(value)
    return "" if value == b"null" else value.decode()


def read_stored_keys(attributes: str) -> dict[str, str]:
    """The attributes of a stored record that are text.

    The others need no cell: the record has them, and an empty cell leaves them as they are, while a cell would turn
    them into text.
    """
    members = _decode_members(attributes.encode())
    return {key: _decode_text(value) for key, value in members.items() if bytes(value)[:1] == b'"'}


class NdjsonWriter:
    """One line for each item."""

    def encode_header(self) -> bytes:
        return b""

    def encode_rows(self, rows: Iterable[FailedRow]) -> bytes:
        return b"".join(_encode_line(source, record_id) + b"\n" for _, source, record_id in rows)


def _encode_line(source: Source | None, record_id: str | None) -> bytes:
    if isinstance(source, Noted):
        source = source.item
    if source is None:
        return _encode_json({"id": record_id} if record_id else {})
    if isinstance(source, Stored):
        return _encode_json({**source.fields, "attributes": msgspec.Raw(source.attributes.encode())})
    if isinstance(source, UnreadablePiece):
        return _encode_json(source.text if source.cells is None else source.cells)
    # A line break can only be white space between tokens: inside a JSON string it is escaped.
    return _LINE_BREAKS.sub(b" ", bytes(source))


class CsvWriter:
    """A row for each item; its columns are those of the file that `kept` describes, or the fields and `keys`.

    `deletions`: an item may say `deleted`.
    """

    def __init__(
        self, known: ColumnNames, kept: Kept | None, keys: Iterable[str] = (), *, deletions: bool = False
    ) -> None:
        self._columns: Columns | None = None
        self._texts = texts_of(known)
        names: list[str] = [field for field in known.fields if deletions or field != "deleted"]
        self._cells: list[tuple[str, bool]] = [(field, False) for field in names]
        """Field or key of each cell, and whether it is a key."""
        if kept is not None and kept.family in TABLES and kept.header is not None:
            self._columns = columns = understand(known, kept.header, kept.mapping, WORDING)
            self._cells, names = [], []
            for i, target in enumerate(columns.targets):
                if target is not None:
                    self._cells.append((target, i in columns.attributes))
                    bare = self._bare(kept.header[i])
                    names.append(_name(known, bare, target, is_key=i in columns.attributes))
                if i == columns.both:
                    self._cells.append((known.mail or "", False))
                    names.append(known.mail or "")
        else:
            self._cells += [(key, True) for key in keys]
            names += [guard_key(known, key) for key in keys]
        self._names = [*NOTES, *(neutralize(name) for name in names)]

    @property
    def fixed(self) -> bool:
        """The columns are known beforehand, whatever keys the items have."""
        return self._columns is not None

    def encode_header(self) -> bytes:
        # A reader guesses the delimiter from this line: nothing in it shall look like another one.
        risky = any(sign in name for name in self._names for sign in DELIMITERS if sign != ",")
        return encode_csv([self._names], quoting=csv.QUOTE_ALL if risky else csv.QUOTE_MINIMAL)

    def encode_rows(self, rows: Iterable[FailedRow]) -> bytes:
        return encode_csv(
            [neutralize(note.code), neutralize(note.detail), str(note.seconds), *self._cells_of(source, record_id)]
            for note, source, record_id in rows
        )

    def _cells_of(self, source: Source | None, record_id: str | None) -> list[str]:
        if isinstance(source, UnreadablePiece):
            return self._cells_of_unreadable(source)
        texts = Texts({"id": record_id or ""}, _EMPTY) if source is None else self._texts.read_source(source)
        if texts is None:
            # One cell is always too few: the row fails again until somebody has corrected it.
            piece = source.item if isinstance(source, Noted) else source
            return [neutralize(bytes(piece).decode("utf-8", "replace"))]  # type: ignore[arg-type]
        fields, extras = texts.fields, texts.extras
        return [neutralize((extras if is_key else fields).get(name, "")) for name, is_key in self._cells]

    def _cells_of_unreadable(self, source: UnreadablePiece) -> list[str]:
        """The cells of a row that does not fit its header, without the notes of an earlier file of failed rows."""
        if source.cells is None or self._columns is None:
            return [neutralize(source.text)] if source.text else []
        targets = self._columns.targets
        own = (cell for i, cell in enumerate(source.cells) if i >= len(targets) or targets[i] is not None)
        return [neutralize(self._bare(cell)) for cell in own]

    def _bare(self, cell: str) -> str:
        return restore(cell) if self._columns is not None and self._columns.has_notes else cell


def _name(known: ColumnNames, name: str, target: str, *, is_key: bool) -> str:
    """Of a column, such that it means the same without a `map=`."""
    if is_key:
        return guard_key(known, target)
    return name if fold(name) == fold(target) else target


def encode_csv(rows: Iterable[list[str]], quoting: int = csv.QUOTE_MINIMAL) -> bytes:
    """Rows of a file; what their cells hold is neutral already (`app.files.csv_injection`)."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n", quoting=quoting).writerows(rows)  # type: ignore[arg-type]
    return out.getvalue().encode("utf-8", "replace")
