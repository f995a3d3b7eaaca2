"""How PostgreSQL, Redis and the queue are, looked at once for all who ask at about the same time."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import asyncpg
from redis.asyncio import Redis

from app.errors import TrancheError
from app.http.singleflight import SingleFlight
from app.kit import worker_registry
from app.kit.postgres import schema_version
from app.kit.postgres.database import Database
from app.kit.postgres.disk_space import RoomProbe
from app.kit.postgres.fair_connections import ACTING, SERVICE
from app.migrations.revisions import newest
from app.monitoring import queries
from app.monitoring.checks import Check, Checks, timed

RECENT: Final = 2.0
"""Seconds for which strangers are shown the same look: however many ask, it costs no more than one of them."""
RECENT_FAILURE: Final = 0.5
"""…if something failed: a recovery is noticed sooner."""


LONG_DUE: Final = 60
"""Seconds within which a worker sends what is due."""


class Engines:
    def __init__(self, database: Database, room: RoomProbe, redis: Redis, key_id: str | None) -> None:
        """`key_id`: of the secret key that this service encrypts with; None: it has none."""
        self._database = database
        self._watch = database.availability
        """Ends what waits for a database that hangs."""
        self._key_id = key_id
        self._room = room
        self._redis = redis
        self._looks: SingleFlight[str, Checks] = SingleFlight()
        self._seen: dict[str, tuple[float, int, Checks]] = {}
        """Until when a look is good, and as of which turnabout of the database."""

    async def look(self, *, recent: bool) -> Checks:
        """Database, cache and queue. `recent`: a look of the last seconds is good enough."""
        return await self._share("all", self._look, recent=recent)

    async def look_at_schema(self, *, recent: bool) -> Checks:
        """The database alone."""
        return await self._share("schema", self._look_at_schema, recent=recent)

    async def close(self) -> None:
        await self._looks.close()

    async def _share(self, name: str, look: Callable[[], Awaitable[Checks]], *, recent: bool) -> Checks:
        if recent:
            until, turnabouts, seen = self._seen.get(name, (0.0, 0, {}))
            if until > asyncio.get_running_loop().time() and turnabouts == self._database.turnabouts:
                return seen
        return await self._looks.share(name, lambda: self._note(name, look))

    async def _note(self, name: str, look: Callable[[], Awaitable[Checks]]) -> Checks:
        ACTING.set(SERVICE)  # for all who ask: in nobody's name
        checks = await look()
        failing = any(check.status == "fail" for check in checks.values())
        lasts = RECENT_FAILURE if failing else RECENT
        until = asyncio.get_running_loop().time() + lasts
        self._seen[name] = (until, self._database.turnabouts, checks)
        return checks

    async def _look(self) -> Checks:
        database, cache, queue = await asyncio.gather(
            timed(lambda: self._watch.run(self._check_database)), timed(self._check_cache), timed(self._check_queue)
        )
        return {"database": database, "cache": cache, "queue": queue}

    async def _look_at_schema(self) -> Checks:
        return {"database": await timed(lambda: self._watch.run(self._check_schema))}

    async def _check_database(self) -> Check:
        check = await self._check_schema()
        if check.status == "pass":
            await self._room.look()
        return check

    async def _check_schema(self) -> Check:
        async with self._database.connection() as connection:
            found = await schema_version.read_schema_version(connection)
            wanted = newest()
            if found == wanted:
                fault = await schema_version.find_write_fault(connection)
                return Check("fail" if fault else "pass", fault)
        return Check("fail", f"the schema is at {found or 'nothing'}, not {wanted}; run: tranche migrate")

    async def _check_cache(self) -> Check:
        await self._redis.ping()
        return Check("pass")

    async def _check_queue(self) -> Check:
        check, seconds = await asyncio.gather(self._check_workers(), self._read_queue())
        if seconds is None:
            return check
        check.counts = {"oldest_due_seconds": seconds}
        if check.status == "pass" and seconds >= LONG_DUE:
            check.status = "warn"
            check.output = f"deliveries have been due for {seconds} s; start more workers, or look at their log"
        return check

    async def _read_queue(self) -> int | None:
        """None: PostgreSQL is away, which another check says."""

        async def read() -> int:
            async with self._database.connection() as connection:
                return round(await queries.read_queue(connection))

        try:
            return await self._watch.run(read)
        except (TrancheError, asyncpg.PostgresError):
            return None

    async def _check_workers(self) -> Check:
        found = await worker_registry.read(self._redis)
        nobody = found.why_nobody()
        if nobody is not None:
            return Check("warn", f"{nobody}; imports are taken meanwhile, and synced once there is one")
        lacking = found.lack(self._key_id)
        if not lacking:
            return Check("pass")
        every = lacking == len(found.alive)
        return Check(
            "fail" if every else "warn",
            f"{'none' if every else lacking} of {len(found.alive)} workers {'can' if every else 'cannot'} decrypt what "
            "this service encrypts; give all of them the same TRANCHE_SECRET_KEY",
        )
