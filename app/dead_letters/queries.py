"""The queries of dead letters, typed."""

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal

import msgspec

from app.kit.postgres.database import Connection
from app.kit.postgres.query import Json, Query, query
from app.resources.types import BY_ID
from app.undo.conflicts import Conflict
from app.vocabulary.outcomes_wire import as_json
from app.vocabulary.states import DeadLetterKind, ErrorCode

LOOK: Final = 5_000
"""Dead letters that are read for one page."""
NEWEST: Final = 2**63 - 1
"""No dead letter has a higher id."""
Places = Sequence[int | None]
"""Destinations whose dead letters are meant; `None`: those of undos."""


class DestinationRow(msgspec.Struct, frozen=True):
    destination_id: int
    name: str
    removed: bool


class DeadLetterRow(msgspec.Struct, frozen=True):
    dead_letter_id: int
    destination_id: int | None
    """`None`: of an undo."""
    type_id: int
    record_id: str
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
    delivery_id: int | None
    conflict: Json[Conflict] | None
    """Of an undo."""
    job_kind: str | None
    declared_type: str | None
    """The name of the type, if the tenant has declared it."""

    @property
    def kind(self) -> DeadLetterKind:
        return DeadLetterKind.UNDO if self.destination_id is None else DeadLetterKind.DELIVERY

    @property
    def type(self) -> str:
        return self.declared_type or BY_ID[self.type_id].name

    @property
    def record(self) -> tuple[int, str]:
        """Its type and its id."""
        return self.type_id, self.record_id


class ClusterRow(msgspec.Struct, frozen=True):
    """Open dead letters of one destination, or of undos (`None`), with one code."""

    destination_id: int | None
    error_code: ErrorCode
    count: int
    failed: int
    dead: int
    oldest: datetime
    newest: datetime
    samples: list[int]
    detail: str


class Filter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which open dead letters; conditions that are left out match all."""

    kind: DeadLetterKind | None = None
    """Only of deliveries, or of undos. A replay or drop that leaves it out is about deliveries alone."""
    destination: str | None = None
    """Only at this destination."""
    error_code: ErrorCode | None = None
    """Only with this code."""
    state: Literal["failed", "dead"] | None = None
    """Refused for good, or no longer tried."""
    job_id: uuid.UUID | None = None
    """Only those that this job began, or caused."""
    record_id: str | None = None
    """Only of this record."""
    created_before: datetime | None = None
    """Only older ones; with a UTC offset."""


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A call to the CRM that did not end well for the item."""

    attempt: int
    call: int
    asked: Literal["push", "archive", "read_back"]
    event_id: str
    sent_at: datetime
    milliseconds: int
    status: int | None
    """That was answered; null: no answer."""
    detail: str


class JobRow(msgspec.Struct, frozen=True):
    kind: str
    state: str
    root_job_id: uuid.UUID


class RunningRetry(msgspec.Struct, frozen=True):
    job_id: uuid.UUID
    kind: str
    state: str
    root_job_id: uuid.UUID
    destination_ids: list[int]
    """Where it has something left to do."""


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """A job that sends dead letters again, before its deliveries."""

    tenant_id: int
    job_id: uuid.UUID
    kind: str
    type: str | None
    """Of its items; None: they have several."""
    root_job_id: uuid.UUID
    request_id: str
    trace_context: str | None
    key_id: str
    total: int
    to_notify: dict[int, int]
    """Items, by destination."""


class NewDeliveries(msgspec.Struct, frozen=True, kw_only=True):
    """Items of one type to deliver again to one destination: columns of equal length, in item order, and how they are
    cut."""

    destination_id: int
    type_id: int
    record_ids: list[str]
    versions: list[int]
    indexes: list[int]
    dead_letters: list[int]
    cuts: list[tuple[int, int, float]]
    """First and last position from 1, and the seconds after which it is due."""


read_destinations = Query[[int], list[DestinationRow]]("dead_letter_destinations")


@query("choose_dead_letters")
async def choose(
    connection: Connection, tenant_id: int, wanted: Filter, destination_ids: Places, limit: int
) -> list[int]:
    """Ids of open dead letters, record by record."""


@query("dead_letter_clusters")
async def read_clusters(
    connection: Connection, tenant_id: int, wanted: Filter, destination_ids: Places
) -> list[ClusterRow]:
    """The most frequent first."""


def _read_conflict(text: str | None) -> Conflict | None:
    return None if text is None else msgspec.json.decode(text, type=Conflict)


@query("list_dead_letters")
async def _list_dead_letters(
    connection: Connection,
    tenant_id: int,
    wanted: Filter,
    destination_ids: Places,
    resolution: str,
    before: int,
    most_looked: int,
    limit: int,
) -> list[dict[str, Any]]: ...


async def list_dead_letters(
    connection: Connection,
    tenant_id: int,
    wanted: Filter,
    destination_ids: Places,
    *,
    resolution: str,
    before: int,
    limit: int,
) -> tuple[list[DeadLetterRow], int | None]:
    """A page, newest first, and before which id to look on; `None`: there are no more.

    `resolution`: `open`, `any`, or how they ended.
    """
    rows = await _list_dead_letters(connection, tenant_id, wanted, destination_ids, resolution, before, LOOK, limit)
    ((low, looked), *_) = [(row.pop("low"), row.pop("looked")) for row in rows]
    found = [
        DeadLetterRow(**row | {"conflict": _read_conflict(row["conflict"])})
        for row in rows
        if row["dead_letter_id"] is not None
    ]
    if len(found) == limit:
        return found, found[-1].dead_letter_id
    return found, low if looked >= LOOK else None


read_dead_letters = Query[[int, Sequence[int]], list[DeadLetterRow]]("read_dead_letters")
"""(tenant_id, ids) Those that there are."""
read_chain = Query[[int, int], list[DeadLetterRow]]("read_chain")
"""(tenant_id, first) The dead letter `first` and those that replays added, oldest first; of many the last hundred."""
_read_calls = Query[[int, int | None, int], list[Call]]("read_calls")


async def read_calls(connection: Connection, dead_letter: DeadLetterRow, tenant_id: int) -> list[Call]:
    """Calls to the CRM that did not succeed for the dead letter's item, the last one first."""
    return await _read_calls(connection, tenant_id, dead_letter.delivery_id, dead_letter.item_index)


lock = Query[[int, Sequence[int]], list[DeadLetterRow]]("lock_dead_letters")
"""(tenant_id, ids) Those that are open, for the caller's transaction alone."""


@query("resolve_dead_letters")
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
    """Resolve dead letters that the caller's transaction holds."""


touch_roots = Query[[int, Sequence[uuid.UUID]], None]("touch_roots")


@query("insert_attempt")
async def _insert_attempt(
    connection: Connection, attempt: Attempt, destination_ids: list[int], items: list[int]
) -> None: ...


async def insert_attempt(connection: Connection, attempt: Attempt) -> None:
    await _insert_attempt(connection, attempt, list(attempt.to_notify), list(attempt.to_notify.values()))


@query("insert_attempt_chunk")
async def insert_chunk(
    connection: Connection, attempt: Attempt, first_index: int, item_count: int, outcomes: bytes
) -> None:
    """`outcomes`: packed."""


@query("insert_attempt_deliveries")
async def _insert_deliveries(
    connection: Connection,
    attempt: Attempt,
    to_notify: NewDeliveries,
    lows: list[int],
    highs: list[int],
    seconds: list[float],
) -> None: ...


async def insert_deliveries(connection: Connection, attempt: Attempt, to_notify: NewDeliveries) -> None:
    lows, highs = [low for low, _, _ in to_notify.cuts], [high for _, high, _ in to_notify.cuts]
    await _insert_deliveries(connection, attempt, to_notify, lows, highs, [cut[2] for cut in to_notify.cuts])


_paced_until = Query[[int, int], float | None]("paced_until")


async def paced_until(connection: Connection, tenant_id: int, destination_id: int) -> float:
    """Seconds until all that was paced before is due."""
    return max(await _paced_until(connection, tenant_id, destination_id) or 0.0, 0.0)


read_job = Query[[int, uuid.UUID], JobRow | None]("attempt_job")


@query
async def make_due(connection: Connection, tenant_id: int, job_id: uuid.UUID, destination_ids: Sequence[int]) -> int:
    """Items of the family whose next attempt was later and is now."""


@query("running_attempt")
async def find_running_retry(
    connection: Connection, tenant_id: int, job_id: uuid.UUID, destination_ids: Sequence[int]
) -> RunningRetry | None: ...


_supersede_settled = Query[[int, list[int], list[int], list[str], list[int], list[int], str], None]("supersede_settled")
_settle_syncs = Query[[int, list[int], list[int], list[str], list[int]], None]("settle_syncs")


async def settle_syncs(
    connection: Connection, tenant_id: int, dead_letters: Sequence[DeadLetterRow], *, actor: str
) -> None:
    """The destinations hold these versions, so earlier dead letters of the records are resolved as well."""
    newest: dict[tuple[int, int, str], int] = {}
    for dead_letter in dead_letters:
        assert dead_letter.destination_id is not None, "only deliveries are in doubt"
        place = (dead_letter.destination_id, *dead_letter.record)
        newest[place] = max(newest.get(place, 0), dead_letter.version)
    places = (
        [destination_id for destination_id, _, _ in newest],
        [type_id for _, type_id, _ in newest],
        [record_id for _, _, record_id in newest],
        list(newest.values()),
    )
    settled = [dead_letter.dead_letter_id for dead_letter in dead_letters]
    await _supersede_settled(connection, tenant_id, *places, settled, actor)
    await _settle_syncs(connection, tenant_id, *places)


_note_decision = Query[[int, str, str, list[str], list[str]], None]("note_decision")


async def note_decision(
    connection: Connection, tenant_id: int, *, actor: str, action: str, subjects: Mapping[str, object]
) -> None:
    """`subjects`, each with its details."""
    details = [as_json(detail) for detail in subjects.values()]
    await _note_decision(connection, tenant_id, actor, action, list(subjects), details)
