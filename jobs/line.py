"""The line to one destination: its adapter, behind its rate and the circuits on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import msgspec
import structlog

from app.domain.outcomes import CircuitState, ErrorCode
from jobs.breaker.breaker import Breaker
from jobs.breaker.rules import Circuit, Permit, Permits, Rejected, Transition, Verdict
from jobs.crm.port import Crm, Health, Pause, ReadBack, Reply, Timeouts
from jobs.pace import Pace
from jobs.windows import Lanes

log = structlog.get_logger()

_EARLY: Final = 0.05
"""Seconds that a time-out may strike early."""
SHORTEST_HOLD: Final = 0.1
"""Seconds that a destination with a fault of its set-up is held at least: no call may find it between two states."""

_SETUP: Final = "the account lacks something that contacts need there, or refuses to be read"

Answer = TypeVar("Answer", Reply, ReadBack)


class Line:
    """Calls a CRM at its pace and with the leave of its circuits, and tells them how it went.

    Args:
        own_circuit: that of this tenant's connection, which hears of every fault.
        crm_circuit: that of the CRM, which tenants share; `None`: there is none.
        rate: calls a second, by all workers together; 0: as many as it takes.
        lanes: learns from how calls end.
        patience: the time-outs of the operator; a call that had less says nothing about the CRM when it timed out.
        tell: is told of a change of a circuit, what it came from in our own words, and with those of the CRM.
        hold: lets nothing more of this destination become due for so many seconds, and says why.
    """

    def __init__(
        self,
        crm: Crm,
        breaker: Breaker,
        pace: Pace,
        lanes: Lanes,
        *,
        own_circuit: str,
        crm_circuit: Circuit | None,
        rate: float,
        timeouts: Timeouts,
        patience: Timeouts,
        monotonic: Callable[[], float],
        tell: Callable[[Transition, str, str], None],
        hold: Callable[[float, str], Awaitable[None]],
    ) -> None:
        self.crm = crm
        self.rate = rate
        self._breaker = breaker
        self._pace = pace
        self._lanes = lanes
        self._own = own_circuit
        self._shared = crm_circuit
        self._circuits = (
            (Circuit(own_circuit),) if crm_circuit is None else (crm_circuit, Circuit(own_circuit))
        )
        self._timeouts = timeouts
        self._patience = patience
        self._monotonic = monotonic
        self._on_transition = tell
        self._hold = hold

    async def admit(self) -> Permits | Rejected:
        """Leave for one call, to be given to `call` or back to `release`. Waits for its turn, if that comes soon."""
        if self.rate:
            # First the turn: the circuits are asked when the call can go out, not a second before.
            turn = await self._pace.take(self._own, self.rate)
            if not turn.granted:
                return Rejected(
                    name=self._own,
                    state=CircuitState.CLOSED,
                    retry_after=turn.seconds,
                    code=ErrorCode.DESTINATION_RATE_LIMIT,
                )
            if turn.wait:
                await asyncio.sleep(turn.seconds)
        admitted = await self._breaker.acquire(self._circuits)
        if isinstance(admitted, Rejected):
            self._lanes.restart()
            await self._give_back_turn()
            return admitted
        self._lanes.admitted(admitted)
        for transition in admitted.transitions:
            self._tell(transition, "its time is over, and a few calls try whether it works again")
        return admitted

    def explain(self, refused: Rejected) -> str:
        """Why no call is made now, for humans."""
        if refused.code is ErrorCode.DESTINATION_RATE_LIMIT:
            return f"calls are held back to keep to the {self.rate:g} a second that are set for it"
        return self._explain(refused.name, refused.state)

    def _explain(self, name: str, state: CircuitState) -> str:
        trouble = self._lanes.trouble
        why = f"; the last call: {trouble}" if trouble else ""
        if name != self._own:
            return f"all calls to this CRM are held back for a while{why}"
        return f"calls are held back, the circuit of this tenant's connection to the CRM is {state}{why}"

    async def release(self, permits: Permits) -> None:
        """The call is not made."""
        await self._call_off(permits)
        await self._give_back_turn()

    async def call(self, ask: Callable[[], Awaitable[Answer]], permits: Permits | None) -> Answer | Rejected:
        """Make one call. A call that is called off counts as nothing."""
        if permits is None:
            admitted = await self.admit()
            if isinstance(admitted, Rejected):
                return admitted
            permits = admitted
        began = self._monotonic()
        try:
            answer = await ask()
        except BaseException:
            await self._call_off(permits)
            raise
        self._lanes.learn(answer, began, self._timeouts)
        if answer.health is not Health.WELL:
            outcomes = answer.outcomes if isinstance(answer, Reply) else []
            self._lanes.trouble = answer.detail or next((o.detail for o in outcomes if o.detail), "")
            why = _SETUP if answer.health is Health.SETUP_FAULT else "too many calls failed or were slow"
            self._lanes.cause = f"{why}; the last one {_end_of(answer.status)}"
        verdicts = [(permit, self._judge(permit, answer)) for permit in permits.permits]
        told = await self._breaker.report(verdicts, answer.seconds)
        for transition in told:
            if transition is not None:
                if transition.after is CircuitState.CLOSED:
                    self._tell(transition, "enough calls went well again")
                else:
                    self._tell(transition, self._lanes.cause, self._lanes.trouble)
                if transition.after is CircuitState.OPEN:
                    # Before the delivery is recorded, or what waits behind it would not know why for a moment.
                    await self._hold(transition.retry_after, self._explain(transition.name, transition.after))
        if answer.health is Health.SETUP_FAULT:
            seconds = await self._hold_for_setup()
            return msgspec.structs.replace(
                answer, pause=Pause(seconds, answer.detail, ErrorCode.CIRCUIT_OPEN)
            )
        return answer

    async def _hold_for_setup(self) -> float:
        """One fault of the set-up is enough to open the circuit of the connection; a probe that meets it again has
        opened it for longer. Seconds that it stays open."""
        snapshot = await self._breaker.snapshot(self._own)
        if snapshot.state is CircuitState.CLOSED:
            transition = await self._breaker.force(
                self._own, CircuitState.OPEN, seconds=self._breaker.first_open
            )
            if transition is not None:
                self._tell(transition, self._lanes.cause, self._lanes.trouble)
            seconds = self._breaker.first_open
        else:
            seconds = max(snapshot.retry_after, SHORTEST_HOLD)
        await self._hold(seconds, self._explain(self._own, CircuitState.OPEN))
        return seconds

    async def force(self, state: CircuitState, seconds: float, detail: str, *, shared: bool = False) -> None:
        """Open or close this tenant's connection by order, or, if there is one, what it shares with others."""
        name = self._own if not shared else self._shared.name if self._shared else None
        if name is None:
            return
        transition = await self._breaker.force(name, state, seconds=seconds)
        if transition is not None:
            self._tell(transition, detail)

    def _judge(self, permit: Permit, answer: Reply | ReadBack) -> Verdict:
        """What a call says about a circuit that it went through."""
        if permit.name == self._own:
            return Verdict.OK if answer.health is Health.WELL else Verdict.FAILED
        if answer.health is Health.CRM_FAULT:
            return Verdict.VOID if self._was_impatient(answer) else Verdict.FAILED
        # A fault of the connection: the CRM answered, unless it was not called at all.
        called = answer.health is Health.WELL or answer.status is not None
        return Verdict.OK if called else Verdict.VOID

    def _was_impatient(self, answer: Reply | ReadBack) -> bool:
        """Whether the call may have failed because it was given up earlier than the operator would have it."""
        own, patience = self._timeouts, self._patience
        if (own.connect >= patience.connect and own.total >= patience.total) or (answer.status or 0) >= 500:
            return False
        return min(own.connect, own.total) - _EARLY <= answer.seconds < patience.total

    async def _call_off(self, permits: Permits) -> None:
        await self._breaker.report([(permit, Verdict.VOID) for permit in permits.permits], 0.0)

    async def _give_back_turn(self) -> None:
        if self.rate:
            await self._pace.give_back(self._own, self.rate)

    def _tell(self, transition: Transition, reason: str, detail: str | None = None) -> None:
        """`detail` may repeat what the CRM said, and so what it was sent: it is for PostgreSQL alone."""
        log.warning(
            "circuit_changed",
            circuit=transition.name,
            before=transition.before,
            after=transition.after,
            opens=transition.opens,
            retry_after=round(transition.retry_after, 3),
            reason=reason,
        )
        if transition.after is CircuitState.OPEN:
            self._lanes.restart()
        self._on_transition(transition, reason, reason if detail is None else detail)


def _end_of(status: int | None) -> str:
    return "had no answer" if status is None else f"was answered with {status}"
