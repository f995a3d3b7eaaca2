"""Turns are fair to tenants first, then to the jobs of one."""

from __future__ import annotations

import uuid
from collections import Counter

from jobs.turns import Job, Turns


def made(tenant_id: int, count: int) -> list[Job]:
    return [(tenant_id, uuid.UUID(int=1000 * tenant_id + n)) for n in range(count)]


def take(turns: Turns, count: int, now: float = 1.0) -> list[Job]:
    taken = [turns.next(now) for _ in range(count)]
    return [job for job in taken if job is not None]


def test_a_tenant_with_a_hundred_jobs_has_as_many_turns_as_one_with_one() -> None:
    turns = Turns()
    turns.update(made(1, 100) + made(2, 1))
    assert Counter(tenant for tenant, _ in take(turns, 20)) == {1: 10, 2: 10}


def test_jobs_of_a_tenant_alternate() -> None:
    turns = Turns()
    jobs = made(1, 3)
    turns.update(jobs)
    taken = take(turns, 6)
    assert sorted(taken[:3]) == jobs
    assert taken[:3] == taken[3:]


def test_a_new_job_comes_next() -> None:
    """A small import does not wait until every other job had its turn."""
    turns = Turns()
    turns.update(made(1, 5))
    take(turns, 7)
    new = (1, uuid.UUID(int=9999))
    turns.update([*made(1, 5), new])
    assert take(turns, 1) == [new]


def test_however_many_new_jobs_come_old_ones_have_their_turns() -> None:
    """A tenant that sends imports without end does not keep its first one from being finished."""
    turns = Turns()
    jobs = made(1, 1)
    turns.update(jobs)
    take(turns, 1)
    served = 0
    for number in range(2, 102, 2):
        jobs += [(1, uuid.UUID(int=1000 + number)), (1, uuid.UUID(int=1001 + number))]
        turns.update(jobs)
        served += jobs[0] in take(turns, 2)
    assert served > 0


def test_new_jobs_come_in_their_order() -> None:
    turns = Turns()
    jobs = made(1, 6)
    turns.update(jobs[:3])
    turns.update(jobs)
    assert take(turns, 6) == jobs


def test_a_resting_job_is_passed_over_until_its_time() -> None:
    turns = Turns()
    first, second = made(1, 2)
    turns.update([first, second])
    take(turns, 2)
    turns.rest(first, until=5.0)
    assert take(turns, 3, now=4.9) == [second] * 3
    assert first in take(turns, 2, now=5.0)
    turns.rest(first, until=9.0)
    turns.rest(second, until=9.0)
    assert turns.next(8.0) is None


def test_jobs_that_are_gone_are_forgotten() -> None:
    turns = Turns()
    first, second = made(1, 2)
    turns.update([first, second])
    turns.update([second])
    assert take(turns, 2) == [second, second]
    turns.forget(second)
    assert turns.next(1.0) is None
    assert not turns
    turns.rest(first, until=3.0)
    turns.forget(first)
    assert not turns
