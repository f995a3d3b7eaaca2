"""`GET /v1/jobs/{id}/events`: a job's progress as server-sent events (WHATWG HTML, section 9.2)."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, ExitStack, suppress
from typing import Any, Final

import msgspec
from litestar import Request, get, post
from litestar.response.base import ASGIResponse

from app import stream_tokens
from app.admin import Principal
from app.db.turns import ACTING, STRANGERS
from app.errors import TrancheError, Unauthorized
from app.http import headers
from app.http.exchange import exchange_of
from app.http.headers import Fields
from app.http.jobs import parse_job_id
from app.http.services import READING, Services, authorize, respond, services_of
from app.http.views import View

KEEP_ALIVE: Final = 10.0
"""Longest silence in seconds: proxies close what is silent for long."""
PACE: Final = 0.25
"""Shortest time between two events."""
_FIELDS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_PRELUDE: Final = b"retry: 1000\n\n"
_COMMENT: Final = b": keep-alive\n\n"


class EventStream(ASGIResponse):
    """Sends what there is as soon as it is there, until it ends or the client goes."""

    _should_set_content_length = False

    def __init__(
        self, parts: AsyncIterator[bytes], heed: AbstractAsyncContextManager[None], place: ExitStack
    ) -> None:
        """`heed` ends it by `Unauthorized`; `place` is left at its end."""
        super().__init__(headers=_FIELDS, media_type=headers.EVENTS)
        self._parts = parts
        self._heed = heed
        self._place = place

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        with self._place:
            await super().__call__(scope, receive, send)

    async def send_body(self, send: Any, receive: Any) -> None:
        telling = asyncio.create_task(self._tell(send))
        listening = asyncio.create_task(_hear_end(receive))
        try:
            await asyncio.wait((telling, listening), return_when=asyncio.FIRST_COMPLETED)
        finally:
            over = telling.done()
            telling.cancel()
            listening.cancel()
            await asyncio.gather(telling, listening, return_exceptions=True)
        if over:
            telling.result()

    async def _tell(self, send: Any) -> None:
        with suppress(Unauthorized):
            async with self._heed:
                async for part in self._parts:
                    await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _hear_end(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


@get("/v1/jobs/{job_id:str}/events")
async def read_events(request: Request[Any, Any, Any]) -> ASGIResponse:
    """204 tells a client that has the last event already to come no more."""
    services = services_of(request)
    fields = Fields(request.scope["headers"])
    principal, wanted = await _admit(request, fields, services)
    await services.owners.check_read(principal, wanted)
    headers.choose_type(fields, (headers.EVENTS,))
    last = _read_last(fields)
    view = await services.views.read(principal.tenant_id, wanted, at_least=last)
    if view.finished and view.revision == last:
        return respond(b"", 204, headers=_FIELDS, media_type=headers.EVENTS)
    if exchange_of(request.scope).bodyless:
        return respond(b"", headers=_FIELDS, media_type=headers.EVENTS)
    place = ExitStack()
    place.enter_context(services.intake.stream(principal))
    parts = _follow(services, principal.tenant_id, wanted, view, last)
    return EventStream(parts, services.principals.heed(principal), place)


async def _admit(
    request: Request[Any, Any, Any], fields: Fields, services: Services
) -> tuple[Principal, uuid.UUID]:
    """Who follows which job: the holder of a key, or of a token for this job alone."""
    job = request.path_params["job_id"]
    if fields.one("authorization") is not None or b"token=" not in request.scope["query_string"]:
        principal = await authorize(request, fields, services, READING, recent=True)
        headers.read_query(request.scope, ("token",))
        return principal, parse_job_id(job)
    token = headers.read_query(request.scope, ("token",))["token"]
    wanted = parse_job_id(job)
    noted = exchange_of(request.scope)
    noted.presented = True
    ACTING.set(STRANGERS)
    async with services.database.connection() as connection:
        found = await stream_tokens.authenticate(connection, token, wanted)
    if found is None or not READING & found.scopes:
        raise Unauthorized(
            "This token has expired or is not for this job; get another one with POST /v1/jobs/{id}/stream-token."
        )
    ACTING.set(found.tenant_id)
    noted.tenant_id = found.tenant_id
    return found, wanted


@post("/v1/jobs/{job_id:str}/stream-token", status_code=200)
async def make_stream_token(request: Request[Any, Any, Any]) -> ASGIResponse:
    """For a browser's EventSource, which cannot send a key."""
    services = services_of(request)
    fields = Fields(request.scope["headers"])
    principal = await authorize(request, fields, services, READING)
    headers.choose_type(fields)
    headers.read_query(request.scope, ())
    wanted = parse_job_id(request.path_params["job_id"])
    await services.owners.check_read(principal, wanted)
    await services.views.read(principal.tenant_id, wanted)
    async with services.database.connection() as connection:
        token = await stream_tokens.make(
            connection, principal, wanted, seconds=services.settings.stream_token_seconds
        )
    return respond(msgspec.json.encode(token), headers={"Cache-Control": "no-store"})


def _read_last(fields: Fields) -> int:
    """The revision that the client has; 0: none. What is no revision of ours is ignored."""
    text = fields.all("last-event-id")
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 18 else 0


def _show(name: str, view: View) -> bytes:
    return b"event: %b\nid: %d\ndata: %b\n\n" % (name.encode(), view.revision, view.body)


async def _follow(
    services: Services, tenant_id: int, job_id: uuid.UUID, view: View, last: int
) -> AsyncIterator[bytes]:
    """The job at each of its revisions, as far as they are worth telling, until it is finished."""
    clock = asyncio.get_running_loop().time
    until = clock() + services.settings.stream_seconds
    yield _PRELUDE
    spoke = clock()
    while not view.finished:
        if view.revision != last:
            last = view.revision
            yield _show("progress", view)
            spoke = clock()
            await asyncio.sleep(max(PACE, min(view.pause, 1.0)))
        wait = min(until, spoke + KEEP_ALIVE) - clock()
        changed = await services.watcher.wait(tenant_id, job_id, seconds=wait, revision=last)
        if services.watcher.released or clock() >= until:
            return
        if not changed:
            tag, view = view.tag, await services.views.explain(view)
            yield _COMMENT if view.tag == tag else _show("progress", view)
            spoke = clock()
            continue
        try:
            view = await services.views.read(tenant_id, job_id, at_least=None)
        except TrancheError:
            return  # the client comes again and goes on after the last event it has
    yield _show("end", view)
