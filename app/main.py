"""The composition root of the HTTP service: what exists once in a process is made, opened and closed here."""

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import FrameType

from litestar import Litestar
from litestar.datastructures import State
from redis.asyncio import Redis

from app import settings as settings_module
from app import telemetry
from app.api.app import Api
from app.api.openapi.document import Documents
from app.api.routes import OPERATIONS, ROUTES
from app.auth.authorization import FirstSight
from app.auth.last_used import LastUsed
from app.auth.principals import Principals
from app.destinations.api import Destinations
from app.errors import SettingsError
from app.http import problems
from app.http.body.limits import Intake
from app.http.body.reader import Drains
from app.http.cors import Cors
from app.http.dependencies import STATE_KEY, Resources
from app.http.rate_limits import AddressLimits, RequestLimits
from app.http.reads import Reads
from app.http.refusal_limiter import Refusals
from app.imports.reception import Importer
from app.imports.workbooks import Workbooks
from app.job_status.live.job_cache import JobViews
from app.job_status.live.long_poll import LongPoll
from app.job_status.live.watcher import JobWatcher
from app.job_status.ownership import JobOwners
from app.kit.encryption import Vault
from app.kit.garbage import collect_less
from app.kit.notifier import Notifier
from app.kit.postgres.database import Database
from app.kit.postgres.disk_space import RoomProbe
from app.kit.postgres.fair_connections import ConnectionQueue
from app.kit.postgres.replica import Replica
from app.kit.redis import make_pool
from app.kit.snapshots import Snapshots
from app.kit.worker_registry import WorkerWatch
from app.limits.limiter import Limiter
from app.limits.processes import count_processes
from app.monitoring import counters
from app.monitoring.engines import Engines
from app.monitoring.metrics_api import StatsCache
from app.monitoring.sampler import sample
from app.records.export import Exports
from app.resource_types.catalog import Catalog
from app.settings import Settings
from app.tracing.exporting import exporting


def create_app(settings: Settings) -> Litestar:
    """The service. It starts, and answers what it can, while PostgreSQL or Redis are away."""
    connection_queue = ConnectionQueue(
        settings.db_pool_size, share=settings.db_pool_share, timeout=settings.db_acquire_timeout
    )
    database = Database(settings, application_name="tranche api", connection_queue=connection_queue)
    replica = Replica(settings, database) if settings.database_replica_url else None
    notifier = Notifier(settings)
    watcher = JobWatcher(database)
    redis = Redis.from_pool(make_pool(settings.redis_url, socket_timeout=1.0, socket_connect_timeout=1.0))
    workers = WorkerWatch(redis)
    views = JobViews(database, workers)
    snapshots = Snapshots(settings, redis)
    principals = Principals(database, snapshots, replica)
    reads = Reads(database, replica, snapshots)
    stats = StatsCache(database, workers, settings)
    last_used = LastUsed(database)
    engines = Engines(database, RoomProbe(database), redis, _key_id(settings))
    counters.start()
    intake = Intake(settings)
    limiter = Limiter(redis, processes=settings_module.processes())
    request_limits = RequestLimits(settings, limiter)
    long_poll = LongPoll(views, watcher, intake, principals)
    catalog = Catalog()
    resources = Resources(
        settings,
        database,
        connection_queue,
        notifier,
        watcher,
        workers,
        views,
        principals,
        snapshots,
        reads,
        last_used,
        stats,
        engines,
        intake,
        JobOwners(database),
        long_poll,
        Importer(settings, database, intake, notifier, long_poll, catalog, request_limits, Workbooks(settings)),
        catalog,
        Exports(database),
        Destinations(database, workers, notifier),
        Documents(OPERATIONS, settings),
        FirstSight(principals, (settings.operator_token, settings.metrics_token)),
        Cors(settings.cors_origins),
        Drains(),
        Refusals(),
        request_limits,
        AddressLimits(settings, limiter),
    )

    @asynccontextmanager
    async def own(_: Litestar) -> AsyncIterator[None]:
        await database.open()
        if replica is not None:
            await replica.open()
        snapshots.open()
        last_used.start()
        sampling = asyncio.create_task(sample(database, connection_queue))
        counting = asyncio.create_task(count_processes(limiter))
        try:
            with _hear_shutdown(watcher.release):
                async with exporting(settings, "tranche-api"):
                    yield
        finally:
            sampling.cancel()
            counting.cancel()
            limiter.close()
            await watcher.close()
            await views.close()
            await workers.close()
            await principals.close()
            await last_used.close()
            await stats.close()
            await engines.close()
            await notifier.close()
            await snapshots.close()
            if replica is not None:
                await replica.close()
            await redis.aclose()
            await database.close()

    return Api(
        route_handlers=list(ROUTES),
        lifespan=[own],
        exception_handlers={Exception: problems.answer},
        state=State({STATE_KEY: resources}),
        openapi_config=None,
        logging_config=None,
        request_max_body_size=None,  # bodies are read and capped by app.http.body.reader
        debug=False,
    )


def _key_id(settings: Settings) -> str | None:
    try:
        return Vault(settings.secret_key).key_ids[0]
    except SettingsError:
        return None  # nothing can be encrypted here, which is said where it is tried


@contextmanager
def _hear_shutdown(callback: Callable[[], None]) -> Iterator[None]:
    """Call back as soon as the process is asked to end.

    A server waits for its open requests before it ends the lifespan, and some of them wait up to `max_wait`
    seconds for effects. The existing handlers are the server's own and are still called.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    previous = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def hear(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(callback)
        before = previous[signal.Signals(number)]
        if callable(before):
            before(number, frame)

    heard = [number for number, handler in previous.items() if callable(handler)]
    for number in heard:
        signal.signal(number, hear)
    try:
        yield
    finally:
        for number in heard:
            signal.signal(number, previous[number])


def factory() -> Litestar:
    """What a server is pointed at (`app.main:factory`): settings come from the environment."""
    settings = settings_module.load()
    telemetry.configure(settings)
    api = create_app(settings)
    collect_less()
    return api
