"""`/v1/destinations/{name}/test`: whether a destination works, as a worker sees it."""

from __future__ import annotations

import uuid
from typing import Any, Final

import msgspec
from litestar import Request, get, post
from litestar.response.base import ASGIResponse
from uuid_utils.compat import uuid7

from app import admin, destination_tests
from app.destination_tests import DestinationTestRequest
from app.errors import NotFound
from app.http import headers
from app.http.exchange import exchange_of, read_tail
from app.http.headers import Fields, Preferences
from app.http.json_bodies import read_json
from app.http.services import Services, authorize, respond, services_of

WAIT: Final = 25.0
"""Seconds that an answer waits for a test, unless `Prefer: wait` says otherwise."""
_PATH: Final = "/v1/destinations/"

_encode: Final = msgspec.json.Encoder().encode


@post("/v1/destinations/{name:str}/test", status_code=200)
async def test_destination(request: Request[Any, Any, Any]) -> ASGIResponse:
    """200 with what was seen, or 202 while a worker is still at it."""
    services, principal, fields = await _begin(request)
    name = read_tail(request.scope, _PATH, "/test")
    preferences = headers.read_preferences(fields, max_wait=services.settings.max_wait)
    asked = await read_json(
        request,
        services,
        DestinationTestRequest,
        what="The test",
        remedy="A test is a small thing.",
        absent=DestinationTestRequest(),
    )
    async with services.database.connection() as connection:
        test_id = await destination_tests.ask(
            connection,
            principal.tenant_id,
            name,
            asked,
            request_id=exchange_of(request.scope).request_id,
            actor=principal.key_id,
            new_id=uuid7,
        )
    services.waker.wake_imports(principal.tenant_id, test_id)
    seconds = min(WAIT, services.settings.max_wait) if preferences.wait is None else preferences.wait
    found = await destination_tests.wait(
        services.database,
        principal.tenant_id,
        name,
        test_id,
        seconds=seconds,
        untaken=services.settings.sweep_interval + destination_tests.TAKING,
    )
    applied = Preferences(wait=preferences.wait).applied(waited=True)
    if found.state == "done":
        return respond(_encode(found), headers=applied)
    where = f"{_PATH}{name}/tests/{test_id}"
    return respond(_encode(found), 202, headers=applied | {"Location": where, "Retry-After": "1"})


@get("/v1/destinations/{name:str}/tests/{test_id:str}")
async def read_destination_test(request: Request[Any, Any, Any]) -> ASGIResponse:
    services, principal, _ = await _begin(request)
    name, _, test_id = read_tail(request.scope, _PATH).partition("/tests/")
    try:
        wanted = uuid.UUID(test_id)
    except ValueError:
        raise NotFound("There is no such test.") from None
    async with services.database.connection() as connection:
        found = await destination_tests.read(connection, principal.tenant_id, name, wanted)
    return respond(_encode(found), headers={} if found.state == "done" else {"Retry-After": "1"})


async def _begin(request: Request[Any, Any, Any]) -> tuple[Services, admin.Principal, Fields]:
    services = services_of(request)
    fields = Fields(request.scope["headers"])
    principal = await authorize(request, fields, services, frozenset({"admin"}))
    headers.choose_type(fields)
    headers.read_query(request.scope, ())
    return services, principal, fields
