"""The queries of the accept transaction, typed."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence

import msgspec

from app.auth.queries import all_tenants
from app.kit.postgres.batched_delete import in_batches
from app.kit.postgres.column_codec import numbers, texts
from app.kit.postgres.database import Connection
from app.kit.postgres.query import Affected, Found, Query, Seconds, query
from app.vocabulary.outcomes_wire import Summary


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


class _KeyRow(msgspec.Struct, frozen=True):
    claimed: bool
    fingerprint: bytes | None
    status: int | None
    answer: bytes | None
    expired: bool | None
    answering: float | None
    job_id: uuid.UUID | None
    destination_ids: list[int]
    destination_names: list[str]


_claim_key = Query[[int, int, str, str], _KeyRow]("claim_key")


async def claim_key(connection: Connection, tenant_id: int, route: str, key: str) -> KeyClaim:
    row = await _claim_key(connection, tenant_id, lock_number(tenant_id, route, key), route, key)
    destinations = dict(zip(row.destination_ids, row.destination_names, strict=True))
    answering = row.answering or 0.0
    return KeyClaim(
        row.claimed, row.fingerprint, row.status, row.answer, row.expired, answering, row.job_id, destinations
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
    attributes: list[str | None]
    source_versions: list[int | None]
    indexes: list[int]
    removed: list[str | None]
    """Attribute keys to remove, as JSON arrays."""
    expected: list[int | None]
    """Versions that the contacts must have; 0: the contact must not exist."""
    cleared: list[str | None]
    """Names that the items clear, as JSON objects (app.resources.field_states); None: none."""


existing_contacts = Query[[int, Sequence[str]], set[str]]("existing_contacts")
"""(tenant_id, contact_ids)"""


class _Written(msgspec.Struct, frozen=True):
    indexes: list[int] | None
    versions: list[int] | None


@query("upsert_contacts")
async def _upsert_contacts(
    connection: Connection,
    tenant_id: int,
    job_id: uuid.UUID,
    contact_ids: str | None,
    masks: str | None,
    emails: str | None,
    first_names: str | None,
    last_names: str | None,
    phones: str | None,
    companies: str | None,
    attributes: str | None,
    source_versions: str | None,
    indexes: str | None,
    separator: str,
    null: str,
    removed: str | None,
    expected: str | None,
    cleared: str | None,
) -> _Written: ...


async def upsert_contacts(
    connection: Connection, tenant_id: int, job_id: uuid.UUID, columns: Columns
) -> dict[int, int]:
    """The new version of each item that wrote something, by item index."""
    c = columns
    joined = texts(
        [
            c.contact_ids,
            c.emails,
            c.first_names,
            c.last_names,
            c.phones,
            c.companies,
            c.attributes,
            c.removed,
            c.cleared,
        ]
    )
    ids, emails, first_names, last_names, phones, companies, attributes, removed, cleared = joined.columns
    written = await _upsert_contacts(
        connection,
        tenant_id,
        job_id,
        ids,
        numbers(c.masks),
        emails,
        first_names,
        last_names,
        phones,
        companies,
        attributes,
        numbers(c.source_versions),
        numbers(c.indexes),
        joined.separator,
        joined.null,
        removed,
        numbers(c.expected),
        cleared,
    )
    return dict(zip(written.indexes or (), written.versions or (), strict=True))


class Unwritten(msgspec.Struct, frozen=True):
    """A contact that the upsert left as it was."""

    contact_id: str
    version: int
    source_version: int | None


_read_unwritten = Query[[int, Sequence[str]], list[Unwritten]]("unwritten_contacts")


async def unwritten_contacts(
    connection: Connection, tenant_id: int, contact_ids: Sequence[str]
) -> dict[str, Unwritten]:
    return {row.contact_id: row for row in await _read_unwritten(connection, tenant_id, contact_ids)}


_touch_contacts = Query[[int, list[str], list[int]], None]("touch_contacts")


async def touch_contacts(connection: Connection, tenant_id: int, source_versions: dict[str, int]) -> None:
    """Keep newer source versions of contacts that are locked and otherwise unchanged."""
    await _touch_contacts(connection, tenant_id, list(source_versions), list(source_versions.values()))


class ImportRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The job of a decided import and its answer."""

    tenant_id: int
    job_id: uuid.UUID
    pending: bool
    """Whether a delivery to some destination is pending."""
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
    retention: Seconds
    holding: Seconds | None
    """Seconds for which the answer is held back (`Prefer: wait`)."""


_insert_import = Query[[ImportRecord, Summary], None]("insert_import")


async def insert_import(connection: Connection, record: ImportRecord) -> None:
    await _insert_import(connection, record, record.summary)


settle_answer = Query[[int, str, str, bytes], Found]("settle_answer")
"""(tenant_id, route, key, answer) Put the answer that was held back in place; false if its time was over."""
_expire_answers = Query[[int], Affected]("expire_answers")
_forget_keys = Query[[int, Seconds], Affected]("forget_keys")


async def forget_answers(connection: Connection, memory: float) -> None:
    """Drop answers past their time, and keys past their memory (`memory` seconds after that)."""
    for tenant_id in await all_tenants(connection):
        await in_batches(_expire_answers, connection, tenant_id)
        await in_batches(_forget_keys, connection, tenant_id, memory)
