"""`/v1/destinations/{name}/test`: whether a destination works, as a worker sees it."""

import uuid
from typing import Annotated, Final

from uuid_utils.compat import uuid7

from app.auth.authorization import ADMIN
from app.destinations.api import PATH, Name
from app.destinations.testing import service
from app.destinations.testing.service import DestinationTest, DestinationTestRequest
from app.errors import NotFound
from app.http.headers import Preferences
from app.http.operation import Answer, Header, Path, Reply, operation
from app.http.parameters import read_preferences
from app.http.principal import Principal
from app.http.request_context import Exchange
from app.kit.notifier import Notifier
from app.kit.postgres.database import Connection, Database
from app.settings import Settings

WAIT: Final = 25.0
"""Seconds that an answer waits for a test, unless `Prefer: wait` says otherwise."""
_TAG: Final = "destinations"

Prefer = Annotated[
    Preferences,
    Header(name="Prefer", description="`wait=N` delays the answer for N seconds at most.", read=read_preferences),
]


def _parse_test_id(text: str) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError:
        raise NotFound("There is no such test.") from None


TestId = Annotated[
    uuid.UUID,
    Path(
        description="The test.",
        schema={"type": "string", "format": "uuid"},
        example="0199c3a2-51d7-7000-8000-6b1f0d3e2a11",
        parse=_parse_test_id,
    ),
]


@operation(
    "POST",
    PATH + "/{name}/test",
    tag=_TAG,
    access=ADMIN,
    answers=(
        Answer("The result.", headers=("PreferenceApplied",)),
        Answer(
            "The test is still running; `Location` is where to poll.",
            202,
            headers=("Location", "RetryAfter", "PreferenceApplied"),
        ),
    ),
    errors=(409,),
)
async def test_destination(
    name: Name,
    preferences: Prefer,
    body: DestinationTestRequest | None,
    principal: Principal,
    exchange: Exchange,
    settings: Settings,
    database: Database,
    notifier: Notifier,
) -> Reply[DestinationTest]:
    """Test a destination.

    A worker makes one or a few harmless authenticated calls, checks how the account is set up, and reports what it
    saw, step by step. With `canary` it also writes one record with its own key (`tranche-canary-…`), reads it back
    and removes it. Circuits and waits do not delay a test; a paused destination gets no canary. `verdict` is `works`,
    `fails`, or `unclear` if nothing failed and nothing was shown to work.
    """
    async with database.connection() as connection:
        test_id = await service.ask(
            connection,
            principal.tenant_id,
            name,
            body or DestinationTestRequest(),
            request_id=exchange.request_id,
            trace=exchange.trace,
            actor=principal.key_id,
            new_id=uuid7,
        )
    notifier.notify_imports(principal.tenant_id, test_id)
    seconds = min(WAIT, settings.max_wait) if preferences.wait is None else preferences.wait
    found = await service.wait(
        database, principal.tenant_id, name, test_id, seconds=seconds, untaken=settings.sweep_interval + service.TAKING
    )
    applied = Preferences(wait=preferences.wait).applied(waited=True)
    if found.state == "done":
        return Reply(found, headers=applied)
    where = f"{PATH}/{name}/tests/{test_id}"
    return Reply(found, 202, applied | {"Location": where, "Retry-After": "1"})


@operation(
    "GET",
    PATH + "/{name}/tests/{test_id}",
    tag=_TAG,
    access=ADMIN,
    answers=Answer("The test.", headers=("MaybeRetryAfter",)),
)
async def read_destination_test(
    name: Name, test_id: TestId, principal: Principal, connection: Connection
) -> Reply[DestinationTest]:
    """A test of a destination.

    Kept for a day.
    """
    found = await service.read(connection, principal.tenant_id, name, test_id)
    return Reply(found, headers={} if found.state == "done" else {"Retry-After": "1"})
