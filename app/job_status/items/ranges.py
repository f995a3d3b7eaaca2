"""Where in a job the items can be that a reader asks for, found by counts and indexes without reading the items."""

from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from app.job_status.items import queries
from app.job_status.items.item_filter import LOST_STATES, Filter
from app.job_status.items.queries import JobRef, PlaceRow, Range
from app.vocabulary.states import OPEN_STATES, STATE_CODE, EffectState, ErrorCode, ItemStatus

MOST: Final = 256
"""Ranges that one search returns."""
FEW: Final = 5_000
"""Open items that are all looked at; of more, a part of the job after the other is."""
WINDOW: Final = 500_000
"""Items of that part."""

_RETRY: Final = frozenset({ErrorCode.RATE_LIMIT, ErrorCode.LOCK_TIMEOUT, ErrorCode.OVERLOADED, ErrorCode.INTERNAL})
_CODES: Final[dict[str | None, list[str]]] = {
    ItemStatus.FAILED: [code for code in ErrorCode if code not in _RETRY],
    ItemStatus.RETRY: [code for code in ErrorCode if code in _RETRY],
    None: list(ErrorCode),
}
"""Local codes by the status that they mean."""


class Found(msgspec.Struct, frozen=True):
    """Ranges in item order; nothing outside them, up to and with the item `last`, can be meant."""

    ranges: list[Range]
    last: int


_Search = Callable[[int], Awaitable[Found]]


class Candidates:
    """The ranges of one job, below the item `end`, that can hold items of a filter."""

    def __init__(self, job: JobRef, wanted: Filter, places: list[PlaceRow], *, end: int) -> None:
        self._job = job
        self._end = end
        self._searches = list(self._choose(wanted, places))

    async def find(self, first: int) -> Found:
        """From the item `first` on; at least one item further is covered."""
        found = [await search(first) for search in self._searches]
        last = min([each.last for each in found], default=self._end - 1)
        ranges = sorted(one for each in found for one in each.ranges)
        merged: list[Range] = []
        for low, high in ranges:
            low, high = max(low, first), min(high, last)
            if low > high:
                continue
            if merged and low <= merged[-1][1] + 1:
                merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
            else:
                merged.append((low, high))
        return Found(merged, last)

    def _choose(self, wanted: Filter, places: list[PlaceRow]) -> list[_Search]:
        if wanted.error_code is not None and wanted.error_code not in _CODES[None]:
            return []  # nothing has such a code, and PostgreSQL would not even take every text
        if wanted.lost:
            return self._choose_lost(wanted, places)
        if wanted.drifted:
            return [self._drifted_deliveries(p) for p in places if wanted.destination in (None, p.name)]
        status, code = wanted.status, wanted.error_code
        if not wanted.local:
            named = [place for place in places if place.name == wanted.destination]
            return [search for place in named for search in self._at(place, status, code)]
        if code is None:
            return [self._here(status)]
        searches = [] if status == ItemStatus.OK else [self._faulty_chunks([code])]
        if wanted.destination is None and status in (None, ItemStatus.OK):
            searches += [search for place in places for search in self._at(place, None, code)]
        return searches

    def _choose_lost(self, wanted: Filter, places: list[PlaceRow]) -> list[_Search]:
        searches: list[_Search] = []
        code = wanted.error_code
        if wanted.local:
            searches.append(self._faulty_chunks([code] if code else _CODES[wanted.status]))
        if not wanted.local or (wanted.destination is None and wanted.status is None):
            states = [EffectState(wanted.status)] if wanted.status else sorted(LOST_STATES)
            searches += [
                self._faulty_deliveries(place, code, _pattern(*states))
                for place in places
                if wanted.destination in (None, place.name)
            ]
        return searches

    def _here(self, status: str | None) -> _Search:
        if status == ItemStatus.OK:
            return self._paged(lambda first: queries.next_sound_chunks(self._job, first, MOST))
        if status is None:
            return self._paged(lambda first: queries.next_chunks(self._job, first, MOST))
        return self._faulty_chunks(_CODES[status])

    def _at(self, place: PlaceRow, status: str | None, code: str | None) -> list[_Search]:
        pattern = None if status is None else _pattern(EffectState(status))
        if code is not None:
            searches = [self._faulty_deliveries(place, code, pattern)]
            if place.blocked_code == code:  # the reason of every item that waits there now
                searches.append(self._open_deliveries(place, pattern or _pattern(*sorted(OPEN_STATES))))
            return searches
        if status in LOST_STATES:
            return [self._faulty_deliveries(place, None, pattern)]
        if status in OPEN_STATES:
            return [self._open_deliveries(place, pattern)]
        return [self._deliveries(place, pattern)]

    def _faulty_chunks(self, codes: list[str]) -> _Search:
        return self._paged(lambda first: queries.next_faulty_chunks(self._job, first, MOST, codes))

    def _faulty_deliveries(self, place: PlaceRow, code: str | None, pattern: str | None) -> _Search:
        return self._paged(
            lambda first: queries.next_faulty_deliveries(
                self._job, place.destination_id, first, MOST, code=code, pattern=pattern
            )
        )

    def _drifted_deliveries(self, place: PlaceRow) -> _Search:
        return self._paged(lambda first: queries.next_drifted_deliveries(self._job, place.destination_id, first, MOST))

    def _open_deliveries(self, place: PlaceRow, pattern: str | None) -> _Search:
        if place.open > FEW:
            return self._deliveries(place, pattern)
        return self._paged(
            lambda first: queries.next_open_deliveries(self._job, place.destination_id, first, MOST, pattern=pattern)
        )

    def _deliveries(self, place: PlaceRow, pattern: str | None) -> _Search:
        async def search(first: int) -> Found:
            last = min(first + WINDOW, self._end) - 1
            ranges = await queries.next_deliveries(self._job, place.destination_id, first, last, MOST, pattern=pattern)
            return Found(ranges, min(last, ranges[-1][1]) if len(ranges) == MOST else last)

        return search

    def _paged(self, ask: Callable[[int], Awaitable[list[Range]]]) -> _Search:
        async def search(first: int) -> Found:
            ranges = await ask(first)
            last = self._end - 1
            return Found(ranges, min(last, ranges[-1][1]) if len(ranges) == MOST else last)

        return search


def _pattern(*states: EffectState) -> str:
    """Of `deliveries.states` with one of these."""
    return f"[{''.join(STATE_CODE[state] for state in states)}]"
