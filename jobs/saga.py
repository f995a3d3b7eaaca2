"""Runs sagas: a step and the move to the next are one transaction, which holds the saga's row.

A worker that dies in a step leaves the saga where it was, and any other goes on with it; two never work on one. What a
workflow does stands in `jobs.workflows`; the rules of what follows on what in `app.domain.saga`.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, Protocol

import asyncpg
import msgspec
import structlog

from app.db import audit, sagas
from app.db.pool import UNREACHABLE, Connection, Database
from app.db.sagas import Saga
from app.domain.outcomes import SagaState
from app.domain.retry import RetryPolicy
from app.domain.saga import Answer, Data, Done, Failed, Position, Wait, follow, stumble
from app.errors import TrancheError
from app.settings import Settings
from jobs.lanes import LaneWorker
from jobs.turns import Job

log = structlog.get_logger()

LANES: Final = 2
_UNKNOWN_WAIT: Final = 10.0
_TRIES: Final = 3
_HELD_WAIT: Final = 1.0
_BACKOFF_BASE: Final = 0.5
_BACKOFF_CAP: Final = 30.0
_LOST: Final = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)
_HELD: Final = (*_LOST, asyncpg.LockNotAvailableError, asyncpg.QueryCanceledError)
"""Somebody else holds a row for long: it comes free, so it costs no attempt."""


class Turn:
    """One transaction of a step: what it works with, and what is to be done once it is committed."""

    def __init__(self, connection: Connection, saga: Saga) -> None:
        self.connection = connection
        self.saga = saga
        self._after: list[Callable[[], None]] = []

    @property
    def tenant_id(self) -> int:
        return self.saga.tenant_id

    @property
    def data(self) -> Data:
        return self.saga.at.data

    def then(self, call: Callable[[], None]) -> None:
        """Call this after the commit; it must bear being forgotten by a crash."""
        self._after.append(call)

    def committed(self) -> None:
        for call in self._after:
            call()


class Step(msgspec.Struct, frozen=True):
    """A step of a workflow. Both halves work in the transaction of their turn, and may be called again after a crash.

    `compensate` takes back what `do` did, or did a part of, or nothing of.
    """

    name: str
    do: Callable[[Turn], Awaitable[Answer]]
    compensate: Callable[[Turn], Awaitable[Answer]]


class Workflow(Protocol):
    """What a saga does."""

    @property
    def name(self) -> str: ...

    @property
    def steps(self) -> Sequence[Step]: ...


async def leave(turn: Turn) -> Answer:
    """The `compensate` of a step that has nothing to take back."""
    return Done()


class Runner(LaneWorker):
    """Works on whatever saga is due, tenants in turn, until it is stopped."""

    def __init__(
        self,
        database: Database,
        workflows: Iterable[Workflow],
        settings: Settings,
        *,
        monotonic: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        super().__init__(
            "saga",
            LANES,
            storage=database.storage,
            look=settings.saga_interval,
            idle=settings.saga_interval,
            monotonic=monotonic,
        )
        self._database = database
        self._workflows = {workflow.name: workflow for workflow in workflows}
        self._random = random
        self._policy = RetryPolicy(
            attempts=settings.saga_attempts, backoff_base=_BACKOFF_BASE, backoff_cap=_BACKOFF_CAP
        )

    async def find(self) -> Iterable[Job]:
        async with self._database.connection() as connection:
            return await sagas.due(connection)

    async def work(self, job: Job) -> None:
        moved = await self.advance(*job)
        if moved is None:
            self.rest(job)
        elif moved.finished or moved.wait > 0:
            self.forget(job)

    async def advance(self, tenant_id: int, saga_id: uuid.UUID) -> Position | None:
        """Do one turn of a saga; where it stands now. `None`: there was nothing to be had.

        Raises:
            DatabaseUnavailable, Overloaded: nothing happened.
        """
        async with self._database.connection() as connection:
            for attempt in range(1, _TRIES + 1):
                try:
                    return await self._turn(connection, tenant_id, saga_id)
                except _LOST as error:
                    if attempt == _TRIES:
                        return await self._put_off(connection, tenant_id, saga_id, error)
                except _HELD as error:
                    return await self._put_off(connection, tenant_id, saga_id, error)
                except (TrancheError, asyncpg.DiskFullError, *UNREACHABLE):
                    raise
                except Exception as error:
                    # A fault of ours: it must neither come again at once and for ever, nor be forgotten.
                    log.exception("saga_stumbled", tenant_id=tenant_id, saga_id=str(saga_id))
                    return await self._stumble(connection, tenant_id, saga_id, error)
        return None

    async def _turn(self, connection: Connection, tenant_id: int, saga_id: uuid.UUID) -> Position | None:
        async with connection.transaction():
            saga = await sagas.claim(connection, tenant_id, saga_id)
            if saga is None:
                return None
            turn = Turn(connection, saga)
            steps = self._steps(saga)
            step = steps[saga.at.step] if saga.at.step < len(steps) else None
            answer = await self._ask(turn, step)
            to = follow(saga.at, answer, steps=len(steps))
            await sagas.move(connection, saga, to)
            await self._tell(connection, saga, step.name if step else "", answer, to)
        turn.committed()
        return to

    def _steps(self, saga: Saga) -> Sequence[Step]:
        workflow = self._workflows.get(saga.workflow)
        return () if workflow is None else workflow.steps

    async def _ask(self, turn: Turn, step: Step | None) -> Answer:
        if step is None:
            # A newer release may have begun it: a worker of that release goes on.
            return Wait(_UNKNOWN_WAIT)
        compensating = turn.saga.at.state is SagaState.COMPENSATING
        return await (step.compensate if compensating else step.do)(turn)

    async def _stumble(
        self, connection: Connection, tenant_id: int, saga_id: uuid.UUID, error: Exception
    ) -> Position | None:
        async with connection.transaction():
            saga = await sagas.claim(connection, tenant_id, saga_id)
            if saga is None:
                return None
            steps = self._steps(saga)
            told = f"{type(error).__name__}: {error}"[:1_000]
            to = stumble(saga.at, told, self._policy, self._random)
            await sagas.move(connection, saga, to)
            if to.state is not saga.at.state:
                name = steps[saga.at.step].name if saga.at.step < len(steps) else ""
                await self._tell(connection, saga, name, Failed(to.error or told), to)
        return to

    async def _put_off(
        self, connection: Connection, tenant_id: int, saga_id: uuid.UUID, error: Exception
    ) -> Position | None:
        log.info("saga_waits", tenant_id=tenant_id, saga_id=str(saga_id), error=error)
        async with connection.transaction():
            saga = await sagas.claim(connection, tenant_id, saga_id)
            if saga is None:
                return None
            to = msgspec.structs.replace(saga.at, wait=_HELD_WAIT * (0.5 + self._random()))
            await sagas.move(connection, saga, to)
        return to

    async def _tell(
        self, connection: Connection, saga: Saga, step: str, answer: Answer, to: Position
    ) -> None:
        """The audit log: every step that came to its end, one way or the other."""
        if isinstance(answer, Done):
            detail: dict[str, object] = dict(answer.told)
        elif isinstance(answer, Failed):
            detail = {"reason": answer.reason}
        else:
            return
        undoing = saga.at.state is SagaState.COMPENSATING
        word = ".failed" if isinstance(answer, Failed) else ""
        if to.finished:
            detail["saga"] = to.state.value
        await audit.write(
            connection,
            saga.tenant_id,
            actor=saga.actor,
            action=f"{saga.workflow}.{step}{'.compensate' if undoing else ''}{word}",
            subject=f"job:{saga.subject}",
            detail=detail,
        )
        log.info(
            "saga_moved",
            tenant_id=saga.tenant_id,
            saga_id=str(saga.saga_id),
            workflow=saga.workflow,
            subject=str(saga.subject),
            step=step,
            state=to.state.value,
            **({"reason": answer.reason} if isinstance(answer, Failed) else {}),
        )
