"""`/v1/jobs`: where imports stand, and each of their items."""

from __future__ import annotations

import asyncio
import math
import uuid
from typing import Annotated, Any, Final

import msgspec
from litestar import Request, get, post
from litestar.response.base import ASGIResponse
from uuid_utils.compat import uuid7

from app import canceling, letters, status, undoing
from app.admin import Principal
from app.domain.outcomes import JobKind
from app.errors import Invalid, NotFound
from app.http import cursors, dead_letters, headers
from app.http.cursors import NextCursor
from app.http.exchange import exchange_of
from app.http.headers import Fields, Preferences
from app.http.json_bodies import read_json
from app.http.ownership import reads_all
from app.http.services import READING, Services, authorize, respond, services_of
from app.http.views import View, read_etags

PAGE: Final = 100
MOST: Final = 1_000
_CHANGING: Final = frozenset({"import", "admin"})

_encode: Final = msgspec.json.Encoder().encode


class JobList(msgspec.Struct):
    """A page of jobs, newest first; `next_cursor` is null on the last one."""

    jobs: list[status.JobSummary]
    next_cursor: NextCursor


def parse_job_id(text: str) -> uuid.UUID:
    """
    Raises:
        NotFound: no job has such an id.
    """
    try:
        parsed = uuid.UUID(text)
    except ValueError:
        raise NotFound("There is no such job.") from None
    if str(parsed) != text.lower():
        raise NotFound("There is no such job.")
    return parsed


@get("/v1/jobs/{job_id:str}")
async def read_job(request: Request[Any, Any, Any]) -> ASGIResponse:
    services = services_of(request)
    fields = Fields(request.scope["headers"])
    principal = await authorize(request, fields, services, READING, recent=True)
    headers.choose_type(fields)
    headers.read_query(request.scope, ())
    wanted = parse_job_id(request.path_params["job_id"])
    await services.owners.check_read(principal, wanted)
    preferences = headers.read_preferences(fields, max_wait=services.settings.max_wait)
    known = read_etags(fields.all("if-none-match"))
    changed = False
    if preferences.wait:
        until = exchange_of(request.scope).started + preferences.wait
        changed = await _wait(services, principal, wanted, known, until)
    newest = max((revision for revision in known if isinstance(revision, int)), default=0)
    view = await services.views.read(principal.tenant_id, wanted, at_least=None if changed else newest)
    fields_out = tell(view, services.views.advise(principal.tenant_id, wanted, view)) | Preferences(
        wait=preferences.wait
    ).applied(waited=True)
    if view.tag in known or "*" in known:
        return respond(b"", 304, headers=fields_out)
    return respond(view.body, headers=fields_out)


def tell(view: View, again_in: float | None) -> dict[str, str]:
    """The header fields that every representation of a job has; `again_in`: seconds, `None` once it is finished."""
    fields = {"ETag": view.etag, "Cache-Control": "private, no-cache"}
    if again_in is not None:
        fields["Retry-After"] = str(max(1, math.ceil(again_in)))
    return fields


async def _wait(
    services: Services, principal: Principal, job_id: uuid.UUID, known: set[int | str], until: float
) -> bool:
    """True: the job is finished, or not what the client knows.

    Raises:
        Unauthorized: the key was revoked meanwhile.
    """
    tenant_id = principal.tenant_id
    seen = await services.views.look(tenant_id, job_id)
    if seen.finished or (known and seen.revision not in known):
        return True
    with services.intake.wait(principal) as granted:
        if not granted:
            return False
        async with services.principals.heed(principal):
            return await services.watcher.wait(
                tenant_id,
                job_id,
                seconds=until - asyncio.get_running_loop().time(),
                revision=seen.revision if known else None,
            )


@post("/v1/jobs/{job_id:str}/cancel", status_code=200)
async def cancel_job(request: Request[Any, Any, Any]) -> ASGIResponse:
    services = services_of(request)
    fields = Fields(request.scope["headers"])
    principal = await authorize(request, fields, services, _CHANGING)
    headers.choose_type(fields)
    headers.read_query(request.scope, ())
    wanted = parse_job_id(request.path_params["job_id"])
    await services.owners.check_change(principal, wanted)
    await canceling.cancel(services.database, principal.tenant_id, wanted, actor=principal.key_id)
    view = await services.views.read(principal.tenant_id, wanted, at_least=None)
    return respond(view.body, headers=tell(view, view.next_in))


class RetryRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where to send again what failed; null: at every destination."""

    destinations: Annotated[list[str], msgspec.Meta(min_length=1, max_length=100)] | None = None


@post("/v1/jobs/{job_id:str}/retry", status_code=202)
async def retry_job(request: Request[Any, Any, Any]) -> ASGIResponse:
    """Asking twice is asking once: what was taken is not taken again."""
    services = services_of(request)
    fields = Fields(request.scope["headers"])
    principal = await authorize(request, fields, services, _CHANGING)
    headers.choose_type(fields)
    headers.read_query(request.scope, ())
    wanted = parse_job_id(request.path_params["job_id"])
    await services.owners.check_change(principal, wanted)
    echo = {}
    if fields.one("idempotency-key"):
        _, sent = headers.read_key(fields)
        exchange_of(request.scope).idempotency_key = sent
        echo = {"Idempotency-Key": sent}
    asked = await read_json(
        request,
        services,
        RetryRequest,
        remedy="A retry names destinations, or has no body at all.",
        absent=RetryRequest(),
    )
    if any("\0" in name for name in asked.destinations or ()):
        raise Invalid("A destination's name holds a NUL character.")
    taken = await letters.retry(
        services.database,
        dead_letters.actor_of(request, principal),
        wanted,
        asked.destinations,
        services.settings,
        new_id=uuid7,
    )
    services.waker.wake(
        principal.tenant_id, taken.owed, reason=f"retry:{exchange_of(request.scope).request_id}"
    )
    if taken.kind == JobKind.UNDO:
        services.waker.wake_imports(principal.tenant_id, wanted)
    answer = dead_letters.AttemptAnswer(**dead_letters.describe(taken))
    return respond(_encode(answer), 202, headers=echo | dead_letters.tell(answer.status_url))


@post("/v1/jobs/{job_id:str}/undo", status_code=202)
async def undo_job(request: Request[Any, Any, Any]) -> ASGIResponse:
    services = services_of(request)
    fields = Fields(request.scope["headers"])
    principal = await authorize(request, fields, services, _CHANGING)
    headers.choose_type(fields)
    headers.read_query(request.scope, ())
    wanted = parse_job_id(request.path_params["job_id"])
    await services.owners.check_change(principal, wanted)
    asked = await undoing.undo(
        services.database,
        principal.tenant_id,
        wanted,
        key_id=principal.key_id,
        request_id=exchange_of(request.scope).request_id,
        new_id=uuid7,
    )
    if asked.new:
        services.waker.wake_imports(principal.tenant_id, asked.job_id)
    view = await services.views.read(principal.tenant_id, asked.job_id, at_least=None)
    told = tell(view, view.next_in or 0.0) | {"Location": f"/v1/jobs/{asked.job_id}"}
    return respond(view.body, 202, headers=told)


@get("/v1/jobs")
async def list_jobs(request: Request[Any, Any, Any]) -> ASGIResponse:
    services = services_of(request)
    fields = Fields(request.scope["headers"])
    principal = await authorize(request, fields, services, READING)
    headers.choose_type(fields)
    query = headers.read_query(request.scope, ("limit", "cursor"))
    limit = headers.read_limit(query, default=PAGE, most=MOST)
    before = cursors.decode_job(query["cursor"]) if "cursor" in query else None
    there = await services.workers.glance()
    async with services.database.connection() as connection:
        jobs, more = await status.read_jobs(
            connection,
            principal.tenant_id,
            of_key=None if reads_all(principal) else principal.key_id,
            before=before,
            limit=limit,
            workers=there,
        )
    cursor = cursors.encode_job(more) if more else None
    return respond(_encode(JobList(jobs, cursor)), headers=cursors.link_next(request.scope, query, cursor))
