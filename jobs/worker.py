"""The composition root of a worker process: it listens to notifications, polls for due work, and delivers."""

import asyncio
import logging
import signal
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import msgspec
import structlog
from arq.worker import Worker, func
from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.errors import TrancheError
from app.kit import worker_registry
from app.kit.encryption import Vault
from app.kit.garbage import collect_less
from app.kit.notifier import FUNCTION, IMPORT_FUNCTION, QUEUE, Notifier, decode, encode, make_redis
from app.kit.postgres import schema_version
from app.kit.postgres.database import Database
from app.kit.redis import make_pool
from app.limits.limiter import Limiter
from app.limits.processes import count_processes
from app.monitoring import counters
from app.monitoring.sampler import sample
from app.settings import Settings
from app.telemetry import RedisAway, emit
from app.tracing import exporting
from app.vocabulary.addresses import parse_networks
from jobs.breaker.breaker import Breaker
from jobs.breaker.rules import BreakerPolicy
from jobs.breaker.transition_log import TransitionLog
from jobs.delivery.clients import ClientFactory
from jobs.delivery.destination_tester import DestinationTester
from jobs.delivery.dispatcher import Dispatcher
from jobs.delivery.limits.rate_limiter import RateLimiter
from jobs.delivery.sync_runner import SyncRunner
from jobs.imports.processing import ImportWorkers
from jobs.maintenance import Scheduler
from jobs.outbound.ssrf import DestinationSessions
from jobs.retention import Pruner
from jobs.sagas.runner import Runner
from jobs.sagas.workflows import WORKFLOWS
from jobs.scheduling.worker_pool import PollingWorkerPool
from jobs.webhooks.sender import WebhookSender
from jobs.worker_port import WorkerStatus, probing

log = structlog.get_logger()

_POLL: Final = 0.02
_HEALTH_INTERVAL: Final = 5
_RECONNECT: Final = 1.0
_SCHEMA_PAUSE: Final = 2.0
_STOP_MARGIN: Final = 3.0
_STOP_PIECE: Final = 3.0


async def notify_destination(ctx: dict[str, Any], tenant_id: int, destination_id: int) -> None:
    """The arq job: a destination has something due. Returns at once, so that arq's own limits and timeouts never
    matter."""
    ctx["dispatcher"].serve(tenant_id, destination_id)


async def notify_pools(ctx: dict[str, Any]) -> None:
    """The arq job: there is an import to be processed, or an undo, or a destination to test."""
    for pool in ctx["pools"]:
        pool.notify()


async def listen(
    settings: Settings, dispatcher: Dispatcher, pools: Sequence[PollingWorkerPool], status: WorkerStatus
) -> None:
    """Receive notifications from arq for ever, through restarts and absences of Redis."""
    while True:
        redis = make_redis(settings, timeout=2)
        worker = Worker(
            functions=[
                func(notify_destination, name=FUNCTION, keep_result=0, timeout=30, max_tries=3),
                func(notify_pools, name=IMPORT_FUNCTION, keep_result=0, timeout=30, max_tries=3),
            ],
            queue_name=QUEUE,
            redis_pool=redis,
            handle_signals=False,
            max_jobs=100,
            keep_result=0,
            poll_delay=_POLL,
            health_check_interval=_HEALTH_INTERVAL,
            ctx={"dispatcher": dispatcher, "pools": pools},
            job_serializer=encode,
            job_deserializer=decode,
            log_results=False,
        )
        try:
            status.listening = True  # whether Redis answers is another question (`WorkerStatus.check`)
            await worker.async_run()
        except (RedisError, OSError) as error:
            log.warning("redis_lost", error=error)
        except Exception:
            # The scheduler would go on, and nobody would notice that notifications are not received any more.
            log.exception("listening_failed")
        finally:
            status.listening = False
            # What it cannot write to Redis any more expires there; its own canceled jobs are no news.
            with suppress(RedisError, OSError, asyncio.CancelledError):
                await asyncio.wait_for(worker.close(), 2)
            with suppress(RedisError, OSError):
                await redis.aclose()
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            return
        await asyncio.sleep(_RECONNECT)


@asynccontextmanager
async def working(settings: Settings, status: WorkerStatus | None = None) -> AsyncIterator[Dispatcher]:
    """A running worker; on leaving, calls in flight end and are recorded."""
    status = status or WorkerStatus()
    counters.start()
    database = Database(settings, application_name="tranche worker")
    redis = Redis.from_pool(make_pool(settings.redis_url))
    breaker = Breaker(redis, BreakerPolicy.from_settings(settings))
    rate_limiter = RateLimiter(redis)
    limiter = Limiter(redis)
    transitions = TransitionLog(database)
    notifier = Notifier(settings)
    vault = Vault(settings.secret_key)
    worker_id = uuid.uuid4().hex
    await database.open()
    async with DestinationSessions(parse_networks(settings.destination_private)) as sessions:
        clients = ClientFactory(database, breaker, rate_limiter, transitions, sessions, vault, settings)
        dispatcher = Dispatcher(database, clients, notifier, settings)
        importer = ImportWorkers(database, settings, dispatcher.serve, limiter)
        runner = Runner(database, WORKFLOWS, settings, dispatcher.serve, redis=redis)
        tester = DestinationTester(database, clients, settings)
        syncer = SyncRunner(database, settings, dispatcher.serve)
        pools: tuple[PollingWorkerPool, ...] = (importer, runner, tester, syncer)
        scheduler = Scheduler(database, dispatcher, settings)
        sender = WebhookSender(database, vault, settings)
        status.database, status.redis, status.scheduler = database, redis, scheduler
        status.sweep_interval, status.waits_for = settings.sweep_interval, ""
        background = [
            asyncio.create_task(listen(settings, dispatcher, pools, status)),
            asyncio.create_task(scheduler.run()),
            asyncio.create_task(Pruner(database, redis, settings).run()),
            asyncio.create_task(sender.run()),
            asyncio.create_task(_send_heartbeats(redis, worker_id, vault)),
            asyncio.create_task(sample(database)),
            asyncio.create_task(count_processes(limiter)),
        ]
        running = {pool: asyncio.create_task(pool.run()) for pool in pools}
        try:
            yield dispatcher
        finally:
            status.stopping = True
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            with suppress(RedisError, OSError, TimeoutError):
                await asyncio.wait_for(worker_registry.beat(redis, worker_id, vault.key_ids, stopped=True), 1)
            await asyncio.gather(_end(running), sender.stop())
            await dispatcher.stop(_STOP_MARGIN)
            limiter.close()
            await transitions.close()
            await notifier.close()
            await database.close()
            await redis.aclose()


async def _send_heartbeats(redis: Redis, worker_id: str, vault: Vault) -> None:
    """Show that this worker runs, and which encryption keys it has."""
    known = time.monotonic()
    while True:
        away = False
        try:
            await worker_registry.beat(redis, worker_id, vault.key_ids)
        except (RedisError, OSError):
            away = True
        await asyncio.sleep(worker_registry.BEAT)
        before, known = known, time.monotonic()
        if away:
            emit(RedisAway(seconds=known - before))


async def _end(running: Mapping[PollingWorkerPool, asyncio.Task[None]]) -> None:
    """Let chunks and steps in progress commit; one that takes too long is rolled back, and done again by others."""
    for pool in running:
        pool.stop()
    await asyncio.wait(running.values(), timeout=_STOP_PIECE)
    for task in running.values():
        task.cancel()
    await asyncio.gather(*running.values(), return_exceptions=True)


async def _await_schema(settings: Settings, stopped: asyncio.Event, status: WorkerStatus) -> None:
    """Wait for PostgreSQL and its schema, saying once what is missing: nothing can be done before."""
    database = Database(msgspec.structs.replace(settings, db_pool_size=1), application_name="tranche worker")
    try:
        while not stopped.is_set():
            try:
                async with database.connection() as connection:
                    fault = await schema_version.find_fault(connection)
            except TrancheError as error:
                fault = error.detail
            if fault is None:
                return
            if fault != status.waits_for:
                log.warning("worker_waits", reason=fault)
                status.waits_for = fault
            with suppress(TimeoutError):
                await asyncio.wait_for(stopped.wait(), _SCHEMA_PAUSE)
    finally:
        await database.close()


async def run(settings: Settings, *, quiet: bool = False) -> None:
    """Work until SIGTERM or SIGINT; then let calls in flight end, and stop."""
    Vault(settings.secret_key)  # raises at once, not only when there is a database
    exporting.check(settings)  # likewise
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    collect_less()
    status = WorkerStatus()
    async with probing(settings, status):
        await _await_schema(settings, stopped, status)
        if stopped.is_set():
            return
        async with exporting.exporting(settings, "tranche-worker"), working(settings, status):
            log.log(logging.DEBUG if quiet else logging.INFO, "worker_started")
            await stopped.wait()
            log.info("worker_stopping")
    log.info("worker_stopped")
