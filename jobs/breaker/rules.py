"""What a circuit is asked and what it answers, and the rule of a worker whose Redis is away.

The rules that all workers share are in `lua/`. Times are seconds. Sources: Nygard, "Release It!"; resilience4j.
"""

from enum import StrEnum
from typing import Final, Self

import msgspec

from app.vocabulary.states import CircuitState, ErrorCode

JITTER: Final = 0.2
"""Share of an opening time that is random, taken off it: the cap stays a cap."""
RETRY: Final = 1.0
"""Seconds after which to ask again while a probe is under way: it usually ends long before its permit expires."""
_MOST_DOUBLINGS: Final = 20


class BreakerPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of a circuit, named as the settings `breaker_*`; times in seconds, rates from 0 to 1."""

    window: float = 30.0
    min_calls: int = 10
    failure_rate: float = 0.5
    slow_rate: float = 0.8
    slow_call: float = 8.0
    open: float = 5.0
    open_cap: float = 120.0
    probes: int = 2
    successes: int = 3
    permit: float = 15.0

    @classmethod
    def from_settings(cls, settings: object) -> Self:
        """The `breaker_*` settings of any record that has them."""
        return cls(**{name: getattr(settings, f"breaker_{name}") for name in cls.__struct_fields__})


class Circuit(msgspec.Struct, frozen=True):
    """A circuit that a call passes, e.g. one of a CRM's host and one of a tenant's connection."""

    name: str
    tenant: int = 0
    """The caller, where tenants share the circuit; 0: it belongs to one tenant."""


class Verdict(StrEnum):
    """What a call that ended says about a circuit that it passed."""

    OK = "ok"
    FAILED = "failed"
    VOID = "void"
    """Nothing: it was canceled, or the fault is another circuit's."""


class Transition(msgspec.Struct, frozen=True, kw_only=True):
    """A change of a circuit's state, reported once: to the caller whose call caused it."""

    name: str
    before: CircuitState
    after: CircuitState
    opens: int
    """Openings in a row, this one included."""
    retry_after: float
    """Seconds that it stays open; 0 unless `after` is open."""


class Permit(msgspec.Struct, frozen=True, kw_only=True):
    """Permission for one call; every permit is reported once."""

    name: str
    generation: int
    """Grows with each change of state; a report of an older generation is ignored."""
    token: int
    """The number of a probe; 0 for an ordinary call."""
    shared: bool
    """Given by Redis, not by this process alone."""
    tenant: int = 0
    transition: Transition | None = None
    """Set when this request took the circuit to half-open."""

    @property
    def probe(self) -> bool:
        return self.token > 0


class Permits(msgspec.Struct, frozen=True, kw_only=True):
    """A permit of each circuit, in the order requested."""

    permits: tuple[Permit, ...]

    @property
    def transitions(self) -> tuple[Transition, ...]:
        return tuple(permit.transition for permit in self.permits if permit.transition)

    @property
    def probe(self) -> bool:
        return any(permit.probe for permit in self.permits)


class Rejected(msgspec.Struct, frozen=True, kw_only=True):
    """No call now: `name` is open, or half-open with every probe under way."""

    name: str
    state: CircuitState
    retry_after: float
    """Seconds, more than 0."""
    code: ErrorCode = ErrorCode.CIRCUIT_OPEN
    """The code that waiting items show."""


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A circuit's present state. An open one with `retry_after` 0 lets the next call probe."""

    name: str
    state: CircuitState
    retry_after: float
    calls: int = 0
    failures: int = 0
    slow: int = 0
    opened_at: float | None = None
    """Unix time of the latest opening; `None` while closed."""
    opens: int
    shared: bool
    """Read in Redis; else it is the memory of this process."""


class LocalCircuit:
    """A circuit as one process judges it: `min_calls` failures in a row open it, one probe at a time tests it."""

    def __init__(self, name: str, policy: BreakerPolicy) -> None:
        self.name = name
        self.state = CircuitState.CLOSED
        self.opens = 0
        self._policy = policy
        self._generation = 0
        self._failures = 0
        self._since = self._until = 0.0
        """While open: the opening time. While half-open: the time of the probe's permit."""

    def wait(self, now: float) -> float:
        """Seconds until a call may go out; 0: now."""
        # A clock that was set back to before the opening must not hold the circuit open for the difference.
        held = self.state is not CircuitState.CLOSED and self._since <= now < self._until
        if not held:
            return 0.0
        return self._until - now if self.state is CircuitState.OPEN else min(RETRY, self._until - now)

    def acquire(self, now: float) -> Permit:
        """Permission for a call that need not wait."""
        probe, transition = self.state is not CircuitState.CLOSED, None
        if probe:
            transition = self._move(CircuitState.HALF_OPEN, now, self._policy.permit)
        token = self._generation if probe else 0
        return Permit(name=self.name, generation=self._generation, token=token, shared=False, transition=transition)

    def report(self, generation: int, verdict: Verdict, now: float, jitter: float) -> Transition | None:
        """The end of a call; `jitter` is random in [0, 1)."""
        if generation != self._generation:
            return None
        if verdict is Verdict.VOID:
            self._until = now
            return None
        if verdict is Verdict.OK:
            self._failures = 0
            return None if self.state is CircuitState.CLOSED else self._move(CircuitState.CLOSED, now)
        self._failures += 1
        if self.state is CircuitState.CLOSED and self._failures < self._policy.min_calls:
            return None
        longest = min(self._policy.open_cap, self._policy.open * 2 ** min(self.opens, _MOST_DOUBLINGS))
        self.opens += 1
        return self._move(CircuitState.OPEN, now, longest * (1 - JITTER * jitter))

    def force(self, state: CircuitState, now: float, seconds: float) -> Transition | None:
        """Set the state; an open circuit stays open for `seconds`."""
        self.opens = max(1, self.opens)
        return self._move(state, now, seconds if state is CircuitState.OPEN else 0.0)

    def _move(self, state: CircuitState, now: float, seconds: float = 0.0) -> Transition | None:
        before, self.state, opens = self.state, state, self.opens
        if state is CircuitState.CLOSED:
            self.opens = 0
        self._generation += 1
        self._failures, self._since, self._until = 0, now, now + seconds
        if before is state:
            return None
        retry_after = seconds if state is CircuitState.OPEN else 0.0
        return Transition(name=self.name, before=before, after=state, opens=opens, retry_after=retry_after)
