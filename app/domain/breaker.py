"""The rules of a circuit breaker, as pure functions from one state record to the next.

`jobs/lua/*.lua` are the same rules, function by function, for the breaker that all workers share; a test runs
both on the same random histories. Here they serve a worker whose Redis is away. Times are whole milliseconds,
so that Lua and Python agree to the last digit; only `BreakerPolicy` speaks in seconds.

A circuit counts calls in a sliding window of sub-buckets and opens on the *rate* of failed or slow ones. Each
change of state starts a new generation; what was admitted in an older one is no longer heard. Sources:
Nygard, "Release It!", and the rates and minimum of calls of resilience4j.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Final

import msgspec
from msgspec.structs import replace

BUCKETS: Final = 10
JITTER: Final = 0.2
"""Share of an opening time that is random, taken off it: the cap stays a cap."""
HALF_OPEN_RETRY: Final = 1_000
"""Milliseconds after which to ask again while all probes are under way: they usually end long before their
permits expire."""
_MOST_DOUBLINGS: Final = 20  # 2**20 keeps every product exact in the doubles that Lua computes with


class CircuitState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class BreakerPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of a circuit. Fields bear the names of the settings `breaker_*`; times in seconds, rates 0-1."""

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
    def from_settings(cls, settings: object) -> BreakerPolicy:
        """The `breaker_*` settings of any record that has them (the domain knows no settings class)."""
        return cls(**{name: getattr(settings, f"breaker_{name}") for name in cls.__struct_fields__})


class Bucket(msgspec.Struct, frozen=True):
    """Calls of one tenth of the window; `index` is the number of such tenths since the epoch."""

    index: int
    calls: int = 0
    failures: int = 0
    slow: int = 0


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a circuit remembers. The empty record is a closed circuit of generation 0."""

    state: CircuitState = CircuitState.CLOSED
    generation: int = 0
    """Grows with each change of state, and is never below the time of the change: a permit from before the
    memory was lost cannot meet its own number again."""
    opens: int = 0
    """Openings in a row, without a quiet time closed in between."""
    opened_at: int = 0
    until: int = 0
    closed_at: int = 0
    successes: int = 0
    issued: int = 0
    buckets: dict[int, Bucket] = {}
    """By `index % BUCKETS`."""
    permits: dict[int, int] = {}
    """Probes under way: token to the time at which the permit expires by itself."""


class Admission(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a caller: go (`granted`), or come back after `retry` milliseconds."""

    granted: bool
    state: CircuitState
    generation: int
    token: int = 0
    """The number of a probe's permit; 0 for an ordinary call."""
    retry: int = 0
    opens: int = 0
    changed: bool = False
    """This very question took the circuit from open to half-open."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A circuit went from one state to another; `retry` is how long it stays open (ms), else 0."""

    before: CircuitState
    after: CircuitState
    opens: int
    retry: int


class Sight(msgspec.Struct, frozen=True, kw_only=True):
    """A circuit as it stands, for people; times in ms, `opened_at` 0 if it never opened."""

    state: CircuitState
    retry: int
    calls: int
    failures: int
    slow: int
    opened_at: int
    opens: int


def milliseconds(seconds: float) -> int:
    return round(seconds * 1_000)


def lifetime(record: Record, policy: BreakerPolicy, now: int) -> int:
    """Milliseconds after which an untouched record says nothing that an empty one would not."""
    quiet = 2 * milliseconds(max(policy.window, policy.open_cap, policy.permit))
    return quiet + (max(0, record.until - now) if record.state is CircuitState.OPEN else 0)


def admit(record: Record, policy: BreakerPolicy, now: int) -> tuple[Record, Admission]:
    """May a call go out? Closed: yes. Open: not before its time. Half-open: as one of few probes."""
    stored, record = record, _settle(record, policy, now)
    changed = False
    if record.state is CircuitState.OPEN:
        # A clock that was set back to before the opening must not hold the circuit open for the difference.
        if record.opened_at <= now < record.until:
            return stored, _refusal(record, record.until - now)
        record = replace(
            record, state=CircuitState.HALF_OPEN, generation=_next_generation(record, now), successes=0
        )
        changed = True
    if record.state is CircuitState.CLOSED:
        return stored, Admission(
            granted=True, state=record.state, generation=record.generation, opens=record.opens
        )
    if len(record.permits) >= max(1, policy.probes):
        return stored, _refusal(record, min(HALF_OPEN_RETRY, min(record.permits.values()) - now))
    token = record.issued + 1
    expires = now + milliseconds(policy.permit)
    record = replace(record, issued=token, permits={**record.permits, token: expires})
    return record, Admission(
        granted=True,
        state=record.state,
        generation=record.generation,
        token=token,
        opens=record.opens,
        changed=changed,
    )


def report(
    record: Record,
    policy: BreakerPolicy,
    now: int,
    *,
    generation: int,
    token: int,
    failed: bool,
    took: int,
    jitter: float,
) -> tuple[Record, Change | None]:
    """A call ended after `took` ms. `jitter` is random in [0, 1) and spreads the opening time.

    What was admitted in an older generation changes nothing. A failed probe re-opens even after its permit
    expired, since it is still evidence; a late success closes nothing. A slow probe that succeeded gives its
    permit back and counts as nothing: the circuit stays half-open and work trickles at the probes' pace.
    """
    stored, record = record, _settle(record, policy, now)
    if generation != record.generation:
        return stored, None
    slow = took >= milliseconds(policy.slow_call)
    if record.state is CircuitState.CLOSED:
        record = _count(record, policy, now, failed, slow)
        return _open(record, policy, now, jitter) if _too_bad(record, policy) else (record, None)
    if record.state is CircuitState.HALF_OPEN:
        if failed:
            return _open(record, policy, now, jitter)
        if token in record.permits:
            record = replace(
                record,
                permits={number: expires for number, expires in record.permits.items() if number != token},
                successes=record.successes + (0 if slow else 1),
            )
            return _close(record, now) if record.successes >= policy.successes else (record, None)
    return stored, None


def cancel(record: Record, policy: BreakerPolicy, now: int, *, generation: int, token: int) -> Record:
    """A call was called off: it says nothing about the other side and gives its permit back."""
    stored, record = record, _settle(record, policy, now)
    if generation != record.generation or token not in record.permits:
        return stored
    return replace(
        record, permits={number: expires for number, expires in record.permits.items() if number != token}
    )


def look(record: Record, policy: BreakerPolicy, now: int) -> Sight:
    """The circuit as it stands; looking never changes it."""
    record = _settle(record, policy, now)
    counted = record.buckets.values()
    held = record.state is CircuitState.OPEN and record.opened_at <= now
    return Sight(
        state=record.state,
        retry=max(0, record.until - now) if held else 0,
        calls=sum(bucket.calls for bucket in counted),
        failures=sum(bucket.failures for bucket in counted),
        slow=sum(bucket.slow for bucket in counted),
        opened_at=record.opened_at,
        opens=record.opens,
    )


def force(
    record: Record, policy: BreakerPolicy, now: int, *, state: CircuitState, hold: int
) -> tuple[Record, Change | None]:
    """Set the state by hand; `hold` is how long (ms) a circuit stays open. Closing forgets past openings."""
    record = _settle(record, policy, now)
    before = record.state
    record = replace(
        record,
        state=state,
        generation=_next_generation(record, now),
        opens=0 if state is CircuitState.CLOSED else max(1, record.opens),
        closed_at=now if state is CircuitState.CLOSED else record.closed_at,
        successes=0,
        buckets={},
        permits={},
    )
    if state is CircuitState.OPEN:
        record = replace(record, opened_at=now, until=now + hold)
    retry = hold if state is CircuitState.OPEN else 0
    change = Change(before=before, after=state, opens=record.opens, retry=retry)
    return record, change if before is not state else None


def adopt(now: int, *, opens: int, retry: int) -> Record:
    """The record of a circuit known, from elsewhere, to be open for `retry` ms more."""
    return Record(
        state=CircuitState.OPEN, generation=max(1, now), opens=max(1, opens), opened_at=now, until=now + retry
    )


def _refusal(record: Record, retry: int) -> Admission:
    return Admission(
        granted=False, state=record.state, generation=record.generation, retry=retry, opens=record.opens
    )


def _next_generation(record: Record, now: int) -> int:
    return max(record.generation + 1, now)


def _tenth(policy: BreakerPolicy) -> int:
    return max(1, milliseconds(policy.window) // BUCKETS)


def _settle(record: Record, policy: BreakerPolicy, now: int) -> Record:
    """Let go of what time has taken: old buckets and expired permits, also those of a clock set back."""
    index = now // _tenth(policy)
    longest = now + milliseconds(policy.permit)
    return replace(
        record,
        buckets={
            slot: bucket for slot, bucket in record.buckets.items() if index - BUCKETS < bucket.index <= index
        },
        permits={number: expires for number, expires in record.permits.items() if now < expires <= longest},
    )


def _count(record: Record, policy: BreakerPolicy, now: int, failed: bool, slow: bool) -> Record:
    index = now // _tenth(policy)
    slot = index % BUCKETS
    bucket = record.buckets.get(slot, Bucket(index))
    bucket = Bucket(index, bucket.calls + 1, bucket.failures + failed, bucket.slow + slow)
    return replace(record, buckets={**record.buckets, slot: bucket})


def _too_bad(record: Record, policy: BreakerPolicy) -> bool:
    calls = sum(bucket.calls for bucket in record.buckets.values())
    failures = sum(bucket.failures for bucket in record.buckets.values())
    slow = sum(bucket.slow for bucket in record.buckets.values())
    if calls < policy.min_calls:
        return False
    return (failures > 0 and failures >= policy.failure_rate * calls) or (
        slow > 0 and slow >= policy.slow_rate * calls
    )


def _open(record: Record, policy: BreakerPolicy, now: int, jitter: float) -> tuple[Record, Change]:
    quiet = record.state is CircuitState.CLOSED and now - record.closed_at >= milliseconds(policy.open_cap)
    opens = 1 if quiet else record.opens + 1
    longest = min(
        milliseconds(policy.open_cap), milliseconds(policy.open) * 2 ** min(opens - 1, _MOST_DOUBLINGS)
    )
    hold = max(1, math.floor(longest * (1 - JITTER * jitter)))
    change = Change(before=record.state, after=CircuitState.OPEN, opens=opens, retry=hold)
    record = replace(
        record,
        state=CircuitState.OPEN,
        generation=_next_generation(record, now),
        opens=opens,
        opened_at=now,
        until=now + hold,
        successes=0,
        buckets={},
        permits={},
    )
    return record, change


def _close(record: Record, now: int) -> tuple[Record, Change]:
    change = Change(before=record.state, after=CircuitState.CLOSED, opens=record.opens, retry=0)
    record = replace(
        record,
        state=CircuitState.CLOSED,
        generation=_next_generation(record, now),
        closed_at=now,
        successes=0,
        buckets={},
        permits={},
    )
    return record, change
