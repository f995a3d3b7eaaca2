"""Rows grouped into requests, and the key under which each request happens once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import msgspec

from app.cli.client.rows import Row

MAX_BODY: Final = 4_000_000
"""Bytes; below the server's default of 5 MB for an answer within the request."""

_HEAD: Final = b'{"items":['
_TAIL: Final = b"]}"


class Batch(msgspec.Struct, frozen=True, gc=False):
    """The rows of one request.

    `name` is the batch's descent: `12` is the thirteenth of the file, `12.1` its second half, `12r3` what had to
    be sent again. It depends on the file and the server's answers alone, never on time, so a run that is started
    again makes the same batches and the same keys.
    """

    name: str
    rows: list[Row]
    attempt: int = 0

    def encode(self) -> bytes:
        return _HEAD + b",".join([row.item for row in self.rows]) + _TAIL

    def keys(self) -> frozenset[str]:
        return frozenset(row.key for row in self.rows if row.key)

    def halve(self) -> tuple[Batch, Batch]:
        middle = len(self.rows) // 2
        return (
            Batch(f"{self.name}.0", self.rows[:middle], self.attempt),
            Batch(f"{self.name}.1", self.rows[middle:], self.attempt),
        )

    def repeat(self, rows: list[Row], group: int) -> Batch:
        """The rows that have to be sent again; `group` tells apart those that wait for different times."""
        return Batch(f"{self.name}r{group}", rows, self.attempt + 1)


def group_rows(
    rows: Iterable[Row], *, size: int, reject: Callable[[Row], None], max_body: int = MAX_BODY
) -> Iterator[Batch]:
    """Batches of up to `size` rows and `max_body` bytes, in file order; rows with a problem go to `reject`."""
    number = 0
    batch: list[Row] = []
    length = len(_HEAD) + len(_TAIL)
    for row in rows:
        if row.problem:
            reject(row)
            continue
        if batch and (len(batch) >= size or length + len(row.item) + 1 > max_body):
            yield Batch(str(number), batch)
            number += 1
            batch = []
            length = len(_HEAD) + len(_TAIL)
        batch.append(row)
        length += len(row.item) + 1
    if batch:
        yield Batch(str(number), batch)


def make_key(run: str, name: str, query: str, body: bytes) -> str:
    """The Idempotency-Key of a request: the same run, batch, options and content always give the same one."""
    digest = hashlib.sha256()
    for part in (run, name, query):
        digest.update(part.encode() + b"\0")
    digest.update(body)
    return f"push-{digest.hexdigest()[:32]}"
