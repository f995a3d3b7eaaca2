"""The write phase of an import: items in key order to records, within the caller's transaction."""

import asyncio
import uuid
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from app.history.versions import NOTHING, NewVersion, StoredVersion
from app.imports import queries
from app.imports.batch.items import Items, conflict
from app.imports.queries import Written
from app.kit.postgres.column_codec import numbers, texts
from app.kit.postgres.database import Connection
from app.resources.decoding import Accepted
from app.resources.documents import ALL_ATTRIBUTES
from app.vocabulary.outcomes_wire import ItemOutcome
from app.vocabulary.states import ItemStatus, Result

_MOST_EXPECTED: Final = 2**31 - 1
"""No record comes to so many versions."""


async def write(
    connection: Connection, tenant_id: int, job_id: uuid.UUID, items: Items, *, atomic: bool, dry_run: bool
) -> None:
    """Decide every item and write what changed, within the caller's transaction.

    A dry run, and an atomic batch with a failure, are undone to a savepoint.
    """
    if not (dry_run or atomic):
        items.decide(*await _upsert_parts(connection, tenant_id, job_id, items))
        return
    savepoint = connection.transaction()
    await savepoint.start()
    items.decide(*await _upsert_parts(connection, tenant_id, job_id, items))
    if atomic and any(o.status is not ItemStatus.OK for o in items.outcomes):
        items.abort()
    elif not dry_run:
        await savepoint.commit()
        return
    items.versions.clear()
    await savepoint.rollback()


_Decided = tuple[dict[int, ItemOutcome], list[NewVersion]]
"""The outcome of each item, by index; and what was made."""


async def _upsert_parts(connection: Connection, tenant_id: int, job_id: uuid.UUID, items: Items) -> _Decided:
    """One part after the other; each is read while PostgreSQL works on the one before."""
    outcomes: dict[int, ItemOutcome] = {}
    versions: list[NewVersion] = []
    working: asyncio.Task[_Decided] | None = None

    async def finish(part: asyncio.Task[_Decided]) -> None:
        decided, made = await part
        outcomes.update(decided)
        versions.extend(made)

    try:
        for part in items.parts():
            if not part:
                await asyncio.sleep(0)
                continue
            if working is not None:
                await finish(working)
            working = asyncio.create_task(_upsert(connection, tenant_id, items.type_id, job_id, part))
            await asyncio.sleep(0)  # the statement is sent before the next part is read
        if working is not None:
            await finish(working)
    finally:
        if working is not None and not working.done():
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
    return outcomes, versions


async def _upsert(
    connection: Connection, tenant_id: int, type_id: int, job_id: uuid.UUID, applied: Sequence[Accepted]
) -> _Decided:
    decided: dict[int, ItemOutcome] = {}
    left = applied
    expecting = [i for i in applied if i.if_version]
    if expecting:
        existing = await queries.existing_records(connection, tenant_id, type_id, [i.record_id for i in expecting])
        decided = {i.index: conflict(i, 0) for i in expecting if i.record_id not in existing}
        left = [i for i in applied if i.index not in decided]
    if not left:
        return decided, []
    written = await queries.upsert_records(connection, tenant_id, type_id, job_id, _columns(left))
    versions = list(_describe(written, {item.index: item for item in left}))
    ok, created, updated, deleted = ItemStatus.OK, Result.CREATED, Result.UPDATED, Result.DELETED
    for made in versions:
        index, stored = made.index, made.stored
        result = deleted if stored.deleted else created if stored.version == 1 else updated
        decided[index] = ItemOutcome(index, stored.record_id, ok, result, stored.version)
    emptied = {i.index: i.record_id for i in left if i.cleared and ALL_ATTRIBUTES in i.cleared}
    if emptied and written.created:
        new = [emptied[index] for index in written.created if index in emptied]
        await queries.name_cleared_attributes(connection, tenant_id, type_id, new)
    if len(versions) < len(left):
        await _leave(connection, tenant_id, type_id, [i for i in left if i.index not in decided], decided)
    return decided, versions


def _describe(written: Written, items: dict[int, Accepted]) -> Iterator[NewVersion]:
    """The versions that were made; a new record is what its item says."""
    raw = msgspec.Raw
    for index in written.created or ():
        item = items[index]
        names = item.cleared and [name for name in item.cleared if name != ALL_ATTRIBUTES]
        cleared = raw(_name(names)) if names else NOTHING
        stored = StoredVersion(item.record_id, 1, item.source_version, item.deleted, raw(item.document), cleared)
        yield NewVersion(index, stored)
    if written.updated is None:
        return
    rows = zip(
        written.updated,
        written.versions or (),
        written.source_versions or (),
        (written.prev_job_ids or "").split(","),
        written.prev_item_indexes or (),
        (written.documents or "").encode().split(b"\x1f"),
        (written.cleared or "").encode().split(b"\x1f"),
        strict=True,
    )
    for index, version, source_version, job_id, item_index, document, known in rows:
        cleared = raw(known) if known else NOTHING
        item = items[index]
        stored = StoredVersion(
            item.record_id, version, source_version, item.deleted, raw(document or item.document), cleared
        )
        yield NewVersion(index, stored, job_id, item_index)


async def _leave(
    connection: Connection, tenant_id: int, type_id: int, items: Sequence[Accepted], decided: dict[int, ItemOutcome]
) -> None:
    """Items that changed nothing: the record is not as they expect, has all they say, or something newer."""
    stored = await queries.unwritten_records(connection, tenant_id, type_id, [i.record_id for i in items])
    newer: dict[str, int] = {}
    for item in items:
        found = stored[item.record_id]
        if item.if_version is not None and item.if_version != found.version:
            decided[item.index] = conflict(item, found.version)
            continue
        result = Result.UNCHANGED
        if item.source_version is not None:
            if found.source_version is None or item.source_version > found.source_version:
                newer[item.record_id] = item.source_version
            elif item.source_version < found.source_version:
                result = Result.SUPERSEDED
        decided[item.index] = ItemOutcome(item.index, item.record_id, ItemStatus.OK, result, found.version)
    if newer:
        await queries.touch_records(connection, tenant_id, type_id, newer)


def _columns(items: Sequence[Accepted]) -> queries.Columns:
    joined = texts(
        [[i.record_id for i in items], [None if i.cleared is None else _name(i.cleared).decode() for i in items]]
    )
    ids, cleared = joined.columns
    # JSON has no control characters, so nothing in it can be taken for the separator.
    documents = joined.separator.encode().join([i.document for i in items])
    deleted = [i.index for i in items if i.deleted]
    return queries.Columns(
        record_ids=ids,
        documents=documents.decode(),
        names=list(msgspec.json.decode(items[0].document)),
        plain=b"[" not in documents
        and documents.count(b"{") == len(items)
        and not deleted
        and (cleared is None or f'"{ALL_ATTRIBUTES}"' not in cleared),
        cleared=cleared,
        deleted=deleted or None,
        source_versions=numbers(i.source_version for i in items),
        indexes=numbers(i.index for i in items),
        expected=numbers(None if i.if_version is None else min(i.if_version, _MOST_EXPECTED) for i in items),
        separator=joined.separator,
        null=joined.null,
    )


def _name(cleared: Sequence[str]) -> bytes:
    """Names as what was cleared in version 1."""
    return msgspec.json.encode(dict.fromkeys(cleared, "1"))
