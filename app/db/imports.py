"""The queries of the accept transaction, typed."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec

from app.db.sql import QUERIES

if TYPE_CHECKING:
    from app.db.pool import Connection


class KeyClaim(msgspec.Struct, frozen=True):
    """What stands under an idempotency key, and where the tenant's contacts go."""

    claimed: bool
    """Nobody else is running this key now."""
    fingerprint: bytes | None
    """Of the request that was answered under this key; `None`: the key is new."""
    status: int | None
    answer: bytes | None
    expired: bool | None
    answering: float
    """Seconds for which the first answer may still be held back."""
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
    claimed, fingerprint, status, answer, expired, answering, ids, names = row
    return KeyClaim(
        claimed, fingerprint, status, answer, expired, answering or 0.0, dict(zip(ids, names, strict=True))
    )


class Columns(msgspec.Struct, frozen=True):
    """Items as columns, sorted by contact id without repetition."""

    contact_ids: list[str]
    masks: list[int]
    emails: list[str]
    first_names: list[str | None]
    last_names: list[str | None]
    phones: list[str | None]
    companies: list[str | None]
    patches: list[str | None]
    if_versions: list[int | None]
    source_versions: list[int | None]
    indexes: list[int]


async def upsert_contacts(
    connection: Connection, tenant_id: int, job_id: uuid.UUID, columns: Columns, *, atomic: bool, write: bool
) -> tuple[str, list[int]]:
    """A letter and a version for each item: c u t n s x (see the query). Nothing is written unless `write`."""
    row = await connection.fetchrow(
        QUERIES["upsert_contacts"],
        tenant_id,
        job_id,
        columns.contact_ids,
        columns.masks,
        columns.emails,
        columns.first_names,
        columns.last_names,
        columns.phones,
        columns.companies,
        columns.patches,
        columns.if_versions,
        columns.source_versions,
        columns.indexes,
        atomic,
        write,
    )
    assert row is not None
    return row[0] or "", row[1] or []


class ImportRecord(msgspec.Struct, frozen=True, kw_only=True):
    """All that an import leaves behind beside contacts and ledger."""

    tenant_id: int
    job_id: uuid.UUID
    state: str
    request_id: str
    key_id: str
    options: str
    total: int
    succeeded: int
    failed: int
    retry: int
    results: str
    outcomes: bytes
    failures: str
    destination_ids: Sequence[int]
    contact_ids: Sequence[str]
    """Of the items that destinations are owed, in item order; `versions` and `indexes` likewise."""
    versions: Sequence[int]
    indexes: Sequence[int]
    chunk_size: int
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
    firsts = range(1, len(r.contact_ids) + 1, r.chunk_size)
    lasts = [min(first + r.chunk_size - 1, len(r.contact_ids)) for first in firsts]
    await connection.execute(
        QUERIES["insert_import"],
        r.tenant_id,
        r.job_id,
        r.state,
        r.request_id,
        r.key_id,
        r.options,
        r.total,
        r.succeeded,
        r.failed,
        r.retry,
        r.results,
        r.outcomes,
        r.destination_ids,
        r.contact_ids,
        r.versions,
        r.indexes,
        list(firsts),
        lasts,
        r.failures,
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
