"""The composition root of a worker process: arq listens, the sweeper searches, the dispatcher delivers."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
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
from uuid_utils.compat import uuid7

from app import workers
from app.db import schema_version
from app.db.pool import Database
from app.domain.addresses import parse_networks
from app.errors import TrancheError
from app.redis import make_pool
from app.settings import Settings
from app.vault import Vault
from app.wake import FUNCTION, IMPORT_FUNCTION, QUEUE, Waker, decode, encode, make_redis
from jobs.breaker.breaker import Breaker
from jobs.breaker.rules import BreakerPolicy
from jobs.breaker.transition_log import TransitionLog
from jobs.delivery.clients import ClientFactory
from jobs.delivery.dispatcher import Dispatcher
from jobs.delivery.rate_limiter import RateLimiter
from jobs.destination_tests import Tester
from jobs.egress import Egress
from jobs.importing import Importer
from jobs.lanes import LaneWorker
from jobs.sweep import Sweeper
from jobs.webhooks import WebhookSender
from jobs.workflows import make_runner

log = structlog.get_logger()

_POLL: Final = 0.02
_HEALTH_INTERVAL: Final = 5
_RECONNECT: Final = 1.0
_SCHEMA_PAUSE: Final = 2.0
_STOP_MARGIN: Final = 3.0
_STOP_CHUNK: Final = 3.0
_COLLECT_AT: Final = 20_000
"""Objects made and not yet gone."""


async def wake(ctx: dict[str, Any], tenant_id: int, destination_id: int) -> None:
    """The arq job: pass the word on. Returns at once, so that arq's own limits and time-outs never matter."""
    ctx["dispatcher"].serve(tenant_id, destination_id)


async def wake_importer(ctx: dict[str, Any]) -> None:
    """The arq job: there is an import to be processed, or an undo or a destination to test, which come the same way."""
    for each in ctx["lane_workers"]:
        each.announce()


async def listen(settings: Settings, dispatcher: Dispatcher, lane_workers: Sequence[LaneWorker]) -> None:
    """Take wake-ups from arq for ever, through restarts and absences of Redis."""
    while True:
        redis = make_redis(settings, timeout=2)
        worker = Worker(
            functions=[
                func(wake, name=FUNCTION, keep_result=0, timeout=30, max_tries=3),
                func(wake_importer, name=IMPORT_FUNCTION, keep_result=0, timeout=30, max_tries=3),
            ],
            queue_name=QUEUE,
            redis_pool=redis,
            handle_signals=False,
            max_jobs=100,
            keep_result=0,
            poll_delay=_POLL,
            health_check_interval=_HEALTH_INTERVAL,
            ctx={"dispatcher": dispatcher, "lane_workers": lane_workers},
            job_serializer=encode,
            job_deserializer=decode,
            log_results=False,
        )
        try:
            await worker.async_run()
        except (RedisError, OSError) as error:
            log.warning("redis_lost", error=error)
        except Exception:
            # The sweeper would go on, and nobody would notice that wake-ups are not heard any more.
            log.exception("listening_broke_off")
        finally:
            # What it cannot tell Redis any more, Redis lets expire; its own cancelled jobs are no news.
            with suppress(RedisError, OSError, asyncio.CancelledError):
                await asyncio.wait_for(worker.close(), 2)
            with suppress(RedisError, OSError):
                await redis.aclose()
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            return
        await asyncio.sleep(_RECONNECT)


@asynccontextmanager
async def working(settings: Settings) -> AsyncIterator[Dispatcher]:
    """A worker at work; on leaving, calls under way end and are recorded."""
    database = Database(settings, application_name="tranche worker")
    redis = Redis.from_pool(make_pool(settings.redis_url))
    breaker = Breaker(redis, BreakerPolicy.from_settings(settings), clock=time.time, rng=random.random)
    rate_limiter = RateLimiter(redis, clock=time.time)
    transitions = TransitionLog(database, monotonic=time.monotonic)
    waker = Waker(settings)
    vault = Vault(settings.secret_key)
    worker_id = uuid.uuid4().hex
    await database.open()
    async with Egress(parse_networks(settings.destination_private)) as egress:
        clients = ClientFactory(
            database, breaker, rate_limiter, transitions, egress, vault, settings, monotonic=time.monotonic
        )
        dispatcher = Dispatcher(
            database,
            clients,
            waker,
            settings,
            monotonic=time.monotonic,
            random=random.random,
            new_token=uuid.uuid4,
        )
        importer = Importer(database, dispatcher, settings, monotonic=time.monotonic, random=random.random)
        runner = make_runner(
            database,
            settings,
            dispatcher.serve,
            monotonic=time.monotonic,
            random=random.random,
            new_id=uuid7,
        )
        tester = Tester(database, clients, settings, monotonic=time.monotonic)
        lane_workers: tuple[LaneWorker, ...] = (importer, runner, tester)
        sweeper = Sweeper(database, dispatcher, settings, monotonic=time.monotonic)
        sender = WebhookSender(database, vault, settings, monotonic=time.monotonic, random=random.random)
        background = [
            asyncio.create_task(listen(settings, dispatcher, lane_workers)),
            asyncio.create_task(sweeper.run()),
            asyncio.create_task(sender.run()),
            asyncio.create_task(_show_life(redis, worker_id, vault)),
        ]
        at_work: dict[LaneWorker, asyncio.Task[None]] = {
            each: asyncio.create_task(each.run()) for each in lane_workers
        }
        try:
            yield dispatcher
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            with suppress(RedisError, OSError, TimeoutError):
                await asyncio.wait_for(workers.beat(redis, worker_id, vault.key_ids, stopped=True), 1)
            await asyncio.gather(_end(at_work), sender.stop())
            await dispatcher.stop(_STOP_MARGIN)
            await transitions.close()
            await waker.close()
            await database.close()
            await redis.aclose()


async def _show_life(redis: Redis, worker_id: str, vault: Vault) -> None:
    """Tell whoever asks why nothing moves that this worker is there, and which keys it has."""
    while True:
        with suppress(RedisError, OSError):
            await workers.beat(redis, worker_id, vault.key_ids)
        await asyncio.sleep(workers.BEAT)


async def _end(working: Mapping[LaneWorker, asyncio.Task[None]]) -> None:
    """Let chunks and steps under way be committed; one that takes too long is undone, and done again by others."""
    for each in working:
        each.stop()
    await asyncio.wait(working.values(), timeout=_STOP_CHUNK)
    for task in working.values():
        task.cancel()
    await asyncio.gather(*working.values(), return_exceptions=True)


def _collect_less() -> None:
    """A call brings thousands of short-lived objects without a cycle among them: to look for one each 700 of them, and
    through all modules as well, takes an eighth of a busy worker's time."""
    gc.freeze()
    gc.set_threshold(_COLLECT_AT)


async def _await_schema(settings: Settings, stopped: asyncio.Event) -> None:
    """Wait for PostgreSQL and its schema, saying once what is missing: nothing can be done before."""
    database = Database(msgspec.structs.replace(settings, db_pool_size=1), application_name="tranche worker")
    told = ""
    try:
        while not stopped.is_set():
            try:
                async with database.connection() as connection:
                    fault = await schema_version.find_fault(connection)
            except TrancheError as error:
                fault = error.detail
            if fault is None:
                return
            if fault != told:
                log.warning("worker_waits", reason=fault)
                told = fault
            with suppress(TimeoutError):
                await asyncio.wait_for(stopped.wait(), _SCHEMA_PAUSE)
    finally:
        await database.close()


async def run(settings: Settings, *, quiet: bool = False) -> None:
    """Work until SIGTERM or SIGINT; then let calls under way end, and stop."""
    Vault(settings.secret_key)  # raises at once, not only when there is a database
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    _collect_less()
    await _await_schema(settings, stopped)
    if stopped.is_set():
        return
    async with working(settings):
        log.log(logging.DEBUG if quiet else logging.INFO, "worker_started")
        await stopped.wait()
        log.info("worker_stopping")
    log.info("worker_stopped")
