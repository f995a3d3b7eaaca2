"""The port of a worker, for orchestrators and Prometheus: `/health/live`, `/health/ready` and `/metrics`.

It is no condition of work: where it cannot be opened, the worker works without it, and tries again.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import msgspec
import structlog
from aiohttp import web
from prometheus_client import generate_latest
from redis.asyncio import Redis

from app.kit.bearer import bears
from app.kit.postgres import schema_version
from app.kit.postgres.database import Database
from app.monitoring import counters
from app.monitoring.checks import Check, Health, timed
from app.settings import Settings
from jobs.maintenance import Scheduler

log = structlog.get_logger()

_REOPEN: Final = 5.0
"""Seconds after which a port that was taken is tried again."""
_LATE: Final = 60.0
"""Seconds without a sweep, beside its interval, after which something must be wrong: it waits for connections, too."""
_REMEDY: Final = "choose another port (--port, TRANCHE_WORKER_PORT), or 0 for none"


class WorkerStatus(msgspec.Struct):
    """What a worker knows of itself."""

    waits_for: str = "it is starting"
    """What it cannot begin without; empty: it works."""
    database: Database | None = None
    redis: Redis | None = None
    scheduler: Scheduler | None = None
    sweep_interval: float = 0.0
    listening: bool = False
    """For notifications of Redis."""
    stopping: bool = False

    async def check(self) -> Health:
        """Whether it works: `warn` while it does so later than it could."""
        if self.database is None or self.redis is None or self.scheduler is None or self.waits_for:
            return Health("fail", {"worker": Check("fail", self.waits_for)})
        database, cache = await asyncio.gather(timed(self._check_database), timed(self._check_cache))
        if cache.status == "fail":
            cache = msgspec.structs.replace(cache, status="warn", output=self._explain_delay(cache.output or ""))
        checks = {"database": database, "cache": cache, "sweep": self._check_sweep(self.scheduler)}
        if self.stopping:
            checks["worker"] = Check("fail", "it is stopping: calls in flight end, and nothing more is claimed")
        words = [check.status for check in checks.values()]
        return Health("fail" if "fail" in words else "warn" if "warn" in words else "pass", checks)

    async def _check_database(self) -> Check:
        assert self.database is not None
        async with self.database.connection() as connection:
            fault = await schema_version.find_fault(connection)
        if fault is None and self.database.storage.is_full:
            fault = "it has no disk space left; free or add some"
        return Check("pass") if fault is None else Check("fail", fault)

    async def _check_cache(self) -> Check:
        assert self.redis is not None
        await self.redis.ping()
        return Check("pass") if self.listening else Check("warn", self._explain_delay("it is connected to anew"))

    def _explain_delay(self, why: str) -> str:
        return f"{why}; until it is back, due work is searched for every {self.sweep_interval:g} s"

    def _check_sweep(self, scheduler: Scheduler) -> Check:
        ago = time.monotonic() - scheduler.swept_at
        if ago <= _LATE + 2 * self.sweep_interval:
            return Check("pass")
        return Check("fail", f"due work was last searched for {ago:.0f} s ago; the worker's log says why")


@asynccontextmanager
async def probing(settings: Settings, status: WorkerStatus) -> AsyncIterator[None]:
    """Answer at the port of the settings, if there is one."""
    if not settings.worker_port:
        yield
        return
    runner = web.AppRunner(
        _make_app(settings.metrics_token, status), access_log=None, handler_cancellation=True, shutdown_timeout=1.0
    )
    await runner.setup()
    opening = asyncio.create_task(_open(runner, settings.worker_host, settings.worker_port))
    try:
        yield
    finally:
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)
        await runner.cleanup()


async def _open(runner: web.AppRunner, host: str, port: int) -> None:
    reported = False
    while True:
        try:
            await web.TCPSite(runner, host, port).start()
            return
        except (OSError, OverflowError, ValueError) as error:
            if not reported:
                log.error("worker_port_not_opened", host=host, port=port, error=error, remedy=_REMEDY)
                reported = True
        await asyncio.sleep(_REOPEN)


def _make_app(token: str, status: WorkerStatus) -> web.Application:
    async def read_liveness(_: web.Request) -> web.Response:
        return _answer(Health("pass", {}))

    async def read_readiness(_: web.Request) -> web.Response:
        return _answer(await status.check())

    async def read_metrics(request: web.Request) -> web.Response:
        if not bears(request.headers.get("Authorization", ""), token):
            problem = "This needs the token of TRANCHE_METRICS_TOKEN: Authorization: Bearer …\n"
            return web.Response(status=401, text=problem, headers={"WWW-Authenticate": "Bearer"})
        body = generate_latest(counters.collect())
        return web.Response(body=body, headers={"Content-Type": counters.MEDIA_TYPE, "Cache-Control": "no-store"})

    app = web.Application()
    routes: dict[str, Callable[[web.Request], Awaitable[web.Response]]] = {
        "/health/live": read_liveness,
        "/health/ready": read_readiness,
        "/metrics": read_metrics,
    }
    for path, handler in routes.items():
        app.router.add_get(path, handler)
    return app


def _answer(health: Health) -> web.Response:
    return web.Response(
        status=503 if health.status == "fail" else 200,
        body=msgspec.json.encode(health),
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )
