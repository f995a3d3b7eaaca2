"""Where circuits are remembered: in Redis by Lua scripts, or in this process by the very same rules.

Both answer with the records of `app.domain.breaker`, in milliseconds; `jobs.breaker` chooses between them.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from typing import TYPE_CHECKING, Final

import msgspec

from app.domain import breaker as rules
from app.domain.breaker import Admission, BreakerPolicy, Change, CircuitState, Record, Sight, milliseconds

if TYPE_CHECKING:
    from redis.asyncio import Redis

SCRIPTS: Final = ("admit", "report", "cancel", "look", "force")
_STATES: Final = (CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN)  # as numbered in common.lua
_SWEEP_AT: Final = 1_000


class Told(msgspec.Struct, frozen=True):
    """An answer of Redis about a change, told apart from no answer at all."""

    change: Change | None


class SharedCircuits:
    """The circuits in Redis, for every worker: each method is one script, atomic over one key."""

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
        ]

    async def admit(self, name: str) -> Admission:
        granted, state, generation, token, retry, opens, changed = await self._run("admit", name)
        return Admission(
            granted=bool(granted),
            state=_STATES[state],
            generation=generation,
            token=token,
            retry=retry,
            opens=opens,
            changed=bool(changed),
        )

    async def report(
        self, name: str, generation: int, token: int, failed: bool, took: int, jitter: float
    ) -> Told:
        return _told(await self._run("report", name, generation, token, int(failed), took, repr(jitter)))

    async def cancel(self, name: str, generation: int, token: int) -> bool:
        (held,) = await self._run("cancel", name, generation, token)
        return bool(held)

    async def look(self, name: str) -> Sight:
        state, retry, calls, failures, slow, opened_at, opens = await self._run("look", name)
        return Sight(
            state=_STATES[state],
            retry=retry,
            calls=calls,
            failures=failures,
            slow=slow,
            opened_at=opened_at,
            opens=opens,
        )

    async def force(self, name: str, state: CircuitState, hold: int) -> Told:
        return _told(await self._run("force", name, state.value, hold))

    async def _run(self, script: str, name: str, *arguments: str | int) -> list[int]:
        now = "" if self._pinned_time is None else self._pinned_time()
        reply: list[int] = await self._scripts[script](
            keys=[self._prefix + name], args=[now, *self._arguments, *arguments]
        )
        return reply


class LocalCircuits:
    """The circuits as this process alone knows them; `now` is in milliseconds."""

    def __init__(self, policy: BreakerPolicy, now: Callable[[], int]) -> None:
        self._policy = policy
        self._now = now
        self._records: dict[str, tuple[Record, int]] = {}

    def admit(self, name: str) -> Admission:
        record, admission = rules.admit(self._read(name), self._policy, self._now())
        if admission.token:
            self._write(name, record)
        return admission

    def report(
        self, name: str, generation: int, token: int, failed: bool, took: int, jitter: float
    ) -> Change | None:
        record, change = rules.report(
            self._read(name),
            self._policy,
            self._now(),
            generation=generation,
            token=token,
            failed=failed,
            took=took,
            jitter=jitter,
        )
        self._write(name, record)
        return change

    def cancel(self, name: str, generation: int, token: int) -> None:
        record = self._read(name)
        self._write(
            name,
            rules.cancel(record, self._policy, self._now(), generation=generation, token=token),
        )

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


def _told(reply: list[int]) -> Told:
    before, after, opens, retry = reply
    if before < 0:
        return Told(None)
    return Told(Change(before=_STATES[before], after=_STATES[after], opens=opens, retry=retry))
