"""The items of a claimed delivery, as they change during one attempt. No I/O, and nothing here calls the attempt."""

from collections.abc import Container, Iterable, Mapping
from typing import Final

import msgspec

from app.deliveries.queries import Asked, Claim, DeadLetter, ItemError, NotRestored, Tried
from app.deliveries.record_states import RecordState
from app.vocabulary.states import CODE_STATE, OPEN_STATES, STATE_CODE, EffectState, ErrorCode
from jobs.crm.port import Crm, Outcome, SentRecord

_SINCE: Final = "; since then: "
"""Between how an item in doubt was sent, which must be kept, and what was found out afterwards."""
_MOST_ID: Final = 255
"""Characters of a remote id."""
_NO_RECORD: Final = ""
"""As a remote id: the record is gone."""


class AttemptItems:
    """A position is the index of an item in its delivery."""

    def __init__(self, claim: Claim) -> None:
        self._claim = claim
        self.states = [CODE_STATE[code] for code in claim.states]
        self.errors = dict(claim.errors)
        self.sync_states: dict[str, RecordState] = {}
        """By record: its present fields, and what the destination holds of it."""
        self.remote_ids: dict[str, str | None] = {}
        """What a read-back found of records that are to be archived, or that differ."""
        self._left: set[int] = set()
        """Items that failed without having been sent."""
        self.not_restored: dict[str, NotRestored] = {}
        """By position: what an undo could not restore at this destination."""
        self._results: dict[int, Tried] = {}
        self._positions = {record_id: i for i, record_id in enumerate(claim.record_ids)}

    def open(self) -> list[int]:
        return [i for i, state in enumerate(self.states) if state in OPEN_STATES]

    def within(self, *states: EffectState) -> list[int]:
        return [i for state in states for i, found in enumerate(self.states) if found is state]

    def positions(self, records: Iterable[SentRecord]) -> list[int]:
        return [self._positions[record.record_id] for record in records]

    def sync_state(self, position: int) -> RecordState:
        return self.sync_states[self._claim.record_ids[position]]

    def record(self, position: int) -> SentRecord:
        """The record's present version, for a call."""
        s = self.sync_state(position)
        return SentRecord(
            record_id=s.record_id,
            version=s.version,
            fields=s.fields,
            attributes=s.attributes,
            deleted=s.deleted,
            remote_id=self.remote_ids.get(s.record_id, s.remote_id),
            adopted=s.adopted,
            released=s.released,
            restored=s.restored,
        )

    def set_error(self, position: int, code: ErrorCode, detail: str) -> None:
        self.errors[str(position)] = ItemError(code.value, detail)

    def mark_in_doubt(self, position: int, detail: str) -> None:
        """How it was sent stays beside what is known since."""
        before = self.errors.get(str(position))
        if before is not None and before.code == ErrorCode.OUTCOME_UNKNOWN:
            detail = before.detail.partition(_SINCE)[0] + _SINCE + detail
        self.states[position] = EffectState.UNKNOWN
        self.set_error(position, ErrorCode.OUTCOME_UNKNOWN, detail)

    def apply(self, record: SentRecord, outcome: Outcome, call: object) -> None:
        """What a call said of one record; `call` as text describes it."""
        position = self._positions[record.record_id]
        if self.states[position] not in OPEN_STATES:
            return  # it was part of a repeated call, and was settled before
        detail = outcome.detail
        if outcome.state is EffectState.UNKNOWN:
            detail = f"{call}: {detail}" if detail else str(call)
        self.settle(
            position,
            outcome.state,
            remote_id=outcome.remote_id,
            code=outcome.code,
            detail=detail,
            created=outcome.created,
        )

    def settle(
        self,
        position: int,
        state: EffectState,
        *,
        remote_id: str | None = None,
        code: ErrorCode | None = None,
        detail: str = "",
        created: bool | None = None,
    ) -> None:
        """The present version was sent, or need not be, with this result."""
        self.states[position] = state
        if code is None:
            self.errors.pop(str(position), None)
        else:
            self.set_error(position, code, detail)
        s = self.sync_state(position)
        remote_id = None if remote_id is None else usable_id(remote_id, none=_NO_RECORD)
        held = s.version if state is EffectState.OK else 0
        if held and (s.archived or s.released):
            remote_id = _NO_RECORD
        self._results[position] = Tried(
            s.record_id,
            state.value,
            s.version,
            held,
            remote_id,
            code,
            detail or None,
            s.troubled,
            created,
            dict(found) if (found := {} if created else s.not_restored) and held else None,
        )
        if held:
            self._note_not_restored(position, found)

    def mark_synced(self, position: int) -> None:
        """The destination holds this version already, or a newer one."""
        self.states[position] = EffectState.OK
        self.errors.pop(str(position), None)
        self._note_not_restored(position, {})

    def confirm(self, position: int, remote_id: str | None) -> None:
        """It is there as it is here. What is known already is not written once more."""
        s = self.sync_state(position)
        new_id = remote_id is not None and remote_id != s.remote_id and not s.deleted
        if s.synced_version < s.version or s.doubtful or s.troubled or new_id:
            self.settle(position, EffectState.OK, remote_id=remote_id)
        else:
            self.states[position] = EffectState.OK
            self.errors.pop(str(position), None)

    def retract(self, position: int) -> None:
        """It was in doubt, and it is certain now that it was not written."""
        self.states[position] = EffectState.RETRY
        self.set_error(
            position, ErrorCode.DESTINATION_UNAVAILABLE, "it was not written with the others; it is sent again"
        )
        self._results.pop(position, None)

    def skip(self, position: int) -> None:
        """Nothing is to be sent, and nothing is known of it that was not before."""
        self.states[position] = EffectState.SKIPPED
        self.errors.pop(str(position), None)

    def leave(self, position: int, code: ErrorCode, detail: str) -> None:
        """It could not be compared. Nothing was sent that an operator would have to look after."""
        self.states[position] = EffectState.FAILED
        self.set_error(position, code, detail)
        self._left.add(position)

    def know(self, position: int, remote_id: str | None) -> None:
        """The record there has this id; `None`: there is none, so it is made anew."""
        s = self.sync_state(position)
        if not s.adopted:
            self.remote_ids[s.record_id] = remote_id

    def keep_record(self, position: int) -> None:
        """A tombstone whose record is not ours to archive: nothing is sent."""
        self.settle(position, EffectState.OK)

    def mark_absent(self, position: int) -> None:
        """A tombstone whose record does not exist, for certain."""
        s = self.sync_state(position)
        self.states[position] = EffectState.OK
        self.errors.pop(str(position), None)
        self._results[position] = Tried(
            s.record_id, EffectState.OK.value, s.version, s.version, _NO_RECORD, None, None, s.troubled
        )

    def _note_not_restored(self, position: int, found: Mapping[str, int]) -> None:
        """What the item of an undo could not restore, in a call now or before. A call speaks of the record's present
        version; names that another undo withdrew are reported by the item of that one."""
        s, version = self.sync_state(position), self._claim.versions[position]
        names = {name for name, at in (*s.not_restored_before.items(), *found.items()) if at == version}
        if names:
            self.not_restored[str(position)] = NotRestored(sorted(names), s.created)

    def dead_letter(self, position: int, code: ErrorCode, detail: str) -> None:
        """Tranche stops trying: an operator must look at it."""
        self.states[position] = EffectState.DEAD
        self.set_error(position, code, detail)
        record_id = self._claim.record_ids[position]
        known = self.sync_states.get(record_id)
        version = known.version if known else self._claim.versions[position]
        self._results[position] = Tried(record_id, EffectState.DEAD.value, version, 0, None, code, detail)

    def exhaust(self, positions: Iterable[int], attempts: int, *, unread: Container[int] = ()) -> None:
        """Attempts or time ran out for them; `unread` were to be compared, and could not be."""
        for position in positions:
            last = self.errors.get(str(position), ItemError(ErrorCode.DESTINATION_UNAVAILABLE.value, ""))
            if position in unread:
                self.leave(position, ErrorCode(last.code), last.detail)
                continue
            in_doubt = self.states[position] is EffectState.UNKNOWN
            code = ErrorCode.OUTCOME_UNKNOWN if in_doubt else ErrorCode.RETRIES_EXHAUSTED
            tries = f"{attempts} attempt{'' if attempts == 1 else 's'}"
            self.dead_letter(position, code, f"stopped after {tries}; the last: {last.code}: {last.detail}")

    def results(self) -> list[Tried]:
        return list(self._results.values())

    def dead_letters(self) -> list[DeadLetter]:
        """Items that ended failed or dead in this attempt."""
        claim = self._claim
        return [
            DeadLetter(
                claim.record_ids[position],
                claim.versions[position],
                claim.indexes[position],
                state.value,
                self.errors[str(position)].code,
                self.errors[str(position)].detail,
            )
            for position, state in enumerate(self.states)
            if state in (EffectState.FAILED, EffectState.DEAD)
            and STATE_CODE[state] != claim.states[position]
            and position not in self._left
        ]


def usable_id(remote_id: str | None, *, none: str | None = None) -> str | None:
    """`None`: it can neither be used in a call nor be stored. An empty one is `none`."""
    if not remote_id:
        return none
    return remote_id if remote_id.isprintable() and len(remote_id) <= _MOST_ID else None


class Batch(msgspec.Struct, frozen=True):
    """The records of one call that writes."""

    operation: Asked
    records: list[SentRecord]


def batches(records: list[SentRecord], crm: Crm) -> list[Batch]:
    """The calls that bring these records to the destination: first those that write, then those that archive."""
    written: list[SentRecord] = []
    known: list[SentRecord] = []
    archived: list[SentRecord] = []
    for record in records:
        if record.deleted and not record.released:
            archived.append(record)
        else:
            (known if crm.updates_apart and record.remote_id is not None else written).append(record)
    calls: list[Batch] = []
    groups: tuple[tuple[Asked, list[SentRecord]], ...] = (("push", written), ("push", known), ("archive", archived))
    for operation, due in groups:
        starts = range(0, len(due), crm.batch_size)
        calls += [Batch(operation, due[start : start + crm.batch_size]) for start in starts]
    return calls
