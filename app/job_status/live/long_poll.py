"""`Prefer: wait` on a job: an answer that comes once there is something new to say."""

import asyncio
import uuid

import msgspec

from app.auth.principals import Principals
from app.http.body.limits import Intake
from app.http.principal import Principal
from app.job_status.live.job_cache import JobViews
from app.job_status.live.watcher import JobWatcher


class LongPoll(msgspec.Struct, frozen=True):
    """Waits for jobs, as long as there is room for one more who waits."""

    views: JobViews
    watcher: JobWatcher
    intake: Intake
    principals: Principals

    async def wait(self, principal: Principal, job_id: uuid.UUID, known: set[int | str], until: float) -> bool:
        """True: the job is finished, or not what the client knows (tags and revisions). `until`: the loop's time.
        Nobody waits for a replica.
        Raises `Unauthorized`: the key was revoked meanwhile."""
        if self.views.diverted:
            return False
        seen = await self.views.look(principal.tenant_id, job_id)
        if seen.finished or (known and seen.revision not in known):
            return True
        return await self.hold(principal, job_id, until, revision=seen.revision if known else None)

    async def hold(self, principal: Principal, job_id: uuid.UUID, until: float, *, revision: int | None = None) -> bool:
        """True: the job is finished or, with `revision` given, has another; false: too many wait, or the time is over.
        Raises `Unauthorized`: the key was revoked meanwhile."""
        with self.intake.wait(principal) as granted:
            if not granted:
                return False
            async with self.principals.heed(principal):
                seconds = until - asyncio.get_running_loop().time()
                return await self.watcher.wait(principal.tenant_id, job_id, seconds=seconds, revision=revision)
