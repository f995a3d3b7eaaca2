"""The queries of the accept transaction, typed."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from datetime import timedelta

import msgspec

from app.db.columns import numbers, texts
from app.db.pool import Connection
from app.db.sql import QUERIES
from app.domain.answers import Summary


class KeyClaim(msgspec.Struct, frozen=True):
    """The stored request of an idempotency key, and the tenant's destinations."""

    claimed: bool
    """Nobody else is running this key now."""
    fingerprint: bytes | None
    """Of the request that was answered under this key; `None`: the key is new, or a body is arriving under it."""
    status: int | None
    answer: bytes | None
    expired: bool | None
    answering: float
    """Seconds for which the first answer may still be held back, or its body is taken to be still arriving."""
    job_id: uuid.UUID | None
    destinations: dict[int, str]


def lock_number(tenant_id: int, route: str, key: str) -> int:
    """The advisory lock of an idempotency key."""
    digest = hashlib.blake2b(f"{tenant_id}\0{route}\0{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


async def claim_key(connection: Connection, tenant_id: int, route: str, key: str) -> KeyClaim:
    row = await connection.fetchrow(
        QUERIES["claim_key"], tenant_id, lock_number(tenant_id, route, key), route, key
    )
    assert row is not None
    claimed, fingerprint, status, answer, expired, answering, job_id, ids, names = row
    destinations = dict(zip(ids, names, strict=True))
    return KeyClaim(claimed, fingerprint, status, answer, expired, answering or 0.0, job_id, destinations)


class Columns(msgspec.Struct, frozen=True):
    """Items as columns, sorted by contact id without repetition."""

    contact_ids: list[str]
    masks: list[int]
    emails: list[str]
    first_names: list[str | None]
    last_names: list[str | None]
    phones: list[str | None]
    companies: list[str | None]
    attributes: list[str | None]
    source_versions: list[int | None]
    indexes: list[int]
    removed: list[str | None]
    """Attribute keys to remove, as JSON arrays."""
    expected: list[int | None]
    """Versions that must stand; 0: no contact must."""


async def existing_contacts(connection: Connection, tenant_id: int, contact_ids: Sequence[str]) -> set[str]:
    rows = await connection.fetch(QUERIES["existing_contacts"], tenant_id, contact_ids)
    return {row["contact_id"] for row in rows}


async def upsert_contacts(
    connection: Connection, tenant_id: int, job_id: uuid.UUID, columns: Columns
) -> dict[int, int]:
    """The new version of each item that wrote something, by item index."""
    c = columns
    joined = texts(
        [c.contact_ids, c.emails, c.first_names, c.last_names, c.phones, c.companies, c.attributes, c.removed]
    )
    contact_ids, *others, removed = joined.columns
    row = await connection.fetchrow(
        QUERIES["upsert_contacts"],
        tenant_id,
        job_id,
        contact_ids,
        numbers(c.masks),
        *others,
        numbers(c.source_versions),
        numbers(c.indexes),
        joined.separator,
        joined.null,
        removed,
        numbers(c.expected),
    )
    assert row is not None
    return dict(zip(row[0] or (), row[1] or (), strict=True))


class Unwritten(msgspec.Struct, frozen=True):
    """A contact that the upsert left as it was."""

    version: int
    source_version: int | None


async def unwritten_contacts(
    connection: Connection, tenant_id: int, contact_ids: Sequence[str]
) -> dict[str, Unwritten]:
    rows = await connection.fetch(QUERIES["unwritten_contacts"], tenant_id, contact_ids)
    return {row["contact_id"]: Unwritten(row["version"], row["source_version"]) for row in rows}


async def touch_contacts(connection: Connection, tenant_id: int, source_versions: dict[str, int]) -> None:
    """Keep newer source versions of contacts that are locked and otherwise unchanged."""
    await connection.execute(
        QUERIES["touch_contacts"], tenant_id, list(source_versions), list(source_versions.values())
    )


class ImportRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The job of a decided import and its answer."""

    tenant_id: int
    job_id: uuid.UUID
    state: str
    request_id: str
    key_id: str
    options: str
    summary: Summary
    results: str
    body_bytes: int
    form: str | None
    route: str
    key: str
    fingerprint: bytes
    status: int
    answer: bytes
    retention: float
    holding: float | None
    """Seconds for which the answer is held back (`Prefer: wait`)."""


async def insert_import(connection: Connection, record: ImportRecord) -> None:
    r = record
    await connection.execute(
        QUERIES["insert_import"],
        r.tenant_id,
        r.job_id,
        r.state,
        r.request_id,
        r.key_id,
        r.options,
        r.summary.total,
        r.summary.succeeded,
        r.summary.failed,
        r.summary.retry,
        r.results,
        r.body_bytes,
        r.form,
        r.route,
        r.key,
        r.fingerprint,
        r.status,
        r.answer,
        timedelta(seconds=r.retention),
        None if r.holding is None else timedelta(seconds=r.holding),
    )


async def settle_answer(connection: Connection, tenant_id: int, route: str, key: str, answer: bytes) -> bool:
    """Put the answer that was held back in place; false if its time was over."""
    return await connection.fetchval(QUERIES["settle_answer"], tenant_id, route, key, answer) is not None
