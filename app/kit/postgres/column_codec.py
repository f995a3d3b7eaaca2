"""How a thousand values travel to PostgreSQL: a column as one text, which `split_column` takes apart there.

asyncpg's array codec spends a microsecond on each value, a third of all that an import costs the API; joining and
splitting cost a twentieth of it.
"""

import secrets
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

_USUAL: Final = ("\x1f", "\x1e")
"""Separator and mark of NULL: ASCII's own for the purpose, and rare in what people import."""

_encode: Final = msgspec.json.Encoder().encode


class Texts(msgspec.Struct, frozen=True):
    """Columns of equal length, joined. A column without any value is None."""

    columns: list[str | None]
    separator: str
    null: str


def texts(columns: Sequence[Sequence[str | None]]) -> Texts:
    """Join columns; marks that occur in the values are replaced by ones that do not."""
    separator, null = _USUAL
    while True:
        joined = [_join(column, separator, null) for column in columns]
        if all(_is_sound(column, text, separator, null) for column, text in zip(columns, joined, strict=True)):
            return Texts(joined, separator, null)
        token = secrets.token_hex(8)
        separator, null = f"\x1f{token}\x1f", f"\x1e{token}\x1e"


def numbers(values: Iterable[int | None]) -> str | None:
    """An array literal, for `$n::text::bigint[]`; None for a column without any value."""
    column = list(values)
    if column.count(None) == len(column):
        return None
    return "{" + _encode(column)[1:-1].decode() + "}"


def _join(column: Sequence[str | None], separator: str, null: str) -> str | None:
    missing = column.count(None)
    if missing == len(column):
        return None
    if not missing:
        return separator.join(column)  # type: ignore[arg-type]  # no None is among them
    return separator.join([null if value is None else value for value in column])


def _is_sound(column: Sequence[str | None], joined: str | None, separator: str, null: str) -> bool:
    return joined is None or (joined.count(separator) == len(column) - 1 and joined.count(null) == column.count(None))
