"""Where circuits are stored: in Redis, for all workers, or in the memory of this process while Redis is away."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from importlib import resources
from typing import Final

from redis.asyncio import Redis
from redis.commands.core import AsyncScript
from redis.exceptions import NoScriptError, RedisError

from app.kit import redis_fallback
from app.vocabulary.states import CircuitState
from jobs.breaker.rules import (
    BreakerPolicy,
    Circuit,
    LocalCircuit,
    Permit,
    Permits,
    Rejected,
    Snapshot,
    Transition,
    Verdict,
)

SCRIPTS: Final = ("acquire", "report", "snapshot", "force", "settle")
QUORUM: Final = 2
"""Tenants whose calls must fail before a circuit that they share holds anybody back."""
_STATES: Final = (CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN)  # as numbered in common.lua
_MOST_KEPT: Final = 1_000


class RedisStore:
    """The circuits in Redis: each method is one script, atomic over all circuits of the call.

    They are keys of one server: a Redis Cluster would have to keep all of them on one node.
    """

    def __init__(
        self,
        redis: Redis,
        policy: BreakerPolicy,
        prefix: str,
        rng: Callable[[], float],
        pinned_time: Callable[[], int] | None,
    ) -> None:
        folder = resources.files("jobs.breaker") / "lua"
        common = (folder / "common.lua").read_text("utf-8")
        self._scripts = {
            script: redis.register_script(common + (folder / f"{script}.lua").read_text("utf-8")) for script in SCRIPTS
        }
        self._together = _Together(redis)
        self._prefix = prefix
        self._rng = rng
        self._pinned_time = pinned_time
        self._slow_call = _milliseconds(policy.slow_call)
        self._arguments: list[str | int] = [
            _milliseconds(policy.window),
            policy.min_calls,
            repr(policy.failure_rate),
            repr(policy.slow_rate),
            _milliseconds(policy.slow_call),
            _milliseconds(policy.open),
            _milliseconds(policy.open_cap),
            policy.probes,
            policy.successes,
            _milliseconds(policy.permit),
            QUORUM,
        ]

    async def acquire(self, circuits: Sequence[Circuit]) -> Permits | Rejected:
        tenants = [circuit.tenant for circuit in circuits]

        def of_others(reply: list[int]) -> list[int] | None:
            """A probe is one caller's; that a circuit is closed, or rejects, holds for all who ask at one moment."""
            return None if any(token for _, _, _, token, _, _, _ in _parts(reply[1:], 7)) else reply

        rejecting, *numbers = await self._run(
            "acquire", [circuit.name for circuit in circuits], lambda _: tenants, tuple(tenants), of_others
        )
        parts = list(_parts(numbers, 7))
        if rejecting:
            _, state, _, _, retry, _, _ = parts[0]
            name = circuits[rejecting - 1].name
            return Rejected(name=name, state=_STATES[state], retry_after=retry / 1_000)
        return Permits(permits=tuple(map(_permit, circuits, parts)))

    async def report(self, reports: Sequence[tuple[Permit, Verdict]], seconds: float) -> list[Transition | None]:
        took = _milliseconds(seconds)

        def arguments(calls: int) -> list[str | int]:
            found: list[str | int] = []
            for permit, verdict in reports:
                found += (permit.generation, permit.token, verdict.value, took)
                found += (repr(self._rng()), permit.tenant, calls)
            return found

        well = took < self._slow_call and all(v is Verdict.OK and not permit.token for permit, v in reports)
        same = tuple((permit.generation, permit.tenant) for permit, _ in reports) if well else None
        names = [permit.name for permit, _ in reports]
        unchanged = [-1, 0, 0, 0] * len(reports)
        numbers = await self._run("report", names, arguments, same, lambda _: unchanged)
        return [_transition(name, part) for name, part in zip(names, _parts(numbers, 4), strict=True)]

    async def snapshot(self, name: str) -> Snapshot:
        state, retry, calls, failures, slow, opened_at, opens = await self._run("snapshot", [name])
        return Snapshot(
            name=name,
            state=_STATES[state],
            retry_after=retry / 1_000,
            calls=calls,
            failures=failures,
            slow=slow,
            opened_at=opened_at / 1_000 if state else None,
            opens=opens,
            shared=True,
        )

    async def force(self, name: str, state: CircuitState, seconds: float) -> Transition | None:
        return _transition(name, await self._run("force", [name], lambda _: (state.value, _milliseconds(seconds))))

    async def settle(self, name: str) -> Transition | None:
        return _transition(name, await self._run("settle", [name]))

    async def _run(
        self,
        script: str,
        names: Sequence[str],
        arguments: "_Arguments" = lambda _: (),
        same: Hashable = None,
        of_others: "_OfOthers" = lambda _: None,
    ) -> list[int]:
        """`arguments` for so many callers; `same`: whoever asks the same at the same moment is answered by one script,
        what `of_others` makes of its reply, and asks again if that is `None`."""
        keys = [self._prefix + name for name in names]

        def all_arguments(calls: int) -> list[str | int]:
            now = "" if self._pinned_time is None else self._pinned_time()
            return [now, *self._arguments, *arguments(calls)]

        whole = None if same is None else (script, *keys, same)
        return await self._together.run(_Asked(self._scripts[script], keys, all_arguments, whole, of_others))


_Arguments = Callable[[int], Sequence[str | int]]
_OfOthers = Callable[[list[int]], list[int] | None]


class _Asked:
    """A script, and who waits for its reply."""

    def __init__(
        self, script: AsyncScript, keys: list[str], arguments: _Arguments, same: Hashable, of_others: _OfOthers
    ) -> None:
        self.script = script
        self.keys = keys
        self.arguments = arguments
        self.same = id(self) if same is None else same
        self.of_others = of_others
        self.reply: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()

    def answer(self, reply: list[int] | Exception) -> None:
        if self.reply.done():
            return  # nobody waits for it any more
        if isinstance(reply, Exception):
            self.reply.set_exception(reply)
        else:
            self.reply.set_result(reply)


class _Together:
    """Sends what is asked for while a message is on its way in the next one: many calls at a time cost a worker more on
    the way to Redis than in it."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._waiting: list[_Asked] = []
        self._task: asyncio.Task[None] | None = None

    async def run(self, asked: _Asked) -> list[int]:
        self._waiting.append(asked)
        if self._task is None:
            self._task = asyncio.create_task(self._send_all())
        return await asked.reply

    async def _send_all(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(0)  # whoever is about to ask
                asked, self._waiting = self._waiting, []
                alike: defaultdict[Hashable, list[_Asked]] = defaultdict(list)
                for one in asked:
                    if not one.reply.done():
                        alike[one.same].append(one)
                groups = list(alike.values())
                for group, reply in zip(groups, await self._send(groups), strict=True):
                    self._answer(group, reply)
        finally:
            self._task = None

    async def _send(self, groups: list[list[_Asked]]) -> Sequence[list[int] | Exception]:
        asked = [(group[0].script, group[0].keys, group[0].arguments(len(group))) for group in groups]
        try:
            # A message that hangs would hold up all that follow.
            async with asyncio.timeout(redis_fallback.REDIS_TIMEOUT):
                pipeline = self._redis.pipeline(transaction=False)
                for script, keys, arguments in asked:
                    pipeline.execute_command("EVALSHA", script.sha, len(keys), *keys, *arguments)
                replies = await pipeline.execute(raise_on_error=False)
                for place, (script, keys, arguments) in enumerate(asked):
                    if isinstance(replies[place], NoScriptError):  # Redis has lost it, or never had it
                        replies[place] = await script(keys=keys, args=arguments)
        except (RedisError, OSError) as error:  # TimeoutError is an OSError
            return [error] * len(groups)
        return replies

    def _answer(self, group: list[_Asked], reply: list[int] | Exception) -> None:
        first, *others = group
        first.answer(reply)
        if not others:
            return
        theirs = reply if isinstance(reply, Exception) else first.of_others(reply)
        if theirs is None:
            self._waiting += others
            return
        for other in others:
            other.answer(theirs)


class MemoryStore:
    """The circuits as this process alone knows them; `clock` is in seconds.

    A circuit that tenants share is only what Redis said last: whose calls count there is for all workers to find out
    together, and no tenant's failures here hold back another.
    """

    def __init__(self, policy: BreakerPolicy, clock: Callable[[], float], rng: Callable[[], float]) -> None:
        self._policy = policy
        self._clock = clock
        self._rng = rng
        self._circuits: dict[str, LocalCircuit] = {}

    def acquire(self, circuits: Sequence[Circuit]) -> Permits | Rejected:
        now = self._clock()
        found = [(self._read(circuit.name), circuit.tenant) for circuit in circuits]
        for circuit, _ in found:
            if wait := circuit.wait(now):
                return Rejected(name=circuit.name, state=circuit.state, retry_after=wait)
        return Permits(
            permits=tuple(
                Permit(name=circuit.name, generation=0, token=0, shared=False, tenant=tenant)
                if tenant
                else circuit.acquire(now)
                for circuit, tenant in found
            )
        )

    def report(self, reports: Sequence[tuple[Permit, Verdict]]) -> list[Transition | None]:
        return [
            None if p.tenant else self._keep(p.name).report(p.generation, verdict, self._clock(), self._rng())
            for p, verdict in reports
        ]

    def snapshot(self, name: str) -> Snapshot:
        found = self._read(name)
        state, wait = found.state, found.wait(self._clock())
        return Snapshot(
            name=name,
            state=state,
            retry_after=wait if state is CircuitState.OPEN else 0.0,
            opens=found.opens,
            shared=False,
        )

    def force(self, name: str, state: CircuitState, seconds: float) -> Transition | None:
        return self._keep(name).force(state, self._clock(), seconds)

    def restore(self, name: str, seconds: float) -> None:
        """Remember that Redis holds this circuit open, so that losing Redis does not send everybody at a CRM that is
        down."""
        self.force(name, CircuitState.OPEN, seconds)

    def forget(self, name: str) -> None:
        self._circuits.pop(name, None)

    def _read(self, name: str) -> LocalCircuit:
        return self._circuits.get(name) or LocalCircuit(name, self._policy)

    def _keep(self, name: str) -> LocalCircuit:
        if name not in self._circuits and len(self._circuits) >= _MOST_KEPT:
            now = self._clock()
            self._circuits = {key: kept for key, kept in self._circuits.items() if kept.wait(now)}
        return self._circuits.setdefault(name, self._read(name))


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1_000)


def _parts(numbers: list[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(numbers), size):
        yield numbers[start : start + size]


def _permit(circuit: Circuit, part: list[int]) -> Permit:
    _, state, generation, token, _, opens, changed = part
    name, transition = circuit.name, None
    if changed:
        transition = Transition(name=name, before=CircuitState.OPEN, after=_STATES[state], opens=opens, retry_after=0.0)
    return Permit(
        name=name, generation=generation, token=token, shared=True, tenant=circuit.tenant, transition=transition
    )


def _transition(name: str, part: list[int]) -> Transition | None:
    before, after, opens, retry = part
    if before < 0:
        return None
    return Transition(name=name, before=_STATES[before], after=_STATES[after], opens=opens, retry_after=retry / 1_000)
