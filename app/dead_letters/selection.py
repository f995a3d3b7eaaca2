"""Which dead letters somebody means, and how they are had for one transaction alone."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, TypeVar

import msgspec

from app.dead_letters import queries as rows
from app.dead_letters.queries import ClusterRow, DeadLetterRow, DestinationRow, Filter, Places
from app.errors import NotFound
from app.kit.postgres.database import Connection
from app.tracing.context import TraceContext
from app.vocabulary.states import DeadLetterKind, ErrorCode

MOST: Final = 10_000
"""Dead letters that one job claims, or one decision ends: a transaction of about a second."""
MOST_IDS: Final = 1_000
"""Dead letters that can be named one by one."""
REMOVED: Final = "destination_removed"
BEING_ERASED: Final = "being_erased"
"""Why a dead letter is skipped, beside the words of `Resolution`."""


class Actor(msgspec.Struct, frozen=True):
    tenant_id: int
    key_id: str
    request_id: str
    trace: TraceContext | None = None


T = TypeVar("T", int, int | None)
_LAST: Final = 2**31
"""Above every destination: where PostgreSQL sorts NULL."""
Wanted = Filter | Sequence[int]
"""All open dead letters that match a filter, or some by their ids."""


class Skipped(msgspec.Struct, frozen=True):
    """Dead letters that were requested and left alone: ended before, for a destination that is removed, or of records
    that are being erased."""

    destination: str | None
    """null: of undos."""
    reason: str
    count: int


class Selection:
    """The tenant's open dead letters, and its destinations by id and by name, in one transaction."""

    def __init__(self, connection: Connection, tenant_id: int, places: Sequence[DestinationRow]) -> None:
        self._connection = connection
        self._tenant_id = tenant_id
        self._places = {place.destination_id: place for place in places}

    def name(self, destination_id: int) -> str:
        return self._places[destination_id].name

    def name_place(self, place: int | None) -> str | None:
        return None if place is None else self.name(place)

    def is_removed(self, place: int | None) -> bool:
        return place is not None and self._places[place].removed

    def present(self, destination_ids: Iterable[T]) -> list[T]:
        """Those that are not removed."""
        return [i for i in destination_ids if not self.is_removed(i)]

    def find_places(self, name: str | None) -> list[int]:
        """All of this name, or all. Raises `NotFound`: there is none of this name."""
        found = [place.destination_id for place in self._places.values() if name in (None, place.name)]
        if name is not None and not found:
            known = sorted({p.name for p in self._places.values() if not p.removed})
            raise NotFound(f"There is no destination {name[:100]!r}; there are: {', '.join(known) or 'none'}.")
        return found

    async def find_meant(self, wanted: Filter) -> list[int | None]:
        """The places of a filter. Raises `NotFound`: it names a destination or job that there is not."""
        job_id = wanted.job_id
        if job_id is not None and await rows.read_job(self._connection, self._tenant_id, job_id) is None:
            raise NotFound("There is no such job.")
        found: list[int | None] = list(self.find_places(wanted.destination))
        if wanted.kind is DeadLetterKind.UNDO:
            found = []
        if wanted.kind is not DeadLetterKind.DELIVERY and wanted.destination is None:
            found.append(None)
        return found

    async def lock(
        self, wanted: Wanted, *, replaying: bool
    ) -> tuple[list[DeadLetterRow], list[Skipped], list[int | None]]:
        """Open dead letters that are wanted, those left alone, and the places where there may be more."""
        if not isinstance(wanted, Filter):
            able, skipped = await self.part(wanted, replaying=replaying)
            ids = [x.dead_letter_id for x in able]
            return await rows.lock(self._connection, self._tenant_id, ids), skipped, []
        meant = await self.find_meant(wanted)
        skipped = []
        if replaying:
            skipped = await self.count_removed(wanted, meant)
            meant = self.present(meant)
        locked, full = await self.lock_chosen(wanted, meant)
        return locked, skipped, meant if full else []

    async def lock_chosen(self, wanted: Filter, destination_ids: Places) -> tuple[list[DeadLetterRow], bool]:
        """At most `MOST` dead letters, and whether there may be more. Where others had the same idea, the next ones."""
        while True:
            ids = await rows.choose(self._connection, self._tenant_id, wanted, destination_ids, MOST)
            locked = await rows.lock(self._connection, self._tenant_id, ids) if ids else []
            if locked or len(ids) < MOST:
                return locked, len(ids) == MOST

    async def part(self, ids: Sequence[int], *, replaying: bool) -> tuple[list[DeadLetterRow], list[Skipped]]:
        """Of these dead letters those that can be resolved, and why the others cannot. Raises `NotFound`."""
        found = await rows.read_dead_letters(self._connection, self._tenant_id, ids)
        missing = sorted(set(ids) - {x.dead_letter_id for x in found})
        if missing:
            raise NotFound(f"There is no dead letter {show(missing)}; nothing was changed.")
        able: list[DeadLetterRow] = []
        left: Counter[tuple[str | None, str]] = Counter()
        for dead_letter in found:
            if dead_letter.resolution is not None:
                left[(self.name_place(dead_letter.destination_id), dead_letter.resolution)] += 1
            elif replaying and self.is_removed(dead_letter.destination_id):
                left[(self.name_place(dead_letter.destination_id), REMOVED)] += 1
            else:
                able.append(dead_letter)
        ordered = sorted(left.items(), key=lambda one: (one[0][0] or "", one[0][1]))
        return able, [Skipped(name, reason, count) for (name, reason), count in ordered]

    async def clusters(self, wanted: Filter, destination_ids: Places) -> list[ClusterRow]:
        """The most frequent first."""
        return await rows.read_clusters(self._connection, self._tenant_id, wanted, destination_ids)

    async def count_removed(self, wanted: Filter, destination_ids: Places) -> list[Skipped]:
        """Open dead letters at destinations that nothing can be sent to any more."""
        removed = [i for i in destination_ids if self.is_removed(i)]
        counts: Counter[str | None] = Counter()
        for found in await self.clusters(wanted, removed) if removed else ():
            counts[self.name_place(found.destination_id)] += found.count
        return [Skipped(name, REMOVED, count) for name, count in sorted(counts.items(), key=lambda one: one[0] or "")]

    async def count(self, wanted: Wanted, destination_ids: Places) -> int:
        if not destination_ids or not isinstance(wanted, Filter):
            return 0
        return sum(cluster.count for cluster in await self.clusters(wanted, destination_ids))


async def select(connection: Connection, tenant_id: int) -> Selection:
    return Selection(connection, tenant_id, await rows.read_destinations(connection, tenant_id))


def cluster(dead_letters: Iterable[DeadLetterRow]) -> list[ClusterRow]:
    """Dead letters as counted by PostgreSQL."""
    groups: dict[tuple[int | None, str], list[DeadLetterRow]] = {}
    for dead_letter in dead_letters:
        groups.setdefault((dead_letter.destination_id, dead_letter.error_code), []).append(dead_letter)
    found = [
        ClusterRow(
            destination_id=destination_id,
            error_code=ErrorCode(code),
            count=len(group),
            failed=sum(x.state == "failed" for x in group),
            dead=sum(x.state == "dead" for x in group),
            oldest=min(x.created_at for x in group),
            newest=max(x.created_at for x in group),
            samples=sorted(x.dead_letter_id for x in group)[:5],
            detail=min(group, key=lambda x: x.dead_letter_id).error_detail,
        )
        for (destination_id, code), group in groups.items()
    ]
    return sorted(found, key=lambda c: (-c.count, c.destination_id or _LAST, c.error_code))


def show(ids: Sequence[int]) -> str:
    shown = ", ".join(str(i) for i in ids[:10])
    return shown if len(ids) <= 10 else f"{shown} and {len(ids) - 10} more"
