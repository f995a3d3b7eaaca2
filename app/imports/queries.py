"""The queries of the accept transaction, typed."""

import uuid
from collections.abc import Sequence

import msgspec

from app.destinations.kinds import Reach
from app.history import versions
from app.kit.postgres.advisory_locks import lock_number
from app.kit.postgres.database import Connection
from app.kit.postgres.query import Found, Query, Seconds, query
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
    type_version: int
    """Of the tenant's declaration of the type; 0: there is none."""

    @property
    def destinations(self) -> dict[int, str]:
        return dict(zip(self.destination_ids, self.destination_names, strict=True))


@query("claim_key")
async def _claim_key(
    connection: Connection, tenant_id: int, lock: int, route: str, key: str, reach: Reach
) -> KeyClaim: ...


async def claim_key(connection: Connection, tenant_id: int, route: str, key: str, reach: Reach) -> KeyClaim:
    return await _claim_key(connection, tenant_id, lock_number(tenant_id, route, key), route, key, reach)


class Columns(msgspec.Struct, frozen=True, kw_only=True):
    """Items as columns (`app.kit.postgres.column_codec`), sorted by record id without repetition."""

    record_ids: str | None
    documents: str
    """See `app.resources.documents`."""
    names: list[str]
    """Of the first document."""
    plain: bool
    """No value is an object or an array, and no item clears all attributes."""
    cleared: str | None
    """Names that the items clear, as JSON objects (`app.resources.field_states`)."""
    source_versions: str | None
    indexes: str | None
    deleted: list[int] | None
    """Indexes of items that delete their records."""
    expected: str | None
    """Versions that the records must have; 0: the record must not exist."""
    separator: str
    null: str


existing_records = Query[[int, int, Sequence[str]], set[str]]("existing_records")
"""(tenant_id, type_id, record_ids)"""


class Written(msgspec.Struct, frozen=True):
    """Items that wrote something, by index: those that made a record, and those that made it another one, with what it
    is now and who made it before. Texts are joined: by commas, documents by U+001F."""

    created: list[int] | None
    updated: list[int] | None
    versions: list[int] | None
    source_versions: list[int | None] | None
    prev_job_ids: str | None
    prev_item_indexes: list[int] | None
    documents: str | None
    """Empty where it is as the item says."""
    cleared: str | None
    """Empty where nothing was cleared."""


@query
async def upsert_records(
    connection: Connection, tenant_id: int, type_id: int, job_id: uuid.UUID, columns: Columns
) -> Written: ...


name_cleared_attributes = Query[[int, int, Sequence[str]], None]("name_cleared_attributes")
"""(tenant_id, type_id, record_ids) Of new records that were to have all attributes cleared."""


class Unwritten(msgspec.Struct, frozen=True):
    """A record that the upsert left as it was."""

    record_id: str
    version: int
    source_version: int | None


_read_unwritten = Query[[int, int, Sequence[str]], list[Unwritten]]("unwritten_records")


async def unwritten_records(
    connection: Connection, tenant_id: int, type_id: int, record_ids: Sequence[str]
) -> dict[str, Unwritten]:
    return {row.record_id: row for row in await _read_unwritten(connection, tenant_id, type_id, record_ids)}


_touch_records = Query[[int, int, list[str], list[int]], None]("touch_records")


async def touch_records(connection: Connection, tenant_id: int, type_id: int, source_versions: dict[str, int]) -> None:
    """Keep newer source versions of records that are locked and otherwise unchanged."""
    await _touch_records(connection, tenant_id, type_id, list(source_versions), list(source_versions.values()))


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """A run of decided items and their deliveries."""

    tenant_id: int
    type_id: int
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
    """Of the records to be delivered, in item order, as a column (`app.kit.postgres.column_codec`); their versions and
    item indexes likewise."""
    outbox_versions: str | None
    outbox_indexes: str | None
    separator: str
    null: str
    chunk_size: int
    """Most records of one delivery."""
    kinds: Sequence[str]
    """Kinds of destination with another size, which has the same place in `sizes`."""
    sizes: Sequence[int]


@query
async def record_chunk(connection: Connection, chunk: Chunk, versions: versions.Columns) -> None: ...


class ImportRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The job of a decided import and its answer."""

    tenant_id: int
    job_id: uuid.UUID
    type: str
    pending: bool
    """Whether a delivery to some destination is pending."""
    request_id: str
    trace_context: str | None
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
