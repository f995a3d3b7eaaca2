"""`GET /v1/jobs/{id}/events`: a job's progress as server-sent events (WHATWG HTML, section 9.2)."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, ExitStack, suppress
from typing import Annotated, Any, Final

import msgspec
from litestar.response.base import ASGIResponse

from app.auth import stream_tokens
from app.auth.authorization import FOLLOWING, POLLING
from app.auth.principals import Principals
from app.auth.stream_tokens import StreamToken
from app.errors import TrancheError, Unauthorized
from app.http import headers
from app.http.body.limits import Intake
from app.http.body.reader import hear_end
from app.http.operation import Access, Answer, Call, Header, operation, respond
from app.http.parameters import JobId, parse_job_id
from app.http.principal import Principal
from app.http.query_strings import compile_query
from app.http.request_context import Exchange
from app.job_status.live.job_cache import JobViews, View
from app.job_status.live.watcher import JobWatcher
from app.job_status.ownership import JobOwners
from app.kit.postgres.database import Database
from app.kit.postgres.fair_connections import ACTING, STRANGERS, Actor
from app.settings import Settings

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

    def __init__(self, parts: AsyncIterator[bytes], heed: AbstractAsyncContextManager[None], place: ExitStack) -> None:
        """`heed` ends it by `Unauthorized`; `place` is left at its end."""
        super().__init__(headers=_FIELDS, media_type=headers.EVENTS)
        self._parts = parts
        self._heed = heed
        self._place = place

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        with self._place:
            await super().__call__(scope, receive, send)

    async def send_body(self, send: Any, receive: Any) -> None:
        sending = asyncio.create_task(self._send(send))
        listening = asyncio.create_task(hear_end(receive))
        try:
            await asyncio.wait((sending, listening), return_when=asyncio.FIRST_COMPLETED)
        finally:
            over = sending.done()
            sending.cancel()
            listening.cancel()
            await asyncio.gather(sending, listening, return_exceptions=True)
        if over:
            sending.result()

    async def _send(self, send: Any) -> None:
        with suppress(Unauthorized):
            async with self._heed:
                async for part in self._parts:
                    await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class EventQuery(msgspec.Struct, frozen=True):
    token: str | None = None
    """A token for this job, from `POST …/stream-token`; instead of the API key."""


class _KeyOrToken(Access):
    """The holder of an API key, or of a token for this job alone."""

    remark = FOLLOWING.remark
    security = ({"apiKey": []}, {"streamToken": []})
    _read_query = staticmethod(compile_query(EventQuery))

    async def admit(self, call: Call) -> Principal:
        scope = call.request.scope
        if call.fields.one("authorization") is not None or b"token=" not in scope["query_string"]:
            return await POLLING.admit(call)
        token = self._read_query(scope).token or ""
        wanted = parse_job_id(call.request.path_params["job_id"])
        call.exchange.presented = True
        ACTING.set(STRANGERS)
        async with call.resources[Database].connection() as connection:
            found = await stream_tokens.authenticate(connection, token, wanted)
        if found is None or found.scopes.isdisjoint(FOLLOWING.scopes):
            raise Unauthorized(
                "This token has expired or is not for this job; get another one with POST /v1/jobs/{id}/stream-token."
            )
        ACTING.set(Actor(found.tenant_id, found.weight))
        call.exchange.tenant_id = found.tenant_id
        return found


def _read_last(call: Call) -> int:
    """The revision that the client has; 0: none. What is no revision of ours is ignored."""
    text = call.fields.all("last-event-id")
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 18 else 0


LastEventId = Annotated[
    int, Header(name="Last-Event-ID", description="The last event that the client received.", read=_read_last)
]

_EVENT: Final = {
    "description": "The stream, event by event; as text it is what the example shows.",
    "anyOf": [
        {"type": "string"},
        {
            "type": "object",
            "required": ["event", "id", "data"],
            "properties": {
                "event": {"enum": ["progress", "end"]},
                "id": {"type": "string", "description": "The job's revision."},
                "data": {
                    "type": "string",
                    "contentMediaType": "application/json",
                    "contentSchema": {"$ref": "#/components/schemas/Job"},
                },
                "retry": {"description": "Milliseconds before a client reconnects."},
            },
        },
    ],
}


def _describe_events(settings: Settings) -> str:
    return (
        "Server-sent events: `progress` for each change, at most about four a second, and `end` once the job is "
        "finished; `data` is the job as one line of JSON, `id` its revision. The stream ends after "
        f"{settings.stream_seconds:g} seconds, and a client comes again with `Last-Event-ID`, as EventSource does by "
        'itself. The events have names, so a page listens with `addEventListener("progress", …)`; `onmessage` hears '
        "nothing. A page that cannot send a header, as with EventSource, sends a `token` instead of the key."
    )


@operation(
    "GET",
    "/v1/jobs/{job_id}/events",
    tag="jobs",
    access=_KeyOrToken(),
    offers=(headers.EVENTS,),
    description=_describe_events,
    answers=(
        Answer("Events, as they happen.", headers=("CacheControl", "Buffering"), content={headers.EVENTS: _EVENT}),
        Answer(
            "The job is finished, and the client has its last event: do not reconnect.",
            204,
            headers=("CacheControl", "Buffering"),
        ),
    ),
    errors=(429,),
)
async def follow_job(
    job_id: JobId,
    query: EventQuery,
    last: LastEventId,
    principal: Principal,
    exchange: Exchange,
    settings: Settings,
    owners: JobOwners,
    views: JobViews,
    watcher: JobWatcher,
    intake: Intake,
    principals: Principals,
) -> ASGIResponse:
    """A job's progress as it happens."""
    await owners.check_read(principal, job_id)
    view = await views.read(principal.tenant_id, job_id, at_least=last)
    if view.finished and view.revision == last:
        return respond(b"", 204, headers=_FIELDS, media_type=headers.EVENTS)
    if exchange.bodyless:
        return respond(b"", headers=_FIELDS, media_type=headers.EVENTS)
    place = ExitStack()
    place.enter_context(intake.stream(principal))
    follow = _Follow(views, watcher, (principal.tenant_id, job_id), settings.stream_seconds)
    return EventStream(follow.events(view, last), principals.heed(principal), place)


def _describe_token(settings: Settings) -> str:
    return (
        "For a browser, whose EventSource cannot send headers: it opens `events_url` as it is, and "
        f"again after every pause, for {settings.stream_token_seconds:g} seconds. It gives access to nothing else, "
        "and ends with the API key that requested it."
    )


@operation(
    "POST",
    "/v1/jobs/{job_id}/stream-token",
    tag="jobs",
    access=FOLLOWING,
    description=_describe_token,
    answers=Answer("The token.", cache="no-store"),
)
async def make_stream_token(
    job_id: JobId, principal: Principal, settings: Settings, database: Database, owners: JobOwners, views: JobViews
) -> StreamToken:
    """A token for one job's event stream."""
    await owners.check_read(principal, job_id)
    await views.read(principal.tenant_id, job_id)
    async with database.connection() as connection:
        return await stream_tokens.make(connection, principal, job_id, seconds=settings.stream_token_seconds)


def _show(name: str, view: View) -> bytes:
    return b"event: %b\nid: %d\ndata: %b\n\n" % (name.encode(), view.revision, view.body)


class _Follow(msgspec.Struct, frozen=True):
    """One job, for one who follows it."""

    views: JobViews
    watcher: JobWatcher
    job: tuple[int, uuid.UUID]
    seconds: float

    async def events(self, view: View, last: int) -> AsyncIterator[bytes]:
        """The job at each of its revisions, as far as they are worth sending, until it is finished."""
        clock = asyncio.get_running_loop().time
        until = clock() + self.seconds
        yield _PRELUDE
        spoke = clock()
        while not view.finished:
            if view.revision != last:
                last = view.revision
                yield _show("progress", view)
                spoke = clock()
                await asyncio.sleep(max(PACE, min(view.pause, 1.0)))
            wait = min(until, spoke + KEEP_ALIVE) - clock()
            changed = await self.watcher.wait(*self.job, seconds=wait, revision=last)
            if self.watcher.released or clock() >= until:
                return
            if not changed:
                tag, view = view.tag, await self.views.explain(view)
                yield _COMMENT if view.tag == tag else _show("progress", view)
                spoke = clock()
                continue
            try:
                view = await self.views.read(*self.job, at_least=None)
            except TrancheError:
                return  # the client comes again and goes on after the last event it has
        yield _show("end", view)
