"""The items of a job, each with its outcome here and at every destination: a part of the read model."""

import math
import uuid
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from app.deliveries.drift import Drift
from app.deliveries.queries import NotRestored
from app.errors import NotFound, OutcomesExpired
from app.files.readers import Kept
from app.job_status.items import queries as rows
from app.job_status.items.item_filter import DRIFT, LOST_STATES, DestinationOutcome, Filter, JobItem
from app.job_status.items.queries import DeliveryRow, JobRef, Range
from app.job_status.items.ranges import Candidates
from app.job_status.obstacles import Blockage, explain_wait
from app.kit.compression import unpack
from app.kit.postgres.database import Connection
from app.resources.field_states import explain_not_restored
from app.vocabulary.outcomes_wire import ItemOutcome
from app.vocabulary.states import (
    CODE_STATE,
    OPEN_STATES,
    UNDECIDED_JOB_STATES,
    EffectState,
    ErrorCode,
    ItemStatus,
    Resolution,
)

STEP: Final = 1_000
"""Items that are looked at in one step of a filtered page, or as many as it may hold."""
MOST: Final = 200_000
"""Items that are looked at for one page at the most."""

_split: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode: Final = msgspec.json.Decoder(ItemOutcome).decode
_decode_not_restored: Final = msgspec.json.Decoder(dict[str, NotRestored]).decode


class Page(msgspec.Struct, frozen=True):
    """Items in item order.

    `position` is the index that the next page starts at; `None`: that was all, and will be. `waiting`: the page ends
    where items are still being decided, so the next one is empty until they are.
    """

    items: list[JobItem]
    position: int | None
    waiting: bool = False


class Extent(msgspec.Struct, frozen=True):
    """How far the items of a job can be read: below `end`; `growing`: there will be more. `kept` describes its file;
    `type`: of its records, None if they have several."""

    end: int
    growing: bool
    kept: Kept | None
    type: str | None


async def read_items(job: JobRef, wanted: Filter, *, first: int, limit: int, end: int | None = None) -> Page:
    """A page of the items from `first` on, and below `end` if one is given.

    Chunks of an unfinished job are decided out of order: its items are shown up to the first that is not decided, so
    that who follows the pages sees each item once. A page looks at `MOST` items and may hold fewer than `limit`, even
    none, before the end; where few items match, those that cannot are not looked at.

    Raises:
        NotFound: the tenant has no such job.
        OutcomesExpired: it is past its retention.
    """
    async with job.connection.transaction(isolation="repeatable_read", readonly=True):
        extent = await read_extent(job)
        stop = extent.end if end is None else min(end, extent.end)
        places = [] if wanted.empty else await rows.read_places(job)
        candidates = Candidates(job, wanted, places, end=stop)
        page: list[JobItem] = []
        step = limit if wanted.empty else max(limit, STEP)
        position, looked = first, 0
        while position < stop:
            found = await candidates.find(position)
            for batch in _cut(found.ranges, step):
                if looked >= MOST or len(page) == limit:
                    return Page(page, batch[0][0])
                for item in await _load(job, batch, wanted):
                    if len(page) == limit:
                        return Page(page, item.index)
                    page.append(item)
                looked += sum(high - low + 1 for low, high in batch)
            position = found.last + 1
    growing = extent.growing and stop == extent.end
    return Page(page, max(first, stop) if growing else None, waiting=growing)


async def read_drifted(connection: Connection, tenant_id: int, job_id: uuid.UUID, limit: int) -> list[JobItem]:
    """The first items in which a destination differs, of a sync that verifies. Raises `NotFound`, `OutcomesExpired`."""
    job, wanted = JobRef(connection, tenant_id, job_id), Filter(status=DRIFT)
    found: list[JobItem] = []
    position: int | None = 0
    while position is not None and len(found) < limit:
        page = await read_items(job, wanted, first=position, limit=limit - len(found))
        found += page.items
        position = None if page.waiting else page.position
    return found


async def read_extent(job: JobRef) -> Extent:
    """Raises `NotFound`, `OutcomesExpired`: see `read_items`."""
    row = await rows.read_job(job)
    if row is None:
        raise NotFound("There is no such job.")
    if row.trimmed:
        raise OutcomesExpired()
    growing = row.state in UNDECIDED_JOB_STATES
    end = row.booked or 0
    if growing and row.undecided is not None:
        end = min(end, row.undecided)
    return Extent(end, growing, row.form, row.type)


def _cut(ranges: list[Range], size: int) -> Iterator[list[Range]]:
    """The ranges in portions of `size` items, the last one smaller."""
    portion: list[Range] = []
    room = size
    for low, high in ranges:
        while low <= high:
            until = min(high, low + room - 1)
            portion.append((low, until))
            room -= until - low + 1
            low = until + 1
            if not room:
                yield portion
                portion, room = [], size
    if portion:
        yield portion


async def _load(job: JobRef, ranges: list[Range], wanted: Filter) -> list[JobItem]:
    """The items of these ranges that are asked for."""
    outcomes: list[ItemOutcome] = []
    for chunk in await rows.read_chunks(job, *rows.columns(ranges)):
        outcomes += _pick(chunk, ranges, wanted.mark)
    # Only what is stored here is owed to anybody.
    stored = [outcome.index for outcome in outcomes if outcome.status is ItemStatus.OK]
    pending = await _read_pending(job, stored) if stored else {}
    found = []
    for outcome in outcomes:
        fields: dict[str, Any] = {name: getattr(outcome, name) for name in ItemOutcome.__struct_fields__}
        item = JobItem(**fields, destinations=pending.get(outcome.index, {}))
        if wanted.takes(item):
            found.append(item)
    conflicts = {item.index: item for item in found if item.error_code is ErrorCode.VERSION_CONFLICT}
    for end in await rows.dead_letters_of_conflicts(job, list(conflicts)) if conflicts else ():
        item = conflicts[end.item_index]
        item.dead_letter_id, item.replayed_by = end.dead_letter_id, end.replay_job_id
        item.resolution = None if end.resolution is None else Resolution(end.resolution)
    return found


def _pick(chunk: rows.ChunkRow, ranges: list[Range], mark: bytes | None) -> Iterator[ItemOutcome]:
    """The outcomes of a chunk within the ranges, and with the mark; only these are decoded."""
    raws = _split(unpack(chunk.outcomes))
    first, last = chunk.first_index, chunk.first_index + chunk.item_count - 1
    whole = len(raws) == chunk.item_count
    for low, high in ranges[max(0, bisect_left(ranges, (first, first)) - 1) :]:
        if low > last:
            break
        low, high = max(low, first), min(high, last)
        # Where a job was canceled before repeated items were decided, these are missing.
        for raw in raws[low - first : high - first + 1] if whole else raws:
            if mark is None or mark in bytes(raw):
                outcome = _decode(raw)
                if low <= outcome.index <= high:
                    yield outcome


_NEAR: Final = 100


def gather(indexes: Sequence[int]) -> list[Range]:
    """Ranges that hold these rising indexes, and few others."""
    ranges: list[Range] = []
    for index in indexes:
        if ranges and index - ranges[-1][1] <= _NEAR:
            ranges[-1] = (ranges[-1][0], index)
        else:
            ranges.append((index, index))
    return ranges


async def _read_pending(job: JobRef, indexes: list[int]) -> dict[int, dict[str, DestinationOutcome]]:
    pending: dict[int, dict[str, DestinationOutcome]] = {}
    asked = set(indexes)
    lost: dict[tuple[int, int], str] = {}
    for delivery in await rows.read_deliveries(job, *rows.columns(gather(indexes))):
        errors: dict[str, dict[str, Any]] = msgspec.json.decode(delivery.errors)
        kept = {} if delivery.not_restored is None else _decode_not_restored(delivery.not_restored)
        drift = delivery.drift or {}
        blockage = explain_wait(delivery)
        columns = zip(delivery.indexes, delivery.versions, delivery.states, strict=True)
        for position, (index, version, code) in enumerate(columns):
            if index in asked:
                place = str(position)
                pending.setdefault(index, {})[delivery.name] = _describe(
                    delivery,
                    CODE_STATE[code],
                    version,
                    errors.get(place, {}),
                    blockage,
                    kept.get(place),
                    drift.get(place),
                )
                if CODE_STATE[code] in LOST_STATES:
                    lost[(delivery.delivery_id, index)] = delivery.name
    if lost:
        await _add_dead_letters(job, lost, pending)
    return pending


async def _add_dead_letters(
    job: JobRef, lost: dict[tuple[int, int], str], pending: dict[int, dict[str, DestinationOutcome]]
) -> None:
    """The current state of the dead letters that items (delivery, index) left."""
    for end in await rows.dead_letters_of_items(job.connection, job.tenant_id, list(lost)):
        there = pending[end.item_index]
        name = lost[(end.delivery_id, end.item_index)]
        there[name] = msgspec.structs.replace(
            there[name],
            dead_letter_id=end.dead_letter_id,
            resolution=None if end.resolution is None else Resolution(end.resolution),
            replayed_by=end.replay_job_id,
        )


def _describe(
    delivery: DeliveryRow,
    state: EffectState,
    version: int,
    error: dict[str, Any],
    blockage: Blockage | None,
    not_restored: NotRestored | None,
    drift: Drift | None,
) -> DestinationOutcome:
    code, detail, seconds = error.get("code"), error.get("detail"), None
    if not_restored is not None:
        detail = detail or explain_not_restored(not_restored.fields, not_restored.created)
    if state in OPEN_STATES and delivery.state == "pending":
        seconds = math.ceil(delivery.next_in) or None
        if blockage is not None:
            code, detail = blockage.code or code, blockage.describe(detail)
            seconds = None if blockage.seconds is None else max(blockage.seconds, seconds or 0)
    return DestinationOutcome(
        state=state,
        version=version,
        attempts=delivery.attempt,
        error_code=code,
        detail=detail,
        retry_after_seconds=seconds,
        not_restored=None if not_restored is None else not_restored.fields,
        drift=drift,
    )
