"""The items of a job, each with its outcome here and at every destination: a part of the read model."""

from __future__ import annotations

import math
import uuid
from typing import Any, Final

import msgspec

from app.db import reading
from app.db.packing import unpack
from app.db.pool import Connection
from app.domain import answers
from app.domain.answers import ItemOutcome
from app.domain.outcomes import LETTER_STATE, OPEN_STATES, EffectState, ItemStatus
from app.errors import Invalid, NotFound
from app.status import LOCAL, Standstill, explain_wait

SCAN: Final = 1_000
"""Items looked at in one step of a filtered page."""
STEPS: Final = 10


class DestinationOutcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where one item stands at one destination. `version` is what this job owes it; a newer one may be sent."""

    state: EffectState
    version: int
    attempts: int
    error_code: str | None = None
    detail: str | None = None
    retry_after_seconds: int | None = None
    """Until Tranche itself tries again, or at least could."""


class JobItem(ItemOutcome, omit_defaults=True, kw_only=True):
    """An item as it was answered, and what became of it; no destination is named that it was not owed to."""

    destinations: dict[str, DestinationOutcome]


class Filter(msgspec.Struct, frozen=True):
    """Which items to show; `status` is a local one unless a destination other than "db" is named."""

    status: str | None = None
    destination: str | None = None
    error_code: str | None = None

    def check(self) -> None:
        """
        Raises:
            Invalid: the status is no word of the place that is asked for.
        """
        if self.status is None:
            return
        words: list[str] = [*(ItemStatus if self._local else EffectState)]
        if self.status not in words:
            where = "" if self._local else "at a destination "
            raise Invalid(f"An item's status {where}is one of: {', '.join(words)}.")

    @property
    def _local(self) -> bool:
        return self.destination is None or self.destination == LOCAL

    @property
    def empty(self) -> bool:
        return self.status is None and self.destination in (None, LOCAL) and self.error_code is None

    def takes(self, item: JobItem) -> bool:
        if self._local:
            codes: set[object] = {item.error_code}
            if self.destination is None:
                codes |= {there.error_code for there in item.destinations.values()}
            status: str = item.status
        else:
            there = item.destinations.get(self.destination or "")
            if there is None:
                return False
            codes, status = set[object]({there.error_code}), there.state
        return (self.status is None or self.status == status) and (
            self.error_code is None or self.error_code in codes
        )


async def read_items(
    connection: Connection, tenant_id: int, job_id: uuid.UUID, *, first: int, limit: int, wanted: Filter
) -> tuple[list[JobItem], int | None]:
    """A page in item order, and the index that the next one starts at (`None`: that was all).

    A filtered page looks at a bounded number of items and may hold fewer than `limit`, even none, before the end.

    Raises:
        NotFound: the tenant has no such job.
    """
    job = await reading.read_job(connection, tenant_id, job_id)
    if job is None:
        raise NotFound("There is no such job.")
    page: list[JobItem] = []
    span = limit if wanted.empty else max(limit, SCAN)
    position = first
    for _ in range(1 if wanted.empty else STEPS):
        if position >= job.total:
            break
        last = min(position + span, job.total) - 1
        for item in await _read_range(connection, tenant_id, job_id, position, last):
            if not wanted.takes(item):
                continue
            if len(page) == limit:
                return page, item.index
            page.append(item)
        position = last + 1
    return page, position if position < job.total else None


async def _read_range(
    connection: Connection, tenant_id: int, job_id: uuid.UUID, first: int, last: int
) -> list[JobItem]:
    owed = await _read_owed(connection, tenant_id, job_id, first, last)
    items = []
    for chunk in await reading.read_chunks(connection, tenant_id, job_id, first, last):
        for outcome in answers.decode_items(unpack(chunk.outcomes)):
            if first <= outcome.index <= last:
                fields: dict[str, Any] = msgspec.structs.asdict(outcome)
                items.append(JobItem(**fields, destinations=owed.get(outcome.index, {})))
    return items


async def _read_owed(
    connection: Connection, tenant_id: int, job_id: uuid.UUID, first: int, last: int
) -> dict[int, dict[str, DestinationOutcome]]:
    owed: dict[int, dict[str, DestinationOutcome]] = {}
    for delivery in await reading.read_deliveries(connection, tenant_id, job_id, first, last):
        errors: dict[str, dict[str, Any]] = msgspec.json.decode(delivery.errors)
        standstill = explain_wait(
            paused=delivery.paused,
            blocked_code=delivery.blocked_code,
            blocked_detail=delivery.blocked_detail,
            blocked_for=delivery.blocked_for,
        )
        columns = zip(delivery.indexes, delivery.versions, delivery.states, strict=True)
        for position, (index, version, letter) in enumerate(columns):
            if first <= index <= last:
                owed.setdefault(index, {})[delivery.name] = _describe(
                    delivery, LETTER_STATE[letter], version, errors.get(str(position), {}), standstill
                )
    return owed


def _describe(
    delivery: reading.DeliveryRow,
    state: EffectState,
    version: int,
    error: dict[str, Any],
    standstill: Standstill | None,
) -> DestinationOutcome:
    code, detail, seconds = error.get("code"), error.get("detail"), None
    if state in OPEN_STATES and delivery.state == "pending":
        seconds = math.ceil(delivery.next_in) or None
        if standstill is not None:
            code, detail = standstill.code or code, standstill.describe(detail)
            seconds = None if standstill.seconds is None else max(standstill.seconds, seconds or 0)
    return DestinationOutcome(
        state=state,
        version=version,
        attempts=delivery.attempt,
        error_code=code,
        detail=detail,
        retry_after_seconds=seconds,
    )
