"""The queries of the accept transaction, typed."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence

import msgspec

from app.auth.queries import all_tenants
from app.kit.postgres.batched_delete import in_batches
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
    destination_ids: list[int]
    destination_names: list[str]

    @property
    def destinations(self) -> dict[int, str]:
        return dict(zip(self.destination_ids, self.destination_names, strict=True))


def lock_number(tenant_id: int, route: str, key: str) -> int:
    """The advisory lock of an idempotency key."""
    digest = hashlib.blake2b(f"{tenant_id}\0{route}\0{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


_claim_key = Query[[int, int, str, str], KeyClaim]("claim_key")


async def claim_key(connection: Connection, tenant_id: int, route: str, key: str) -> KeyClaim:
    return await _claim_key(connection, tenant_id, lock_number(tenant_id, route, key), route, key)


class Columns(msgspec.Struct, frozen=True, kw_only=True):
    """Items as columns (`app.kit.postgres.column_codec`), sorted by contact id without repetition."""

    contact_ids: str | None
    fields: list[str | None]
    """The columns of `STANDARD_FIELDS`."""
    attributes: str | None
    removed: str | None
    """Attribute keys to remove, as JSON arrays."""
    cleared: str | None
    """Names that the items clear, as JSON objects (`app.resources.field_states`)."""
    masks: str | None
    source_versions: str | None
    indexes: str | None
    expected: str | None
    """Versions that the contacts must have; 0: the contact must not exist."""
    separator: str
    null: str


existing_contacts = Query[[int, Sequence[str]], set[str]]("existing_contacts")


class Written(msgspec.Struct, frozen=True):
    """Items that wrote something, and the new versions."""

    indexes: list[int] | None
    versions: list[int] | None


@query
async def upsert_contacts(connection: Connection, tenant_id: int, job_id: uuid.UUID, columns: Columns) -> Written: ...


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


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """A run of decided items and their deliveries."""

    tenant_id: int
    job_id: uuid.UUID
    request_id: str
    first_index: int
    item_count: int
    """Places of the run; `outcomes` may lack some that wait for others."""
    failures: str
    outcomes: bytes
    sources: bytes | None
    """Of the items that are not `ok`."""
    destination_ids: Sequence[int]
    outbox_ids: str | None
    """Of the contacts to be delivered, in item order, as a column (`app.kit.postgres.column_codec`); their versions and
    item indexes likewise."""
    outbox_versions: str | None
    outbox_indexes: str | None
    separator: str
    null: str
    firsts: Sequence[int]
    """Positions in these columns, from 1, at which a delivery begins; `lasts`: at which it ends."""
    lasts: Sequence[int]


@query
async def record_chunk(connection: Connection, chunk: Chunk) -> None: ...


class ImportRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The job of a decided import and its answer."""

    tenant_id: int
    job_id: uuid.UUID
    pending: bool
    """Whether a delivery to some destination is pending."""
    request_id: str
    key_id: str
    options: str
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


insert_import = Query[[ImportRecord, Summary], None]("insert_import")
settle_answer = Query[[int, str, str, bytes], Found]("settle_answer")
"""(tenant_id, route, key, answer) Put the answer that was held back in place; false if its time was over."""
_expire_answers = Query[[int], Affected]("expire_answers")
_forget_keys = Query[[int, Seconds], Affected]("forget_keys")


async def forget_answers(connection: Connection, memory: float) -> None:
    """Drop answers past their time, and keys past their memory (`memory` seconds after that)."""
    for tenant_id in await all_tenants(connection):
        await in_batches(_expire_answers, connection, tenant_id)
        await in_batches(_forget_keys, connection, tenant_id, memory)
