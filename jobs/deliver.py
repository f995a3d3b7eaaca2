"""One attempt at one delivery, as one visible pipeline: load, drop, read back, push, conclude, record.

Whatever happens on the way ends as one letter an item (`docs/states.md`) and one recording transaction.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from typing import Literal

import asyncpg
import structlog

from app.db import delivering
from app.db.delivering import Claim, ItemError, Letter, Record, Recorded, Standing, Tried
from app.db.pool import Database
from app.domain import retry
from app.domain.outcomes import LETTER_STATE, OPEN_STATES, STATE_LETTER, EffectState, ErrorCode
from app.domain.retry import RetryPolicy, TryAgain
from app.errors import TrancheError
from app.settings import Settings
from jobs import recording
from jobs.breaker import Permits, Refused
from jobs.crm.port import Contact, Headers, Outcome, Pause, Seen
from jobs.line import Line
from jobs.recording import Block

log = structlog.get_logger()

_LEASE_MARGIN = 2.0


class Delivery:
    """A claimed delivery on its way through one attempt."""

    def __init__(
        self,
        claim: Claim,
        line: Line,
        database: Database,
        settings: Settings,
        *,
        monotonic: Callable[[], float],
        random: Callable[[], float],
        leased_until: float,
        permits: Permits | None,
    ) -> None:
        self._claim = claim
        self._line = line
        self._database = database
        self._settings = settings
        self._monotonic = monotonic
        self._random = random
        self._permits = permits
        self._leased_until = leased_until
        self._states = [LETTER_STATE[letter] for letter in claim.states]
        self._errors = dict(claim.errors)
        self._position = {contact_id: i for i, contact_id in enumerate(claim.contact_ids)}
        self._standing: dict[str, Standing] = {}
        self._tried: dict[int, Tried] = {}
        self._sent: set[int] = set()
        """Positions whose call is under way: what becomes of them if we are stopped is not known."""
        self._called = False
        self._postponed: Pause | None = None
        self._blocked: Block | None = None
        self._absence: Literal["keep", "now", "clear"] = "clear"
        self._absent_wait: float | None = None

    async def run(self) -> Recorded | None:
        """Make the attempt and record it; `None`: the lease was lost and somebody else has it."""
        if self._claim.attempt > self._settings.delivery_attempts:
            # Attempts that ended with their workers count as well: else one that kills them would go on for ever.
            self._give_up()
        try:
            await self._load()
            self._drop_overtaken()
            self._doubt()
            await self._read_back_unknown()
            await self._push_open()
        except asyncio.CancelledError:
            self._interrupt("the worker was stopped during the call")
            await asyncio.shield(self._finish())
            raise
        except (TrancheError, asyncpg.PostgresError):
            if not self._called:
                # Nothing was sent, and PostgreSQL is in trouble: when the lease has ended somebody comes back to it.
                await self._release()
                raise
        except Exception as error:
            log.exception("delivery_broke_off", delivery_id=self._claim.delivery_id)
            self._break_off(type(error).__name__)
        return await self._finish()

    async def _release(self) -> None:
        if (permits := self._take()) is not None:
            await self._line.release(permits)

    async def _finish(self) -> Recorded | None:
        await self._release()
        return await recording.insist(
            self._database,
            self._claim,
            self._conclude(),
            block=self._blocked,
            called=self._called,
            until=self._leased_until,
            monotonic=self._monotonic,
        )

    # load, drop

    async def _load(self) -> None:
        claim = self._claim
        ids = [claim.contact_ids[position] for position in self._open()]
        async with self._database.connection() as connection:
            self._standing = await delivering.contacts_to_send(
                connection, claim.tenant_id, claim.destination_id, ids
            )

    def _drop_overtaken(self) -> None:
        """What the destination holds already need not be sent: a later delivery was faster."""
        for position in self._open():
            standing = self._standing.get(self._claim.contact_ids[position])
            if standing is None:
                self._states[position] = EffectState.SKIPPED
            elif standing.synced_version >= self._claim.versions[position]:
                self._states[position] = EffectState.OK
                self._errors.pop(str(position), None)

    def _doubt(self) -> None:
        """Another delivery of this contact lost its answer, and it may have sent what we are about to send."""
        for position in self._in(EffectState.PENDING) + self._in(EffectState.RETRY):
            if self._standing[self._claim.contact_ids[position]].doubtful:
                self._states[position] = EffectState.UNKNOWN
                self._complain(position, ErrorCode.OUTCOME_UNKNOWN, "an earlier delivery may have sent it")

    # read back

    async def _read_back_unknown(self) -> None:
        """Settle what an earlier attempt left unknown, before anything is sent again."""
        unknown = self._in(EffectState.UNKNOWN)
        size = self._line.crm.batch_size
        for start in range(0, len(unknown), size):
            if not await self._read_back(unknown[start : start + size]):
                return

    async def _read_back(self, positions: list[int]) -> bool:
        contacts = [self._contact(position) for position in positions]
        if not await self._ready():
            return False
        reply = await self._line.call(
            lambda: self._line.crm.read_back(contacts, self._headers(contacts)), self._take()
        )
        if isinstance(reply, Refused):
            return self._refuse(reply)
        self._called = True
        if reply.pause is not None:
            return self._pause(reply.pause)
        missing: list[int] = []
        for position, contact in zip(positions, contacts, strict=True):
            seen = (reply.seen or {}).get(contact.contact_id)
            if seen is Seen.MATCHES:
                self._settle(
                    position, EffectState.OK, contact, remote_id=reply.remote_ids.get(contact.contact_id)
                )
            elif seen is None:
                self._complain(
                    position, ErrorCode.OUTCOME_UNKNOWN, reply.detail or "the read-back told nothing"
                )
            else:
                missing.append(position)
        if reply.seen is None:
            return False
        if missing:
            self._weigh_absence(missing)
        return True

    def _weigh_absence(self, positions: list[int]) -> None:
        """Absent once is not proof: the first write may still be on its way. Twice across the grace is."""
        absent_for = self._claim.absent_for
        if absent_for is not None and absent_for >= self._settings.reconcile_grace:
            for position in positions:
                self._states[position] = EffectState.RETRY
            return
        self._absence = "now" if absent_for is None else "keep"
        self._absent_wait = self._settings.reconcile_grace - (absent_for or 0.0)
        for position in positions:
            self._complain(
                position, ErrorCode.OUTCOME_UNKNOWN, "not found there yet; it is looked for once more"
            )

    # push

    async def _push_open(self) -> None:
        if self._in(EffectState.UNKNOWN) or self._postponed or self._blocked:
            # One absence stands for the whole delivery; what is sent meanwhile would share it.
            return
        contacts = [self._contact(position) for position in self._open()]
        size = self._line.crm.batch_size
        for start in range(0, len(contacts), size):
            if not await self._push(contacts[start : start + size]):
                return

    async def _push(self, contacts: list[Contact]) -> bool:
        """One call, or halves of it where the CRM refused the whole without naming the guilty."""
        if not await self._ready():
            return False
        positions = [self._position[contact.contact_id] for contact in contacts]
        self._sent.update(positions)
        reply = await self._line.call(
            lambda: self._line.crm.push(contacts, self._headers(contacts)), self._take()
        )
        self._sent.difference_update(positions)
        if isinstance(reply, Refused):
            return self._refuse(reply)
        self._called = True
        if reply.pause is not None:
            return self._pause(reply.pause)
        if reply.rejected_whole and len(contacts) > 1:
            middle = len(contacts) // 2
            return await self._push(contacts[:middle]) and await self._push(contacts[middle:])
        for contact, outcome in zip(contacts, reply.outcomes, strict=True):
            self._apply(self._position[contact.contact_id], contact, outcome)
        return True

    def _apply(self, position: int, contact: Contact, outcome: Outcome) -> None:
        self._settle(
            position,
            outcome.state,
            contact,
            remote_id=outcome.remote_id,
            code=outcome.code,
            detail=outcome.detail,
        )

    def _headers(self, contacts: list[Contact]) -> Headers:
        claim = self._claim
        named = "\0".join(f"{c.contact_id}\0{c.version}" for c in contacts)
        place = f"tranche:{claim.tenant_id}:{claim.destination_id}"
        return Headers(claim.request_id, str(uuid.uuid5(uuid.NAMESPACE_URL, f"{place}\0{named}")))

    # what happened to the call as a whole

    def _take(self) -> Permits | None:
        permits, self._permits = self._permits, None
        return permits

    async def _ready(self) -> bool:
        """Whether the lease outlasts another call; a call is never made on a lease that may end under it."""
        need = self._settings.crm_total_timeout + _LEASE_MARGIN
        if self._leased_until - self._monotonic() >= need:
            return True
        asked = self._monotonic()
        async with self._database.connection() as connection:
            lease = max(self._settings.delivery_lease, need)
            if not await delivering.renew_lease(connection, self._claim, lease):
                return False
        self._leased_until = asked + lease
        return True

    def _refuse(self, refused: Refused) -> bool:
        self._blocked = Block(refused.retry_after, refused.code, self._line.explain(refused))
        return False

    def _pause(self, pause: Pause) -> bool:
        self._postponed = pause
        self._blocked = Block(pause.seconds, ErrorCode.DESTINATION_RATE_LIMIT, pause.detail)
        return False

    def _interrupt(self, detail: str) -> None:
        for position in self._sent:
            self._settle(
                position,
                EffectState.UNKNOWN,
                self._contact(position),
                code=ErrorCode.OUTCOME_UNKNOWN,
                detail=detail,
            )
        self._called = self._called or bool(self._sent)
        self._absence = "clear"

    def _break_off(self, error: str) -> None:
        """An error of ours: it costs an attempt like any other, or it would come again at once and for ever."""
        self._interrupt(f"Tranche broke off during the call: {error}")
        for position in self._in(EffectState.PENDING) + self._in(EffectState.RETRY):
            self._states[position] = EffectState.RETRY
            self._complain(position, ErrorCode.INTERNAL, f"Tranche broke off before the call: {error}")
        self._called = True

    # conclude, record

    def _open(self) -> list[int]:
        return [i for i, state in enumerate(self._states) if state in OPEN_STATES]

    def _in(self, state: EffectState) -> list[int]:
        return [i for i, found in enumerate(self._states) if found is state]

    def _contact(self, position: int) -> Contact:
        s = self._standing[self._claim.contact_ids[position]]
        return Contact(
            contact_id=s.contact_id,
            version=s.version,
            email=s.email,
            first_name=s.first_name,
            last_name=s.last_name,
            phone=s.phone,
            company=s.company,
            attributes=s.attributes,
        )

    def _complain(self, position: int, code: ErrorCode, detail: str) -> None:
        self._errors[str(position)] = ItemError(code.value, detail)

    def _settle(
        self,
        position: int,
        state: EffectState,
        contact: Contact,
        *,
        remote_id: str | None = None,
        code: ErrorCode | None = None,
        detail: str = "",
    ) -> None:
        self._states[position] = state
        if code is None:
            self._errors.pop(str(position), None)
        else:
            self._complain(position, code, detail)
        held = contact.version if state is EffectState.OK else 0
        self._tried[position] = Tried(
            contact.contact_id, state.value, contact.version, held, remote_id, code, detail or None
        )

    def _conclude(self) -> Record:
        claim, settings = self._claim, self._settings
        wait: float | None = None
        # A circuit that would not let us call and a CRM that asked for silence cost no attempt.
        spent = claim.attempt if self._called and self._postponed is None else claim.attempt - 1
        if self._open():
            decision = retry.decide(
                max(spent, 1), 0.0, claim.age, RetryPolicy.from_settings(settings), self._random
            )
            if isinstance(decision, TryAgain):
                wait = decision.delay if self._called and self._postponed is None else 0.0
            else:
                self._give_up()
                wait = 0.0 if self._open() else None
        if wait is not None and self._absent_wait is not None:
            wait = max(self._absent_wait, 0.0)
        return Record(
            states="".join(STATE_LETTER[state] for state in self._states),
            errors=self._errors,
            attempts=max(spent, 0),
            wait=wait,
            absence=self._absence,
            tried=list(self._tried.values()),
            letters=self._letters(),
        )

    def _give_up(self) -> None:
        """Attempts or time ran out for what was tried; what never was tried is not given up."""
        for position in self._open():
            state = self._states[position]
            if state is EffectState.PENDING:
                continue
            last = self._errors.get(str(position), ItemError(ErrorCode.DESTINATION_UNAVAILABLE.value, ""))
            unknown = state is EffectState.UNKNOWN
            code = ErrorCode.OUTCOME_UNKNOWN if unknown else ErrorCode.RETRIES_EXHAUSTED
            spent = min(self._claim.attempt, self._settings.delivery_attempts)
            detail = f"given up after {spent} attempts; the last: {last.code}: {last.detail}"
            self._states[position] = EffectState.DEAD
            self._complain(position, code, detail)
            contact_id = self._claim.contact_ids[position]
            standing = self._standing.get(contact_id)
            version = standing.version if standing else self._claim.versions[position]
            self._tried[position] = Tried(contact_id, EffectState.DEAD.value, version, 0, None, code, detail)

    def _letters(self) -> list[Letter]:
        before = self._claim.states
        return [
            Letter(
                self._claim.contact_ids[position],
                self._claim.versions[position],
                self._claim.indexes[position],
                state.value,
                self._errors[str(position)].code,
                self._errors[str(position)].detail,
            )
            for position, state in enumerate(self._states)
            if state in (EffectState.FAILED, EffectState.DEAD) and STATE_LETTER[state] != before[position]
        ]

    @property
    def blocked_for(self) -> float | None:
        """Seconds for which the destination was found closed during this attempt."""
        return self._blocked.seconds if self._blocked else None
