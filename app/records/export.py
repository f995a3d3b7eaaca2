"""All records of a type as one file, as of one moment: read in steps from one snapshot, so that memory stays the same
however many there are."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, Final

import msgspec

from app.errors import Invalid, Overloaded
from app.files.csv_columns import MAX_COLUMNS, guard_key
from app.files.csv_injection import neutralize
from app.files.csv_mapping import names_of
from app.files.failed_rows_file import encode_csv
from app.kit.postgres.database import Connection, Database
from app.records import queries
from app.records.service import facts_of
from app.resources import documents
from app.resources.declaration import Resource
from app.resources.documents import ATTRIBUTE

_STEP: Final = 1_000
"""Records that are held at a time."""
_AT_ONCE: Final = 2
"""Exports of one process: each holds a connection as long as its reader takes."""
_LONGEST: Final = 3_600
"""Seconds that an export may take."""
_READ_TIMEOUT: Final = 60.0
"""Seconds that a reader may take for one step."""

_encode: Final = msgspec.json.Encoder().encode


class Exports:
    """One in a process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._running = 0

    async def open(self, tenant_id: int, resource: Resource, *, as_csv: bool) -> AsyncIterator[bytes]:
        """The file, piece by piece.

        Raises:
            Overloaded: as many exports are running as may.
            Invalid: the records have too many different attributes for the columns of a CSV.
            DatabaseUnavailable: nothing can be read.
        """
        if self._running >= _AT_ONCE:
            raise Overloaded("Other exports are running; try again after the time given.", retry_after=10.0)
        pieces = self._read(tenant_id, resource, as_csv=as_csv)
        first = await anext(pieces)  # whatever is wrong is said before the answer begins
        return _chain(first, pieces)

    async def _read(self, tenant_id: int, resource: Resource, *, as_csv: bool) -> AsyncGenerator[bytes]:
        self._running += 1
        try:
            async with (
                self._database.connection() as connection,
                connection.transaction(isolation="repeatable_read", readonly=True),
            ):
                await _take_time(connection)
                keys = await _find_keys(connection, tenant_id, resource) if as_csv else []
                yield _header(resource, keys) if as_csv else b""
                async for piece in _pieces(connection, tenant_id, resource, keys, as_csv=as_csv):
                    # Who reads too slowly holds a connection, and PostgreSQL's snapshot, from others.
                    timeout = asyncio.get_running_loop().call_later(_READ_TIMEOUT, connection.terminate)
                    try:
                        yield piece
                    finally:
                        timeout.cancel()
        finally:
            self._running -= 1


async def _chain(first: bytes, rest: AsyncGenerator[bytes]) -> AsyncIterator[bytes]:
    async with aclosing(rest):  # its connection is held no longer than somebody reads
        yield first
        async for piece in rest:
            yield piece


async def _take_time(connection: Connection) -> None:
    names = ["statement_timeout", "idle_in_transaction_session_timeout"]
    if connection.get_server_version().major >= 17:
        # A running timer is only replaced by way of none at all.
        await connection.execute("SELECT set_config('transaction_timeout', '0', true)")
        names.append("transaction_timeout")
    for name in names:
        await connection.execute("SELECT set_config($1, $2, true)", name, f"{_LONGEST}s")


async def _find_keys(connection: Connection, tenant_id: int, resource: Resource) -> list[str]:
    if not resource.attributes:
        return []
    most = MAX_COLUMNS - len(resource.names)
    found = await queries.attribute_keys(connection, tenant_id, resource.type_id, most + 1)
    if len(found) > most:
        raise Invalid(
            f"The {resource.name} have more than {most:,} different attributes, too many for the columns of a CSV; ask "
            "for application/x-ndjson."
        )
    return [key.removeprefix(ATTRIBUTE) for key in found]


def _header(resource: Resource, keys: list[str]) -> bytes:
    names = names_of(resource)
    header = ("id", *resource.names, *(guard_key(names, key) for key in keys))
    return encode_csv([[neutralize(name) for name in header]])


async def _pieces(
    connection: Connection, tenant_id: int, resource: Resource, keys: list[str], *, as_csv: bool
) -> AsyncIterator[bytes]:
    after = ""
    while rows := await queries.list_records(connection, tenant_id, resource.type_id, after=after, limit=_STEP):
        after = rows[-1].record_id
        if as_csv:
            yield encode_csv(_cells(resource, row, keys) for row in rows)
        else:
            yield b"".join(_encode(facts_of(resource, row)) + b"\n" for row in rows)


def _cells(resource: Resource, row: queries.RecordRow, keys: list[str]) -> list[str]:
    document = documents.read(row.document)
    values = [document.get(name) for name in (*resource.names, *(ATTRIBUTE + key for key in keys))]
    return [neutralize(cell) for cell in (row.record_id, *map(_text, values))]


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else _encode(value).decode()
