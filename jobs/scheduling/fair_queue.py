"""A fair queue: tenants in rotation, and the jobs of a tenant in rotation."""

import uuid
from collections import OrderedDict
from collections.abc import Iterable

Job = tuple[int, uuid.UUID]


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
    more often than one of ten."""

    def __init__(self) -> None:
        self._tenants: OrderedDict[int, _TenantQueue] = OrderedDict()
        """The first is next."""

    def update(self, working: Iterable[Job]) -> None:
        """Know these jobs and no others; who has waited longest stays first."""
        known = set(working)
        for tenant_id, jobs in list(self._tenants.items()):
            for job_id in [id_ for id_ in (*jobs.new, *jobs.known) if (tenant_id, id_) not in known]:
                self.forget((tenant_id, job_id))
        for tenant_id, job_id in sorted(known):
            jobs = self._tenants.setdefault(tenant_id, _TenantQueue())
            if job_id not in jobs:
                jobs.add(job_id)

    def next(self, now: float) -> Job | None:
        """The next job; `None`: all that are known rest."""
        for tenant_id, jobs in self._tenants.items():
            job_id = jobs.next(now)
            if job_id is not None:
                self._tenants.move_to_end(tenant_id)
                return tenant_id, job_id
        return None

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

    def __bool__(self) -> bool:
        return bool(self._tenants)
