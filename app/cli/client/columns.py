"""What each column of a CSV file means: a field of the contact, an attribute, or our own note to be skipped."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from typing import Any, Final

import msgspec

from app.cli.client.errors import UsageError

FIELDS: Final = (
    "id", "email", "first_name", "last_name", "phone", "company", "if_version", "source_version",
)  # fmt: skip
INTEGERS: Final = frozenset({"if_version", "source_version"})
REQUIRED: Final = ("id", "email")
NOTES: Final = ("error_code", "error_detail", "retry_after_seconds")
"""The columns that `--failed-out` adds; a file that has all three is such a file, and they are skipped."""

_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,18}\Z", re.ASCII)


def fold(name: str) -> str:
    """The form in which column names are compared: "First Name", "first-name" and "FIRST_NAME" are one."""
    return re.sub(r"[\s_-]+", "", name).casefold()


_BY_FOLD: Final = {fold(field): field for field in FIELDS}


def parse_mapping(pairs: tuple[str, ...]) -> dict[str, str]:
    """`("Customer Id=id",)` as `{"Customer Id": "id"}`.

    Raises:
        UsageError: a pair without `=`, or two for one column.
    """
    mapping: dict[str, str] = {}
    for pair in pairs:
        source, equals, target = pair.rpartition("=")
        if not (equals and source.strip() and target.strip()):
            raise UsageError(
                f'--map {pair!r}: write it as --map "Column=field", for example --map "Customer Id=id"'
            )
        if source in mapping:
            raise UsageError(f"--map names the column {source!r} twice")
        mapping[source] = target.strip()
    return mapping


class Columns(msgspec.Struct):
    """The header, understood. `targets[i]` is the field or attribute of cell i; `None` where the cell is a note."""

    header: list[str]
    targets: list[str | None]
    attributes: frozenset[int]
    has_notes: bool = False
    _fields: list[tuple[int, str]] = []
    _extras: list[tuple[int, str]] = []

    def __post_init__(self) -> None:
        # Sorted out once: `build` runs for every row.
        named = [(i, target) for i, target in enumerate(self.targets) if target is not None]
        self.has_notes = len(named) < len(self.targets)
        self._fields = [(i, target) for i, target in named if i not in self.attributes]
        self._extras = [(i, target) for i, target in named if i in self.attributes]

    def build(self, cells: list[str]) -> dict[str, Any]:
        """The item of a row; an empty cell is absent, so that it leaves the field as it is."""
        item: dict[str, Any] = {target: cells[i] for i, target in self._fields if cells[i]}
        for target in INTEGERS & item.keys():
            if _INTEGER.match(item[target]):
                item[target] = int(item[target])
        if attributes := {target: cells[i] for i, target in self._extras if cells[i]}:
            item["attributes"] = attributes
        return item


def understand(header: list[str], mapping: dict[str, str]) -> Columns:
    """Give every column its meaning.

    Raises:
        UsageError: a column without a name, two for one field, a `--map` without its column, no `id` or no `email`.
    """
    _check_names(header)
    notes = set(NOTES) if set(NOTES) <= set(header) else set()
    renamed = {_find(source, header): target for source, target in mapping.items()}
    targets: list[str | None] = []
    attributes = set()
    mapped_fields = {_BY_FOLD.get(fold(target)) for target in renamed.values()}
    for i, name in enumerate(header):
        if name in notes:
            targets.append(None)
            continue
        field = _BY_FOLD.get(fold(renamed.get(name, name)))
        if field in mapped_fields and name not in renamed:
            field = None  # what --map says of a field outranks a column that merely has its name
        if field is None:
            attributes.add(i)
        targets.append(field or renamed.get(name, name))
    _check_targets(header, targets, attributes)
    return Columns(header, targets, frozenset(attributes))


def _check_names(header: list[str]) -> None:
    for i, name in enumerate(header, start=1):
        if not name.strip():
            raise UsageError(
                f"column {i} of {len(header)} has no name; give it one in the first line of the file"
            )
    twice = [repr(name) for name, count in Counter(header).items() if count > 1]
    if twice:
        raise UsageError(
            f"the header names {', '.join(twice)} more than once; rename one of them in the file"
        )


def _find(source: str, header: list[str]) -> str:
    if source in header:
        return source
    alike = [name for name in header if fold(name) == fold(source)]
    if len(alike) == 1:
        return alike[0]
    raise UsageError(
        f"--map names the column {source!r}, which the file does not have{_suggest(source, header)}"
    )


def _suggest(wanted: str, header: list[str]) -> str:
    near = difflib.get_close_matches(fold(wanted), [fold(name) for name in header], n=1, cutoff=0.6)
    names = [name for name in header if fold(name) in near]
    if names:
        return f"; did you mean {names[0]!r}?"
    shown = ", ".join(header[:12]) + (", …" if len(header) > 12 else "")
    return f"; its columns are: {shown}"


def _check_targets(header: list[str], targets: list[str | None], attributes: set[int]) -> None:
    places: dict[tuple[str, bool], list[str]] = {}
    for i, target in enumerate(targets):
        if target is not None:
            places.setdefault((target, i in attributes), []).append(header[i])
    for (target, _), names in places.items():
        if len(names) > 1:
            first, second = names[:2]
            raise UsageError(
                f"the columns {first!r} and {second!r} would both fill {target!r}; "
                f'keep one of them under another name, for example --map "{second}=other {target}"'
            )
    missing = [field for field in REQUIRED if (field, False) not in places]
    if missing:
        raise UsageError("; ".join(_explain_missing(field, header) for field in missing))


def _explain_missing(field: str, header: list[str]) -> str:
    hints = {
        "id": ("customerid", "contactid", "userid", "key", "externalid"),
        "email": ("mail", "emailaddress"),
    }
    candidates = [n for n in header if fold(n) in hints[field]]
    candidates += [n for n in header if fold(n).endswith(field) or fold(n).startswith(field)]
    candidates += [n for n in header if fold(field) in fold(n)]
    candidates += [n for n in header if difflib.SequenceMatcher(None, fold(n), field).ratio() >= 0.6]
    if candidates:
        return (
            f'no column {field!r}: did you mean {candidates[0]!r}? Then add --map "{candidates[0]}={field}"'
        )
    shown = ", ".join(header[:12]) + (", …" if len(header) > 12 else "")
    return f'no column {field!r}: say which one it is with --map "Column={field}"; the columns are: {shown}'
