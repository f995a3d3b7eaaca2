"""The queries of a job's items, typed. Ranges are of item indexes, both ends inclusive."""

import uuid
from collections.abc import AsyncIterator, Sequence

import msgspec

from app.deliveries.drift import Drift
from app.files.readers import Kept
from app.job_status.obstacles import Obstacle
from app.kit.postgres.database import Connection
from app.kit.postgres.query import Json, Query, query
from app.kit.postgres.sql import QUERIES

Range = tuple[int, int]


class JobRow(msgspec.Struct, frozen=True):
    """`undecided` is the first item that is still staged, `booked` the first index after the last outcomes."""

    items: int
    type: str | None
    state: str
    trimmed: bool
    form: Json[Kept] | None
    undecided: int | None
    booked: int | None


class PlaceRow(msgspec.Struct, frozen=True):
    """A destination that items of a job went to; `open` counts those that are not settled there."""

    destination_id: int
    name: str
    open: int
    blocked_code: str | None


class ChunkRow(msgspec.Struct, frozen=True):
    first_index: int
    item_count: int
    outcomes: bytes


class DeliveryRow(Obstacle, frozen=True):
    """A delivery with what its destination is waiting for; times in seconds from now."""

    name: str
    indexes: list[int]
    versions: list[int]
    states: str
    errors: str
    attempt: int
    state: str
    next_in: float
    delivery_id: int
    not_restored: str | None
    drift: Json[dict[str, Drift]] | None


class JobRef(msgspec.Struct, frozen=True):
    """One job on a connection: what every query of this module asks for first."""

    connection: Connection
    tenant_id: int
    job_id: uuid.UUID


@query("items_job")
async def read_job(job: JobRef) -> JobRow | None: ...


@query("items_places")
async def read_places(job: JobRef) -> list[PlaceRow]: ...


@query
async def next_chunks(job: JobRef, first: int, limit: int) -> list[Range]: ...


@query
async def next_sound_chunks(job: JobRef, first: int, limit: int) -> list[Range]:
    """Runs that hold an item that is ok."""


@query
async def next_faulty_chunks(job: JobRef, first: int, limit: int, codes: Sequence[str]) -> list[Range]:
    """Runs that hold an item with one of the codes."""


@query
async def next_deliveries(
    job: JobRef, destination_id: int, first: int, last: int, limit: int, *, pattern: str | None
) -> list[Range]:
    """Those that begin at `last` at the latest; `pattern` is one of the states that one of its items has."""


@query
async def next_faulty_deliveries(
    job: JobRef, destination_id: int, first: int, limit: int, *, code: str | None, pattern: str | None
) -> list[Range]: ...


@query
async def next_drifted_deliveries(job: JobRef, destination_id: int, first: int, limit: int) -> list[Range]: ...


@query
async def next_open_deliveries(
    job: JobRef, destination_id: int, first: int, limit: int, *, pattern: str | None
) -> list[Range]:
    """All that are open are looked at: for a destination with few of them."""


@query("chunks_in")
async def read_chunks(job: JobRef, lows: list[int], highs: list[int]) -> list[ChunkRow]:
    """Those that hold items of the ranges (`columns`), in item order."""


async def read_sources(job: JobRef, ranges: Sequence[Range]) -> AsyncIterator[bytes]:
    """Of the runs that hold items of the ranges, in item order (`app.files.staging_codec`, zstd).

    A run may be megabytes, so they come one after the other; must be read in a transaction.
    """
    arguments = (job.tenant_id, job.job_id, *columns(ranges))
    async for row in job.connection.cursor(QUERIES["sources_in"], *arguments, prefetch=4):
        yield row["sources"]


@query("deliveries_in")
async def read_deliveries(job: JobRef, lows: list[int], highs: list[int]) -> list[DeliveryRow]:
    """Those that hold items of the ranges (`columns`)."""


def columns(ranges: Sequence[Range]) -> tuple[list[int], list[int]]:
    """First indexes and last ones."""
    return [low for low, _ in ranges], [high for _, high in ranges]


class ConflictRow(msgspec.Struct, frozen=True):
    """How the dead letter of an item of an undo ended."""

    item_index: int
    dead_letter_id: int
    resolution: str | None
    replay_job_id: uuid.UUID | None


@query
async def dead_letters_of_conflicts(job: JobRef, indexes: list[int]) -> list[ConflictRow]: ...


class EndRow(msgspec.Struct, frozen=True):
    """How the dead letter of an item of a delivery ended."""

    delivery_id: int
    item_index: int
    dead_letter_id: int
    resolution: str | None
    replay_job_id: uuid.UUID | None


_dead_letters_of_items = Query[[int, list[int], list[int]], list[EndRow]]("dead_letters_of_items")


async def dead_letters_of_items(
    connection: Connection, tenant_id: int, items: Sequence[tuple[int, int]]
) -> list[EndRow]:
    """For items (delivery, index) that left a dead letter."""
    return await _dead_letters_of_items(connection, tenant_id, [d for d, _ in items], [i for _, i in items])
