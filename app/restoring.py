"""Gives contacts back what stood before some items of a job, a range at a time, within the caller's transaction.

What comes of it is booked like a chunk of an import: outcomes, counts, and deliveries to every destination, which are
sent the contacts as they then stand. Every exit of an item:

- restored   the version is still the item's own → the one before becomes a new version, or the contact a tombstone
- unchanged  an earlier undo has taken the item back already
- conflict   somebody changed the contact since: it is left as it is, and the item says by whom
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from app.booking import book
from app.db import processing, undoing
from app.db.pool import Connection
from app.db.undoing import Before, Change, Maker, Standing
from app.domain import answers
from app.domain.answers import ItemOutcome
from app.domain.outcomes import ErrorCode, ItemStatus, JobKind, Result
from app.domain.rules import FieldError

RANGE: Final = 1_000
"""Most items of one transaction."""


class Restoration(msgspec.Struct, frozen=True, kw_only=True):
    """The job that takes something back, and the one whose items it takes back."""

    tenant_id: int
    job_id: uuid.UUID
    request_id: str
    of: uuid.UUID
    chunk_size: int


class Restored(msgspec.Struct, frozen=True):
    """What became of a range; contacts by outcome."""

    restored: list[str]
    unchanged: list[str]
    conflicts: list[str]
    owed: list[int]
    """Destinations that were given deliveries."""


async def restore(
    connection: Connection, job: Restoration, changes: Sequence[Change], *, first_index: int
) -> Restored:
    """Take these changes back; they become the items of `job` from `first_index` on."""
    standing = await undoing.lock_contacts(connection, job.tenant_id, [c.contact_id for c in changes])
    own = [place for place, c in enumerate(changes) if _is_own(job, c, standing[c.contact_id])]
    others = sorted(set(range(len(changes))) - set(own))
    outcomes: dict[int, ItemOutcome] = {}
    if own:
        restored = [changes[place] for place in own]
        await undoing.restore(
            connection, job.tenant_id, job.job_id, [first_index + place for place in own], restored
        )
        for place, change in zip(own, restored, strict=True):
            index = first_index + place
            outcomes[place] = ItemOutcome(
                index, change.contact_id, ItemStatus.OK, Result.UPDATED, change.version + 1
            )
    if others:
        makers = await undoing.read_makers(
            connection, job.tenant_id, list({standing[changes[place].contact_id].job_id for place in others})
        )
        for place in others:
            change = changes[place]
            found = standing[change.contact_id]
            outcomes[place] = _leave(job, first_index + place, change, found, makers[found.job_id])
    ordered = [outcomes[place] for place in range(len(changes))]
    owed = await _book(connection, job, changes, ordered, first_index)
    by_outcome: dict[str, list[str]] = {"restored": [], "unchanged": [], "conflicts": []}
    for outcome, change in zip(ordered, changes, strict=True):
        word = (
            "conflicts"
            if outcome.status is not ItemStatus.OK
            else ("restored" if outcome.result is Result.UPDATED else "unchanged")
        )
        by_outcome[word].append(change.contact_id)
    return Restored(**by_outcome, owed=owed)


def _is_own(job: Restoration, change: Change, found: Standing) -> bool:
    """Whether the contact stands exactly as the item left it. A later item that said the same, under a newer
    source_version, made no version, but it confirmed what would be taken back."""
    return (found.job_id, found.item_index, found.version) == (
        job.of,
        change.item_index,
        change.version,
    ) and found.source_version == change.source_version


def _leave(job: Restoration, index: int, change: Change, found: Standing, maker: Maker) -> ItemOutcome:
    taken_back = (found.prev_job_id, found.prev_item_index) == (job.of, change.item_index)
    if taken_back and maker.kind == JobKind.UNDO:
        return ItemOutcome(index, change.contact_id, ItemStatus.OK, Result.UNCHANGED, found.version)
    if found.version == change.version:
        since = f"an item of source_version {found.source_version} has confirmed it since"
    else:
        since = (
            f"the contact is at version {found.version} now, made by item {found.item_index} of the {maker.kind} "
            f"job {found.job_id} (key {maker.key_id}, request {maker.request_id})"
        )
    detail = f"item {change.item_index} of job {job.of} made version {change.version}; {since}, so it is left as it is"
    return answers.failed(index, change.contact_id, [FieldError(ErrorCode.VERSION_CONFLICT, "", detail)])


async def _book(
    connection: Connection,
    job: Restoration,
    changes: Sequence[Change],
    outcomes: list[ItemOutcome],
    first_index: int,
) -> list[int]:
    destinations = await processing.owing_destinations(connection, job.tenant_id)
    booked = await book(
        connection,
        job.tenant_id,
        job.job_id,
        job.request_id,
        outcomes,
        await _tell_sources(connection, job.tenant_id, changes, outcomes),
        first_index=first_index,
        destination_ids=destinations,
        chunk_size=job.chunk_size,
        dry_run=False,
    )
    counted = await processing.count_items(
        connection, job.tenant_id, job.job_id, booked.summary, answers.as_json(booked.results)
    )
    if not counted:
        raise RuntimeError(f"job {job.job_id} takes no more items")
    return destinations if booked.owed else []


async def _tell_sources(
    connection: Connection, tenant_id: int, changes: Sequence[Change], outcomes: Sequence[ItemOutcome]
) -> list[bytes]:
    """What each item that was left alone would have restored, so that its row can be pushed by who still wants it."""
    left = [place for place, outcome in enumerate(outcomes) if outcome.status is not ItemStatus.OK]
    sources = [b""] * len(changes)
    if left:
        befores = await undoing.read_befores(connection, tenant_id, [changes[place] for place in left])
        for number, place in enumerate(left):
            sources[place] = _tell_source(changes[place].contact_id, befores.get(number))
    return sources


def _tell_source(contact_id: str, before: Before | None) -> bytes:
    if before is None:
        return msgspec.json.encode({"id": contact_id})
    item: dict[str, Any] = {
        "id": contact_id,
        "email": before.email,
        "first_name": before.first_name,
        "last_name": before.last_name,
        "phone": before.phone,
        "company": before.company,
        "attributes": msgspec.Raw(before.attributes.encode()),
    }
    return msgspec.json.encode(item)
