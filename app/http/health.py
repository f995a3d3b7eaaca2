"""`/health`: what works and what does not, engine by engine (in the shape of draft-inadarei-api-health-check)."""

from __future__ import annotations

import math
from typing import Any, Final

import msgspec
from litestar import Request, get
from litestar.response.base import ASGIResponse

from app.admin import Principal
from app.db import reading
from app.db.reading import HealthRow
from app.errors import TrancheError, Unauthorized
from app.http import headers
from app.http.engines import Check, Checks, Word, timed
from app.http.headers import Fields
from app.http.services import Services, identify, respond, services_of
from app.http.tenants import is_operator

LONG_UNKNOWN: Final = 60
"""Seconds within which an item whose answer was lost is settled while its CRM is well."""


class Health(msgspec.Struct):
    """`pass`: all well. `warn`: work is taken and kept, some of it later. `fail`: nothing works."""

    status: Word
    checks: dict[str, Check]


@get("/health")
async def health(request: Request[Any, Any, Any]) -> ASGIResponse:
    """Open to everybody. A key shows its own tenant's destinations by name, the operator's token counts all of them;
    others see the engines as they were a moment ago, and nothing of any tenant."""
    services = services_of(request)
    fields = Fields(request.scope["headers"])
    headers.read_query(request.scope, ())
    if fields.one("authorization") is None:
        return _respond(await services.engines.look(recent=True))
    told = services.settings
    operator = is_operator(fields, told.metrics_token) or is_operator(fields, told.operator_token)
    principal = None if operator else await _identify(request, fields, services)
    checks = dict(await services.engines.look(recent=False))
    if checks["database"].status == "pass" and (operator or principal is not None):
        rows: list[HealthRow] = []

        async def read() -> Check:
            async with services.database.connection() as connection:
                rows.extend(await reading.read_health(connection, principal.tenant_id if principal else None))
            return Check("pass")

        checks["database"] = await timed(read)
        checks |= _count_destinations(rows) if operator else _name_destinations(rows)
    return _respond(checks)


async def _identify(request: Request[Any, Any, Any], fields: Fields, services: Services) -> Principal | None:
    """Who asks; None: that cannot be found out now, which the checks will tell.

    Raises:
        Unauthorized: the key is no good.
    """
    try:
        return await identify(request, fields, services)
    except Unauthorized:
        raise
    except TrancheError:
        return None


def _respond(checks: Checks) -> ASGIResponse:
    words = {check.status for check in checks.values()}
    word: Word = "fail" if checks["database"].status == "fail" else "pass" if words == {"pass"} else "warn"
    status = {"pass": 200, "warn": 207, "fail": 503}[word]
    fields = {"Cache-Control": "no-store"} | ({"Retry-After": "5"} if status == 503 else {})
    return respond(msgspec.json.encode(Health(word, checks)), status, headers=fields)


@get("/health/live")
async def live(request: Request[Any, Any, Any]) -> ASGIResponse:
    """This process answers."""
    headers.read_query(request.scope, ())
    return respond(msgspec.json.encode(Health("pass", {})), headers={"Cache-Control": "no-store"})


@get("/health/ready")
async def ready(request: Request[Any, Any, Any]) -> ASGIResponse:
    """This process can take work: PostgreSQL answers and has this release's schema."""
    headers.read_query(request.scope, ())
    return _respond(await services_of(request).engines.look_at_schema(recent=True))


def _name_destinations(rows: list[HealthRow]) -> Checks:
    return {f"destination:{row.tenant}/{row.name}": _check_destination(row) for row in rows}


def _count_destinations(rows: list[HealthRow]) -> Checks:
    if not rows:
        return {}
    counts = {"ok": 0, "blocked": 0, "paused": 0}
    for row in rows:
        counts[_state(row)] += 1
    waiting = counts["blocked"] + counts["paused"]
    return {"destinations": Check("warn" if waiting else "pass", counts=counts)}


def _check_destination(row: HealthRow) -> Check:
    state = _state(row)
    counts = {"unknown": row.unknown, "oldest_unknown_seconds": row.unknown_for} if row.unknown else None
    if state == "paused":
        return Check("warn", "paused by an administrator", counts=counts)
    if state == "blocked":
        reason = ": ".join(part for part in (row.blocked_code, row.blocked_detail) if part)
        return Check("warn", reason, retry_after_seconds=math.ceil(row.blocked_for or 0), counts=counts)
    if row.unknown_for >= LONG_UNKNOWN:
        return Check(
            "warn",
            f"{row.unknown} unknown item{'' if row.unknown == 1 else 's'}, the oldest for {row.unknown_for} s",
            counts=counts,
        )
    return Check("pass", counts=counts)


def _state(row: HealthRow) -> str:
    if row.state == "paused":
        return "paused"
    return "blocked" if row.blocked_for else "ok"
