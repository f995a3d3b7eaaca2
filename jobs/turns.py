"""Whose turn it is: tenants one after the other, and the jobs of a tenant one after the other."""

from __future__ import annotations

import uuid
from collections import OrderedDict
from collections.abc import Iterable

Job = tuple[int, uuid.UUID]


class Turns:
    """A tenant with a hundred jobs has no more turns than one with a single job, and a job of a million rows no more
    than one of ten."""

    def __init__(self) -> None:
        self._tenants: OrderedDict[int, OrderedDict[uuid.UUID, float]] = OrderedDict()
        """The first is next, of the tenants and of the jobs of each; with the time until which a job rests."""

    def update(self, working: Iterable[Job]) -> None:
        """Know these jobs and no others; who has waited longest stays first."""
        known = set(working)
        for tenant_id, jobs in list(self._tenants.items()):
            for job_id in [job_id for job_id in jobs if (tenant_id, job_id) not in known]:
                del jobs[job_id]
            if not jobs:
                del self._tenants[tenant_id]
        for tenant_id, job_id in sorted(known):
            jobs = self._tenants.setdefault(tenant_id, OrderedDict())
            if job_id not in jobs:
                jobs[job_id] = 0.0
                # Whoever comes new has never had a turn.
                jobs.move_to_end(job_id, last=False)

    def next(self, now: float) -> Job | None:
        """The job whose turn it is; `None`: none is known that does not rest."""
        for tenant_id, jobs in self._tenants.items():
            for job_id, rests_until in jobs.items():
                if rests_until <= now:
                    jobs.move_to_end(job_id)
                    self._tenants.move_to_end(tenant_id)
                    return tenant_id, job_id
        return None

    def rest(self, job: Job, until: float) -> None:
        """Nothing is to be had of this job for a while."""
        tenant_id, job_id = job
        jobs = self._tenants.get(tenant_id)
        if jobs is not None and job_id in jobs:
            jobs[job_id] = until

    def forget(self, job: Job) -> None:
        tenant_id, job_id = job
        jobs = self._tenants.get(tenant_id)
        if jobs is not None:
            jobs.pop(job_id, None)
            if not jobs:
                del self._tenants[tenant_id]

    def __bool__(self) -> bool:
        return bool(self._tenants)
