"""A fair queue is fair to tenants first, by their weight, then to the jobs of one."""

from __future__ import annotations

import uuid
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from jobs.scheduling.fair_queue import FairQueue, Job, TenantShare


def made(tenant_id: int, count: int) -> list[Job]:
    return [(tenant_id, uuid.UUID(int=1000 * tenant_id + n)) for n in range(count)]


def serve(queue: FairQueue, count: int, now: float = 1.0) -> list[Job]:
    jobs_served = [queue.next(now) for _ in range(count)]
    return [job for job in jobs_served if job is not None]


def test_a_tenant_with_a_hundred_jobs_is_served_as_often_as_one_with_one() -> None:
    queue = FairQueue()
    queue.update(made(1, 100) + made(2, 1))
    assert Counter(tenant for tenant, _ in serve(queue, 20)) == {1: 10, 2: 10}


def test_jobs_of_a_tenant_alternate() -> None:
    queue = FairQueue()
    jobs = made(1, 3)
    queue.update(jobs)
    jobs_served = serve(queue, 6)
    assert sorted(jobs_served[:3]) == jobs
    assert jobs_served[:3] == jobs_served[3:]


def test_a_new_job_comes_next() -> None:
    """A small import does not wait until every other job was served."""
    queue = FairQueue()
    queue.update(made(1, 5))
    serve(queue, 7)
    new = (1, uuid.UUID(int=9999))
    queue.update([*made(1, 5), new])
    assert serve(queue, 1) == [new]


def test_however_many_new_jobs_come_old_ones_are_served() -> None:
    """A tenant that sends imports without end does not keep its first one from being finished."""
    queue = FairQueue()
    jobs = made(1, 1)
    queue.update(jobs)
    serve(queue, 1)
    served = 0
    for number in range(2, 102, 2):
        jobs += [(1, uuid.UUID(int=1000 + number)), (1, uuid.UUID(int=1001 + number))]
        queue.update(jobs)
        served += jobs[0] in serve(queue, 2)
    assert served > 0


def test_new_jobs_come_in_their_order() -> None:
    queue = FairQueue()
    jobs = made(1, 6)
    queue.update(jobs[:3])
    queue.update(jobs)
    assert serve(queue, 6) == jobs


def test_a_resting_job_is_passed_over_until_its_time() -> None:
    queue = FairQueue()
    first, second = made(1, 2)
    queue.update([first, second])
    serve(queue, 2)
    queue.rest(first, until=5.0)
    assert serve(queue, 3, now=4.9) == [second] * 3
    assert first in serve(queue, 2, now=5.0)
    queue.rest(first, until=9.0)
    queue.rest(second, until=9.0)
    assert queue.next(8.0) is None


def test_jobs_that_are_gone_are_forgotten() -> None:
    queue = FairQueue()
    first, second = made(1, 2)
    queue.update([first, second])
    queue.update([second])
    assert serve(queue, 2) == [second, second]
    queue.forget(second)
    assert queue.next(1.0) is None
    assert not queue
    queue.rest(first, until=3.0)
    queue.forget(first)
    assert not queue


_SHARES = st.dictionaries(st.integers(1, 6), st.floats(0.1, 10), min_size=2, max_size=6)


@given(_SHARES, st.integers(1, 20))
def test_tenants_are_served_by_their_weight_however_many_jobs_they_have(weights: dict[int, float], most: int) -> None:
    queue = FairQueue(lambda tenant_id: TenantShare(weights[tenant_id]))
    queue.update([job for tenant_id in weights for job in made(tenant_id, 1 + tenant_id % most)])
    count = 400
    served = Counter(tenant_id for tenant_id, _ in serve(queue, count))
    for tenant_id, weight in weights.items():
        assert abs(served[tenant_id] - count * weight / sum(weights.values())) <= len(weights) + 1


def test_a_tenant_has_no_more_pieces_in_progress_than_its_cap() -> None:
    queue = FairQueue(lambda tenant_id: TenantShare(cap=2 if tenant_id == 1 else None))
    queue.update(made(1, 10) + made(2, 1))
    first = serve(queue, 10)
    assert Counter(tenant_id for tenant_id, _ in first) == {1: 2, 2: 8}
    queue.update(made(1, 10))
    assert queue.next(1.0) is None
    queue.done(next(job for job in first if job[0] == 1))
    assert [tenant_id for tenant_id, _ in serve(queue, 3)] == [1]
