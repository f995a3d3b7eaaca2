"""A crowd is told to come less often, and only a crowd."""

from __future__ import annotations

import heapq
import math

from app.job_status.live.poll_load import BEARABLE, LONGEST, MANY, MOST, PollLoads


def follow(pollers: int, seconds: float, base: float = 1.0) -> tuple[list[float], list[bool]]:
    """Times at which strangers asked who each come back when they are told to, and whether they were a crowd."""
    crowds: PollLoads[str] = PollLoads()
    due = [(n * base / pollers, n) for n in range(pollers)]
    heapq.heapify(due)
    times, many = [], []
    while due[0][0] < seconds:
        now, number = heapq.heappop(due)
        times.append(now)
        many.append(crowds.note("job", now))
        heapq.heappush(due, (now + max(1, math.ceil(max(base, crowds.advise("job")))), number))
    return times, many


def test_one_who_asks_alone_is_no_crowd_and_is_told_nothing() -> None:
    times, many = follow(1, 30)
    assert len(times) == 30
    assert not any(many)


def test_a_thousand_settle_at_what_can_be_borne() -> None:
    """Not faster, and not much slower either: they still want to know."""
    times, many = follow(1_000, 60)
    late = [time for time in times if time > 20]
    assert BEARABLE / 2 < len(late) / 40 <= BEARABLE * 1.1
    assert all(many[len(times) // 2 :])


def test_nobody_is_sent_away_for_longer_than_the_limit() -> None:
    crowds: PollLoads[str] = PollLoads()
    for n in range(200_000):
        crowds.note("job", n / 20_000)
    assert crowds.advise("job") == LONGEST


def test_when_they_have_gone_the_next_is_alone_again() -> None:
    crowds: PollLoads[str] = PollLoads()
    for n in range(3_000):
        crowds.note("job", n / 1_000)
    assert crowds.note("job", 3.5)
    assert not crowds.note("job", 3_600.0)
    assert crowds.advise("job") < 1


def test_what_nobody_asks_for_is_forgotten() -> None:
    crowds: PollLoads[int] = PollLoads()
    for n in range(3_000):
        crowds.note(0, n / 1_000)
    for key in range(1, MOST + 1):
        crowds.note(key, 4.0)
    assert crowds.advise(0) == 0
    assert not crowds.note(0, 4.0)
    assert MANY > 1
