"""The circuit breaker that all workers share: one Redis hash a circuit, one Lua script a transition.

Redis is the breaker's memory, never a condition of work: while it is away the same rules run in this process
(`app.domain.breaker`), and a dead Redis costs at most one call a second its timeout. Nothing here raises.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from app.domain.breaker import Admission, BreakerPolicy, Change, CircuitState, milliseconds
from app.domain.outcomes import ErrorCode
from jobs.circuits import Denied, Gate, LocalCircuits, Report, SharedCircuits, Verdict
from jobs.guard import Guard

if TYPE_CHECKING:
    from redis.asyncio import Redis

PREFIX: Final = "tranche:breaker:2:"
"""Of the keys in Redis. Its number grows when what is stored under them changes: then workers of two releases beside
each other do not misread it, and have circuits of their own for that while."""

_T = TypeVar("_T")


class Transition(msgspec.Struct, frozen=True, kw_only=True):
    """A circuit changed its state; told once, to the caller whose call did it."""

    name: str
    before: CircuitState
    after: CircuitState
    opens: int
    """Openings in a row, this one included."""
    retry_after: float
    """Seconds that it stays open; 0 unless `after` is open."""


class Permit(msgspec.Struct, frozen=True, kw_only=True):
    """Leave to make one call; to be handed to exactly one of `succeed`, `fail` and `cancel`."""

    name: str
    generation: int
    token: int
    """The number of a probe; 0 for an ordinary call."""
    shared: bool
    """Given by Redis, not by this process alone."""
    tenant: int = 0
    """As in the gate that it was asked for."""
    transition: Transition | None = None
    """Set when this very admission took the circuit to half-open."""

    @property
    def probe(self) -> bool:
        return self.token > 0


class Permits(msgspec.Struct, frozen=True, kw_only=True):
    """Leave of every circuit that was asked, in the order asked."""

    permits: tuple[Permit, ...]

    @property
    def transitions(self) -> tuple[Transition, ...]:
        return tuple(permit.transition for permit in self.permits if permit.transition)

    @property
    def probe(self) -> bool:
        return any(permit.probe for permit in self.permits)


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """No call now: `name` is open, or half-open with every probe under way."""

    name: str
    state: CircuitState
    retry_after: float
    """Seconds, more than 0."""
    code: ErrorCode = ErrorCode.CIRCUIT_OPEN
    """What items that wait for it show."""


class View(msgspec.Struct, frozen=True, kw_only=True):
    """A circuit for health and status. An open one with `retry_after` 0 lets the next call probe."""

    name: str
    state: CircuitState
    retry_after: float
    calls: int
    failures: int
    slow: int
    opened_at: float | None
    """Unix time of the latest opening; `None` while closed."""
    opens: int
    shared: bool
    """Seen in Redis; else it is the memory of this process alone."""


class Breaker:
    """Circuits by name, e.g. one for a CRM's host and one for a tenant's connection.

    Args:
        redis: any client; with its own retries off a failure is noticed fastest. `None`: this process alone.
        clock: seconds since the epoch, for the rules in this process (shared circuits go by Redis `TIME`).
        rng: random in [0, 1), spreads opening times.
        pinned_time: milliseconds that replace Redis `TIME`; for tests that compare histories.
    """

    def __init__(
        self,
        redis: Redis | None,
        policy: BreakerPolicy,
        *,
        clock: Callable[[], float],
        rng: Callable[[], float],
        prefix: str = PREFIX,
        pinned_time: Callable[[], int] | None = None,
    ) -> None:
        self._policy = policy
        self._rng = rng
        self._memory = LocalCircuits(policy, lambda: milliseconds(clock()))
        self._guard = Guard(clock, "no Redis configured" if redis is None else None)
        self._shared = SharedCircuits(redis, policy, prefix, pinned_time) if redis is not None else None

    @property
    def first_open(self) -> float:
        """Seconds that a circuit stays open the first time."""
        return self._policy.open

    @property
    def away(self) -> str | None:
        """Why this process decides alone at present; `None` while the circuits are shared."""
        return self._guard.away

    async def _ask(self, question: Callable[[SharedCircuits], Awaitable[_T]]) -> tuple[_T] | None:
        shared = self._shared
        return None if shared is None else await self._guard.ask(lambda: question(shared))

    async def admit(self, circuit: Gate | str) -> Permit | Refused:
        """May a call go out through this circuit? A name alone is that of one tenant's own."""
        answer = await self.admit_all((circuit,))
        return answer if isinstance(answer, Refused) else answer.permits[0]

    async def admit_all(self, circuits: Sequence[Gate | str]) -> Permits | Refused:
        """Leave of every circuit or of none, in one question: where one refuses, the others are as they were."""
        gates = [Gate(circuit) if isinstance(circuit, str) else circuit for circuit in circuits]
        answer = await self._ask(lambda shared: shared.admit(gates))
        if answer is None:
            return _answer(gates, self._memory.admit(gates), shared=False)
        (told,) = answer
        if isinstance(told, Denied):
            self._follow(told.name, told.admission)
        else:
            for gate, admission in zip(gates, told, strict=True):
                self._follow(gate.name, admission)
        return _answer(gates, told, shared=True)

    async def succeed(self, permit: Permit, seconds: float) -> Transition | None:
        """The call took `seconds` and the other side did its part (a 4xx and a 429 are its part)."""
        return (await self.report_all([(permit, Verdict.OK)], seconds))[0]

    async def fail(self, permit: Permit, seconds: float) -> Transition | None:
        """The call took `seconds` and the other side is at fault."""
        return (await self.report_all([(permit, Verdict.FAILED)], seconds))[0]

    async def cancel(self, permit: Permit) -> None:
        """The call was called off and says nothing about the other side."""
        await self.report_all([(permit, Verdict.VOID)], 0.0)

    async def report_all(
        self, verdicts: Sequence[tuple[Permit, Verdict]], seconds: float
    ) -> list[Transition | None]:
        """What a call says about every circuit that it went through, in one message; a transition for each.

        The permits are those of one `admit_all`. Calling off an ordinary call is no news, and not told.
        """
        told = [
            (permit, verdict) for permit, verdict in verdicts if permit.probe or verdict is not Verdict.VOID
        ]
        changes: dict[str, Change | None] = {}
        if told:
            took = milliseconds(seconds)
            reports = [
                Report(p.name, p.tenant, p.generation, p.token, verdict, took, self._rng())
                for p, verdict in told
            ]
            found = await self._report(reports, shared=told[0][0].shared)
            changes = {r.name: change for r, change in zip(reports, found, strict=True)}
        return [_transition(permit.name, changes.get(permit.name)) for permit, _ in verdicts]

    async def _report(self, reports: list[Report], *, shared: bool) -> list[Change | None]:
        if not shared:
            return self._memory.report(reports)
        # A report that Redis cannot take is dropped: told to the memory of this process, it would be counted
        # in a generation that it does not belong to.
        answer = await self._ask(lambda circuits: circuits.report(reports))
        if answer is None:
            return [None] * len(reports)
        (changes,) = answer
        for report, change in zip(reports, changes, strict=True):
            if change is not None:
                self._memory.follow(report.name, change.after, change.opens, change.retry)
        return changes

    def _follow(self, name: str, told: Admission) -> None:
        self._memory.follow(name, told.state, told.opens, told.retry)

    async def look(self, name: str) -> View:
        """The circuit as it stands; looking never changes it."""
        seen = await self._ask(lambda shared: shared.look(name))
        sight = self._memory.look(name) if seen is None else seen[0]
        closed = sight.state is CircuitState.CLOSED
        return View(
            name=name,
            state=sight.state,
            retry_after=sight.retry / 1_000,
            calls=sight.calls,
            failures=sight.failures,
            slow=sight.slow,
            opened_at=None if closed else sight.opened_at / 1_000,
            opens=sight.opens,
            shared=seen is not None,
        )

    async def force(
        self, name: str, state: CircuitState, *, seconds: float | None = None
    ) -> Transition | None:
        """Set a circuit's state by hand; open lasts `seconds` (default: the longest opening time).

        While Redis is away this reaches the present process only: `away` tells.
        """
        hold = milliseconds(self._policy.open_cap if seconds is None else seconds)
        told = await self._ask(lambda shared: shared.force(name, state, hold))
        change = self._memory.force(name, state, hold)
        return _transition(name, told[0] if told else change)


def _transition(name: str, change: Change | None) -> Transition | None:
    if change is None:
        return None
    return Transition(
        name=name,
        before=change.before,
        after=change.after,
        opens=change.opens,
        retry_after=change.retry / 1_000,
    )


def _answer(gates: Sequence[Gate], told: list[Admission] | Denied, *, shared: bool) -> Permits | Refused:
    if isinstance(told, Denied):
        return Refused(name=told.name, state=told.admission.state, retry_after=told.admission.retry / 1_000)
    return Permits(
        permits=tuple(_permit(gate, a, shared=shared) for gate, a in zip(gates, told, strict=True))
    )


def _permit(gate: Gate, told: Admission, *, shared: bool) -> Permit:
    name, transition = gate.name, None
    if told.changed:
        transition = Transition(
            name=name, before=CircuitState.OPEN, after=told.state, opens=told.opens, retry_after=0.0
        )
    return Permit(
        name=name,
        generation=told.generation,
        token=told.token,
        shared=shared,
        tenant=gate.tenant,
        transition=transition,
    )
