"""What each column of a CSV file means: a field of the contact, an attribute, or our own note to be skipped.

The command line and the service read files by these same rules; only the way to spell a remedy is each one's own.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from app.domain.files.formulas import restore
from app.domain.rules import MAX_KEY

FIELDS: Final = (
    "id", "email", "first_name", "last_name", "phone", "company", "if_version", "source_version",
)  # fmt: skip
INTEGERS: Final = frozenset({"if_version", "source_version"})
REQUIRED: Final = ("id", "email")
NOTES: Final = ("error_code", "error_detail", "retry_after_seconds")
"""The columns that a file of failed rows has in addition; a file that has all three is one, and they are skipped.

What else was done to such a file is undone as well: the apostrophes of `app.domain.files.formulas`, in cells and names,
and `KEY_PREFIX`.
"""

KEY_PREFIX: Final = "attributes."
"""In a file of failed rows it marks an attribute whose bare name would mean something else: `attributes.email`."""

MAX_COLUMNS: Final = 2_000

_SHOWN: Final = 12
_CLIP: Final = 60
_INTEGER: Final = re.compile(r"\+?[0-9]{1,19}|-[0-9]{1,18}", re.ASCII)


class HeaderError(ValueError):
    """The columns cannot be used, so no row was looked at; `detail` names them and the remedy."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class MappingError(ValueError):
    """A renaming of columns makes no sense by itself."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class Wording(msgspec.Struct, frozen=True):
    """How a user renames columns: the option's name, what separates column and field, and a whole example."""

    option: str
    separator: str
    show: Callable[[str, str], str]


def guard_key(name: str) -> str:
    """An attribute's name as a column of a file of failed rows: alone it could be a field or a note, or lose spaces."""
    taken = fold(name) in _BY_FOLD or name in NOTES or name.startswith(KEY_PREFIX) or name != name.strip()
    return KEY_PREFIX + name if taken else name


def fold(name: str) -> str:
    """The form in which column names are compared: "First Name", "first-name" and "FIRST_NAME" are one."""
    return re.sub(r"[\s_-]+", "", name).casefold()


_BY_FOLD: Final = {fold(field): field for field in FIELDS}


def parse_mapping(pairs: Iterable[str], wording: Wording) -> dict[str, str]:
    """`("Customer Id=id",)` as `{"Customer Id": "id"}`; the last separator counts.

    Raises:
        MappingError: a pair without separator, or two for one column.
    """
    mapping: dict[str, str] = {}
    for pair in pairs:
        source, separator, target = pair.rpartition(wording.separator)
        if not (separator and source.strip() and target.strip()):
            raise MappingError(
                f"{wording.option} {_quote(pair)}: write it as {wording.show('Column', 'field')}, "
                f"for example {wording.show('Customer Id', 'id')}"
            )
        if source in mapping:
            raise MappingError(f"{wording.option} names the column {_quote(source)} twice")
        mapping[source] = target.strip()
    return mapping


class Columns(msgspec.Struct):
    """The header, understood. `targets[i]` is the field or attribute of cell i; `None` where the cell is a note.

    `header` stands as it was sent, but for columns without a name at its end: a delimiter too many makes them. Rows
    have it or not, and nothing but emptiness in the `spare` cells.
    """

    header: list[str]
    targets: list[str | None]
    attributes: frozenset[int]
    spare: int = 0
    has_notes: bool = False
    _fields: list[tuple[int, str]] = []
    _extras: list[tuple[int, str]] = []
    _counters: list[str] = []

    def __post_init__(self) -> None:
        # Sorted out once: `build` runs for every row.
        named = [(i, target) for i, target in enumerate(self.targets) if target is not None]
        self.has_notes = len(named) < len(self.targets)
        self._fields = [(i, target) for i, target in named if i not in self.attributes]
        self._extras = [(i, target) for i, target in named if i in self.attributes]
        self._counters = [target for _, target in self._fields if target in INTEGERS]

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

    def build(self, cells: list[str]) -> dict[str, Any]:
        """The item of a row; an empty cell is absent, so that it leaves the field as it is."""
        if self.has_notes:
            cells = [restore(cell) for cell in cells]
        item: dict[str, Any] = {target: cell for i, target in self._fields if (cell := cells[i])}
        for target in self._counters:
            if target in item and _INTEGER.fullmatch(item[target]):
                item[target] = int(item[target])
        if self._extras and (
            attributes := {target: cell for i, target in self._extras if (cell := cells[i])}
        ):
            item["attributes"] = attributes
        return item


def understand(header: list[str], mapping: dict[str, str], wording: Wording) -> Columns:
    """Give every column its meaning.

    Raises:
        HeaderError: a column without a name before one that has one, two for one field, a renaming without its
            column, no `id` or no `email`, too many or too long names.
    """
    width = max((i for i, name in enumerate(header, start=1) if name.strip()), default=0)
    header, spare = header[:width], len(header) - width
    returned = set(NOTES) <= set(header)
    names = [restore(name) for name in header] if returned else header
    prefix = KEY_PREFIX if returned else ""
    _check_names(names, prefix)
    renamed = {
        _find(source, names, wording): target
        for source, target in mapping.items()
        if not (returned and _stands(source, target, names))
    }
    targets: list[str | None] = []
    attributes = set()
    mapped_fields = {_BY_FOLD.get(fold(target)) for target in renamed.values()}
    for i, name in enumerate(names):
        if returned and name in NOTES:
            targets.append(None)
            continue
        field = _BY_FOLD.get(fold(renamed.get(name, name)))
        if field in mapped_fields and name not in renamed:
            field = None  # what was said of a field outranks a column that merely has its name
        if field is None:
            attributes.add(i)
        targets.append(field or renamed.get(name) or _key(name, prefix))
    _check_targets(names, targets, attributes, wording)
    return Columns(header, targets, frozenset(attributes), spare)


def _key(name: str, prefix: str) -> str:
    """The attribute of a column; the white space around a name is nobody's intention, unless an attribute has it."""
    return name.removeprefix(prefix) if prefix and name.startswith(prefix) else name.strip()


def _stands(source: str, target: str, names: list[str]) -> bool:
    """Whether a file of failed rows has had this renaming done already."""
    folds = {fold(name) for name in names}
    return fold(source) not in folds and fold(target) in folds


def _quote(name: str) -> str:
    return repr(name if len(name) <= _CLIP else name[:_CLIP] + "…")


def _list(header: list[str]) -> str:
    names = [name if name.isprintable() and len(name) <= _CLIP else _quote(name) for name in header[:_SHOWN]]
    return ", ".join(names) + (", …" if len(header) > _SHOWN else "")


def _check_names(header: list[str], prefix: str) -> None:
    if len(header) - (len(NOTES) if prefix else 0) > MAX_COLUMNS:
        raise HeaderError(f"the header has {len(header)} columns; at most {MAX_COLUMNS} are allowed")
    for i, name in enumerate(header, start=1):
        if not name.strip():
            raise HeaderError(
                f"column {i} of {len(header)} has no name; give it one in the first line of the file"
            )
        if len(name.removeprefix(prefix)) > MAX_KEY:
            raise HeaderError(
                f"column {i}, {_quote(name)}, has a name of {len(name)} characters; at most {MAX_KEY} are allowed"
            )
    twice = [_quote(name) for name, count in Counter(header).items() if count > 1]
    if twice:
        raise HeaderError(
            f"the header names {', '.join(twice[:_SHOWN])} more than once; rename one of them in the file"
        )


def _find(source: str, header: list[str], wording: Wording) -> str:
    if source in header:
        return source
    alike = [name for name in header if fold(name) == fold(source)]
    if len(alike) == 1:
        return alike[0]
    raise HeaderError(
        f"{wording.option} names the column {_quote(source)}, which the file does not have{_suggest(source, header)}"
    )


def _suggest(wanted: str, header: list[str]) -> str:
    near = difflib.get_close_matches(
        fold(wanted[:_CLIP]), [fold(name[:_CLIP]) for name in header], n=1, cutoff=0.6
    )
    names = [name for name in header if fold(name[:_CLIP]) in near]
    if names:
        return f"; did you mean {_quote(names[0])}?"
    return f"; its columns are: {_list(header)}"


def _check_targets(
    header: list[str], targets: list[str | None], attributes: set[int], wording: Wording
) -> None:
    places: dict[tuple[str, bool], list[str]] = {}
    for i, target in enumerate(targets):
        if target is not None:
            places.setdefault((target, i in attributes), []).append(header[i])
    for (target, _), names in places.items():
        if len(names) > 1:
            first, second = names[:2]
            raise HeaderError(
                f"the columns {_quote(first)} and {_quote(second)} would both fill {_quote(target)}; "
                f"keep one of them under another name, for example {wording.show(second, f'other {target}')}"
            )
    missing = [field for field in REQUIRED if (field, False) not in places]
    if missing:
        raise HeaderError("; ".join(_explain_missing(field, header, wording) for field in missing))


_HINTS: Final = {
    "id": ("customerid", "contactid", "userid", "key", "externalid"),
    "email": ("mail", "emailaddress"),
}


def _explain_missing(field: str, header: list[str], wording: Wording) -> str:
    candidates = [n for n in header if fold(n) in _HINTS[field]]
    candidates += [n for n in header if fold(n).endswith(field) or fold(n).startswith(field)]
    candidates += [n for n in header if fold(field) in fold(n)]
    candidates += [n for n in header if difflib.SequenceMatcher(None, fold(n[:_CLIP]), field).ratio() >= 0.6]
    if candidates:
        best = candidates[0]
        return f"no column {field!r}: did you mean {_quote(best)}? Then add {wording.show(best, field)}"
    return (
        f"no column {field!r}: say which one it is with {wording.show('Column', field)}; "
        f"the columns are: {_list(header)}"
    )
