"""The limit of accept transactions, against a simulated server in simulated time."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable

import pytest

from app.kit.postgres.adaptive_limit import AdaptiveLimit, ServiceRate

LEAST, MOST, FIRST = 2, 40, 20


class Server:
    """Works on `capacity` transactions at a time; with more in progress, each takes longer in proportion."""

    def __init__(self, capacity: float, seconds: float = 0.04) -> None:
        self.capacity = capacity
        self.seconds = seconds
        self.limit = AdaptiveLimit(LEAST, MOST, FIRST)
        self.now = 0.0
        self.seen: list[tuple[float, int]] = []
        self._random = random.Random(7)
        self._ends: list[tuple[float, float, int]] = []

    def run(self, seconds: float, size: Callable[[random.Random], int] = lambda _: 2_600, clients: int = 1_000) -> None:
        """`clients` send again as soon as they are answered."""
        until = self.now + seconds
        while self.now < until:
            while len(self._ends) < min(self.limit.limit, clients):
                self._begin(size(self._random))
            self.now, took, done = heapq.heappop(self._ends)
            self.limit.note(took, done, len(self._ends) + 1, self.now)
            self.seen.append((self.now, self.limit.limit))

    def _begin(self, size: int) -> None:
        busy = max(1.0, (len(self._ends) + 1) / self.capacity)
        took = (self.seconds + size * 4e-7) * busy * self._random.lognormvariate(0, 0.3)
        heapq.heappush(self._ends, (self.now + took, took, size))

    def average(self, seconds: float) -> float:
        """Of the limit in the last `seconds`."""
        limits = [limit for at, limit in self.seen if at > self.now - seconds]
        return sum(limits) / len(limits)


@pytest.mark.parametrize("capacity", [4, 8, 16])
def test_it_converges_near_the_capacity(capacity: int) -> None:
    server = Server(capacity)
    server.run(40)
    assert capacity * 0.8 <= server.average(20) <= capacity * 1.8


def test_it_stays_there_however_long_the_rush_lasts() -> None:
    """The shortest time is taken anew, without the queue that there is."""
    server = Server(6)
    server.run(200)
    assert server.average(100) <= 6 * 1.8


def test_without_queueing_it_grows_to_the_most() -> None:
    server = Server(1_000)
    server.run(30)
    assert server.limit.limit == MOST


def test_it_shrinks_in_a_slow_spell_and_recovers() -> None:
    server = Server(12)
    server.run(20)
    before = server.average(5)
    server.capacity, server.seconds = 2, 0.4  # the disk is slow to write the log
    server.run(20)
    assert server.limit.limit <= before / 2
    server.capacity, server.seconds = 12, 0.04
    server.run(10)
    assert server.average(3) >= 0.7 * before


def test_large_batches_are_no_queue() -> None:
    """Half of them come to be 100 times as large, and take 25 times as long: nothing waits."""
    server = Server(1_000)
    server.run(10)
    assert server.limit.limit == MOST
    server.run(20, lambda random: random.choice((2_600, 2_600_000)))
    assert server.limit.limit == MOST


def test_a_quiet_service_keeps_its_limit() -> None:
    server = Server(1_000)
    server.run(120, clients=1)
    assert server.average(100) == FIRST


def test_the_rate_of_service_is_that_while_some_wait() -> None:
    rate = ServiceRate()
    assert rate.seconds(100) == 0.0, "unknown"
    now = 0.0
    for _ in range(500):
        now += 0.01
        rate.note(5, now, waiting=True)
    assert rate.seconds(1_000) == pytest.approx(2.0, rel=0.1)
    rate.note(5, now, waiting=False)
    for _ in range(10):
        now += 5.0
        rate.note(1, now, waiting=False)
    assert rate.seconds(1_000) == pytest.approx(2.0, rel=0.1), "what an idle service does is no measure"
    for _ in range(500):
        now += 0.01
        rate.note(0, now, waiting=True)
    assert rate.seconds(1_000) > 20, "nothing is served any more"
