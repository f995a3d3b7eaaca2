"""The write phase of an import: items in key order to contacts and ledger, within the caller's transaction."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from operator import attrgetter
from typing import Final

import msgspec

from app.imports import queries
from app.imports.batch.items import Items, conflict
from app.kit.postgres.column_codec import numbers, texts
from app.kit.postgres.database import Connection
from app.resources import decoding, field_states
from app.resources.decoding import Accepted
from app.vocabulary import outcomes_wire
from app.vocabulary.contact_fields import BITS, STANDARD_FIELDS
from app.vocabulary.outcomes_wire import ItemOutcome
from app.vocabulary.states import ItemStatus, Result


async def write(
    connection: Connection, tenant_id: int, job_id: uuid.UUID, items: Items, *, atomic: bool, dry_run: bool
) -> None:
    """Decide every item and write what changed, within the caller's transaction.

    A dry run, and an atomic batch with a failure, are undone to a savepoint.
    """
    if not (dry_run or atomic):
        items.decide(await _upsert_parts(connection, tenant_id, job_id, items))
        return
    savepoint = connection.transaction()
    await savepoint.start()
    items.decide(await _upsert_parts(connection, tenant_id, job_id, items))
    broken = atomic and any(o.status is not ItemStatus.OK for o in items.outcomes)
    if broken:
        items.abort()
    await (savepoint.rollback() if broken or dry_run else savepoint.commit())


async def _upsert_parts(
    connection: Connection, tenant_id: int, job_id: uuid.UUID, items: Items
) -> dict[int, ItemOutcome]:
    """One part after the other; each is read while PostgreSQL works on the one before."""
    decided: dict[int, ItemOutcome] = {}
    working: asyncio.Task[dict[int, ItemOutcome]] | None = None
    try:
        for part in items.parts():
            if not part:
                await asyncio.sleep(0)
                continue
            if working is not None:
                decided |= await working
            working = asyncio.create_task(_upsert(connection, tenant_id, job_id, part))
            await asyncio.sleep(0)  # the statement is sent before the next part is read
        if working is not None:
            decided |= await working
    finally:
        if working is not None and not working.done():
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
    return decided


async def _upsert(
    connection: Connection, tenant_id: int, job_id: uuid.UUID, applied: Sequence[Accepted]
) -> dict[int, ItemOutcome]:
    """The outcome of each item, by index."""
    decided: dict[int, ItemOutcome] = {}
    left = applied
    expecting = [i for i in applied if i.if_version]
    if expecting:
        existing = await queries.existing_contacts(connection, tenant_id, [i.contact_id for i in expecting])
        decided = {i.index: conflict(i, 0) for i in expecting if i.contact_id not in existing}
        left = [i for i in applied if i.index not in decided]
    if not left:
        return decided
    made = await queries.upsert_contacts(connection, tenant_id, job_id, _columns(left))
    written = dict(zip(made.indexes or (), made.versions or (), strict=True))
    ok, created, updated = ItemStatus.OK, Result.CREATED, Result.UPDATED
    for item in left:
        index = item.index
        version = written.get(index)
        if version is not None:
            result = created if version == 1 else updated
            decided[index] = ItemOutcome(index, item.contact_id, ok, result, version)
    if len(written) < len(left):
        await _leave(connection, tenant_id, [i for i in left if i.index not in written], decided)
    return decided


async def _leave(
    connection: Connection, tenant_id: int, items: Sequence[Accepted], decided: dict[int, ItemOutcome]
) -> None:
    """Items that changed nothing: the contact is not as they expect, has all they say, or something newer."""
    stored = await queries.unwritten_contacts(connection, tenant_id, [i.contact_id for i in items])
    newer: dict[str, int] = {}
    for item in items:
        found = stored[item.contact_id]
        if item.if_version is not None and item.if_version != found.version:
            decided[item.index] = conflict(item, found.version)
            continue
        result = Result.UNCHANGED
        if item.source_version is not None:
            if found.source_version is None or item.source_version > found.source_version:
                newer[item.contact_id] = item.source_version
            elif item.source_version < found.source_version:
                result = Result.SUPERSEDED
        decided[item.index] = ItemOutcome(item.index, item.contact_id, ItemStatus.OK, result, found.version)
    if newer:
        await queries.touch_contacts(connection, tenant_id, newer)


_REPLACES: Final = 256
"""Added to the mask of an item whose attributes are not a patch (see upsert_contacts)."""


def _columns(items: Sequence[Accepted]) -> queries.Columns:
    masks = [i.mask for i in items]
    attributes = [i.attributes for i in items]
    removed: list[str | None] = [None] * len(items)
    names: dict[int, list[str]] = {}
    for position, item in enumerate(items):
        if item.removes:
            attributes[position], keys = _parted(item.attributes)
            removed[position] = outcomes_wire.as_json(keys)
            names[position] = [field_states.ATTRIBUTE + key for key in keys]
        elif item.attributes is None and item.mask & decoding.ATTRIBUTES:
            masks[position] |= _REPLACES
    fields = [list(map(attrgetter(name), items)) for name in STANDARD_FIELDS]
    for name, values in zip(STANDARD_FIELDS, fields, strict=True):
        if None in values:
            for position, value in enumerate(values):
                if value is None and masks[position] & BITS[name]:
                    names.setdefault(position, []).append(name)
    cleared: list[str | None] = [None] * len(items)
    for position, those in names.items():
        cleared[position] = outcomes_wire.as_json(dict.fromkeys(those, "1"))
    joined = texts([[i.contact_id for i in items], attributes, removed, cleared, *fields])
    contact_ids, joined_attributes, joined_removed, joined_cleared, *joined_fields = joined.columns
    return queries.Columns(
        contact_ids=contact_ids,
        fields=joined_fields,
        attributes=joined_attributes,
        removed=joined_removed,
        cleared=joined_cleared,
        masks=numbers(masks),
        source_versions=numbers(i.source_version for i in items),
        indexes=numbers(i.index for i in items),
        expected=numbers(i.if_version for i in items),
        separator=joined.separator,
        null=joined.null,
    )


def _parted(patch: str | None) -> tuple[str, list[str]]:
    """What a patch sets, as JSON, and the keys that it removes."""
    members: dict[str, object] = msgspec.json.decode(patch or "{}")
    kept = {key: value for key, value in members.items() if value is not None}
    return outcomes_wire.as_json(kept), [key for key, value in members.items() if value is None]
