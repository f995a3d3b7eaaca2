"""Which dead letters somebody means, and how they are had for one transaction alone."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from app.dead_letters import queries as rows
from app.dead_letters.queries import ClusterRow, DeadLetterRow, DestinationRow, Filter
from app.errors import NotFound
from app.kit.postgres.database import Connection
from app.vocabulary.states import ErrorCode

MOST: Final = 10_000
"""Dead letters that one job claims, or one decision ends: a transaction of about a second."""
MOST_IDS: Final = 1_000
"""Dead letters that can be named one by one."""
REMOVED: Final = "destination_removed"
"""Why a dead letter is skipped, beside the words of `Resolution`."""


class Actor(msgspec.Struct, frozen=True):
    """Who decides."""

    tenant_id: int
    key_id: str
    request_id: str


Wanted = Filter | Sequence[int]
"""All open dead letters that match a filter, or some by their ids."""


class Skipped(msgspec.Struct, frozen=True):
    """Dead letters that were requested and left alone: ended before, or for a destination that is removed."""

    destination: str
    reason: str
    count: int


class Places:
    """The tenant's destinations by id and by name."""

    def __init__(self, found: Sequence[DestinationRow]) -> None:
        self._by_id = {place.destination_id: place for place in found}

    def name(self, destination_id: int) -> str:
        return self._by_id[destination_id].name

    def is_removed(self, destination_id: int) -> bool:
        return self._by_id[destination_id].removed

    def present(self, destination_ids: Sequence[int]) -> list[int]:
        """Those that are not removed."""
        return [i for i in destination_ids if not self.is_removed(i)]

    def select(self, name: str | None) -> list[int]:
        """All of this name, or all. Raises `NotFound`: there is none of this name."""
        found = [place.destination_id for place in self._by_id.values() if name in (None, place.name)]
        if name is not None and not found:
            known = sorted({p.name for p in self._by_id.values() if not p.removed})
            raise NotFound(f"There is no destination {name[:100]!r}; there are: {', '.join(known) or 'none'}.")
        return found


async def read_places(connection: Connection, tenant_id: int) -> Places:
    return Places(await rows.read_destinations(connection, tenant_id))


async def find_meant(connection: Connection, tenant_id: int, wanted: Filter, places: Places) -> list[int]:
    """The destinations of a filter. Raises `NotFound`: it names a destination or job that there is not."""
    if wanted.job_id is not None and await rows.read_job(connection, tenant_id, wanted.job_id) is None:
        raise NotFound("There is no such job.")
    return places.select(wanted.destination)


async def lock(
    connection: Connection, tenant_id: int, wanted: Wanted, places: Places, *, replaying: bool
) -> tuple[list[DeadLetterRow], list[Skipped], list[int]]:
    """Open dead letters that are wanted, those that are left alone, and the destinations where there may be more."""
    if not isinstance(wanted, Filter):
        known = await read_all(connection, tenant_id, wanted)
        able, skipped = part(known, places, replaying=replaying)
        return await rows.lock(connection, tenant_id, [x.dead_letter_id for x in able]), skipped, []
    meant = await find_meant(connection, tenant_id, wanted, places)
    skipped = []
    if replaying:
        skipped = await count_removed(connection, tenant_id, wanted, meant, places)
        meant = places.present(meant)
    locked, full = await lock_chosen(connection, tenant_id, wanted, meant)
    return locked, skipped, meant if full else []


async def lock_chosen(
    connection: Connection, tenant_id: int, wanted: Filter, destination_ids: Sequence[int]
) -> tuple[list[DeadLetterRow], bool]:
    """At most `MOST` dead letters, and whether there may be more. Where others had the same idea, the next ones."""
    while True:
        ids = await rows.choose(connection, tenant_id, wanted, destination_ids, MOST)
        locked = await rows.lock(connection, tenant_id, ids) if ids else []
        if locked or len(ids) < MOST:
            return locked, len(ids) == MOST


async def read_all(connection: Connection, tenant_id: int, ids: Sequence[int]) -> list[DeadLetterRow]:
    found = await rows.read_dead_letters(connection, tenant_id, ids)
    missing = sorted(set(ids) - {x.dead_letter_id for x in found})
    if missing:
        raise NotFound(f"There is no dead letter {show(missing)}; nothing was changed.")
    return found


def part(
    dead_letters: Sequence[DeadLetterRow], places: Places, *, replaying: bool
) -> tuple[list[DeadLetterRow], list[Skipped]]:
    """Dead letters that can be resolved, and why the others cannot."""
    able: list[DeadLetterRow] = []
    left: Counter[tuple[str, str]] = Counter()
    for dead_letter in dead_letters:
        if dead_letter.resolution is not None:
            left[(places.name(dead_letter.destination_id), dead_letter.resolution)] += 1
        elif replaying and places.is_removed(dead_letter.destination_id):
            left[(places.name(dead_letter.destination_id), REMOVED)] += 1
        else:
            able.append(dead_letter)
    return able, [Skipped(name, reason, count) for (name, reason), count in sorted(left.items())]


async def count_removed(
    connection: Connection, tenant_id: int, wanted: Filter, destination_ids: Sequence[int], places: Places
) -> list[Skipped]:
    """Open dead letters at destinations that nothing can be sent to any more."""
    removed = [i for i in destination_ids if places.is_removed(i)]
    counts: Counter[str] = Counter()
    for found in await rows.read_clusters(connection, tenant_id, wanted, removed) if removed else ():
        counts[places.name(found.destination_id)] += found.count
    return [Skipped(name, REMOVED, count) for name, count in sorted(counts.items())]


async def count(connection: Connection, tenant_id: int, wanted: Wanted, destination_ids: Sequence[int]) -> int:
    if not destination_ids or not isinstance(wanted, Filter):
        return 0
    found = await rows.read_clusters(connection, tenant_id, wanted, destination_ids)
    return sum(cluster.count for cluster in found)


def cluster(dead_letters: Iterable[DeadLetterRow]) -> list[ClusterRow]:
    """Dead letters as counted by PostgreSQL."""
    groups: dict[tuple[int, str], list[DeadLetterRow]] = {}
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
    return sorted(found, key=lambda c: (-c.count, c.destination_id, c.error_code))


def show(ids: Sequence[int]) -> str:
    shown = ", ".join(str(i) for i in ids[:10])
    return shown if len(ids) <= 10 else f"{shown} and {len(ids) - 10} more"
