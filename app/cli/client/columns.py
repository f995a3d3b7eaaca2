"""The columns of a file, in the words of the command line; their rules are the service's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from app.cli.client.errors import UsageError
from app.domain.files import columns
from app.domain.files.columns import NOTES, Columns, Wording

__all__ = ["NOTES", "Columns", "parse_mapping", "understand"]


def _show(column: str, field: str) -> str:
    return f'--map "{column}={field}"'


_WORDING: Final = Wording("--map", "=", _show, "--ignore")


def parse_mapping(pairs: tuple[str, ...], ignored: tuple[str, ...] = ()) -> dict[str, str]:
    """`("Customer Id=id",)` as `{"Customer Id": "id"}`.

    Raises:
        UsageError: a pair without `=`, two for one column, or a target that looks like a field and is none.
    """
    try:
        return columns.parse_mapping(pairs, _WORDING, ignored)
    except columns.MappingError as error:
        raise UsageError(error.detail) from error


def understand(header: list[str], mapping: dict[str, str], rows: Sequence[Sequence[str]] = ()) -> Columns:
    """Give every column its meaning; `rows` are the first ones.

    Raises:
        UsageError: the header cannot be used; see `app.domain.files.columns`.
    """
    try:
        return columns.understand(header, mapping, _WORDING)
    except columns.MissingFields as error:
        raise UsageError(error.advise(rows).detail) from error
    except columns.HeaderError as error:
        raise UsageError(error.detail) from error
