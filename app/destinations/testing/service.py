"""Tests of destinations as people ask for them: a row, a worker that makes it, and what it saw.

Handlers never call a CRM, so whoever asks waits for a worker. A test that no worker has taken in time is withdrawn:
nobody is surprised by a record that is written later.
"""

import asyncio
import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Final, Literal

import msgspec

from app.audit.queries import write_audit
from app.destinations.testing import queries as rows
from app.destinations.testing.rules import Step, Verdict, judge
from app.errors import Conflict, NotFound, NoWorker
from app.kit.postgres.database import Connection, Database
from app.tracing import context
from app.tracing.context import TraceContext

TAKING: Final = 2.0
"""Seconds that a worker has to take a test beyond the interval in which it looks for work."""
MOST_OPEN: Final = 5
"""Tests of one tenant that are under way at a time."""
CANARY: Final = "tranche-canary-"
"""How the key of a record begins that a test writes: no customer's does."""
_LOOK: Final = 0.1

_steps: Final = msgspec.json.Decoder(list[Step])


class DestinationTestRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to test a destination."""

    canary: bool = False
    """Write one record, read it back and take it away, instead of harmless calls alone."""


class DestinationTest(msgspec.Struct, frozen=True, kw_only=True):
    """A test, and what it saw once it is done."""

    test_id: uuid.UUID
    destination: str
    canary: bool
    state: Literal["queued", "running", "done"]
    verdict: Verdict | None
    """null until it is done."""
    steps: list[Step]
    created_at: datetime
    finished_at: datetime | None


async def ask(
    connection: Connection,
    tenant_id: int,
    name: str,
    asked: DestinationTestRequest,
    *,
    request_id: str,
    trace: TraceContext | None = None,
    actor: str,
    new_id: Callable[[], uuid.UUID],
) -> uuid.UUID:
    """Have a worker test a destination, whatever its circuits are.

    Raises:
        NotFound: there is no such destination.
        Conflict: it is paused and a record shall be written, or too many tests are under way.
    """
    async with connection.transaction():
        found = await rows.find_destination(connection, tenant_id, name)
        if found is None:
            raise NotFound(f"There is no destination {name!r}.")
        destination_id, state = found
        if asked.canary and state == "paused":
            raise Conflict("It is paused, so nothing is written there: resume it, or test without the canary.")
        await rows.forget(connection, tenant_id)
        test_id = new_id()
        inserted = await rows.insert(
            connection,
            tenant_id,
            test_id,
            destination_id,
            canary=asked.canary,
            request_id=request_id,
            trace_context=context.keep(trace),
            most=MOST_OPEN,
        )
        if not inserted:
            raise Conflict(f"{MOST_OPEN} tests are running already; wait until one of them is done.")
        detail = {"canary": asked.canary, "test_id": str(test_id)}
        await write_audit(connection, tenant_id, actor, "destination.test", f"destination:{name}", detail)
    return test_id


async def read(connection: Connection, tenant_id: int, name: str, test_id: uuid.UUID) -> DestinationTest:
    """Raises `NotFound`: there is no such test of this destination, or it is older than a day."""
    row = await rows.read(connection, tenant_id, test_id, name)
    if row is None:
        raise NotFound("There is no such test of this destination; tests are kept for a day.")
    steps = _steps.decode(row["steps"])
    verdict = judge(steps) if row["state"] == "done" else None
    return DestinationTest(**(row | {"steps": steps, "verdict": verdict}))


async def wait(
    database: Database, tenant_id: int, name: str, test_id: uuid.UUID, *, seconds: float, untaken: float | None = None
) -> DestinationTest:
    """The test once it is done, or as it is after `seconds` if a worker makes it by then.

    Raises:
        NoWorker: no worker has taken it after `untaken` seconds (`None`: after `seconds`); it is withdrawn.
        NotFound: the destination was removed meanwhile.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    while True:
        async with database.connection() as connection:
            found = await read(connection, tenant_id, name, test_id)
            waited = loop.time() - began
            if found.state == "done" or (waited >= seconds and found.state == "running"):
                return found
            late = waited >= min(seconds, seconds if untaken is None else untaken)
            if late and found.state == "queued" and await rows.withdraw(connection, tenant_id, test_id):
                raise NoWorker()
        await asyncio.sleep(_LOOK)
