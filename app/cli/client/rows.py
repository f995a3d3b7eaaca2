"""One row of the user's file on its way to the server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import msgspec


class Row(msgspec.Struct, frozen=True, gc=False):
    """A row as it will be sent, or the reason why it cannot be."""

    number: int
    """Place among the rows of the file, from 0; blank lines do not count."""
    line: int
    """Where it begins, from 1: a line of the file; for a JSON array, the place in the array."""
    item: bytes = b""
    """The item as a JSON object; empty when `problem` is set."""
    key: str = ""
    """The item's `id`, where it has one: two rows with one key are never in flight together."""
    problem: str = ""
    original: list[str] | str = ""
    """The cells of a CSV row; the text itself for NDJSON, JSON and a CSV row that cannot be parsed."""


class Source(Protocol):
    """A file that can be read from its beginning as often as needed."""

    path: str
    blank: int
    """Rows without any content that the last pass skipped."""
    position: int
    """Bytes of the file that the last pass has read."""

    def rows(self) -> Iterator[Row]: ...


Report = Callable[[Row], None]
