"""`POST /v1/contacts:bulk`: the body is read here, byte for byte; the use case decides."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec
from litestar import Request, post
from litestar.response.base import ASGIResponse
from uuid_utils.compat import uuid7

from app import accept, spool, status
from app.accept import Accepted207, Import, Options, Replay
from app.admin import Principal
from app.db import imports
from app.db.packing import pack
from app.domain import answers
from app.domain.envelope import TooManyItems
from app.domain.files.columns import MappingError, parse_mapping
from app.domain.files.pieces import WORDING, Family, Form
from app.domain.outcomes import Consistency
from app.errors import Invalid, Unauthorized
from app.http import headers
from app.http.bodies import Limits, open_body
from app.http.exchange import Exchange, exchange_of
from app.http.headers import Fields, Preferences
from app.http.intake import Place
from app.http.services import Services, authorize, respond, services_of
from app.settings import Settings
from app.spool import Upload

ROUTE: Final = "POST /v1/contacts:bulk"
"""The scope of an idempotency key, beside the tenant."""

_SCOPES: Final = frozenset({"import"})
_QUERY: Final = frozenset({"atomic", "consistency", "dry_run", "on_duplicate"})
_REPEATED: Final = frozenset({"map", "ignore"})
_SETTLING: Final = 5.0
"""Seconds beyond `wait` for which others get 409, so that the answer can still be put in place."""
_STEP: Final = 65_536
"""Bytes of room that a body of unknown length takes at a time."""
_TICKS: Final = 4
"""In a lease: how often a body that does not come is still known to be awaited."""


class _Named(msgspec.Struct):
    job_id: str


@post("/v1/contacts:bulk", status_code=207)
async def import_contacts(request: Request[Any, Any, Any]) -> ASGIResponse:
    services = services_of(request)
    asked = await _read_request(request, services)
    with services.intake.place(asked.upload.tenant_id, asked.upload.key_id) as place:
        return await _import(request, services, asked, place)


async def _import(
    request: Request[Any, Any, Any], services: Services, asked: _Asked, place: Place
) -> ASGIResponse:
    settings = services.settings
    limits = _limit(settings, asked.options)
    ahead = not asked.preferences.respond_async
    # A body that says how long it is has all its room before its first byte: it can then be taken to its end.
    place.hold(min(_foresee(asked.fields), settings.max_sync_bytes if ahead else _spooling(settings)))
    body_of_request = open_body(request.receive, asked.fields, limits, place.hold_window)
    async with contextlib.aclosing(body_of_request) as body:
        held: list[bytes] = []
        if ahead and await _read_ahead(body, held, settings.max_sync_bytes, place):
            batch = Import(**msgspec.structs.asdict(asked.upload), body=b"".join(held))
            # Too many items are no fault: they are stored, and processed afterwards.
            with contextlib.suppress(TooManyItems):
                return await _answer_now(services, asked, batch)
        return await _answer_later(services, asked, _chain(held, body, place, _spooling(settings)))


class _Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A request but for its body."""

    upload: Upload
    fields: Fields
    preferences: Preferences
    exchange: Exchange
    echo: dict[str, str]
    """What every answer carries."""

    @property
    def options(self) -> Options:
        return self.upload.options


async def _read_request(request: Request[Any, Any, Any], services: Services) -> _Asked:
    fields = Fields(request.scope["headers"])
    exchange = exchange_of(request.scope)
    principal = await authorize(request, fields, services, _SCOPES)
    headers.choose_type(fields)
    key, exchange.idempotency_key = headers.read_key(fields)
    form = _read_form(request.scope, fields)
    query = headers.read_query(request.scope, _QUERY, repeated=_REPEATED)
    preferences = headers.read_preferences(fields, max_wait=services.settings.max_wait)
    on_duplicate = headers.read_choice(query, "on_duplicate", ("fail", "last_wins"), "fail")
    consistency = headers.read_choice(query, "consistency", tuple(Consistency), Consistency.NONE)
    options = Options(
        atomic=headers.read_flag(query, "atomic"),
        dry_run=headers.read_flag(query, "dry_run"),
        last_wins=on_duplicate == "last_wins",
        consistency=Consistency(consistency),
        minimal=preferences.minimal,
        wait=preferences.wait + _SETTLING if preferences.wait else 0.0,
    )
    upload = Upload(
        tenant_id=principal.tenant_id,
        key_id=principal.key_id,
        request_id=exchange.request_id,
        route=ROUTE,
        key=key,
        options=options,
        form=form,
    )
    return _Asked(
        upload=upload,
        fields=fields,
        preferences=preferences,
        exchange=exchange,
        echo={"Idempotency-Key": exchange.idempotency_key},
    )


def _limit(settings: Settings, options: Options) -> Limits:
    size, remedy = settings.max_file_bytes, ""
    if options.atomic:
        size = settings.max_atomic_bytes
        remedy = (
            "With atomic=true one transaction holds the locks of all items, hence this limit: send the body without "
            f"atomic=true (then it is {settings.max_file_bytes}), or in several requests."
        )
    return Limits(
        size=max(size, settings.max_sync_bytes),
        remedy=remedy or "Send the items in several requests, each with its own Idempotency-Key.",
        seconds=settings.body_timeout,
        inflation=settings.max_inflation,
        tick=settings.receive_lease / _TICKS,
    )


def _foresee(fields: Fields) -> int:
    """Bytes that a body will take, as far as its header says."""
    declared = fields.one("content-length") or ""
    return max(int(declared[:18]) if declared.isdecimal() else 0, _STEP)


def _spooling(settings: Settings) -> int:
    """Bytes in memory of a body that is stored while it arrives: the chunk that grows, and the one being packed."""
    return 2 * settings.import_chunk_bytes


async def _read_ahead(body: AsyncIterator[bytes], held: list[bytes], most: int, place: Place) -> bool:
    """Whether the body ends within `most` bytes; what was read of it goes to `held`."""
    size = 0
    async for piece in body:
        held.append(piece)
        size += len(piece)
        if size > place.size:
            place.hold(size + _STEP)
        if size > most:
            return False
    return True


async def _chain(
    held: list[bytes], body: AsyncIterator[bytes], place: Place, least: int
) -> AsyncIterator[bytes]:
    """What was read, and what is still to come; once that has begun, `least` bytes are in memory."""
    held.reverse()
    while held:
        yield held.pop()
        await asyncio.sleep(0)
    place.hold(least)
    async for piece in body:
        yield piece


async def _answer_now(services: Services, asked: _Asked, batch: Import) -> ASGIResponse:
    wait = asked.preferences.wait
    # The turn comes before the work: what waits is bytes, and not the many times larger objects that are in them.
    async with services.database.turn():
        decided = await accept.accept(
            services.database, batch, services.settings, new_id=uuid7, random=random.SystemRandom().random
        )
    if isinstance(decided, Replay):
        return _replay(decided, asked.echo)
    asked.exchange.items = decided.summary.total
    services.waker.wake(batch.tenant_id, decided.owed, reason=str(decided.job_id))
    if wait:
        settled = await _hold(services, batch, decided, asked.exchange.started + wait)
        if isinstance(settled, Replay):
            return _replay(settled, asked.echo)
        return _answer(decided, settled, asked.echo, asked.preferences)
    return _answer(decided, decided.body, asked.echo, asked.preferences)


async def _answer_later(services: Services, asked: _Asked, body: AsyncIterator[bytes]) -> ASGIResponse:
    """Store the body. `Prefer: wait` is not heeded here: nothing will be settled so soon."""
    loop = asyncio.get_running_loop()
    upload = asked.upload
    accepted = await spool.receive(
        services.database, upload, body, services.settings, new_id=uuid7, clock=loop.time
    )
    if isinstance(accepted, Replay):
        return _replay(accepted, asked.echo)
    asked.exchange.items = accepted.items
    services.waker.wake_imports(upload.tenant_id, accepted.job_id)
    fields = asked.echo | {
        "Location": f"/v1/jobs/{accepted.job_id}",
        "Retry-After": str(accepted.retry_after),
    }
    return respond(accepted.body, 202, headers=fields | asked.preferences.applied(waited=False, parted=True))


def _read_form(scope: Any, fields: Fields) -> Form:
    family, charset = headers.read_type(fields)
    pairs, ignored = headers.read_repeated(scope, "map"), headers.read_repeated(scope, "ignore")
    if (pairs or ignored) and family is not Family.CSV:
        raise Invalid(
            "map= and ignore= are for the columns of a CSV; name the fields of JSON items as they are."
        )
    try:
        return Form(family=family, charset=charset, mapping=parse_mapping(pairs, WORDING, ignored))
    except MappingError as error:
        raise Invalid(error.detail) from error


async def _hold(services: Services, batch: Import, decided: Accepted207, until: float) -> bytes | Replay:
    """Wait for the effects, and put the answer that tells of them in the place of the one committed.

    Nothing is lost if this never ends: the answer that was committed with the import stands then.
    """
    body = decided.body
    if decided.owed:
        remaining = until - asyncio.get_running_loop().time()
        principal = Principal(batch.tenant_id, batch.key_id, _SCOPES)
        with services.intake.wait(principal) as granted, contextlib.suppress(Unauthorized):
            # What was decided is told, also to who may not wait, or no longer.
            async with services.principals.heed(principal):
                await services.watcher.wait(
                    batch.tenant_id, decided.job_id, seconds=remaining if granted else 0.0
                )
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
                effects,
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
    if replay.status == 202:
        fields["Retry-After"] = "1"
    return respond(replay.body, replay.status, headers=fields)
