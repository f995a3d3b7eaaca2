"""`POST /v1/contacts:bulk`: the body is read here, byte for byte; the use case decides."""

from __future__ import annotations

import asyncio
import random
from typing import Any, Final

import msgspec
from litestar import Request, post
from litestar.response.base import ASGIResponse
from uuid_utils.compat import uuid7

from app import accept, status
from app.accept import Accepted207, Import, Options, Replay
from app.db import imports
from app.db.packing import pack
from app.domain import answers
from app.domain.files.columns import MappingError, parse_mapping
from app.domain.files.pieces import WORDING, Family, Form
from app.errors import Invalid, Overloaded
from app.http import headers
from app.http.bodies import read_body
from app.http.exchange import exchange_of
from app.http.headers import Fields, Preferences
from app.http.services import Services, authorize, respond, services_of

ROUTE: Final = "POST /v1/contacts:bulk"
"""The scope of an idempotency key, beside the tenant."""

_SCOPES: Final = frozenset({"import"})
_QUERY: Final = frozenset({"atomic", "dry_run", "on_duplicate"})
_REPEATED: Final = frozenset({"map"})
_SETTLING: Final = 5.0
"""Seconds beyond `wait` for which others get 409, so that the answer can still be put in place."""


class _Named(msgspec.Struct):
    job_id: str


@post("/v1/contacts:bulk", status_code=207)
async def import_contacts(request: Request[Any, Any, Any]) -> ASGIResponse:
    services = services_of(request)
    if services.importing >= services.settings.max_requests:
        raise Overloaded(retry_after=1.0)
    services.importing += 1
    try:
        return await _import(request, services)
    finally:
        services.importing -= 1


async def _import(request: Request[Any, Any, Any], services: Services) -> ASGIResponse:
    fields = Fields(request.scope["headers"])
    exchange = exchange_of(request.scope)
    settings = services.settings
    principal = await authorize(request, fields, services, _SCOPES)
    headers.choose_type(fields)
    key, exchange.idempotency_key = headers.read_key(fields)
    form = _read_form(request.scope, fields)
    query = headers.read_query(request.scope, _QUERY, repeated=_REPEATED)
    preferences = headers.read_preferences(fields, max_wait=settings.max_wait)
    on_duplicate = headers.read_choice(query, "on_duplicate", ("fail", "last_wins"), "fail")
    wait = preferences.wait or 0.0
    options = Options(
        atomic=headers.read_flag(query, "atomic"),
        dry_run=headers.read_flag(query, "dry_run"),
        last_wins=on_duplicate == "last_wins",
        minimal=preferences.minimal,
        wait=wait + _SETTLING if wait else 0.0,
    )
    body = await read_body(
        request.receive,
        fields,
        limit=settings.max_sync_bytes,
        seconds=settings.body_timeout,
        remedy="Send the items in several requests, each with its own Idempotency-Key.",
    )
    batch = Import(
        tenant_id=principal.tenant_id,
        key_id=principal.key_id,
        request_id=exchange.request_id,
        route=ROUTE,
        key=key,
        body=body,
        options=options,
        form=form,
    )
    decided = await accept.accept(
        services.database, batch, settings, new_id=uuid7, random=random.SystemRandom().random
    )
    echo = {"Idempotency-Key": exchange.idempotency_key}
    if isinstance(decided, Replay):
        return _replay(decided, echo)
    exchange.items = decided.summary.total
    services.waker.wake(principal.tenant_id, decided.owed, reason=str(decided.job_id))
    if wait:
        until = exchange.started + wait
        settled = await _hold(services, batch, decided, until)
        if isinstance(settled, Replay):
            return _replay(settled, echo)
        return _answer(decided, settled, echo, preferences)
    return _answer(decided, decided.body, echo, preferences)


def _read_form(scope: Any, fields: Fields) -> Form:
    family, charset = headers.read_type(fields)
    pairs = headers.read_repeated(scope, "map")
    if pairs and family is not Family.CSV:
        raise Invalid("map= renames the columns of a CSV; name the fields of JSON items as they are.")
    try:
        return Form(family=family, charset=charset, mapping=parse_mapping(pairs, WORDING))
    except MappingError as error:
        raise Invalid(error.detail) from error


async def _hold(services: Services, batch: Import, decided: Accepted207, until: float) -> bytes | Replay:
    """Wait for the effects, and put the answer that tells of them in the place of the one committed.

    Nothing is lost if this never ends: the answer that was committed with the import stands then.
    """
    body = decided.body
    if decided.owed:
        remaining = until - asyncio.get_running_loop().time()
        await services.watcher.wait(batch.tenant_id, decided.job_id, seconds=remaining)
    async with services.database.connection() as connection:
        if decided.owed:
            counts = await status.read_effects(connection, batch.tenant_id, decided.job_id)
            effects = {
                name: answers.overall(counts[name]) if name in counts else word
                for name, word in decided.effects.items()
            }
            body = answers.compose(
                decided.job_id,
                decided.summary,
                dict(effects),
                decided.shown,
                dry_run=batch.options.dry_run,
            )
        if await imports.settle_answer(connection, batch.tenant_id, ROUTE, batch.key, pack(body)):
            return body
    return Replay(207, decided.body)


def _answer(
    decided: Accepted207, body: bytes, echo: dict[str, str], preferences: Preferences
) -> ASGIResponse:
    fields = echo | {"Location": f"/v1/jobs/{decided.job_id}"} | preferences.applied(waited=True)
    return respond(body, 207, headers=fields)


def _replay(replay: Replay, echo: dict[str, str]) -> ASGIResponse:
    job_id = msgspec.json.decode(replay.body, type=_Named).job_id
    fields = echo | {"Idempotency-Replayed": "true", "Location": f"/v1/jobs/{job_id}"}
    return respond(replay.body, replay.status, headers=fields)
