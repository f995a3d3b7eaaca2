"""Runs sagas: a step and the move to the next are one transaction, which holds the saga's row.

A worker that dies in a step leaves the saga where it was, and any other continues it; two never work on one. The
workflows are in `jobs.sagas.workflows`, the rules of their transitions in `app.sagas.rules`.
"""

import random
import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

import asyncpg
import msgspec
import structlog
from redis.asyncio import Redis

from app.audit.queries import write_audit
from app.errors import TrancheError
from app.kit.postgres.database import UNREACHABLE, Connection, Database
from app.kit.postgres.transactions import COLLIDED, HELD, retried
from app.kit.retry import RetryPolicy
from app.resource_types.catalog import Catalog
from app.sagas import queries as saga_queries
from app.sagas.queries import Saga
from app.sagas.rules import Answer, Data, Done, Failed, Position, Wait, on_error, transition
from app.settings import Settings
from app.telemetry import SagaMoved, emit
from app.vocabulary.states import SagaState
from jobs.scheduling.fair_queue import Job
from jobs.scheduling.worker_pool import PollingWorkerPool

log = structlog.get_logger()

WORKERS: Final = 2
_UNKNOWN_WAIT: Final = 10.0
_HELD_WAIT: Final = 1.0
_BACKOFF_BASE: Final = 0.5
_BACKOFF_CAP: Final = 30.0

Serve = Callable[[int, int], None]
"""Has a destination of a tenant served soon."""


class StepContext(msgspec.Struct, frozen=True):
    """One transaction of a step."""

    connection: Connection
    saga: Saga
    settings: Settings
    serve: Serve
    catalog: Catalog
    redis: Redis | None = None
    after_commit: list[Callable[[], None]] = []
    """Called once it is committed; a crash may lose them."""

    @property
    def tenant_id(self) -> int:
        return self.saga.tenant_id

    @property
    def data(self) -> Data:
        return self.saga.at.data


class Step(msgspec.Struct, frozen=True):
    """A step of a workflow. Both functions run in their context's transaction, and may be called again after a crash.

    `compensate` undoes what `do` did, also if it did a part of it or nothing.
    """

    name: str
    do: Callable[[StepContext], Awaitable[Answer]]
    compensate: Callable[[StepContext], Awaitable[Answer]]


class Workflow(msgspec.Struct, frozen=True):
    name: str
    steps: Sequence[Step]


async def no_compensation(context: StepContext) -> Answer:
    """The `compensate` of a step that has nothing to undo."""
    return Done()


class Runner(PollingWorkerPool):
    """Works on whatever saga is due, tenants in rotation, until it is stopped."""

    def __init__(
        self,
        database: Database,
        workflows: Iterable[Workflow],
        settings: Settings,
        serve: Serve,
        *,
        redis: Redis | None = None,
        random: Callable[[], float] = random.random,
    ) -> None:
        interval = settings.saga_interval
        super().__init__("saga", WORKERS, database, interval=interval, idle=interval)
        self._settings = settings
        self._serve = serve
        self._redis = redis
        self._catalog = Catalog()
        self._workflows = {workflow.name: workflow for workflow in workflows}
        self._random = random
        self._policy = RetryPolicy(
            attempts=settings.saga_attempts, backoff_base=_BACKOFF_BASE, backoff_cap=_BACKOFF_CAP
        )

    async def find(self) -> Iterable[Job]:
        async with self._database.connection() as connection:
            return await saga_queries.due(connection)

    async def work(self, job: Job) -> None:
        moved = await self.advance(*job)
        if moved is None:
            self.rest(job)
        elif moved.finished or moved.wait > 0:
            self.forget(job)

    async def advance(self, tenant_id: int, saga_id: uuid.UUID) -> Position | None:
        """Run one transaction of a saga; its position then. `None`: nothing was due.
        Raises `DatabaseUnavailable`, `Overloaded`: nothing happened."""
        async with self._database.connection() as connection:
            try:
                return await retried(lambda: self._run(connection, tenant_id, saga_id))
            except (*COLLIDED, *HELD) as error:
                # Somebody else holds a row for long: it comes free, so it costs no attempt.
                return await self._postpone(connection, tenant_id, saga_id, error)
            except (TrancheError, asyncpg.DiskFullError, *UNREACHABLE):
                raise
            except Exception as error:
                # An internal error: it must neither come again at once and for ever, nor be forgotten.
                log.exception("saga_failed", tenant_id=tenant_id, saga_id=str(saga_id))
                return await self._retry(connection, tenant_id, saga_id, error)

    async def _run(self, connection: Connection, tenant_id: int, saga_id: uuid.UUID) -> Position | None:
        async with connection.transaction():
            saga = await saga_queries.claim(connection, tenant_id, saga_id)
            if saga is None:
                return None
            context = StepContext(connection, saga, self._settings, self._serve, self._catalog, self._redis)
            steps = self._steps(saga)
            step = steps[saga.at.step] if saga.at.step < len(steps) else None
            answer = await self._ask(context, step)
            to = transition(saga.at, answer, steps=len(steps))
            await saga_queries.move(connection, saga, to)
            moved = await self._audit(connection, saga, step.name if step else "", answer, to)
        if moved is not None:
            emit(moved)
        for call in context.after_commit:
            call()
        return to

    def _steps(self, saga: Saga) -> Sequence[Step]:
        workflow = self._workflows.get(saga.workflow)
        return () if workflow is None else workflow.steps

    async def _ask(self, context: StepContext, step: Step | None) -> Answer:
        if step is None:
            # A newer release may have begun it: a worker of that release goes on.
            return Wait(_UNKNOWN_WAIT)
        compensating = context.saga.at.state is SagaState.COMPENSATING
        return await (step.compensate if compensating else step.do)(context)

    async def _retry(
        self, connection: Connection, tenant_id: int, saga_id: uuid.UUID, error: Exception
    ) -> Position | None:
        async with connection.transaction():
            saga = await saga_queries.claim(connection, tenant_id, saga_id)
            if saga is None:
                return None
            steps = self._steps(saga)
            message = f"{type(error).__name__}: {error}"[:1_000]
            to = on_error(saga.at, message, self._policy, self._random)
            await saga_queries.move(connection, saga, to)
            moved = None
            if to.state is not saga.at.state:
                name = steps[saga.at.step].name if saga.at.step < len(steps) else ""
                moved = await self._audit(connection, saga, name, Failed(to.error or message), to)
        if moved is not None:
            emit(moved)
        return to

    async def _postpone(
        self, connection: Connection, tenant_id: int, saga_id: uuid.UUID, error: Exception
    ) -> Position | None:
        log.info("saga_waits", tenant_id=tenant_id, saga_id=str(saga_id), error=error)
        async with connection.transaction():
            saga = await saga_queries.claim(connection, tenant_id, saga_id)
            if saga is None:
                return None
            to = msgspec.structs.replace(saga.at, wait=_HELD_WAIT * (0.5 + self._random()))
            await saga_queries.move(connection, saga, to)
        return to

    async def _audit(
        self, connection: Connection, saga: Saga, step: str, answer: Answer, to: Position
    ) -> SagaMoved | None:
        """Write every step that succeeded or failed to the audit log; the event, once that is committed."""
        if isinstance(answer, Done):
            detail: dict[str, object] = dict(answer.audit_detail)
        elif isinstance(answer, Failed):
            detail = {"reason": answer.reason}
        else:
            return None
        undoing = saga.at.state is SagaState.COMPENSATING
        word = ".failed" if isinstance(answer, Failed) else ""
        if to.finished:
            detail["saga"] = to.state.value
        action = f"{saga.workflow}.{step}{'.compensate' if undoing else ''}{word}"
        await write_audit(connection, saga.tenant_id, saga.actor, action, f"job:{saga.subject}", detail)
        return SagaMoved(
            tenant_id=saga.tenant_id,
            saga_id=str(saga.saga_id),
            workflow=saga.workflow,
            subject=str(saga.subject),
            step=step,
            state=to.state.value,
            reason=answer.reason if isinstance(answer, Failed) else None,
        )
