"""The queries of dead letters, typed."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec

from app.db.pool import Connection
from app.db.sql import QUERIES

LOOK: Final = 5_000
"""Letters that are looked at for one page."""
NEWEST: Final = 2**63 - 1
"""No letter has a higher id."""


class DestinationRow(msgspec.Struct, frozen=True):
    destination_id: int
    name: str
    removed: bool


class LetterRow(msgspec.Struct, frozen=True):
    dead_letter_id: int
    destination_id: int
    contact_id: str
    version: int
    state: str
    error_code: str
    error_detail: str
    attempts: int
    job_id: uuid.UUID
    root_job_id: uuid.UUID
    item_index: int
    request_id: str
    created_at: datetime
    chain_id: int | None
    resolution: str | None
    resolved_at: datetime | None
    resolved_by: str | None
    note: str | None
    replay_job_id: uuid.UUID | None
    delivery_id: int


class ClusterRow(msgspec.Struct, frozen=True):
    """Open dead letters of one destination with one code."""

    destination_id: int
    error_code: str
    count: int
    failed: int
    dead: int
    oldest: datetime
    newest: datetime
    samples: list[int]
    detail: str


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """Which open letters; `None`: any. `destination_ids` are always all that are meant."""

    destination_ids: Sequence[int]
    job_id: uuid.UUID | None = None
    error_code: str | None = None
    state: str | None = None
    contact_id: str | None = None
    created_before: datetime | None = None


class Window(msgspec.Struct, frozen=True):
    """Letters of a page; `position`: where to look on, before that id; `None`: there are no more."""

    letters: list[LetterRow]
    position: int | None


class CallRow(msgspec.Struct, frozen=True):
    attempt: int
    call: int
    asked: str
    event_id: str
    sent_at: datetime
    milliseconds: int
    status: int | None
    detail: str


class VersionRow(msgspec.Struct, frozen=True):
    """A version of a contact, and the item that made it."""

    job_id: uuid.UUID
    item_index: int
    version: int
    changed_at: datetime
    email: str
    first_name: str | None
    last_name: str | None
    phone: str | None
    company: str | None
    attributes: str


class EndRow(msgspec.Struct, frozen=True):
    """How the letter that an item of a delivery left came to its end."""

    delivery_id: int
    item_index: int
    dead_letter_id: int
    resolution: str | None
    replay_job_id: uuid.UUID | None


class JobRow(msgspec.Struct, frozen=True):
    kind: str
    state: str
    root_job_id: uuid.UUID


class UnderWay(msgspec.Struct, frozen=True):
    job_id: uuid.UUID
    kind: str
    state: str
    root_job_id: uuid.UUID
    destination_ids: list[int]
    """Where it has something left to do."""


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """A job that sends letters again, before its deliveries."""

    tenant_id: int
    job_id: uuid.UUID
    kind: str
    root_job_id: uuid.UUID
    request_id: str
    key_id: str
    total: int
    owed: dict[int, int]
    """Items, by destination."""


class Owed(msgspec.Struct, frozen=True, kw_only=True):
    """What one destination is owed again: columns of equal length, in item order, and how they are cut."""

    destination_id: int
    contact_ids: list[str]
    versions: list[int]
    indexes: list[int]
    letters: list[int]
    cuts: list[tuple[int, int, float]]
    """First and last position from 1, and the seconds after which it is due."""


async def read_destinations(connection: Connection, tenant_id: int) -> list[DestinationRow]:
    rows = await connection.fetch(QUERIES["letter_destinations"], tenant_id)
    return [DestinationRow(*row) for row in rows]


async def choose(connection: Connection, tenant_id: int, wanted: Condition, limit: int) -> list[int]:
    """Ids of open letters, contact by contact."""
    rows = await connection.fetch(QUERIES["choose_letters"], tenant_id, *_arguments(wanted), limit)
    return [row["dead_letter_id"] for row in rows]


async def read_clusters(connection: Connection, tenant_id: int, wanted: Condition) -> list[ClusterRow]:
    """The most frequent first."""
    rows = await connection.fetch(QUERIES["letter_clusters"], tenant_id, *_arguments(wanted))
    return [ClusterRow(*row) for row in rows]


def _arguments(wanted: Condition) -> tuple[object, ...]:
    return (
        wanted.job_id,
        list(wanted.destination_ids),
        wanted.error_code,
        wanted.state,
        wanted.contact_id,
        wanted.created_before,
    )


async def list_letters(
    connection: Connection, tenant_id: int, wanted: Condition, *, resolution: str, before: int, limit: int
) -> Window:
    """A page, newest first; `resolution`: `open`, `any`, or how they ended."""
    rows = await connection.fetch(
        QUERIES["list_letters"],
        tenant_id,
        before,
        wanted.job_id,
        wanted.contact_id,
        list(wanted.destination_ids),
        wanted.error_code,
        resolution,
        wanted.state,
        LOOK,
        limit,
    )
    found = [LetterRow(*list(row)[2:]) for row in rows if row["dead_letter_id"] is not None]
    if len(found) == limit:
        return Window(found, found[-1].dead_letter_id)
    return Window(found, rows[0]["low"] if rows[0]["looked"] >= LOOK else None)


async def read_letters(connection: Connection, tenant_id: int, ids: Sequence[int]) -> list[LetterRow]:
    """Those that there are."""
    return [LetterRow(*row) for row in await connection.fetch(QUERIES["read_letters"], tenant_id, ids)]


async def read_chain(connection: Connection, tenant_id: int, first: int) -> list[LetterRow]:
    """The letter `first` and those that replays added, oldest first; of many the last hundred."""
    return [LetterRow(*row) for row in await connection.fetch(QUERIES["read_chain"], tenant_id, first)]


async def read_calls(connection: Connection, letter: LetterRow, tenant_id: int) -> list[CallRow]:
    """Calls to the CRM that did not end well for the letter's item, the last one first."""
    rows = await connection.fetch(QUERIES["read_calls"], tenant_id, letter.delivery_id, letter.item_index)
    return [CallRow(*row) for row in rows]


async def read_version(
    connection: Connection, tenant_id: int, contact_id: str, version: int
) -> VersionRow | None:
    row = await connection.fetchrow(QUERIES["read_version"], tenant_id, contact_id, version)
    return None if row is None else VersionRow(*row)


async def letters_of_items(
    connection: Connection, tenant_id: int, items: Sequence[tuple[int, int]]
) -> list[EndRow]:
    """Of items (delivery, index) that left a letter."""
    rows = await connection.fetch(
        QUERIES["letters_of_items"], tenant_id, [delivery for delivery, _ in items], [i for _, i in items]
    )
    return [EndRow(*row) for row in rows]


async def lock(connection: Connection, tenant_id: int, ids: Sequence[int]) -> list[LetterRow]:
    """Those that are open, for the caller's transaction alone."""
    return [LetterRow(*row) for row in await connection.fetch(QUERIES["lock_letters"], tenant_id, ids)]


async def resolve(
    connection: Connection,
    tenant_id: int,
    ids: Sequence[int],
    *,
    resolution: str,
    actor: str,
    note: str | None = None,
    job_id: uuid.UUID | None = None,
) -> None:
    """End letters that the caller's transaction holds."""
    await connection.execute(QUERIES["resolve_letters"], tenant_id, ids, resolution, actor, note, job_id)


async def touch_roots(connection: Connection, tenant_id: int, job_ids: Sequence[uuid.UUID]) -> None:
    await connection.execute(QUERIES["touch_roots"], tenant_id, job_ids)


async def insert_attempt(connection: Connection, attempt: Attempt) -> None:
    a = attempt
    await connection.execute(
        QUERIES["insert_attempt"],
        a.tenant_id,
        a.job_id,
        a.kind,
        a.root_job_id,
        a.request_id,
        a.key_id,
        a.total,
        list(a.owed),
        list(a.owed.values()),
    )


async def insert_chunk(
    connection: Connection, attempt: Attempt, first_index: int, item_count: int, outcomes: bytes
) -> None:
    """`outcomes`: packed."""
    await connection.execute(
        QUERIES["insert_attempt_chunk"],
        attempt.tenant_id,
        attempt.job_id,
        first_index,
        item_count,
        outcomes,
    )


async def insert_deliveries(connection: Connection, attempt: Attempt, owed: Owed) -> None:
    await connection.execute(
        QUERIES["insert_attempt_deliveries"],
        attempt.tenant_id,
        owed.destination_id,
        attempt.job_id,
        attempt.request_id,
        owed.contact_ids,
        owed.versions,
        owed.indexes,
        owed.letters,
        [low for low, _, _ in owed.cuts],
        [high for _, high, _ in owed.cuts],
        [seconds for _, _, seconds in owed.cuts],
    )


async def paced_until(connection: Connection, tenant_id: int, destination_id: int) -> float:
    """Seconds until all that was paced before is due."""
    seconds: float | None = await connection.fetchval(QUERIES["paced_until"], tenant_id, destination_id)
    return max(seconds or 0.0, 0.0)


async def read_job(connection: Connection, tenant_id: int, job_id: uuid.UUID) -> JobRow | None:
    row = await connection.fetchrow(QUERIES["attempt_job"], tenant_id, job_id)
    return None if row is None else JobRow(*row)


async def make_due(
    connection: Connection, tenant_id: int, root: uuid.UUID, destination_ids: Sequence[int]
) -> int:
    """Items of the family whose next attempt was later and is now."""
    return int(await connection.fetchval(QUERIES["make_due"], tenant_id, root, destination_ids))


async def find_under_way(
    connection: Connection, tenant_id: int, root: uuid.UUID, destination_ids: Sequence[int]
) -> UnderWay | None:
    row = await connection.fetchrow(QUERIES["attempt_under_way"], tenant_id, root, destination_ids)
    return None if row is None else UnderWay(*row)


async def settle_syncs(
    connection: Connection, tenant_id: int, letters: Sequence[LetterRow], *, actor: str
) -> None:
    """The destinations hold these versions, so earlier letters of the contacts have come to their end as well."""
    newest: dict[tuple[int, str], int] = {}
    for letter in letters:
        place = (letter.destination_id, letter.contact_id)
        newest[place] = max(newest.get(place, 0), letter.version)
    places = (
        [destination_id for destination_id, _ in newest],
        [contact_id for _, contact_id in newest],
        list(newest.values()),
    )
    settled = [letter.dead_letter_id for letter in letters]
    await connection.execute(QUERIES["supersede_settled"], tenant_id, *places, settled, actor)
    await connection.execute(QUERIES["settle_syncs"], tenant_id, *places)


async def note_decision(
    connection: Connection, tenant_id: int, *, actor: str, action: str, subjects: Sequence[tuple[str, str]]
) -> None:
    """`subjects`: each with a JSON text of details."""
    await connection.execute(
        QUERIES["note_decision"],
        tenant_id,
        actor,
        action,
        [subject for subject, _ in subjects],
        [detail for _, detail in subjects],
    )
