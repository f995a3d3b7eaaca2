"""The queries of delivery, typed: find, claim, record."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Literal

import msgspec

from app.db.columns import numbers, texts
from app.db.pool import Connection
from app.db.sql import QUERIES
from app.db.strokes import in_strokes
from app.domain.outcomes import OTHER_SENTENCE, SENTENCES, EffectState, ErrorCode
from app.domain.webhooks import LISTED_BYTES

_SENTENCES: Final = msgspec.json.encode(
    {code: SENTENCES.get(code, OTHER_SENTENCE) for code in ErrorCode}
).decode()


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """How a destination is reached."""

    tenant_id: int
    destination_id: int
    name: str
    kind: str
    base_url: str
    credentials: bytes
    options: dict[str, Any]
    state: str


class ItemError(msgspec.Struct, frozen=True):
    """Why an item is not `ok` at a destination, as `deliveries.errors` keeps it."""

    code: str
    detail: str


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery that this worker alone may send and record, while its lease lasts."""

    tenant_id: int
    destination_id: int
    delivery_id: int
    token: uuid.UUID
    job_id: uuid.UUID
    request_id: str
    contact_ids: list[str]
    versions: list[int]
    indexes: list[int]
    states: str
    errors: dict[str, ItemError]
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
    """A human had it sent again."""
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
    """What is now known of a contact at the destination."""

    contact_id: str
    state: str
    version: int
    """That was sent."""
    held: int
    """The version that the destination has for certain; 0: not known."""
    remote_id: str | None
    """That was told; empty: the record is gone, and its id with it."""
    code: str | None
    detail: str | None
    troubled: bool = False
    """Open dead letters of it may be there; see `Standing`."""
    created: bool | None = None
    """Whether this call made the record; `None`: it does not say."""
    not_restored: dict[str, int] | None = None
    """Name → version of the undo that could not restore it there."""


class Letter(msgspec.Struct, frozen=True):
    """An item that Tranche gives up on."""

    contact_id: str
    version: int
    item_index: int
    state: str
    code: str
    detail: str


Asked = Literal["push", "archive", "read_back"]


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A call that did not end well for all of its contacts."""

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
    errors: dict[str, ItemError]
    attempts: int
    wait: float | None
    """Seconds before the next attempt; `None`: every item is settled."""
    absence: Literal["keep", "now", "clear"]
    tried: Sequence[Tried]
    letters: Sequence[Letter]
    calls: Sequence[Call] = ()
    not_restored: Mapping[str, NotRestored] = {}
    """By position, of items that were settled in this attempt."""


class Cluster(msgspec.Struct):
    """Items with one code; `samples` are the lowest indexes of them."""

    count: int = 0
    samples: list[int] = []


class Recorded(msgspec.Struct, frozen=True):
    job_id: uuid.UUID
    finished: str | None
    """The state in which the job ended, if this was its last effect."""
    wait: float | None
    """Seconds before the delivery's next attempt; `None`: it is done."""


_SAMPLES: Final = 5
_errors: Final = msgspec.json.Decoder(dict[str, ItemError]).decode
_options: Final = msgspec.json.Decoder(dict[str, Any]).decode


def _as_json(value: object) -> str:
    return msgspec.json.encode(value).decode()


async def due_destinations(connection: Connection) -> list[tuple[int, int]]:
    rows = await connection.fetch(QUERIES["due_destinations"])
    return [(row["tenant_id"], row["destination_id"]) for row in rows]


async def read_destination(connection: Connection, tenant_id: int, destination_id: int) -> Route | None:
    row = await connection.fetchrow(QUERIES["read_destination"], tenant_id, destination_id)
    if row is None:
        return None
    fields = dict(row) | {"options": _options(row["options"])}
    return Route(tenant_id=tenant_id, destination_id=destination_id, **fields)


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

    Its own transaction. No two of them share a contact, so they can be sent at the same time; they share the token and
    the moment from which their leases run.
    """
    async with connection.transaction():
        gate = await connection.fetchrow(QUERIES["lock_destination"], tenant_id, destination_id)
        if gate is None or not gate["open"]:
            return []
        rows = await connection.fetch(
            QUERIES["claim_deliveries"],
            tenant_id,
            destination_id,
            token,
            timedelta(seconds=lease),
            concurrency,
            limit,
        )
    blocked_before, removed = gate["blocked_before"], gate["removed"]
    claims = [
        Claim(
            tenant_id=tenant_id,
            destination_id=destination_id,
            token=token,
            blocked_before=blocked_before,
            removed=removed,
            **(dict(row) | {"errors": _errors(row["errors"])}),
        )
        for row in rows
    ]
    return sorted(claims, key=lambda claim: claim.delivery_id)


async def claim_delivery(
    connection: Connection,
    tenant_id: int,
    destination_id: int,
    *,
    token: uuid.UUID,
    lease: float,
    concurrency: int,
) -> Claim | None:
    """Claim one due delivery; see `claim_deliveries`."""
    claims = await claim_deliveries(
        connection, tenant_id, destination_id, token=token, lease=lease, concurrency=concurrency, limit=1
    )
    return claims[0] if claims else None


async def give_back(connection: Connection, tenant_id: int, destination_id: int, token: uuid.UUID) -> int:
    """How many deliveries a claim with this token had taken, and holds no more."""
    told = await connection.execute(QUERIES["give_back"], tenant_id, destination_id, token)
    return int(told.rpartition(" ")[2])


async def renew_lease(connection: Connection, claim: Claim, lease: float) -> bool:
    """False: the lease was lost to somebody else."""
    return (
        await connection.fetchval(
            QUERIES["renew_lease"], claim.tenant_id, claim.delivery_id, claim.token, timedelta(seconds=lease)
        )
        is not None
    )


async def lost_calls(connection: Connection, claim: Claim) -> list[LostCall]:
    """The writing calls of a delivery that are known to have left something unknown, the latest first."""
    rows = await connection.fetch(QUERIES["lost_calls"], claim.tenant_id, claim.delivery_id)
    return [LostCall(*row) for row in rows]


def count_failures(errors: Mapping[str, ItemError], indexes: Sequence[int]) -> dict[str, Cluster]:
    """The errors by code, so that a status poll adds up counts; `indexes` are the delivery's items, in order."""
    clusters: dict[str, Cluster] = {}
    for index, code in sorted((indexes[int(position)], error.code) for position, error in errors.items()):
        cluster = clusters.setdefault(code, Cluster())
        cluster.count += 1
        if len(cluster.samples) < _SAMPLES:
            cluster.samples.append(index)
    return clusters


async def record_delivery(connection: Connection, claim: Claim, record: Record) -> Recorded | None:
    """Write an attempt's end and, if it was the last one open, the job's; `None`: the lease was lost."""
    tried = sorted(record.tried, key=lambda t: t.contact_id)
    letters = record.letters
    arrived = [t for t in tried if t.troubled and t.held]
    known = texts(
        [
            [t.contact_id for t in tried],
            [None if t.state == EffectState.OK else t.state for t in tried],
            [t.remote_id for t in tried],
            [t.code for t in tried],
            [t.detail for t in tried],
            [None if t.created is None else "t" if t.created else "f" for t in tried],
            [None if not t.not_restored else _as_json(t.not_restored) for t in tried],
        ]
    )
    ids, states, remote_ids, codes, details, created, not_restored = known.columns
    async with connection.transaction():
        if arrived:
            await connection.execute(
                QUERIES["supersede_letters"],
                claim.tenant_id,
                claim.destination_id,
                claim.delivery_id,
                claim.token,
                [t.contact_id for t in arrived],
                [t.held for t in arrived],
            )
        row = await connection.fetchrow(
            QUERIES["record_delivery"],
            claim.tenant_id,
            claim.delivery_id,
            claim.token,
            record.states,
            _as_json(record.errors),
            record.attempts,
            None if record.wait is None else timedelta(seconds=record.wait),
            record.absence,
            _as_json(count_failures(record.errors, claim.indexes)),
            ids,
            states,
            numbers(t.version for t in tried),
            numbers(t.held for t in tried),
            remote_ids,
            codes,
            details,
            known.separator,
            known.null,
            created,
            not_restored,
            _as_json(record.not_restored) if record.not_restored else None,
        )
        if row is None:
            return None
        if record.calls:
            await connection.execute(
                QUERIES["record_calls"],
                claim.tenant_id,
                claim.delivery_id,
                claim.attempt,
                msgspec.json.encode(record.calls).decode(),
            )
        if letters:
            indexes = [x.item_index for x in letters]
            await connection.execute(
                QUERIES["bury_letters"],
                claim.tenant_id,
                claim.delivery_id,
                [x.contact_id for x in letters],
                [x.version for x in letters],
                indexes,
                [x.state for x in letters],
                [x.code for x in letters],
                [x.detail for x in letters],
            )
            await connection.execute(
                QUERIES["tell_letters"],
                claim.tenant_id,
                claim.delivery_id,
                indexes,
                _SENTENCES,
                LISTED_BYTES,
            )
        finished = None
        if row["open"] == 0:
            finished = await connection.fetchval(QUERIES["finish_job"], claim.tenant_id, row["job_id"])
        return Recorded(row["job_id"], finished, record.wait)


async def block_destination(
    connection: Connection, tenant_id: int, destination_id: int, seconds: float, code: str, detail: str
) -> None:
    """Nothing of this destination is due for `seconds`."""
    await connection.execute(
        QUERIES["block_destination"], tenant_id, destination_id, timedelta(seconds=seconds), code, detail
    )


async def unblock_destination(connection: Connection, tenant_id: int, destination_id: int) -> None:
    await connection.execute(QUERIES["unblock_destination"], tenant_id, destination_id)


async def release_lost(connection: Connection) -> int:
    """Free the deliveries whose worker did not come back; returns how many."""
    released = 0
    for tenant in await connection.fetch(QUERIES["tenants_sending"]):
        for row in await connection.fetch(QUERIES["lost_deliveries"], tenant["tenant_id"]):
            done = await connection.fetchval(QUERIES["release_lost"], row["tenant_id"], row["delivery_id"])
            released += done is not None
    return released


async def all_tenants(connection: Connection) -> list[int]:
    return [row["tenant_id"] for row in await connection.fetch(QUERIES["all_tenants"])]


async def forget_answers(connection: Connection, memory: float) -> None:
    """Drop answers past their time, and keys past their memory (`memory` seconds after that)."""
    past = timedelta(seconds=memory)
    for tenant_id in await all_tenants(connection):
        await in_strokes(connection, QUERIES["expire_answers"], tenant_id)
        await in_strokes(connection, QUERIES["forget_keys"], tenant_id, past)
