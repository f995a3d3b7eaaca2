"""The client of one destination: its adapter, behind the rate limiter and the circuits that its calls pass."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import msgspec

from app.resources.declaration import Resource
from app.telemetry import CallMade, emit
from app.vocabulary.states import CircuitState, ErrorCode
from jobs.breaker.breaker import Breaker
from jobs.breaker.rules import Circuit, Permit, Permits, Rejected, Transition, Verdict
from jobs.crm.port import CallResult, Crm, Health, Pause, Reply, Timeouts
from jobs.delivery.destination_state import DestinationState
from jobs.delivery.limits.rate_limiter import RateLimiter
from jobs.delivery.policy import DeliveryPolicy

_EARLY: Final = 0.05
"""Seconds by which a timeout may be early."""
SHORTEST_BLOCK: Final = 0.1
"""Seconds for which a setup fault blocks a destination at least: no call may find it between two states."""

_SETUP: Final = "the account lacks something that records need there, refuses to be read, or issues no token"

Answer = TypeVar("Answer", bound=CallResult)


class GuardedClient(msgspec.Struct, frozen=True, eq=False, kw_only=True):
    """Calls a CRM at its rate and with the permission of its circuits, and reports to them how it went."""

    kind: str
    label: str | None
    """The destination's name in metrics, if it has one there."""
    crm_for: Callable[[Resource], Crm]
    """Its adapter for records of one type."""
    breaker: Breaker
    rate_limiter: RateLimiter
    state: DestinationState
    own_circuit: str
    """That of this tenant's connection, which counts every fault."""
    crm_circuit: Circuit | None
    """That of the CRM, which tenants share; `None`: there is none."""
    policy: DeliveryPolicy
    operator_timeouts: Timeouts
    """Those of the settings; a call that timed out with less time says nothing about the CRM."""
    on_transition: Callable[[Transition, str, str], None]
    """Receives a transition of a circuit, its reason in our own words, and a detail that may have those of the CRM."""
    block: Callable[[float, str], Awaitable[None]]
    """Makes nothing of this destination due for so many seconds, and says why."""

    @property
    def rate(self) -> float:
        return self.policy.rate

    async def acquire(self) -> Permits | Rejected:
        """Permission for one call, to be passed to `call` or `release`. Waits for its slot, if that comes soon."""
        if self.rate:
            # First the slot: the circuits are asked when the call can go out, not a second before.
            slot = await self.rate_limiter.acquire(self.own_circuit, self.rate)
            if not slot.granted:
                return Rejected(
                    name=self.own_circuit,
                    state=CircuitState.CLOSED,
                    retry_after=slot.seconds,
                    code=ErrorCode.DESTINATION_RATE_LIMIT,
                )
            if slot.wait:
                await asyncio.sleep(slot.seconds)
        shared = () if self.crm_circuit is None else (self.crm_circuit,)
        acquired = await self.breaker.acquire((*shared, Circuit(self.own_circuit)))
        if isinstance(acquired, Rejected):
            self.state.limit.restart()
            await self._cancel_slot()
            return acquired
        self.state.limit.permitted(acquired)
        for transition in acquired.transitions:
            self._note(transition, "its time is over, and a few calls test whether it works again")
        return acquired

    def explain(self, rejected: Rejected) -> str:
        """Why no call is made now."""
        if rejected.code is ErrorCode.DESTINATION_RATE_LIMIT:
            return f"calls are delayed to keep to the {self.rate:g} per second that are set for it"
        return self._explain(rejected.name, rejected.state)

    def _explain(self, name: str, state: CircuitState) -> str:
        failure = self.state.last_failure
        why = f"; the last call: {failure}" if failure else ""
        if name != self.own_circuit:
            return f"all calls to this CRM are suspended for a while{why}"
        return f"calls are suspended, the circuit of this tenant's connection to the CRM is {state}{why}"

    async def release(self, permits: Permits) -> None:
        """The call is not made."""
        await self._cancel(permits)
        await self._cancel_slot()

    async def call(
        self,
        operation: str,
        ask: Callable[[], Awaitable[Answer]],
        permits: Permits | None,
        *,
        follow: Callable[[Permits], None] | None = None,
    ) -> Answer | Rejected:
        """Make one call. A call that is canceled counts as nothing. `follow`: another call follows, and is given its
        permits, which are asked for together with the report of this one."""
        if permits is None:
            acquired = await self.acquire()
            if isinstance(acquired, Rejected):
                return acquired
            permits = acquired
        began = time.monotonic()
        try:
            answer = await ask()
        except BaseException:
            await self._cancel(permits)
            raise
        self.state.limit.learn(answer, began, self.policy.timeouts)
        if answer.health is not Health.WELL:
            self._remember_failure(answer)
        following = None
        if follow is not None and not self.rate and answer.health is Health.WELL and answer.pause is None:
            following = asyncio.create_task(self.acquire())
        try:
            await self._report(operation, permits, answer)
            granted = None if following is None else await following
        except BaseException:
            if following is not None and not following.cancel() and isinstance(left := following.result(), Permits):
                await self.release(left)
            raise
        if follow is not None and granted is not None and not isinstance(granted, Rejected):
            follow(granted)
        if answer.health is Health.SETUP_FAULT:
            seconds = await self._block_for_setup()
            return msgspec.structs.replace(answer, pause=Pause(seconds, answer.detail, ErrorCode.CIRCUIT_OPEN))
        return answer

    def _remember_failure(self, answer: CallResult) -> None:
        outcomes = answer.outcomes if isinstance(answer, Reply) else []
        self.state.last_failure = answer.detail or next((o.detail for o in outcomes if o.detail), "")
        why = _SETUP if answer.health is Health.SETUP_FAULT else "too many calls failed or were slow"
        end = "had no answer" if answer.status is None else f"was answered with {answer.status}"
        self.state.failure_reason = f"{why}; the last one {end}"

    async def _report(self, operation: str, permits: Permits, answer: CallResult) -> None:
        verdicts = [(permit, self._judge(permit, answer)) for permit in permits.permits]
        emit(
            CallMade(
                kind=self.kind,
                destination=self.label,
                operation=operation,
                outcome=_outcome(answer),
                seconds=answer.seconds,
                verdicts=[
                    ("connection" if permit.name == self.own_circuit else "crm", verdict.value)
                    for permit, verdict in verdicts
                    if verdict is not Verdict.VOID
                ],
            )
        )
        for transition in await self.breaker.report(verdicts, answer.seconds):
            if transition is None:
                continue
            if transition.after is CircuitState.CLOSED:
                self._note(transition, "enough calls succeeded again")
            else:
                self._note(transition, self.state.failure_reason, self.state.last_failure)
            if transition.after is CircuitState.OPEN:
                # Before the delivery is recorded, or what waits behind it would not know why for a moment.
                await self.block(transition.retry_after, self._explain(transition.name, transition.after))

    async def _block_for_setup(self) -> float:
        """One setup fault is enough to open the circuit of the connection; a probe that meets it again has opened it
        for longer. Seconds that it stays open."""
        snapshot = await self.breaker.snapshot(self.own_circuit)
        if snapshot.state is CircuitState.CLOSED:
            seconds = self.breaker.first_open
            opened = await self.breaker.force(self.own_circuit, CircuitState.OPEN, seconds=seconds)
            self._note(opened, self.state.failure_reason, self.state.last_failure)
        else:
            seconds = max(snapshot.retry_after, SHORTEST_BLOCK)
        await self.block(seconds, self._explain(self.own_circuit, CircuitState.OPEN))
        return seconds

    def is_half_open(self, permits: Permits) -> bool:
        """Whether the circuit of this tenant's connection was half-open when these were granted."""
        return any(permit.probe for permit in permits.permits if permit.name == self.own_circuit)

    async def settle(self) -> None:
        """Nothing is left to be sent: the circuit of the connection closes if its probes succeeded."""
        self._note(await self.breaker.settle(self.own_circuit), "every call that waited succeeded")

    async def force(self, state: CircuitState, seconds: float, detail: str, *, shared: bool = False) -> None:
        """Open or close this tenant's connection on an operator's order, or, if there is one, what it shares."""
        name = self.own_circuit if not shared else self.crm_circuit.name if self.crm_circuit else None
        if name is not None:
            self._note(await self.breaker.force(name, state, seconds=seconds), detail)

    def _judge(self, permit: Permit, answer: CallResult) -> Verdict:
        """What a call says about a circuit that it passed."""
        if permit.name == self.own_circuit:
            return Verdict.OK if answer.health is Health.WELL else Verdict.FAILED
        if answer.health is Health.CRM_FAULT:
            return Verdict.VOID if self._had_less_time(answer) else Verdict.FAILED
        # A fault of the connection: the CRM answered, unless it was not called at all.
        called = answer.health is Health.WELL or answer.status is not None
        return Verdict.OK if called else Verdict.VOID

    def _had_less_time(self, answer: CallResult) -> bool:
        """Whether the call may have failed because its timeout is shorter than the operator's."""
        own, operator = self.policy.timeouts, self.operator_timeouts
        if (own.connect >= operator.connect and own.total >= operator.total) or (answer.status or 0) >= 500:
            return False
        return min(own.connect, own.total) - _EARLY <= answer.seconds < operator.total

    async def _cancel(self, permits: Permits) -> None:
        await self.breaker.report([(permit, Verdict.VOID) for permit in permits.permits], 0.0)

    async def _cancel_slot(self) -> None:
        if self.rate:
            await self.rate_limiter.cancel(self.own_circuit, self.rate)

    def _note(self, transition: Transition | None, reason: str, detail: str | None = None) -> None:
        """A circuit changed, if it did. `detail` may repeat what the CRM said, and so what it was sent: it is for
        PostgreSQL alone."""
        if transition is None:
            return
        if transition.after is CircuitState.OPEN:
            self.state.limit.restart()
        self.on_transition(transition, reason, reason if detail is None else detail)


def _outcome(answer: CallResult) -> str:
    """How a call ended, in one word."""
    if answer.timed_out:
        return "timeout"
    if answer.pause is not None and answer.pause.code is ErrorCode.DESTINATION_RATE_LIMIT:
        return "rate_limited"
    if answer.health is not Health.WELL:
        return answer.health.value
    return "refused" if (answer.status or 0) >= 400 else "ok"
