"""The rules of a circuit breaker, as pure functions from one state record to the next.

`jobs/lua/*.lua` are the same rules, function by function, for the breaker that all workers share; a test runs
both on the same random histories. Here they serve a worker whose Redis is away. Times are whole milliseconds,
so that Lua and Python agree to the last digit; only `BreakerPolicy` speaks in seconds.

A circuit counts calls in a sliding window of sub-buckets and opens on the *rate* of failed or slow ones. Each
change of state starts a new generation; what was admitted in an older one is no longer heard. Sources:
Nygard, "Release It!", and the rates and minimum of calls of resilience4j.

A circuit may be shared by tenants: then each call names its tenant, and no tenant alone can open it, or keep it from
closing. It opens on failures of `QUORUM` tenants, the loudest of whom counts for no more than the others together.
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
QUORUM: Final = 2
"""Tenants whose calls must fail before a circuit that they share holds anybody back."""
MOST_WITNESSES: Final = 8
"""Tenants that a shared circuit knows by name, so that it stays small; further ones are in its sums alone."""
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


class Witness(msgspec.Struct, frozen=True):
    """A tenant's calls of at most one window."""

    since: int
    calls: int = 0
    failures: int = 0
    slow: int = 0


class Probe(msgspec.Struct, frozen=True):
    """The permit of a call that tries; it expires by itself. `tenant` 0: the circuit is not shared."""

    expires: int
    tenant: int = 0


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
    permits: dict[int, Probe] = {}
    """Probes under way, by token."""
    witnesses: dict[int, Witness] = {}
    """Of a shared circuit: by tenant. While half-open, those whose probe failed."""


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


def admit(record: Record, policy: BreakerPolicy, now: int, *, tenant: int = 0) -> tuple[Record, Admission]:
    """May a call go out? Closed: yes. Open: not before its time. Half-open: as one of few probes.

    `tenant`: whose call it is at a shared circuit (from 1); 0: the circuit is one tenant's own. At a shared one a
    tenant has one probe at a time, and waits for the first opening time after one that failed: it is the others' turn
    to find out whether they are better off.
    """
    stored, record = record, _settle(record, policy, now)
    changed = False
    if record.state is CircuitState.OPEN:
        # A clock that was set back to before the opening must not hold the circuit open for the difference.
        if record.opened_at <= now < record.until:
            return stored, _refusal(record, record.until - now)
        record = replace(
            record,
            state=CircuitState.HALF_OPEN,
            generation=_next_generation(record, now),
            successes=0,
            witnesses={},
        )
        changed = True
    if record.state is CircuitState.CLOSED:
        return stored, Admission(
            granted=True, state=record.state, generation=record.generation, opens=record.opens
        )
    wait = _wait_of(record, policy, now, tenant)
    if wait > 0:
        return stored, _refusal(record, wait)
    token = record.issued + 1
    probe = Probe(now + milliseconds(policy.permit), tenant)
    record = replace(record, issued=token, permits={**record.permits, token: probe})
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
    tenant: int = 0,
) -> tuple[Record, Change | None]:
    """A call ended after `took` ms. `jitter` is random in [0, 1) and spreads the opening time.

    What was admitted in an older generation changes nothing. A failed probe re-opens even after its permit
    expired, since it is still evidence; a late success closes nothing. A slow probe that succeeded gives its
    permit back and counts as nothing: the circuit stays half-open and work trickles at the probes' pace.

    `tenant` as in `admit`. A shared circuit opens again when probes of several tenants failed.
    """
    stored, record = record, _settle(record, policy, now)
    if generation != record.generation:
        return stored, None
    slow = took >= milliseconds(policy.slow_call)
    if record.state is CircuitState.CLOSED:
        record = _count(record, policy, now, failed, slow)
        if tenant:
            record = _hear(record, tenant, failed, slow, now)
        too_bad = _too_bad_for_all(record, policy) if tenant else _too_bad(record, policy)
        return _open(record, policy, now, jitter) if too_bad else (record, None)
    if record.state is CircuitState.HALF_OPEN:
        if failed and tenant:
            record = _fail_probe(record, now, token, tenant)
            enough = len(record.witnesses) >= QUORUM
            return _open(record, policy, now, jitter) if enough else (record, None)
        if failed:
            return _open(record, policy, now, jitter)
        if token in record.permits:
            record = replace(
                record,
                permits=_without(record.permits, token),
                successes=record.successes + (0 if slow else 1),
            )
            return _close(record, now) if record.successes >= policy.successes else (record, None)
    return stored, None


def cancel(record: Record, policy: BreakerPolicy, now: int, *, generation: int, token: int) -> Record:
    """A call was called off: it says nothing about the other side and gives its permit back."""
    stored, record = record, _settle(record, policy, now)
    if generation != record.generation or token not in record.permits:
        return stored
    return replace(record, permits=_without(record.permits, token))


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
        witnesses={},
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
        permits={number: probe for number, probe in record.permits.items() if now < probe.expires <= longest},
        witnesses={
            tenant: witness
            for tenant, witness in record.witnesses.items()
            if now - milliseconds(policy.window) < witness.since <= now
        },
    )


def _without(permits: dict[int, Probe], token: int) -> dict[int, Probe]:
    return {number: probe for number, probe in permits.items() if number != token}


def _wait_of(record: Record, policy: BreakerPolicy, now: int, tenant: int) -> int:
    """Milliseconds until a half-open circuit may have room for this caller; 0: it has."""
    held = [probe.expires for probe in record.permits.values() if tenant and probe.tenant == tenant]
    if len(record.permits) >= max(1, policy.probes):
        held = [probe.expires for probe in record.permits.values()]
    wait = min(HALF_OPEN_RETRY, min(held) - now) if held else 0
    witness = record.witnesses.get(tenant)
    return wait if witness is None else max(wait, witness.since + milliseconds(policy.open) - now)


def _fail_probe(record: Record, now: int, token: int, tenant: int) -> Record:
    """A tenant's probe failed; that speaks for this tenant alone."""
    witnesses = {**record.witnesses, tenant: Witness(now, 1, 1)}
    return replace(record, permits=_without(record.permits, token), witnesses=witnesses)


def _hear(record: Record, tenant: int, failed: bool, slow: bool, now: int) -> Record:
    """Note a tenant's call. Where all places are taken, trouble takes that of somebody who has none."""
    witnesses = dict(record.witnesses)
    if tenant not in witnesses and len(witnesses) >= MOST_WITNESSES:
        well = [other for other, x in witnesses.items() if not x.failures and not x.slow]
        if not well or not (failed or slow):
            return record
        del witnesses[min(well)]
    known = witnesses.get(tenant, Witness(now))
    witnesses[tenant] = Witness(known.since, known.calls + 1, known.failures + failed, known.slow + slow)
    return replace(record, witnesses=witnesses)


def _count(record: Record, policy: BreakerPolicy, now: int, failed: bool, slow: bool) -> Record:
    index = now // _tenth(policy)
    slot = index % BUCKETS
    bucket = record.buckets.get(slot, Bucket(index))
    bucket = Bucket(index, bucket.calls + 1, bucket.failures + failed, bucket.slow + slow)
    return replace(record, buckets={**record.buckets, slot: bucket})


def _too_bad(record: Record, policy: BreakerPolicy) -> bool:
    buckets = record.buckets.values()
    calls = sum(bucket.calls for bucket in buckets)
    return _is_bad(calls, sum(x.failures for x in buckets), policy.failure_rate, policy) or _is_bad(
        calls, sum(x.slow for x in buckets), policy.slow_rate, policy
    )


def _is_bad(calls: int, bad: int, rate: float, policy: BreakerPolicy) -> bool:
    return calls >= policy.min_calls and bad > 0 and bad >= rate * calls


def _too_bad_for_all(record: Record, policy: BreakerPolicy) -> bool:
    """Of a shared circuit: the same, where what the loudest tenant has more than the others together is left out."""
    buckets, witnesses = record.buckets.values(), record.witnesses.values()
    calls = sum(bucket.calls for bucket in buckets)
    failed = [x.failures for x in witnesses if _speaks(x.calls, x.failures, policy.failure_rate)]
    slow = [x.slow for x in witnesses if _speaks(x.calls, x.slow, policy.slow_rate)]
    return _is_bad_for_all(
        calls, sum(x.failures for x in buckets), failed, policy.failure_rate, policy
    ) or _is_bad_for_all(calls, sum(x.slow for x in buckets), slow, policy.slow_rate, policy)


def _speaks(calls: int, bad: int, rate: float) -> bool:
    """Whether a tenant's own calls would say so: one that is mostly well is no witness against a CRM."""
    return bad > 0 and bad >= rate * calls


def _is_bad_for_all(calls: int, bad: int, told: list[int], rate: float, policy: BreakerPolicy) -> bool:
    if len(told) < QUORUM:
        return False
    surplus = max(0, 2 * max(told) - sum(told))
    return _is_bad(calls - surplus, bad - surplus, rate, policy)


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
        witnesses={},
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
        witnesses={},
    )
    return record, change
