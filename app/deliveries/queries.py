"""The queries of delivery, typed: find, claim, record."""

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal

import msgspec

from app.deliveries import before_images
from app.deliveries.before_images import Adoption
from app.deliveries.drift import Drift, Listing
from app.kit.postgres.column_codec import numbers, texts
from app.kit.postgres.database import Connection
from app.kit.postgres.query import Affected, Found, Json, Query, Seconds, query
from app.vocabulary.outcomes_wire import Cluster, as_json, count_by_code
from app.vocabulary.states import OTHER_SENTENCE, SENTENCES, EffectState, ErrorCode

_LISTED_BYTES: Final = 16_000
"""Of the items that one event lists: Standard Webhooks wants bodies under 20 kB."""
_SENTENCES: Final = msgspec.json.encode({code: SENTENCES.get(code, OTHER_SENTENCE) for code in ErrorCode}).decode()


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """How a destination is reached."""

    tenant_id: int
    destination_id: int
    tenant: str
    name: str
    kind: str
    base_url: str
    credentials: bytes
    options: Json[dict[str, Any]]
    state: str
    types: list[str] | None
    """Of records; `None`: those that its kind has a place for."""


class ItemError(msgspec.Struct, frozen=True):
    """Why an item is not `ok` at a destination, as `deliveries.errors` keeps it."""

    code: str
    detail: str


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery that this worker alone may send and record, while its lease lasts."""

    tenant_id: int
    destination_id: int
    type_id: int
    delivery_id: int
    token: uuid.UUID
    job_id: uuid.UUID
    request_id: str
    trace_context: str | None
    """Of the request that the job came from (`app.tracing.context`)."""
    record_ids: list[str]
    versions: list[int]
    indexes: list[int]
    states: str
    errors: Json[dict[str, ItemError]]
    attempt: int
    """This one included."""
    age: float
    """Seconds since the import was accepted."""
    absent_for: float | None
    """Seconds since a read-back first did not find the unknown items."""
    absent_since: float | None
    """When that was; PostgreSQL's clock, seconds since 1970."""
    unknown_for: float | None
    """Seconds since an item of it became unknown; `None`: none is."""
    lost: int
    """Workers in a row that did not come back from it."""
    resent: bool
    """An operator requested that it be sent again."""
    forced: bool
    """What the destination has in this version already is sent all the same."""
    verify: bool
    """Records are read back, and sent only if `forced` and something else is there."""
    drift: Json[dict[str, Drift]] | None
    """By position: what was found there before."""
    listing: Json[Listing] | None
    """Nothing is sent: what the destination has is listed, from there on."""
    task: str | None
    """The CRM's own job that writes its records, or wrote them."""
    blocked_before: bool
    """The destination was blocked and the time is over: a success clears it."""
    removed: bool
    """The destination was removed: nothing may be sent to it any more."""


class NotRestored(msgspec.Struct, frozen=True):
    """What an undo could not give back at a destination, as `deliveries.not_restored` keeps it by position."""

    fields: list[str]
    """Names of standard fields, and of attributes as `attributes.KEY`, sorted."""
    created: bool | None
    """Whether our call had made the record there; `None`: not known."""


class Tried(msgspec.Struct, frozen=True, gc=False):
    """What is now known of a record at the destination."""

    record_id: str
    state: str
    version: int
    """That was sent."""
    held: int
    """The version that the destination has for certain; 0: not known."""
    remote_id: str | None
    """The record's id there; empty: the record is gone, and its id with it."""
    code: str | None
    detail: str | None
    troubled: bool = False
    """Open dead letters of it may be there; see `RecordState`."""
    created: bool | None = None
    """Whether this call made the record; `None`: it does not say."""
    not_restored: dict[str, int] | None = None
    """Name → version of the undo that could not restore it there."""


class DeadLetter(msgspec.Struct, frozen=True):
    """An item that is no longer tried."""

    record_id: str
    version: int
    item_index: int
    state: str
    code: str
    detail: str


Asked = Literal["push", "archive", "read_back", "list"]


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A call that did not end well for all of its records."""

    asked: Asked
    event_id: str
    positions: list[int] | None
    """Of the delivery's items that went along; `None`: all of them."""
    sent_at: datetime
    milliseconds: int
    status: int | None
    detail: str
    lost: bool
    """It left some of them unknown."""


class LostCall(msgspec.Struct, frozen=True):
    """A call of an earlier attempt, as far as it must be known to make it again."""

    asked: Asked
    event_id: str
    positions: list[int] | None


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """The end of one attempt."""

    states: str
    errors: Json[dict[str, ItemError]]
    attempts: int
    wait: Seconds | None
    """Seconds before the next attempt; `None`: every item is settled."""
    absence: Literal["keep", "now", "clear"]
    tried: Sequence[Tried]
    dead_letters: Sequence[DeadLetter]
    calls: Sequence[Call] = ()
    not_restored: Mapping[str, NotRestored] = {}
    """By position, of items that were settled in this attempt."""


class Recorded(msgspec.Struct, frozen=True):
    job_id: uuid.UUID
    finished: str | None
    """The state in which the job ended, if this was its last effect."""
    wait: float | None
    """Seconds before the delivery's next attempt; `None`: it is done."""


due_destinations = Query[[], list[tuple[int, int]]]("due_destinations")
read_destination = Query[[int, int], Route | None]("read_destination")
"""(tenant_id, destination_id)"""


class _Gate(msgspec.Struct, frozen=True):
    open: bool
    removed: bool
    blocked_before: bool


_lock_destination = Query[[int, int], _Gate | None]("lock_destination")


@query("claim_deliveries")
async def _claim_deliveries(
    connection: Connection,
    tenant_id: int,
    destination_id: int,
    gate: _Gate,
    *,
    token: uuid.UUID,
    lease: Seconds,
    concurrency: int,
    limit: int,
) -> list[Claim]: ...


async def claim_deliveries(
    connection: Connection,
    tenant_id: int,
    destination_id: int,
    *,
    token: uuid.UUID,
    lease: float,
    concurrency: int,
    limit: int,
) -> list[Claim]:
    """Claim up to `limit` due deliveries, the oldest first, if the destination is open and has places.

    Its own transaction. No two of them share a record, so they can be sent at the same time; they share the token and
    the moment from which their leases run.
    """
    async with connection.transaction():
        gate = await _lock_destination(connection, tenant_id, destination_id)
        if gate is None or not gate.open:
            return []
        claims = await _claim_deliveries(
            connection, tenant_id, destination_id, gate, token=token, lease=lease, concurrency=concurrency, limit=limit
        )
    return sorted(claims, key=lambda claim: claim.delivery_id)


give_back = Query[[int, int, uuid.UUID], Affected]("give_back")
"""(tenant_id, destination_id, token) How many deliveries a claim with this token had taken, and holds no more."""
renew_lease = Query[[Claim, Seconds], Found]("renew_lease")
"""(claim, lease) False: the lease was lost to somebody else."""
lost_calls = Query[[Claim], list[LostCall]]("lost_calls")
"""(claim) The writing calls of a delivery that are known to have left something unknown, the latest first."""


def count_failures(errors: Mapping[str, ItemError], indexes: Sequence[int]) -> dict[str, Cluster]:
    """The errors by code, so that a status poll adds up counts; `indexes` are the delivery's items, in order."""
    return count_by_code(sorted((indexes[int(position)], error.code) for position, error in errors.items()))


class _Columns(msgspec.Struct, frozen=True):
    """Records that were tried; see the query."""

    tried_ids: str | None
    tried_states: str | None
    remote_ids: str | None
    codes: str | None
    details: str | None
    created: str | None
    left_there: str | None
    tried_versions: str | None
    held_versions: str | None
    separator: str
    null: str


def _join(tried: Sequence[Tried]) -> _Columns:
    known = texts(
        [
            [t.record_id for t in tried],
            [None if t.state == EffectState.OK else t.state for t in tried],
            [t.remote_id for t in tried],
            [t.code for t in tried],
            [t.detail for t in tried],
            [None if t.created is None else "t" if t.created else "f" for t in tried],
            [None if not t.not_restored else as_json(t.not_restored) for t in tried],
        ]
    )
    ids, states, remote_ids, codes, details, created, left = known.columns
    versions = (numbers(t.version for t in tried), numbers(t.held for t in tried))
    marks = (known.separator, known.null)
    return _Columns(ids, states, remote_ids, codes, details, created, left, *versions, *marks)


@query("supersede_dead_letters")
async def _supersede_dead_letters(
    connection: Connection, claim: Claim, arrived_ids: list[str], arrived_versions: list[int]
) -> None: ...


@query("record_delivery")
async def _record_delivery(
    connection: Connection,
    claim: Claim,
    record: Record,
    columns: _Columns,
    failures: Json[dict[str, Cluster]],
    not_restored: Json[Mapping[str, NotRestored]] | None,
) -> tuple[uuid.UUID, int] | None:
    """The job, and how many of its items are still open at the destination."""


_record_calls = Query[[Claim, Json[Sequence[Call]]], None]("record_calls")
_insert_dead_letters = Query[[Claim, Json[Sequence[DeadLetter]]], None]("insert_dead_letters")


@query("notify_dead_letters")
async def _notify_dead_letters(
    connection: Connection, claim: Claim, type: str, item_indexes: list[int], sentences: str, most_bytes: int
) -> None: ...


_finish_job = Query[[int, uuid.UUID], str | None]("finish_job")


async def record_delivery(connection: Connection, claim: Claim, type: str, record: Record) -> Recorded | None:
    """Write an attempt's end and, if it was the last one open, the job's; `None`: the lease was lost."""
    tried = sorted(record.tried, key=lambda t: t.record_id)
    arrived = [t for t in tried if t.troubled and t.held]
    failures = count_failures(record.errors, claim.indexes)
    async with connection.transaction():
        if arrived:
            await _supersede_dead_letters(connection, claim, [t.record_id for t in arrived], [t.held for t in arrived])
        recorded = await _record_delivery(
            connection, claim, record, _join(tried), failures, record.not_restored or None
        )
        if recorded is None:
            return None
        job_id, still_open = recorded
        if record.calls:
            await _record_calls(connection, claim, record.calls)
        if record.dead_letters:
            await _insert_dead_letters(connection, claim, record.dead_letters)
            indexes = [dead_letter.item_index for dead_letter in record.dead_letters]
            await _notify_dead_letters(connection, claim, type, indexes, _SENTENCES, _LISTED_BYTES)
        finished = None if still_open else await _finish_job(connection, claim.tenant_id, job_id)
        return Recorded(job_id, finished, record.wait)


@query("awaited_records")
async def awaited_records(connection: Connection, claim: Claim, record_ids: Sequence[str]) -> set[str]:
    """Which of these records another delivery to the destination of this one is still to bring."""


@query("note_drift")
async def note_drift(connection: Connection, claim: Claim, drift: Json[Mapping[str, Drift]]) -> Found:
    """By position. False: the lease was lost."""


@query("note_task")
async def note_task(connection: Connection, claim: Claim, task: str | None) -> Found:
    """`None`: the job has ended. False: the lease was lost."""


@query("unknown_keys")
async def unknown_keys(connection: Connection, claim: Claim, keys: Sequence[str]) -> list[str]:
    """Which of these keys, which a destination has, no record here has."""


@query("record_listing")
async def record_listing(
    connection: Connection,
    claim: Claim,
    found: Sequence[str],
    drift: Json[Mapping[str, Drift]],
    listing: Json[Listing],
    *,
    attempts: int,
    wait: Seconds | None,
) -> Found:
    """Write how far a list was read, and what nobody here knows. False: the lease was lost."""


@query("keep_adoptions")
async def _keep_adoptions(
    connection: Connection, claim: Claim, record_ids: list[str], remote_ids: list[str], before_images: list[str]
) -> list[str]: ...


async def keep_adoptions(connection: Connection, claim: Claim, adoptions: Sequence[Adoption]) -> frozenset[str]:
    """Ids of the records that were kept; see the query.

    Raises:
        UniqueViolationError: another delivery adopts one of them at the same time; nothing was kept.
    """
    kept = await _keep_adoptions(
        connection,
        claim,
        [adoption.record_id for adoption in adoptions],
        [adoption.remote_id for adoption in adoptions],
        [before_images.write(adoption.before) for adoption in adoptions],
    )
    return frozenset(kept)


block_destination = Query[[int, int, Seconds, str, str], None]("block_destination")
"""(tenant_id, destination_id, seconds, code, detail) Nothing of this destination is due for `seconds`."""
unblock_destination = Query[[int, int], None]("unblock_destination")
"""(tenant_id, destination_id)"""
_tenants_sending = Query[[], list[int]]("tenants_sending")
_lost_deliveries = Query[[int], list[tuple[int, int]]]("lost_deliveries")
_release_lost = Query[[int, int], Found]("release_lost")


async def release_lost(connection: Connection) -> int:
    """Free the deliveries whose worker did not come back; returns how many."""
    released = 0
    for tenant_id in await _tenants_sending(connection):
        for lost in await _lost_deliveries(connection, tenant_id):
            released += await _release_lost(connection, *lost)
    return released


lacks_place = Query[[int, int, int], bool]("lacks_place")
"""(tenant_id, destination_id, concurrency)

Something is due, but other workers have as many deliveries under way as the destination may have.
"""
has_deliveries = Query[[int, int], bool]("has_deliveries")
"""(tenant_id, destination_id) Something is to be sent to the destination, now or later, or is under way."""
