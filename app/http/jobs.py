"""`/v1/jobs`: where imports stand, and each of their items."""

from __future__ import annotations

import asyncio
import math
import uuid
from typing import Any, Final

import msgspec
from litestar import Request, get
from litestar.response.base import ASGIResponse

from app import status
from app.errors import NotFound
from app.http import cursors, headers
from app.http.exchange import exchange_of
from app.http.headers import Fields, Preferences
from app.http.services import READING, Services, authorize, respond, services_of

PAGE: Final = 100
MOST: Final = 1_000
_REPRESENTATION: Final = 1
"""Counted up when the shape of a job changes, so that an old ETag does not confirm a new body."""

_encode: Final = msgspec.json.Encoder().encode


class JobList(msgspec.Struct):
    """A page of jobs, newest first; `next_cursor` is null on the last one."""

    jobs: list[status.JobSummary]
    next_cursor: str | None


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
    principal = await authorize(request, fields, services, READING)
    headers.choose_type(fields)
    headers.read_query(request.scope, ())
    wanted = parse_job_id(request.path_params["job_id"])
    preferences = headers.read_preferences(fields, max_wait=services.settings.max_wait)
    known = _revisions(fields.all("if-none-match"))
    if preferences.wait:
        until = exchange_of(request.scope).started + preferences.wait
        await _wait(services, principal.tenant_id, wanted, known, until)
    applied = Preferences(wait=preferences.wait).applied(waited=True)
    async with services.database.connection() as connection:
        view = await status.read_job(connection, principal.tenant_id, wanted)
    fields_out = applied | {"ETag": _etag(view.revision), "Cache-Control": "private, no-cache"}
    if view.next_in is not None:
        fields_out["Retry-After"] = str(max(1, math.ceil(view.next_in)))
    if view.revision in known or "*" in known:
        return respond(b"", 304, headers=fields_out)
    return respond(_encode(view.job), headers=fields_out)


async def _wait(
    services: Services, tenant_id: int, job_id: uuid.UUID, known: set[int | str], until: float
) -> None:
    async with services.database.connection() as connection:
        seen = await status.read_revision(connection, tenant_id, job_id)
    if seen.finished or (known and seen.revision not in known):
        return
    remaining = until - asyncio.get_running_loop().time()
    await services.watcher.wait(
        tenant_id, job_id, seconds=remaining, revision=seen.revision if known else None
    )


def _etag(revision: int) -> str:
    return f'"{_REPRESENTATION}-{revision}"'


def _revisions(field: str) -> set[int | str]:
    """The revisions that a client already has, by its `If-None-Match`."""
    found: set[int | str] = set()
    for part in field.split(","):
        tag = part.strip().removeprefix("W/").strip('"')
        if tag == "*":
            found.add("*")
        representation, _, revision = tag.partition("-")
        if representation == str(_REPRESENTATION) and revision.isascii() and revision.isdecimal():
            found.add(int(revision[:19]))
    return found


@get("/v1/jobs")
async def list_jobs(request: Request[Any, Any, Any]) -> ASGIResponse:
    services = services_of(request)
    fields = Fields(request.scope["headers"])
    principal = await authorize(request, fields, services, READING)
    headers.choose_type(fields)
    query = headers.read_query(request.scope, ("limit", "cursor"))
    limit = headers.read_limit(query, default=PAGE, most=MOST)
    before = cursors.decode_job(query["cursor"]) if "cursor" in query else None
    async with services.database.connection() as connection:
        jobs, more = await status.read_jobs(connection, principal.tenant_id, before=before, limit=limit)
    cursor = cursors.encode_job(more) if more else None
    return respond(_encode(JobList(jobs, cursor)), headers=cursors.link_next(request.scope, query, cursor))
