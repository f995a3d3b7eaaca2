"""Dead letters as HTTP and command line show them: a part of the read model, nothing here writes."""

import uuid
from datetime import datetime
from typing import Any, Final, Literal

import msgspec
from msgspec import UNSET

from app.dead_letters import queries as rows
from app.dead_letters.queries import Call, ClusterRow, DeadLetterRow, Filter
from app.dead_letters.selection import select
from app.errors import NotFound
from app.history import queries as history
from app.history.versions import StoredVersion
from app.kit.postgres.database import Connection
from app.records import queries
from app.resource_types.catalog import Catalog
from app.resources import documents
from app.resources.declaration import Resource
from app.undo.conflicts import ChangedBy, Conflict
from app.undo.restore import as_row
from app.vocabulary.outcomes_wire import JsonObject
from app.vocabulary.states import DeadLetterKind, ErrorCode, JobKind, Resolution

_MOST_STEPS: Final = 1_000
"""Versions that a dead letter is looked for back from the current one."""


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """One dead letter of a chain, and how it ended."""

    id: int
    job_id: uuid.UUID
    state: Literal["failed", "dead"]
    error_code: ErrorCode
    detail: str
    attempts: int
    created_at: datetime
    resolution: Resolution | None
    """How it ended; null while it waits for an operator."""
    resolved_at: datetime | None
    resolved_by: str | None
    note: str | None
    replay_job_id: uuid.UUID | None


class Undone(msgspec.Struct, frozen=True, kw_only=True):
    """Why an undo left a record as it is."""

    job_id: uuid.UUID
    """The job that was undone."""
    item_index: int
    """Of it: the item that changed the record."""
    changed_by: ChangedBy
    """Who changed the record since; a replay restores it only as long as this is its version."""


class DeadLetter(Link, frozen=True, kw_only=True):
    """An item that is no longer tried at one destination, or a record that an undo left as it is."""

    kind: DeadLetterKind
    destination: str | None
    """null: of an undo."""
    type: str
    """Of the record."""
    record_id: str
    version: int
    """The version that was to be delivered; a replay sends the current one. Of an undo, the one to be taken back."""
    item_index: int
    job_kind: JobKind | None
    """Of the job `job_id`. Of a delivery of an undo, the destination still holds what was to be taken back. null: the
    job is past its retention."""
    root_job_id: uuid.UUID
    """The job that it all began with."""
    chain_id: int
    """The first dead letter of this item here; replays that fail again add to its chain."""
    undone: Undone | None
    """Of an undo."""
    request_id: str
    url: str


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    """Open dead letters of one destination with one code."""

    kind: DeadLetterKind
    destination: str | None
    """null: of undos."""
    error_code: ErrorCode
    count: int
    failed: int
    dead: int
    oldest: datetime
    newest: datetime
    samples: list[int]
    """The first ids."""
    detail: str
    """Of the first one."""


class FailedVersion(msgspec.Struct, frozen=True, kw_only=True):
    """The version that the dead letter is about, and the item that made it."""

    job_id: uuid.UUID
    item_index: int
    changed_at: datetime
    record: JsonObject | None
    """Its id, version, fields and attributes; null: the version deletes it."""


class DeadLetterDetail(DeadLetter, frozen=True, kw_only=True):
    """A dead letter with all that an operator needs to decide."""

    choices: list[Literal["replay", "drop", "settle"]]
    """What makes sense now."""
    payload: JsonObject | None
    """The record (id, version, fields and attributes) as a replay would send it now; null: there is none any more, so
    its deletion would be sent. Of an undo, what a replay would restore, as an item that can be imported (`deleted`: the
    record would be removed); null: the record was erased."""
    failed_version: FailedVersion | None
    """The version that the dead letter is about, and the item that made it; null once it is no longer known."""
    headers: dict[str, list[str]]
    """That went along with the calls, to find them at the CRM and in logs."""
    calls: list[Call]
    """Evidence, the last call first; calls that ended well for the item are in the log alone."""
    chain: list[Link]
    """This dead letter and those of the same item before and after it, oldest first."""


async def list_dead_letters(
    connection: Connection, tenant_id: int, wanted: Filter, *, resolution: str, before: int | None, limit: int
) -> tuple[list[DeadLetter], int | None]:
    """A page, newest first, and the cursor of the next one (`None`: that was all).

    A filtered one may hold fewer than `limit`, even none, and still have a next one.

    Raises:
        NotFound: the filter names a destination or job that there is not.
    """
    selection = await select(connection, tenant_id)
    found, position = await rows.list_dead_letters(
        connection,
        tenant_id,
        wanted,
        await selection.find_meant(wanted),
        resolution=resolution,
        before=rows.NEWEST if before is None else before,
        limit=limit,
    )
    return [DeadLetter(**_describe(row, selection.name_place(row.destination_id))) for row in found], position


async def list_clusters(connection: Connection, tenant_id: int, wanted: Filter) -> list[Cluster]:
    """Open dead letters by destination and code, the most frequent first.
    Raises `NotFound`: see `list_dead_letters`."""
    selection = await select(connection, tenant_id)
    meant = await selection.find_meant(wanted)
    found = await selection.clusters(wanted, meant)
    return [describe_cluster(row, selection.name_place(row.destination_id)) for row in found]


def describe_cluster(row: ClusterRow, destination: str | None) -> Cluster:
    fields = msgspec.structs.asdict(row)
    del fields["destination_id"]
    kind = DeadLetterKind.UNDO if destination is None else DeadLetterKind.DELIVERY
    return Cluster(kind=kind, destination=destination, **fields)


async def read_dead_letter(
    connection: Connection, tenant_id: int, dead_letter_id: int, catalog: Catalog
) -> DeadLetterDetail:
    """One letter, as of one moment. Raises `NotFound`: the tenant has no such dead letter."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        found = await rows.read_dead_letters(connection, tenant_id, [dead_letter_id])
        if not found:
            raise NotFound("There is no such dead letter.")
        (row,) = found
        selection = await select(connection, tenant_id)
        record = await queries.read_record(connection, tenant_id, row.type_id, row.record_id)
        version = await _find_version(connection, tenant_id, row.type_id, record, row.version)
        calls = await rows.read_calls(connection, row, tenant_id)
        chain = await rows.read_chain(connection, tenant_id, row.chain_id or row.dead_letter_id)
        resource = await catalog.by_id(connection, tenant_id, row.type_id)
    events = list(dict.fromkeys(call.event_id for call in calls))
    return DeadLetterDetail(
        **_describe(row, selection.name_place(row.destination_id)),
        choices=_choose(row, removed=selection.is_removed(row.destination_id)),
        payload=_show_payload(record) if row.conflict is None else _show_restored(row, row.conflict, resource),
        failed_version=version,
        headers={"X-Request-ID": [row.request_id]} | ({"X-Event-ID": events} if events else {}),
        calls=calls,
        chain=[_show_link(link) for link in chain],
    )


def _describe(row: DeadLetterRow, destination: str | None) -> dict[str, Any]:
    found, conflict = msgspec.structs.asdict(row), row.conflict
    undone = None
    if conflict is not None:
        undone = Undone(job_id=conflict.job_id, item_index=conflict.item_index, changed_by=conflict.changed_by)
    return {name: found[name] for name in DeadLetter.__struct_fields__ if name in found} | {
        "id": row.dead_letter_id,
        "kind": row.kind,
        "undone": undone,
        "type": row.type,
        "destination": destination,
        "detail": row.error_detail,
        "chain_id": row.chain_id or row.dead_letter_id,
        "url": f"/v1/dead-letters/{row.dead_letter_id}",
    }


def _choose(row: DeadLetterRow, *, removed: bool) -> list[Literal["replay", "drop", "settle"]]:
    if row.resolution is not None:
        return []
    choices: list[Literal["replay", "drop", "settle"]] = ["drop"] if removed else ["replay", "drop"]
    return [*choices, "settle"] if row.error_code == ErrorCode.OUTCOME_UNKNOWN else choices


async def _find_version(
    connection: Connection, tenant_id: int, type_id: int, record: queries.RecordRow | None, version: int
) -> FailedVersion | None:
    """`None`: the record has changed too often since."""
    if record is None or record.version - version > _MOST_STEPS:
        return None
    past = (await history.walk_back(connection, tenant_id, type_id, [record.record_id], [version])).get(
        record.record_id
    )
    if not past or past[-1].stored.version != version:
        return None
    made = past[-1]
    return FailedVersion(
        job_id=made.job_id,
        item_index=made.item_index,
        changed_at=made.changed_at,
        record=None if made.stored.deleted else _show_record(made.stored),
    )


def _show_link(row: DeadLetterRow) -> Link:
    fields = _describe(row, "")
    return Link(**{name: fields[name] for name in Link.__struct_fields__})


def _show_payload(record: queries.RecordRow | None) -> msgspec.Raw | None:
    return None if record is None or record.deleted else _show_record(record)


def _show_restored(row: DeadLetterRow, conflict: Conflict, resource: Resource) -> msgspec.Raw | None:
    if conflict.before is UNSET:
        return None
    found = as_row(resource, row.record_id, conflict.restored(row.record_id))
    return msgspec.Raw(msgspec.json.encode(found))


def _show_record(record: queries.RecordRow | StoredVersion) -> msgspec.Raw:
    shown = documents.as_named(documents.read(record.document))
    return msgspec.Raw(msgspec.json.encode({"id": record.record_id, "version": record.version, **shown}))
