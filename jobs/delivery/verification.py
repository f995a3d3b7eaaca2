"""Reads records back and notes in what the destination differs; with `forced`, what differs is sent."""

from collections.abc import Iterable
from typing import Final

from app.deliveries import queries
from app.deliveries.drift import Drift, DriftKind, FieldDrift
from app.deliveries.record_states import RecordState
from app.kit.postgres.database import Database
from app.vocabulary.states import EffectState, ErrorCode
from jobs.crm.mapping import text
from jobs.crm.port import Difference, ReadBack, Seen
from jobs.delivery.attempt_calls import AttemptCalls
from jobs.delivery.attempt_items import usable_id
from jobs.delivery.recorder import Recorder

_MOST_FIELDS: Final = 20
_MOST_TEXT: Final = 200
"""Characters of a value that are shown."""
_STOPPED: Final = "every worker that read it back was stopped meanwhile; their logs have the details"
_CANNOT: Final = "the destination cannot be read back, so nothing is known of it"


class Verification:
    """Of one attempt at a delivery that verifies; `attempts`: workers in a row that may be lost with it."""

    def __init__(self, calls: AttemptCalls, database: Database, recorder: Recorder, *, attempts: int) -> None:
        self._claim, self._items = calls.claim, calls.items
        self._calls = calls
        self._database = database
        self._recorder = recorder
        self._attempts = attempts
        self._noted = {int(position): drift for position, drift in (calls.claim.drift or {}).items()}
        self.unread: set[int] = set()
        """Items of which nothing is known yet: they must not be sent."""
        self.failed = False
        """A look-up brought no answer, which counts as an attempt."""

    async def run(self) -> None:
        items = self._items
        for position in items.open():
            if self._claim.record_ids[position] not in items.sync_states:
                items.skip(position)  # it was erased
        for position in items.within(EffectState.PENDING, EffectState.RETRY):
            if not self._calls.crm.reads_back:
                items.leave(position, ErrorCode.DESTINATION_REJECTED, _CANNOT)
            elif self._claim.lost >= self._attempts:
                items.leave(position, ErrorCode.INTERNAL, _STOPPED)
            elif position in self._noted:
                self._take_up(position)
        waiting = items.within(EffectState.PENDING, EffectState.RETRY)
        wanted = await self._choose([position for position in waiting if position not in self._noted])
        self.unread.update(wanted)
        size = self._calls.crm.batch_size
        for start in range(0, len(wanted), size):
            if not await self._look_at(wanted[start : start + size]):
                return

    def _take_up(self, position: int) -> None:
        """What differed at an earlier attempt: it is sent now, unless the record is not ours to change any more."""
        state = self._items.sync_state(position)
        if not self._claim.forced or state.left or state.released:
            self._items.skip(position)
        else:
            self._items.know(position, self._noted[position].remote_id)

    async def _choose(self, positions: list[int]) -> list[int]:
        """Those that can be compared now; not what is on its way, and not what is the destination's own."""
        items, record_ids = self._items, self._claim.record_ids
        found = {position: items.sync_states.get(record_ids[position]) for position in positions}
        unsure = [record_ids[p] for p, state in found.items() if state is not None and _is_unsettled(state)]
        awaited: set[str] = set()
        if unsure:
            async with self._database.connection() as connection:
                awaited = await queries.awaited_records(connection, self._claim, unsure)
        chosen = []
        for position, state in found.items():
            if state is None:
                continue
            if state.left or state.released or record_ids[position] in awaited:
                items.skip(position)
            else:
                chosen.append(position)
        return chosen

    async def _look_at(self, positions: list[int]) -> bool:
        """False: no more calls."""
        items = self._items
        reply = await self._calls.read_back([items.record(position) for position in positions], by_fields=True)
        if reply is None:
            return False
        drifts: dict[int, Drift] = {}
        for position in positions:
            record_id = self._claim.record_ids[position]
            seen = None if reply.seen is None else reply.seen.get(record_id)
            if seen is None:
                why = "the answer does not mention it" if reply.seen is not None else reply.detail or "without a result"
                items.states[position] = EffectState.RETRY
                items.set_error(position, ErrorCode.DESTINATION_UNAVAILABLE, f"it was not read back: {why}")
                self.failed = True
                continue
            drift = _drift(items.sync_state(position), seen, reply)
            if drift is None:
                items.confirm(position, reply.remote_ids.get(record_id))
                self.unread.discard(position)
            else:
                drifts[position] = drift
        if drifts and not await self._note(drifts):
            return False
        return reply.seen is not None

    async def _note(self, drifts: dict[int, Drift]) -> bool:
        """Keep what was found, whatever becomes of this worker. False: the lease was lost."""
        async with self._database.connection() as connection:
            noted = await queries.note_drift(connection, self._claim, {str(p): drift for p, drift in drifts.items()})
        if noted:
            self._recorder.report_drift(self._claim, drifts.values())
            self._settle(drifts)
            for position, drift in drifts.items():
                self._items.know(position, drift.remote_id)
        return noted

    def _settle(self, positions: Iterable[int]) -> None:
        """Of what differs: it stays as it is, unless it is to be sent."""
        for position in list(positions):
            self.unread.discard(position)
            if not self._claim.forced:
                self._items.skip(position)


def _is_unsettled(state: RecordState) -> bool:
    return state.synced_version < state.version or state.doubtful


def _drift(state: RecordState, seen: Seen, reply: ReadBack) -> Drift | None:
    remote_id = usable_id(reply.remote_ids.get(state.record_id))
    if state.deleted:
        return None if seen is Seen.ABSENT else Drift(kind=DriftKind.UNKNOWN, remote_id=remote_id)
    if seen is Seen.MATCHES:
        return None
    if seen is Seen.ABSENT:
        return Drift(kind=DriftKind.MISSING)
    found = reply.differences.get(state.record_id, [])
    fields = [_field(difference) for difference in found[:_MOST_FIELDS]]
    return Drift(kind=DriftKind.DIFFERENT, fields=fields, more=len(found) - len(fields), remote_id=remote_id)


def _field(difference: Difference) -> FieldDrift:
    return FieldDrift(_shown(difference.name), _value(difference.here), _value(difference.there))


def _value(value: object) -> str | None:
    return None if value is None else _shown(text(value))


def _shown(words: str) -> str:
    """PostgreSQL's JSON cannot hold a NUL."""
    words = words.replace("\0", "\N{REPLACEMENT CHARACTER}")
    return words if len(words) <= _MOST_TEXT else words[: _MOST_TEXT - 1] + "…"
