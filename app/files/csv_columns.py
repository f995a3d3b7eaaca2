"""What each column of a CSV file means: a field of the record, an attribute, or our own note to be skipped.

The command line and the service read files by these same rules; only the way to spell a remedy is each one's own.
"""

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, Final

import msgspec

from app.files import csv_headers
from app.files.csv_cells import Cells, Convert
from app.files.csv_injection import restore
from app.files.csv_mapping import BOTH, CLIP, IGNORED, KEY_PREFIX, ColumnNames, ColumnsError, Wording, fold, quote
from app.resources.declaration import Kind
from app.resources.rules import MAX_KEY, pointer
from app.vocabulary.outcomes_wire import ItemWarning
from app.vocabulary.states import WarningCode

NOTES: Final = ("error_code", "error_detail", "retry_after_seconds")
"""The columns that a file of failed rows has in addition; a file that has all three is one, and they are skipped.

What else was done to such a file is undone as well: the apostrophes of `app.files.csv_injection`, in cells and names,
and `KEY_PREFIX`.
"""

MAX_COLUMNS: Final = 2_000
SAMPLE: Final = 20
"""Rows whose values are looked at before a column is recommended for a field."""

_SHOWN: Final = 12
_MOST_WARNINGS: Final = 20
_SPREADSHEET: Final = re.compile(r'="|[+-]?[0-9](?:[.,][0-9]+)?[eE][+-]?[0-9]+$')
_USUAL: Final = Cells()


class HeaderError(ColumnsError):
    """The columns cannot be used, so no row was looked at; `detail` names them and the remedy."""


class MissingFields(HeaderError):
    """No column fills a field that every item must have. `missing` are the fields, `names` the columns."""

    def __init__(
        self, known: ColumnNames, missing: list[str], names: list[str], filled: Iterable[str], wording: Wording
    ) -> None:
        self._explain = partial(explain_missing, known, missing, names, {*filled}, wording)
        super().__init__(self._explain([]))

    def advise(self, rows: Sequence[Sequence[str]]) -> HeaderError:
        """The same with a remedy that these first rows speak for."""
        return HeaderError(self._explain(rows))


def guard_key(known: ColumnNames, name: str) -> str:
    """An attribute's name as a column of a file of failed rows: alone it could be a field or a note, or lose spaces."""
    taken = fold(name) in known.by_fold or name in NOTES or name.startswith(KEY_PREFIX) or name != name.strip()
    taken = taken or known.headers.find_meaning(name) in known.headers.certain
    return KEY_PREFIX + name if taken else name


def _note_spreadsheet(field: str, value: str) -> ItemWarning:
    if value.startswith("="):
        detail = f"{quote(value)} is a spreadsheet's formula and was used as it is; write the plain value"
        return ItemWarning(WarningCode.FORMULA, pointer(field), detail)
    detail = f"{quote(value)} looks like a number that a spreadsheet shortened; format the column as text"
    return ItemWarning(WarningCode.NUMBER_FORMAT, pointer(field), detail)


class Columns(msgspec.Struct):
    """The header, understood. `targets[i]` is the field or attribute of cell i; `None` where the cell is left out, for
    it is a note (`has_notes`) or was ignored.

    `header` is as it was sent, without unnamed columns at its end: a trailing delimiter makes them. Rows
    have it or not, and nothing but emptiness in the `spare` cells.
    """

    header: list[str]
    targets: list[str | None]
    attributes: frozenset[int]
    spare: int = 0
    has_notes: bool = False
    both: int | None = None
    """The column that is `id`, by its target, and `mail` as well."""
    mail: str = ""
    convert: dict[str, Convert] = {}
    """Of the fields that are no text."""
    written: tuple[str, ...] = ()
    """Fields that spreadsheets spoil, because they take them for numbers."""
    _fields: list[tuple[int, str]] = []
    _extras: list[tuple[int, str]] = []
    _typed: list[tuple[str, Convert]] = []

    def __post_init__(self) -> None:
        # Sorted out once: `read` runs for every row.
        named = [(i, target) for i, target in enumerate(self.targets) if target is not None]
        self._fields = [(i, target) for i, target in named if i not in self.attributes]
        if self.both is not None:
            self._fields.append((self.both, self.mail))
        self._extras = [(i, target) for i, target in named if i in self.attributes]
        self._typed = [(target, self.convert[target]) for _, target in self._fields if target in self.convert]

    def describe(self) -> list[tuple[str, str]]:
        """Each column and what became of it: a field, `attribute NAME`, or `ignored`."""
        meanings = []
        for i, (name, target) in enumerate(zip(self.header, self.targets, strict=True)):
            word = "ignored" if target is None else f"attribute {target}" if i in self.attributes else target
            meanings.append((name, f"id, {self.mail}" if i == self.both else word))
        return meanings

    def fault(self, cells: list[str]) -> str | None:
        """Why a row does not fit the header, or None."""
        width = len(self.header)
        if len(cells) == width:
            return None
        if width < len(cells) <= width + self.spare and not any(cells[width:]):
            return None
        problem = f"the row has {len(cells)} cells, the header {len(self.header)}"
        if len(cells) > len(self.header):
            problem += "; is a value with the delimiter in it not quoted?"
        return problem

    def read(self, cells: list[str]) -> tuple[dict[str, Any], list[ItemWarning]]:
        """The item of a row, and what was noticed on the way. White space around cells is left out; an empty cell is
        absent, so that it leaves the field as it is."""
        warnings: list[ItemWarning] = []
        if self.has_notes:
            cells = [restore(cell) for cell in cells]
        trimmed = [*map(str.strip, cells)]
        if trimmed != cells:
            warnings = self._note_trimmed(cells, trimmed)
            cells = trimmed
        item = self._build(cells)
        for field in self.written:
            value = item.get(field)
            if value is not None and _SPREADSHEET.match(value):
                warnings.append(_note_spreadsheet(field, value))
        return item, warnings

    def _note_trimmed(self, cells: list[str], trimmed: list[str]) -> list[ItemWarning]:
        """Of each cell that held more than white space."""
        warnings: list[ItemWarning] = []
        for i, (cell, short) in enumerate(zip(cells, trimmed, strict=False)):
            target = self.targets[i] if i < len(self.targets) else None
            if short and short != cell and target is not None and len(warnings) < _MOST_WARNINGS:
                place = pointer("attributes", target) if i in self.attributes else pointer(target)
                warnings.append(ItemWarning(WarningCode.TRIMMED, place, "white space around the value was left out"))
        return warnings

    def _build(self, cells: list[str]) -> dict[str, Any]:
        item: dict[str, Any] = {target: cell for i, target in self._fields if (cell := cells[i])}
        for target, convert in self._typed:
            if target in item:
                item[target] = convert(item[target])
        if self._extras and (attributes := {target: cell for i, target in self._extras if (cell := cells[i])}):
            item["attributes"] = attributes
        return item


def understand(
    known: ColumnNames, header: list[str], mapping: dict[str, str], wording: Wording, cells: Cells = _USUAL
) -> Columns:
    """Give every column its meaning.

    Raises:
        HeaderError: a column without a name before one that has one, two for one field, a renaming without its
            column, a field that every item needs without one, an attribute where the type has none, too many or too
            long names.
    """
    width = max((i for i, name in enumerate(header, start=1) if name.strip()), default=0)
    header, spare = header[:width], len(header) - width
    returned = set(NOTES) <= set(header)
    names = [restore(name) for name in header] if returned else header
    prefix = KEY_PREFIX if returned else ""
    _check_names(names, prefix)
    folds = [fold(name) for name in names]
    renamed = {
        _find(source, names, folds, wording): target
        for source, target in mapping.items()
        if not (returned and _is_kept(known, source, target, folds))
    }
    targets: list[str | None] = []
    attributes = set()
    mapped_fields = {known.by_fold.get(fold(target)) for target in renamed.values() if target != BOTH}
    if BOTH in renamed.values():
        mapped_fields |= {*known.required}
    for i, name in enumerate(names):
        target = renamed.get(name, name)
        if (returned and name in NOTES) or target == IGNORED:
            targets.append(None)
            continue
        field = "id" if target == BOTH else known.by_fold.get(folds[i] if target is name else fold(target))
        if field in mapped_fields and name not in renamed:
            field = None  # what was said of a field outranks a column that merely has its name
        if field is None:
            attributes.add(i)
        targets.append(field or (_key(target, KEY_PREFIX) if name in renamed else _key(name, prefix)))
    taken = {targets[i] for i in range(len(names)) if i not in attributes} | mapped_fields
    free = [name if i in attributes and name not in renamed else "" for i, name in enumerate(names)]
    for i, field in known.headers.recognize(free, {field for field in taken if field}).items():
        targets[i] = field
        attributes.discard(i)
    both = _find_both(known, names, targets, attributes, renamed)
    _check_targets(known, names, targets, attributes, wording, both)
    # A file of failed rows has its values as items have them.
    cells = _USUAL if returned else cells
    convert = {name: one for name, field in known.by_name.items() if (one := cells.converter(field)) is not None}
    written = tuple(name for name, field in known.by_name.items() if name == "id" or field.kind is Kind.PHONE)
    return Columns(header, targets, frozenset(attributes), spare, returned, both, known.mail or "", convert, written)


def _find_both(
    known: ColumnNames, names: list[str], targets: list[str | None], attributes: set[int], renamed: dict[str, str]
) -> int | None:
    """The column that is `id` and `email`: as was said, or because the id was taken from the only e-mail column."""
    fields = {target: i for i, target in enumerate(targets) if target and i not in attributes}
    at = fields.get("id")
    if at is None or known.mail is None or known.mail in fields or names[at] not in renamed:
        return None
    return at if renamed[names[at]] == BOTH or known.headers.find_meaning(names[at]) == known.mail else None


def _key(name: str, prefix: str) -> str:
    """The attribute of a column; the white space around a name is nobody's intention, unless an attribute has it."""
    return name.removeprefix(prefix) if prefix and name.startswith(prefix) else name.strip()


def _is_kept(known: ColumnNames, source: str, target: str, folds: list[str]) -> bool:
    """Whether a file of failed rows has had this renaming done already."""
    if target == IGNORED:
        return fold(source) not in folds
    if target in ("id", BOTH) and set(map(fold, known.required)) <= set(folds):
        return True
    return fold(source) not in folds and fold(target) in folds


def _list(header: list[str]) -> str:
    names = [name if name.isprintable() and len(name) <= CLIP else quote(name) for name in header[:_SHOWN]]
    return ", ".join(names) + (", …" if len(header) > _SHOWN else "")


def _check_names(header: list[str], prefix: str) -> None:
    if len(header) - (len(NOTES) if prefix else 0) > MAX_COLUMNS:
        raise HeaderError(f"the header has {len(header)} columns; at most {MAX_COLUMNS} are allowed")
    for i, name in enumerate(header, start=1):
        if not name.strip():
            raise HeaderError(f"column {i} of {len(header)} has no name; give it one in the first line of the file")
        if len(name.removeprefix(prefix)) > MAX_KEY:
            raise HeaderError(
                f"column {i}, {quote(name)}, has a name of {len(name)} characters; at most {MAX_KEY} are allowed"
            )
    twice = [quote(name) for name, count in Counter(header).items() if count > 1]
    if twice:
        raise HeaderError(
            f"the header names {', '.join(twice[:_SHOWN])} more than once; rename one of them in the file"
        )


def _find(source: str, header: list[str], folds: list[str], wording: Wording) -> str:
    if source in header:
        return source
    wanted = fold(source)
    alike = [name for name, folded in zip(header, folds, strict=True) if folded == wanted]
    if len(alike) == 1:
        return alike[0]
    raise HeaderError(
        f"{wording.option} names the column {quote(source)}, which the file does not have{_suggest(source, header)}"
    )


def _suggest(wanted: str, header: list[str]) -> str:
    near = difflib.get_close_matches(fold(wanted[:CLIP]), [fold(name[:CLIP]) for name in header], n=1, cutoff=0.6)
    names = [name for name in header if fold(name[:CLIP]) in near]
    if names:
        return f"; did you mean {quote(names[0])}?"
    return f"; its columns are: {_list(header)}"


def _check_targets(
    known: ColumnNames,
    header: list[str],
    targets: list[str | None],
    attributes: set[int],
    wording: Wording,
    both: int | None,
) -> None:
    if attributes and not known.attributes:
        unknown = ", ".join(quote(header[i]) for i in sorted(attributes)[:_SHOWN])
        raise HeaderError(
            f"there are no fields for the columns {unknown}, and this type has no attributes; say which field each is "
            f"with {wording.show('Column', 'field')}, or leave it out with {wording.ignore}"
        )
    places: dict[tuple[str, bool], list[str]] = {}
    for i, target in enumerate(targets):
        if target is not None:
            places.setdefault((target, i in attributes), []).append(header[i])
    for (target, _), names in places.items():
        if len(names) > 1:
            first, second = names[:2]
            raise HeaderError(
                f"the columns {quote(first)} and {quote(second)} would both fill {quote(target)}; "
                f"keep one of them under another name, for example {wording.show(second, f'other {target}')}"
            )
    filled = {target for target, is_key in places if not is_key} | ({known.mail or ""} if both is not None else set())
    missing = [field for field in known.required if field not in filled and "deleted" not in filled]
    if missing:
        raise MissingFields(known, missing, header, filled, wording)


def explain_missing(
    known: ColumnNames,
    missing: list[str],
    header: list[str],
    filled: set[str],
    wording: Wording,
    rows: Sequence[Sequence[str]],
) -> str:
    """What is missing, and a remedy that works: one that the names and the values of the first rows speak for."""
    values = [[row[i] if i < len(row) else "" for row in rows[:SAMPLE]] for i in range(len(header))]
    meanings = [known.headers.find_meaning(name) for name in header]

    def find(name: str) -> str | None:
        field = known.by_name[name]
        fitting = [i for i, seen in enumerate(values) if csv_headers.fits(field, seen)]
        found = next((header[i] for i in fitting if meanings[i] == name), None)
        return header[fitting[0]] if found is None and rows and fitting and field.kind is Kind.EMAIL else found

    mail = find(known.mail) if known.mail else None
    key = find("id")
    if missing == [*known.required] and key is None and mail is not None:
        target = "id" if known.headers.find_meaning(mail) == known.mail else BOTH
        return (
            f"no column 'id' and no column {known.mail!r}: {quote(mail)} can be both, if nothing else identifies a "
            f"record; then add {wording.show(mail, target)}"
        )
    faults = []
    for name in missing:
        best = key if name == "id" else mail if name == known.mail else find(name)
        if best is not None:
            faults.append(f"no column {name!r}: did you mean {quote(best)}? Then add {wording.show(best, name)}")
        elif name == "id" and known.mail in filled and mail is not None:
            faults.append(
                f"no column 'id': {quote(mail)} can be the id as well, if nothing else identifies a record; then add "
                f"{wording.show(mail, 'id')}"
            )
        else:
            faults.append(
                f"no column {name!r}: say which one it is with {wording.show('Column', 'field')}; "
                f"the columns are: {_list(header)}"
            )
    return "; ".join(faults)
