"""The items of a claimed delivery, as they change during one attempt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from app.db.delivering import Claim, ItemError, Letter, NotRestored, Tried
from app.db.standing import Standing
from app.domain.outcomes import LETTER_STATE, OPEN_STATES, STATE_LETTER, EffectState, ErrorCode
from jobs.crm.port import Contact, Outcome

_SINCE: Final = "; since then: "
"""Between how an unknown item was sent, which must not be forgotten, and what was found out afterwards."""
_MOST_ID: Final = 255
"""Characters of a remote id."""
_FORGET: Final = ""
"""As a remote id: the record is gone."""


class Chunk:
    """A position is the place of an item in its delivery."""

    def __init__(self, claim: Claim) -> None:
        self._claim = claim
        self.states = [LETTER_STATE[letter] for letter in claim.states]
        self.errors = dict(claim.errors)
        self.standing: dict[str, Standing] = {}
        self.remote_ids: dict[str, str] = {}
        """That a read-back told of records which are to be archived."""
        self.not_restored: dict[str, NotRestored] = {}
        """By position: what an undo could not give back at this destination."""
        self._tried: dict[int, Tried] = {}
        self._positions = {contact_id: i for i, contact_id in enumerate(claim.contact_ids)}

    def open(self) -> list[int]:
        return [i for i, state in enumerate(self.states) if state in OPEN_STATES]

    def within(self, state: EffectState) -> list[int]:
        return [i for i, found in enumerate(self.states) if found is state]

    def positions(self, contacts: Iterable[Contact]) -> list[int]:
        return [self._positions[contact.contact_id] for contact in contacts]

    def standing_of(self, position: int) -> Standing:
        return self.standing[self._claim.contact_ids[position]]

    def contact(self, position: int) -> Contact:
        """As it stands, for a call."""
        s = self.standing[self._claim.contact_ids[position]]
        return Contact(
            contact_id=s.contact_id,
            version=s.version,
            email=None if s.deleted else s.email,
            first_name=s.first_name,
            last_name=s.last_name,
            phone=s.phone,
            company=s.company,
            attributes=s.attributes,
            deleted=s.deleted,
            remote_id=self.remote_ids.get(s.contact_id, s.remote_id),
        )

    def complain(self, position: int, code: ErrorCode, detail: str) -> None:
        self.errors[str(position)] = ItemError(code.value, detail)

    def doubt(self, position: int, detail: str) -> None:
        """It is (still) unknown; how it was sent stays beside what is known since."""
        before = self.errors.get(str(position))
        if before is not None and before.code == ErrorCode.OUTCOME_UNKNOWN:
            detail = before.detail.partition(_SINCE)[0] + _SINCE + detail
        self.states[position] = EffectState.UNKNOWN
        self.complain(position, ErrorCode.OUTCOME_UNKNOWN, detail)

    def apply(self, contact: Contact, outcome: Outcome, sent: str) -> None:
        """What a call told of one contact; `sent` tells of the call."""
        position = self._positions[contact.contact_id]
        if self.states[position] not in OPEN_STATES:
            return  # it went along in a repeated call, and was settled before
        detail = outcome.detail
        if outcome.state is EffectState.UNKNOWN:
            detail = f"{sent}: {detail}" if detail else sent
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
        """Something was tried, or need not be, and this is known of the contact as it stands."""
        self.states[position] = state
        if code is None:
            self.errors.pop(str(position), None)
        else:
            self.complain(position, code, detail)
        s = self.standing_of(position)
        if remote_id is not None and not (remote_id.isprintable() and len(remote_id) <= _MOST_ID):
            remote_id = None  # nobody can call it by that, nor can it be kept
        held = s.version if state is EffectState.OK else 0
        if held and s.archived:
            remote_id = _FORGET
        self._tried[position] = Tried(
            s.contact_id,
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
            self._tell_not_restored(position, found)

    def drop(self, position: int) -> None:
        """The destination holds this version already, or a newer one."""
        self.states[position] = EffectState.OK
        self.errors.pop(str(position), None)
        self._tell_not_restored(position, {})

    def leave(self, position: int) -> None:
        """A tombstone whose record there is not ours to take away: nothing of it is sent."""
        self.settle(position, EffectState.OK)

    def forget(self, position: int) -> None:
        """A tombstone that is not there, for certain."""
        s = self.standing_of(position)
        self.states[position] = EffectState.OK
        self.errors.pop(str(position), None)
        self._tried[position] = Tried(
            s.contact_id, EffectState.OK.value, s.version, s.version, _FORGET, None, None, s.troubled
        )

    def _tell_not_restored(self, position: int, found: Mapping[str, int]) -> None:
        """What could not be given back by the item of an undo, in a call now or before. A call speaks of the contact as
        it stands; names that another undo withdrew are told by the item of that one."""
        s, version = self.standing_of(position), self._claim.versions[position]
        names = {name for name, at in (*s.not_restored_before.items(), *found.items()) if at == version}
        if names:
            self.not_restored[str(position)] = NotRestored(sorted(names), s.created)

    def bury(self, position: int, code: ErrorCode, detail: str) -> None:
        """Tranche gives it up: a human must look at it."""
        self.states[position] = EffectState.DEAD
        self.complain(position, code, detail)
        contact_id = self._claim.contact_ids[position]
        standing = self.standing.get(contact_id)
        version = standing.version if standing else self._claim.versions[position]
        self._tried[position] = Tried(contact_id, EffectState.DEAD.value, version, 0, None, code, detail)

    def give_up(self, positions: Iterable[int], attempts: int) -> None:
        """Attempts or time ran out for them."""
        for position in positions:
            last = self.errors.get(str(position), ItemError(ErrorCode.DESTINATION_UNAVAILABLE.value, ""))
            unknown = self.states[position] is EffectState.UNKNOWN
            code = ErrorCode.OUTCOME_UNKNOWN if unknown else ErrorCode.RETRIES_EXHAUSTED
            tries = f"{attempts} attempt{'' if attempts == 1 else 's'}"
            detail = f"given up after {tries}; the last: {last.code}: {last.detail}"
            self.bury(position, code, detail)

    def tried(self) -> list[Tried]:
        return list(self._tried.values())

    def letters(self) -> list[Letter]:
        """Items that came to a bad end in this attempt."""
        claim = self._claim
        return [
            Letter(
                claim.contact_ids[position],
                claim.versions[position],
                claim.indexes[position],
                state.value,
                self.errors[str(position)].code,
                self.errors[str(position)].detail,
            )
            for position, state in enumerate(self.states)
            if state in (EffectState.FAILED, EffectState.DEAD)
            and STATE_LETTER[state] != claim.states[position]
        ]
