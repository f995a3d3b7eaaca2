"""The use case: a staged import is processed chunk by chunk, each in one transaction that also removes it from staging.

Uncommitted work never happened, and the staged chunks are the remaining work; so nothing is skipped and
nothing is done twice, wherever a worker stops. The phases, each with its exits:

1. check    no id appears twice → 3 · some may → collect them, chunk by chunk, and settle what they mean
2. settle   equal ones follow their leader · differing ones fail, or the last one leads
3. apply    a chunk is written and booked → next · no tokens, or locks not had → later, at last `retry` · canceled →
            undone
4. resolve  items that wait for a leader get its outcome
5. end      → syncing, or finished if nothing is to be delivered
"""

import asyncio
import uuid
from collections.abc import Callable, Iterable
from typing import Final

import asyncpg
import structlog

from app.errors import TrancheError
from app.imports import processing_queries
from app.imports.processing_queries import Processing
from app.kit.postgres.database import UNREACHABLE, Connection, Database
from app.kit.postgres.transactions import COLLIDED, HELD
from app.limits.limiter import Budget, Limiter
from app.limits.policies import Policies
from app.resource_types.catalog import Catalog
from app.settings import Settings
from app.telemetry import ItemsDecided, emit
from app.tracing import context, spans
from app.tracing.spans import Kind, Span
from jobs.imports.steps import WHOLE_FILE, Advance, Canceled, Exhausted, Paced, Unit
from jobs.scheduling.fair_queue import Job
from jobs.scheduling.worker_pool import PollingWorkerPool

log = structlog.get_logger()

_INTERVAL: Final = 0.25
_LONGEST_REST: Final = 10.0
"""Seconds after which a paced job asks again, because its limit may have been changed."""
_WORTH_SAYING: Final = 1.0
"""Seconds of waiting that a job's status shows."""


class ImportWorkers(PollingWorkerPool):
    """Processes whatever imports there are, each worker with one piece of one import at a time, until it is stopped."""

    def __init__(
        self, database: Database, settings: Settings, serve: Callable[[int, int], None], limiter: Limiter | None = None
    ) -> None:
        """`serve` has a destination of a tenant served soon, once deliveries for it are committed. `limiter`: paces the
        items; without it, those of this process."""
        idle = settings.sweep_interval
        super().__init__("import", settings.import_concurrency, database, interval=_INTERVAL, idle=idle)
        self._settings = settings
        self._serve = serve
        self._limiter = limiter or Limiter(None)
        self._policies = Policies(settings)
        self._catalog = Catalog()
        self._whole = asyncio.Semaphore(max(1, settings.import_concurrency - 1))
        """Work on a whole file takes long, and small imports must not wait for all tasks of a worker."""

    async def find(self) -> Iterable[Job]:
        async with self._database.connection() as connection:
            return await processing_queries.working_imports(connection)

    async def work(self, job: Job) -> None:
        try:
            advance = await self.advance(*job)
        except Paced as wait:
            return self.rest(job, min(wait.seconds, _LONGEST_REST))
        if advance is Advance.DONE:
            self.forget(job)
        elif advance is Advance.WAITING:
            self.rest(job)
        return None

    async def advance(self, tenant_id: int, job_id: uuid.UUID) -> Advance:
        """Do one piece of work for a job, if there is any to be had.
        Raises `DatabaseUnavailable`, `Overloaded`, `Paced`: nothing happened."""
        async with self._database.connection() as connection:
            job = await processing_queries.read_processing(connection, tenant_id, job_id)
            if job is None:
                return Advance.DONE
            if job.step not in WHOLE_FILE:
                return await self._advance(connection, tenant_id, job_id, job)
            if self._whole.locked():
                return Advance.WAITING
            async with self._whole:
                return await self._advance(connection, tenant_id, job_id, job)

    async def _advance(self, connection: Connection, tenant_id: int, job_id: uuid.UUID, job: Processing) -> Advance:
        attributes: spans.Attributes = {
            "tranche.tenant_id": tenant_id,
            "tranche.job_id": str(job_id),
            "tranche.step": job.step,
        }
        ids = {"job_id": str(job_id), "request_id": job.request_id}
        with (
            spans.span("process import", Kind.CONSUMER, context.read(job.trace_context), attributes) as span,
            structlog.contextvars.bound_contextvars(tenant_id=tenant_id, trace_id=span.context.trace_id, **ids),
        ):
            return await self._process(connection, tenant_id, job_id, job, span)

    async def _process(
        self, connection: Connection, tenant_id: int, job_id: uuid.UUID, job: Processing, span: Span
    ) -> Advance:
        resource = await self._catalog.find(connection, tenant_id, job.type)
        buckets = self._policies.of_key("items", tenant_id, job.key_id, job.limits, job.tenant_limits)
        budget = Budget(self._limiter, buckets)
        unit = Unit(connection, tenant_id, job_id, job, resource, self._settings, budget)
        try:
            if await unit.work():
                self._database.storage.note_room()
                emit(ItemsDecided(counts=unit.counts))
                span.note(spans.messaging("process", "process", sum(unit.counts.values())))
                for destination_id in unit.pending:
                    self._serve(tenant_id, destination_id)
                return Advance.WORKED
            span.drop()
            return await unit.move_on()
        except Canceled:
            return Advance.DONE
        except Paced as wait:
            span.drop()
            if wait.seconds >= _WORTH_SAYING:
                await unit.say_paced()
            raise
        except Exhausted:
            return await unit.fail()
        except (*COLLIDED, *HELD) as error:
            # A worker that was stopped with the job's row in its hand, say: it comes free.
            span.drop()
            log.info("import_waits", job_id=str(job_id), error=error)
            return Advance.WAITING
        except (TrancheError, *UNREACHABLE):
            raise
        except asyncpg.DiskFullError:
            await unit.say_full()
            raise
        except Exception:
            # A fault of ours: everybody else goes on, and a job that meets it again and again comes to an end.
            log.exception("import_stuck", tenant_id=tenant_id, job_id=str(job_id))
            return await unit.on_error()
