"""The columns of a file, in the words of the command line; their rules are the service's own."""

from __future__ import annotations

from typing import Final

from app.cli.client.errors import UsageError
from app.domain.files import columns
from app.domain.files.columns import NOTES, Columns, Wording

__all__ = ["NOTES", "Columns", "parse_mapping", "understand"]


def _show(column: str, field: str) -> str:
    return f'--map "{column}={field}"'


_WORDING: Final = Wording("--map", "=", _show)


def parse_mapping(pairs: tuple[str, ...]) -> dict[str, str]:
    """`("Customer Id=id",)` as `{"Customer Id": "id"}`.

    Raises:
        UsageError: a pair without `=`, or two for one column.
    """
    try:
        return columns.parse_mapping(pairs, _WORDING)
    except columns.MappingError as error:
        raise UsageError(error.detail) from error


def understand(header: list[str], mapping: dict[str, str]) -> Columns:
    """Give every column its meaning.

    Raises:
        UsageError: the header cannot be used; see `app.domain.files.columns`.
    """
    try:
        return columns.understand(header, mapping, _WORDING)
    except columns.HeaderError as error:
        raise UsageError(error.detail) from error
