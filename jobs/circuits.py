"""Where circuits are remembered: in Redis by Lua scripts, or in this process by the very same rules.

Both answer with the records of `app.domain.breaker`, in milliseconds; `jobs.breaker` chooses between them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from importlib import resources
from typing import TYPE_CHECKING, Final

import msgspec

from app.domain import breaker as rules
from app.domain.breaker import Admission, BreakerPolicy, Change, CircuitState, Record, Sight, milliseconds

if TYPE_CHECKING:
    from redis.asyncio import Redis

SCRIPTS: Final = ("admit", "report", "look", "force")
_STATES: Final = (CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN)  # as numbered in common.lua
_SWEEP_AT: Final = 1_000


class Verdict(StrEnum):
    """What a call that ended says about a circuit that it went through."""

    OK = "ok"
    FAILED = "failed"
    VOID = "void"
    """Nothing: it was called off, or the fault is another circuit's."""


class Gate(msgspec.Struct, frozen=True):
    """A circuit on the way of a call."""

    name: str
    tenant: int = 0
    """Whose call it is, where tenants share the circuit; 0: it is one tenant's own."""


class Report(msgspec.Struct, frozen=True):
    """The end of a call for one circuit; `took` in milliseconds, `jitter` random in [0, 1)."""

    name: str
    tenant: int
    generation: int
    token: int
    verdict: Verdict
    took: int
    jitter: float


class Denied(msgspec.Struct, frozen=True):
    """The circuit that would not let the call through."""

    name: str
    admission: Admission


class SharedCircuits:
    """The circuits in Redis, for every worker: each method is one script, atomic over all circuits of the call.

    They are keys of one server: a Redis Cluster would have to keep all of them on one node.
    """

    def __init__(
        self, redis: Redis, policy: BreakerPolicy, prefix: str, pinned_time: Callable[[], int] | None
    ) -> None:
        folder = resources.files("jobs") / "lua"
        common = (folder / "common.lua").read_text("utf-8")
        self._scripts = {
            script: redis.register_script(common + (folder / f"{script}.lua").read_text("utf-8"))
            for script in SCRIPTS
        }
        self._prefix = prefix
        self._pinned_time = pinned_time
        self._arguments: list[str | int] = [
            milliseconds(policy.window),
            policy.min_calls,
            repr(policy.failure_rate),
            repr(policy.slow_rate),
            milliseconds(policy.slow_call),
            milliseconds(policy.open),
            milliseconds(policy.open_cap),
            policy.probes,
            policy.successes,
            milliseconds(policy.permit),
            rules.QUORUM,
        ]

    async def admit(self, gates: Sequence[Gate]) -> list[Admission] | Denied:
        names = [gate.name for gate in gates]
        refusing, *numbers = await self._run("admit", names, *(gate.tenant for gate in gates))
        admissions = [
            Admission(
                granted=bool(granted),
                state=_STATES[state],
                generation=generation,
                token=token,
                retry=retry,
                opens=opens,
                changed=bool(changed),
            )
            for granted, state, generation, token, retry, opens, changed in _parts(numbers, 7)
        ]
        return Denied(names[refusing - 1], admissions[0]) if refusing else admissions

    async def report(self, reports: Sequence[Report]) -> list[Change | None]:
        arguments: list[str | int] = []
        for r in reports:
            arguments += (r.generation, r.token, r.verdict.value, r.took, repr(r.jitter), r.tenant)
        numbers = await self._run("report", [r.name for r in reports], *arguments)
        return [_change(part) for part in _parts(numbers, 4)]

    async def look(self, name: str) -> Sight:
        state, retry, calls, failures, slow, opened_at, opens = await self._run("look", [name])
        return Sight(
            state=_STATES[state],
            retry=retry,
            calls=calls,
            failures=failures,
            slow=slow,
            opened_at=opened_at,
            opens=opens,
        )

    async def force(self, name: str, state: CircuitState, hold: int) -> Change | None:
        return _change(await self._run("force", [name], state.value, hold))

    async def _run(self, script: str, names: Sequence[str], *arguments: str | int) -> list[int]:
        now = "" if self._pinned_time is None else self._pinned_time()
        reply: list[int] = await self._scripts[script](
            keys=[self._prefix + name for name in names], args=[now, *self._arguments, *arguments]
        )
        return reply


class LocalCircuits:
    """The circuits as this process alone knows them; `now` is in milliseconds."""

    def __init__(self, policy: BreakerPolicy, now: Callable[[], int]) -> None:
        self._policy = policy
        self._now = now
        self._records: dict[str, tuple[Record, int]] = {}

    def admit(self, gates: Sequence[Gate]) -> list[Admission] | Denied:
        admissions, changed = [], []
        for gate in gates:
            name = gate.name
            record, admission = rules.admit(self._read(name), self._policy, self._now(), tenant=gate.tenant)
            if not admission.granted:
                return Denied(name, admission)
            if admission.token:
                changed.append((name, record))
            admissions.append(admission)
        for name, record in changed:
            self._write(name, record)
        return admissions

    def report(self, reports: Sequence[Report]) -> list[Change | None]:
        return [self._report(r) for r in reports]

    def _report(self, r: Report) -> Change | None:
        record, now = self._read(r.name), self._now()
        if r.verdict is Verdict.VOID:
            record = rules.cancel(record, self._policy, now, generation=r.generation, token=r.token)
            change = None
        else:
            record, change = rules.report(
                record,
                self._policy,
                now,
                generation=r.generation,
                token=r.token,
                failed=r.verdict is Verdict.FAILED,
                took=r.took,
                jitter=r.jitter,
                tenant=r.tenant,
            )
        self._write(r.name, record)
        return change

    def look(self, name: str) -> Sight:
        return rules.look(self._read(name), self._policy, self._now())

    def force(self, name: str, state: CircuitState, hold: int) -> Change | None:
        record, change = rules.force(self._read(name), self._policy, self._now(), state=state, hold=hold)
        self._write(name, record)
        return change

    def follow(self, name: str, state: CircuitState, opens: int, retry: int) -> None:
        """Keep what Redis said, so that losing Redis does not send everybody at a CRM known to be down."""
        if state is CircuitState.CLOSED:
            self._records.pop(name, None)
        else:
            self._write(name, rules.adopt(self._now(), opens=opens, retry=retry))

    def _read(self, name: str) -> Record:
        record, expires = self._records.get(name, (Record(), 0))
        return record if self._now() < expires else Record()

    def _write(self, name: str, record: Record) -> None:
        now = self._now()
        if name not in self._records and len(self._records) >= _SWEEP_AT:
            self._records = {key: kept for key, kept in self._records.items() if now < kept[1]}
        self._records[name] = (record, now + rules.lifetime(record, self._policy, now))


def _parts(numbers: list[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(numbers), size):
        yield numbers[start : start + size]


def _change(numbers: list[int]) -> Change | None:
    before, after, opens, retry = numbers
    return (
        None if before < 0 else Change(before=_STATES[before], after=_STATES[after], opens=opens, retry=retry)
    )
