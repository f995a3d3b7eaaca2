"""A fair queue: tenants by their weight, and the jobs of a tenant in rotation."""

import uuid
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from app.kit.fair_order import FairOrder

Job = tuple[int, uuid.UUID]


class TenantShare(NamedTuple):
    """A tenant's share of a worker."""

    weight: float = 1.0
    """Of the tenant beside others that have work as well."""
    cap: int | None = None
    """Most pieces of one kind of its work in progress at a time in one worker; `None`: as many as the worker does."""


EQUAL: Final = TenantShare()


class _TenantQueue:
    """The jobs of one tenant, the next one first."""

    def __init__(self) -> None:
        self.new: OrderedDict[uuid.UUID, int] = OrderedDict()
        """Never served; with the number of jobs that had been served when they came."""
        self.known: OrderedDict[uuid.UUID, int] = OrderedDict()
        """Served before; with the number of jobs that had been served then."""
        self.resting: dict[uuid.UUID, float] = {}
        """Until when."""
        self._served = 0
        self._new_was_last = False

    def add(self, job_id: uuid.UUID) -> None:
        self.new[job_id] = self._served

    def next(self, now: float) -> uuid.UUID | None:
        """A new job does not wait for all others; but however many come, every second job is one that waited longer."""
        first = next(iter(self.new), None)
        waiting = next((id_ for id_ in self.known if self.resting.get(id_, 0.0) <= now), None)
        chosen = first or waiting
        if first and waiting and self._new_was_last and self.known[waiting] <= self.new[first]:
            chosen = waiting
        if chosen is not None:
            self._new_was_last = chosen in self.new
            self._served += 1
            self.forget(chosen)
            self.known[chosen] = self._served
        return chosen

    def forget(self, job_id: uuid.UUID) -> None:
        self.new.pop(job_id, None)
        self.known.pop(job_id, None)
        self.resting.pop(job_id, None)

    def __contains__(self, job_id: uuid.UUID) -> bool:
        return job_id in self.new or job_id in self.known

    def __bool__(self) -> bool:
        return bool(self.new or self.known)


class FairQueue:
    """A tenant with a hundred jobs is served no more often than one with a single job, and a job of a million rows no
    more often than one of ten. A tenant of weight 2 is served twice as often as others, and none has more pieces in
    progress than its cap."""

    def __init__(self, share_of: Callable[[int], TenantShare] = lambda _: EQUAL) -> None:
        self._share_of = share_of
        self._tenants: dict[int, _TenantQueue] = {}
        self._order = FairOrder()
        self._in_progress: Counter[int] = Counter()

    def update(self, working: Iterable[Job]) -> None:
        """Know these jobs and no others; who has waited longest stays first."""
        known = set(working)
        for tenant_id, jobs in list(self._tenants.items()):
            for job_id in [id_ for id_ in (*jobs.new, *jobs.known) if (tenant_id, id_) not in known]:
                self.forget((tenant_id, job_id))
        for tenant_id, job_id in sorted(known):
            jobs = self._tenants.setdefault(tenant_id, _TenantQueue())
            self._order.add(tenant_id)
            if job_id not in jobs:
                jobs.add(job_id)

    def next(self, now: float) -> Job | None:
        """The next job, of which a piece is in progress until `done`; `None`: all that are known rest, or their tenants
        have as many pieces in progress as they may."""
        found: list[uuid.UUID] = []

        def ready(tenant_id: int) -> bool:
            cap = self._share_of(tenant_id).cap
            if cap is not None and self._in_progress[tenant_id] >= cap:
                return False
            job_id = self._tenants[tenant_id].next(now)
            if job_id is None:
                return False
            found.append(job_id)
            return True

        tenant_id = self._order.first(ready)
        if tenant_id is None:
            return None
        self._order.charge(tenant_id, 1.0, self._share_of(tenant_id).weight)
        self._in_progress[tenant_id] += 1
        return tenant_id, found[0]

    def done(self, job: Job) -> None:
        """The piece that `next` gave is no longer in progress."""
        tenant_id = job[0]
        self._in_progress[tenant_id] -= 1
        if not self._in_progress[tenant_id]:
            del self._in_progress[tenant_id]

    def rest(self, job: Job, until: float) -> None:
        """Skip this job, which was served, for a while."""
        tenant_id, job_id = job
        jobs = self._tenants.get(tenant_id)
        if jobs is not None and job_id in jobs.known:
            jobs.resting[job_id] = until

    def forget(self, job: Job) -> None:
        tenant_id, job_id = job
        jobs = self._tenants.get(tenant_id)
        if jobs is not None:
            jobs.forget(job_id)
            if not jobs:
                del self._tenants[tenant_id]
                self._order.remove(tenant_id)

    def __bool__(self) -> bool:
        return bool(self._tenants)
