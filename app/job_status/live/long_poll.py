"""`Prefer: wait` on a job: an answer that comes once there is something new to say."""

from __future__ import annotations

import asyncio
import uuid

from app.auth.principals import Principals
from app.http.body.limits import Intake
from app.http.principal import Principal
from app.job_status.live.job_cache import JobViews
from app.job_status.live.watcher import JobWatcher


class LongPoll:
    """Waits for jobs, as long as there is room for one more who waits."""

    def __init__(self, views: JobViews, watcher: JobWatcher, intake: Intake, principals: Principals) -> None:
        self._views = views
        self._watcher = watcher
        self._intake = intake
        self._principals = principals

    async def wait(
        self, principal: Principal, job_id: uuid.UUID, known: set[int | str], until: float
    ) -> bool:
        """True: the job is finished, or not what the client knows (tags and revisions). `until`: the loop's time.

        Raises:
            Unauthorized: the key was revoked meanwhile.
        """
        seen = await self._views.look(principal.tenant_id, job_id)
        if seen.finished or (known and seen.revision not in known):
            return True
        with self._intake.wait(principal) as granted:
            if not granted:
                return False
            async with self._principals.heed(principal):
                return await self._watcher.wait(
                    principal.tenant_id,
                    job_id,
                    seconds=until - asyncio.get_running_loop().time(),
                    revision=seen.revision if known else None,
                )
