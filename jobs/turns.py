"""Whose turn it is: tenants one after the other, and the jobs of a tenant one after the other."""

from __future__ import annotations

import uuid
from collections import OrderedDict
from collections.abc import Iterable

Job = tuple[int, uuid.UUID]


class _Queues:
    """The jobs of one tenant, the next one first."""

    def __init__(self) -> None:
        self.new: OrderedDict[uuid.UUID, int] = OrderedDict()
        """Never had a turn; with the number of the last turn before they came."""
        self.known: OrderedDict[uuid.UUID, int] = OrderedDict()
        """With the number of their last turn."""
        self.resting: dict[uuid.UUID, float] = {}
        """Until when."""
        self._turn = 0
        self._new_had_it = False

    def add(self, job_id: uuid.UUID) -> None:
        self.new[job_id] = self._turn

    def next(self, now: float) -> uuid.UUID | None:
        """A new job does not wait for all others; but however many come, every second turn is for one that has waited
        longer."""
        first = next(iter(self.new), None)
        waiting = next((id_ for id_ in self.known if self.resting.get(id_, 0.0) <= now), None)
        taken = first or waiting
        if first and waiting and self._new_had_it and self.known[waiting] <= self.new[first]:
            taken = waiting
        if taken is not None:
            self._new_had_it = taken in self.new
            self._turn += 1
            self.forget(taken)
            self.known[taken] = self._turn
        return taken

    def forget(self, job_id: uuid.UUID) -> None:
        self.new.pop(job_id, None)
        self.known.pop(job_id, None)
        self.resting.pop(job_id, None)

    def __contains__(self, job_id: uuid.UUID) -> bool:
        return job_id in self.new or job_id in self.known

    def __bool__(self) -> bool:
        return bool(self.new or self.known)


class Turns:
    """A tenant with a hundred jobs has no more turns than one with a single job, and a job of a million rows no more
    than one of ten."""

    def __init__(self) -> None:
        self._tenants: OrderedDict[int, _Queues] = OrderedDict()
        """The first is next."""

    def update(self, working: Iterable[Job]) -> None:
        """Know these jobs and no others; who has waited longest stays first."""
        known = set(working)
        for tenant_id, jobs in list(self._tenants.items()):
            for job_id in [id_ for id_ in (*jobs.new, *jobs.known) if (tenant_id, id_) not in known]:
                self.forget((tenant_id, job_id))
        for tenant_id, job_id in sorted(known):
            jobs = self._tenants.setdefault(tenant_id, _Queues())
            if job_id not in jobs:
                jobs.add(job_id)

    def next(self, now: float) -> Job | None:
        """The job whose turn it is; `None`: none is known that does not rest."""
        for tenant_id, jobs in self._tenants.items():
            job_id = jobs.next(now)
            if job_id is not None:
                self._tenants.move_to_end(tenant_id)
                return tenant_id, job_id
        return None

    def rest(self, job: Job, until: float) -> None:
        """Nothing is to be had of this job, which had its turn, for a while."""
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
