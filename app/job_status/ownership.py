"""Whose a job is. A key with the scope `import` alone follows, cancels, retries and undoes what it asked for itself."""

import uuid
from typing import Final

from cachetools import LRUCache

from app.errors import Forbidden, NotFound
from app.http.principal import Principal
from app.job_status import queries
from app.kit.postgres.database import Database

_MOST: Final = 10_000
_READING: Final = frozenset({"read", "admin"})


def reads_all(principal: Principal) -> bool:
    """Whether the key may see every job of its tenant."""
    return not _READING.isdisjoint(principal.scopes)


class JobOwners:
    """The keys whose a job is: it never changes, so it is asked once."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: LRUCache[tuple[int, uuid.UUID], frozenset[str]] = LRUCache(_MOST)

    async def check_read(self, principal: Principal, job_id: uuid.UUID) -> None:
        """
        Raises:
            NotFound: the tenant has no such job, as far as this had to be asked.
            Forbidden: another key asked for it, and this one may read its own alone.
        """
        if not reads_all(principal):
            await self._check(principal, job_id, "reading it needs a key with the scope read or admin")

    async def check_change(self, principal: Principal, job_id: uuid.UUID) -> None:
        """As `check_read`, for those who would change it."""
        if "admin" not in principal.scopes:
            needs = "canceling, retrying or undoing it needs a key with the scope admin"
            await self._check(principal, job_id, needs)

    async def _check(self, principal: Principal, job_id: uuid.UUID, needs: str) -> None:
        place = (principal.tenant_id, job_id)
        known = self._known.get(place)
        if known is None:
            async with self._database.connection() as connection:
                known = await queries.read_job_keys(connection, *place)
            if not known:
                raise NotFound("There is no such job.")
            self._known[place] = known
        if principal.key_id not in known:
            raise Forbidden(f"Another API key requested this job; {needs}.")
