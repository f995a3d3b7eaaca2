"""The text of a cell → the value of a field that is no text.

What cannot be read stays text, and the rules of the field say what is wrong with it. A number that could be read in two
ways is such a text, unless `decimal` says which sign begins its fraction.
"""

import re
from collections.abc import Callable
from datetime import date
from typing import Any, Final

import msgspec

from app.resources.declaration import NUMERIC, Field, Kind

Convert = Callable[[str], Any]

_PLAIN: Final = re.compile(r"[+-]?\d{1,19}(\.\d+)?([eE][+-]?\d{1,3})?", re.ASCII)
_TRUE: Final = frozenset("true t yes y 1 ja wahr oui vrai si sí verdadero".split())
_FALSE: Final = frozenset("false f no n 0 nein falsch non faux falso".split())
_DATE_PARTS: Final = {"YYYY": r"(?P<year>\d{4})", "MM": r"(?P<month>\d{1,2})", "DD": r"(?P<day>\d{1,2})"}
_DATE_PART: Final = re.compile("YYYY|MM|DD")


class Cells(msgspec.Struct, frozen=True):
    """How a file writes numbers and dates. `decimal`: a comma or a point; empty: a point, and none between thousands.
    `date_format`: of YYYY, MM and DD; empty: YYYY-MM-DD."""

    decimal: str = ""
    date_format: str = ""

    def converter(self, field: Field) -> Convert | None:
        """None: the value is text."""
        one = self._one(field)
        if field.many is None:
            return one
        return lambda cell: _read_list(cell, one)

    def _one(self, field: Field) -> Convert | None:
        if field.kind in NUMERIC:
            return self._number_reader(whole=field.kind is Kind.INTEGER)
        if field.kind is Kind.BOOLEAN:
            return _read_boolean
        return self._date_reader() if field.kind is Kind.DATE and self.date_format else None

    def _number_reader(self, *, whole: bool) -> Convert:
        thousands = {"": "", ".": ",", ",": "."}[self.decimal]
        grouped = re.compile(rf"[+-]?\d{{1,3}}([{thousands}'\u00a0\u202f ]\d{{3}})+(?=$|\D)") if thousands else None

        def read(cell: str) -> Any:
            text = cell
            if grouped is not None:
                if found := grouped.match(text):
                    text = re.sub(r"[^\d+-]", "", found[0]) + text[found.end() :]
                if self.decimal == ",":
                    text = "x" if "." in text else text.replace(",", ".")
            if not _PLAIN.fullmatch(text):
                return cell
            number = float(text) if "." in text or "e" in text.lower() else int(text)
            if whole and isinstance(number, float):
                return int(number) if number.is_integer() else cell
            return number

        return read

    def _date_reader(self) -> Convert:
        expression = compile_date_format(self.date_format)

        def read(cell: str) -> str:
            found = expression.fullmatch(cell)
            try:
                return cell if found is None else date(**{k: int(v) for k, v in found.groupdict().items()}).isoformat()
            except ValueError:
                return cell

        return read


def compile_date_format(form: str) -> re.Pattern[str]:
    """
    Raises:
        ValueError: it does not name year, month and day, each once.
    """
    if sorted(_DATE_PART.findall(form)) != ["DD", "MM", "YYYY"]:
        raise ValueError("names YYYY, MM and DD, each once, like DD.MM.YYYY")
    between = map(re.escape, _DATE_PART.split(form))
    parts = [_DATE_PARTS[part] for part in _DATE_PART.findall(form)] + [""]
    return re.compile("".join(text + part for text, part in zip(between, parts, strict=True)), re.ASCII)


def _read_boolean(cell: str) -> Any:
    word = cell.casefold()
    return True if word in _TRUE else False if word in _FALSE else cell


def _read_list(cell: str, one: Convert | None) -> Any:
    """A JSON array, or values separated by semicolons."""
    if cell.startswith("["):
        try:
            return msgspec.json.decode(cell, type=list[Any])
        except (ValueError, RecursionError):
            return cell
    parts = [part for text in cell.split(";") if (part := text.strip())]
    return parts if one is None else [one(part) for part in parts]
