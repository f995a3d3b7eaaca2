"""`GET /v1/idempotency-keys/{key}`: what became of a request whose answer was lost."""

from typing import Annotated, Final

import msgspec

from app.auth.authorization import FOLLOWING
from app.errors import NotFound
from app.http import headers
from app.http.errors import KeyInvalid
from app.http.operation import Answer, Path, operation
from app.http.principal import Principal
from app.imports.idempotency import service
from app.imports.reception import route_of
from app.job_status.ownership import JobOwners
from app.kit.postgres.database import Database


def _parse_key(text: str) -> str:
    try:
        return headers.parse_key(text)
    except KeyInvalid as error:
        raise NotFound("No request can have this Idempotency-Key.") from error


_KEY: Final = Path(
    description="The key, percent-encoded.",
    schema={"type": "string", "minLength": 1},
    example="batch-2026-01-15",
    parse=_parse_key,
    rest=True,
)


class KeyQuery(msgspec.Struct, frozen=True):
    type: str = "contacts"
    """Of the records that were sent: the same key may be used once for each type."""


@operation(
    "GET",
    "/v1/idempotency-keys/{key}",
    tag="jobs",
    access=FOLLOWING,
    answers=Answer("The state of the key.", cache="no-store"),
)
async def read_idempotency_key(
    key: Annotated[str, _KEY], query: KeyQuery, principal: Principal, database: Database, owners: JobOwners
) -> service.KeyState:
    """The state of an idempotency key.

    For clients that lost an answer.
    """
    async with database.connection() as connection:
        found = await service.read_key(connection, principal.tenant_id, route_of(query.type), key)
    if found.job_id is not None:
        await owners.check_read(principal, found.job_id)
    return found
