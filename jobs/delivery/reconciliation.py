"""Settles items in doubt by reading them back before anything is sent, and finds records that are to be archived."""

from typing import Literal

from app.vocabulary.states import EffectState, ErrorCode
from jobs.crm.port import Seen
from jobs.delivery.attempt_calls import AttemptCalls


class Reconciliation:
    """Of one attempt. `grace`: seconds between two looks that prove an absence."""

    def __init__(self, calls: AttemptCalls, *, grace: float) -> None:
        self._claim, self._items = calls.claim, calls.items
        self._calls = calls
        self._grace = grace
        self.not_looked_up: set[int] = set()
        """Tombstones that could not be found, and so not be archived, this time."""
        self.failed = False
        """A look-up brought no answer, which counts as an attempt."""
        self.absence: Literal["keep", "now", "clear"] = "clear"
        """What is recorded of the first look that did not find the items in doubt."""
        self.wait: float | None = None
        """Seconds until the look that proves their absence."""

    async def run(self) -> None:
        self._mark_doubts()
        items = self._items
        wanted = [p for p in items.open() if items.states[p] is EffectState.UNKNOWN or self._must_be_found(p)]
        size = self._calls.crm.batch_size
        for start in range(0, len(wanted), size):
            if not await self._look_up(wanted[start : start + size]):
                # Those of the other batches are not known either.
                self.not_looked_up.update(p for p in wanted if self._must_be_found(p))
                return

    def reset(self) -> None:
        """The attempt was interrupted: its looks prove nothing."""
        self.absence, self.wait = "clear", None

    def _mark_doubts(self) -> None:
        """Another delivery of the record lost its answer: it may have sent what we are about to send, and that may
        arrive later, and overwrite what we send now."""
        for position in self._items.within(EffectState.PENDING, EffectState.RETRY):
            if self._items.sync_state(position).doubtful:
                self._items.mark_in_doubt(position, "an earlier delivery may have sent it")

    def _must_be_found(self, position: int) -> bool:
        """A tombstone whose record is to be archived, and whose remote id we do not know."""
        found = self._items.sync_state(position)
        return found.archived and found.remote_id is None

    async def _look_up(self, positions: list[int]) -> bool:
        records = [self._items.record(position) for position in positions]
        reply = await self._calls.read_back(records)
        if reply is None:
            return False
        if reply.seen is None:
            for position in positions:
                self._mark_not_looked_up(position, reply.detail or "the read-back had no result")
            return False
        absent: list[int] = []
        for position, record in zip(positions, records, strict=True):
            seen, remote_id = reply.seen.get(record.record_id), reply.remote_ids.get(record.record_id)
            if seen is None:
                self._mark_not_looked_up(position, "the read-back did not mention it")
            elif record.deleted:
                if not self._settle_tombstone(position, seen, remote_id):
                    absent.append(position)
            elif seen is Seen.MATCHES:
                self._items.settle(position, EffectState.OK, remote_id=remote_id)
            else:
                if remote_id is not None or seen is Seen.ABSENT:
                    self._items.know(position, remote_id)  # if it is sent again, to that record
                absent.append(position)
        if absent:
            self._weigh_absence(absent)
        return True

    def _mark_not_looked_up(self, position: int, detail: str) -> None:
        items = self._items
        if items.states[position] is EffectState.UNKNOWN:
            items.mark_in_doubt(position, detail)
        else:
            self.not_looked_up.add(position)
            self.failed = True
            items.states[position] = EffectState.RETRY
            items.set_error(position, ErrorCode.DESTINATION_UNAVAILABLE, f"it was not looked up: {detail}")

    def _settle_tombstone(self, position: int, seen: Seen, remote_id: str | None) -> bool:
        """Whether this look at a record that should be archived decides what to do; if not, a second one must."""
        items = self._items
        tombstone = items.sync_state(position)
        in_doubt = items.states[position] is EffectState.UNKNOWN
        archived = tombstone.tried_version >= tombstone.version  # it was the archiving whose answer was lost
        if seen is Seen.ABSENT:
            if archived or not (in_doubt or tombstone.doubtful):
                items.mark_absent(position)
                return True
            return False  # the write whose answer was lost may arrive later
        if tombstone.left:
            items.keep_record(position)
            return True
        if remote_id is None and tombstone.remote_id is None:
            self._mark_not_looked_up(position, "the read-back did not return the record's id")
            return True
        if remote_id is not None:
            items.remote_ids[tombstone.record_id] = remote_id
        if in_doubt and archived:
            return False
        if in_doubt:
            items.states[position] = EffectState.RETRY
        return True

    def _weigh_absence(self, positions: list[int]) -> None:
        """Once is not proof that nothing happened: a first call may arrive later. Twice across the grace is."""
        items = self._items
        absent_for = self._absent_for(positions)
        if absent_for is not None and absent_for >= self._grace:
            for position in positions:
                record = items.record(position)
                if record.deleted and (record.remote_id is None or items.sync_state(position).left):
                    items.mark_absent(position)
                else:
                    items.states[position] = EffectState.RETRY
            return
        self.absence = "now" if absent_for is None else "keep"
        self.wait = self._grace - (absent_for or 0.0)
        for position in positions:
            deleted = items.sync_state(position).deleted
            found = "it is looked at" if deleted else "not found there yet; it is looked for"
            items.mark_in_doubt(position, f"{found} once more")

    def _absent_for(self, positions: list[int]) -> float | None:
        """Seconds since the first look that counts: one before another delivery's write was left without an answer says
        nothing about that write."""
        since = self._claim.absent_since
        doubts = [self._items.sync_state(position).doubted_at for position in positions]
        if since is None or any(doubted is not None and doubted > since for doubted in doubts):
            return None
        return self._claim.absent_for
