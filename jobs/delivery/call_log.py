"""The log of an attempt's calls: those that did not end well, so that an outcome can be explained later."""

from datetime import datetime
from typing import Final

import msgspec

from app.deliveries.queries import Asked, Call
from app.vocabulary.states import EffectState
from jobs.crm.port import BulkJob, CallResult, ReadBack, Reply, Seen

MOST_CALLS: Final = 50
"""Per attempt; halving a batch of 100 down to several faulty records makes more. Calls that left items in doubt are
kept whatever their number."""
_VERBS: Final[dict[Asked, str]] = {"push": "upsert", "archive": "archive", "read_back": "read-back", "list": "list"}
READING: Final = frozenset[Asked]({"read_back", "list"})
"""Calls that change nothing there."""


class CallInProgress(msgspec.Struct, frozen=True, kw_only=True):
    """A call whose answer is awaited."""

    operation: Asked
    event_id: str
    positions: list[int]
    sent_at: datetime
    started: float
    """By the monotonic clock, seconds."""

    def __str__(self) -> str:
        count = f"{len(self.positions)} record" + ("s" if len(self.positions) != 1 else "")
        sent_at = self.sent_at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return f"{_VERBS[self.operation]} of {count} sent {sent_at}, event {self.event_id}"


class CallLog:
    def __init__(self, items: int) -> None:
        self._items = items
        self._calls: list[Call] = []

    def answered(self, call: CallInProgress, reply: CallResult) -> None:
        """Keep a call, unless all of it went well."""
        count = len(call.positions)
        if isinstance(reply, BulkJob):
            if reply.state is None:
                lost = call.operation not in READING
                self._add(call, reply.seconds, reply.status, f"bulk job: {reply.detail}", lost=lost)
            return
        if isinstance(reply, Reply):
            bad = [o for o in reply.outcomes if o.state is not EffectState.OK]
            well = count - len(bad)
            summary = next((o.detail for o in bad if o.detail), "")
            lost = any(o.state is EffectState.UNKNOWN for o in bad)
        elif isinstance(reply, ReadBack):
            found = list((reply.seen or {}).values())
            well = found.count(Seen.MATCHES)
            summary = ", ".join(f"{found.count(word)} {word}" for word in Seen if word in found)
            lost = False
        else:
            return  # nothing hangs on a list that would have to be explained
        if well < count or reply.pause is not None:
            detail = reply.detail or f"{count - well} of {count} not ok: {summary}".rstrip(": ")
            self._add(call, reply.seconds, reply.status, detail, lost=lost)

    def interrupted(self, call: CallInProgress, seconds: float, detail: str) -> None:
        """The call ended before its answer."""
        self._add(call, seconds, None, detail, lost=call.operation not in READING)

    def _add(self, call: CallInProgress, seconds: float, status: int | None, detail: str, *, lost: bool) -> None:
        every = len(call.positions) == self._items
        self._calls.append(
            Call(
                asked=call.operation,
                event_id=call.event_id,
                positions=None if every else call.positions,
                sent_at=call.sent_at,
                milliseconds=round(seconds * 1000),
                status=status,
                detail=detail,
                lost=lost,
            )
        )

    def kept(self) -> list[Call]:
        """The first calls and those that left items in doubt; the last one says how many are missing."""
        if len(self._calls) <= MOST_CALLS:
            return self._calls
        room = MOST_CALLS
        kept: list[Call] = []
        for call in self._calls:
            if call.lost or room > 0:
                kept.append(call)
                room -= 1
        missing = len(self._calls) - len(kept)
        if missing:
            note = f"{kept[-1].detail} ({missing} more calls of this attempt that did not end well are not kept)"
            kept[-1] = msgspec.structs.replace(kept[-1], detail=note)
        return kept
