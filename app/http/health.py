"""`/health`: what works and what does not, engine by engine (in the shape of draft-inadarei-api-health-check)."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Any, Final, Literal

import asyncpg
import msgspec
from litestar import Request, get
from litestar.response.base import ASGIResponse
from redis.exceptions import RedisError

from app.db import reading
from app.db.reading import HealthRow
from app.errors import TrancheError, Unauthorized
from app.http import headers
from app.http.headers import Fields
from app.http.services import Services, identify, respond, services_of
from app.wake import QUEUE

Word = Literal["pass", "warn", "fail"]

PATIENCE: Final = 2.0
"""Longest look at one engine, in seconds."""
LONG_UNKNOWN: Final = 60
"""Seconds within which an item whose answer was lost is settled while its CRM is well."""
WORKER_KEY: Final = f"{QUEUE}:health-check"
"""arq workers renew it while they live."""


class Check(msgspec.Struct, omit_defaults=True):
    """One engine or destination."""

    status: Word
    output: str | None = None
    """What is wrong, in words."""
    retry_after_seconds: int | None = None
    milliseconds: float | None = None
    counts: dict[str, int] | None = None


class Health(msgspec.Struct):
    """`pass`: all well. `warn`: work is taken and kept, some of it later. `fail`: nothing works."""

    status: Word
    checks: dict[str, Check]


@get("/health")
async def health(request: Request[Any, Any, Any]) -> ASGIResponse:
    """Open to everybody; only a key shows its own tenant's destinations by name."""
    services = services_of(request)
    fields = Fields(request.scope["headers"])
    headers.read_query(request.scope, ())
    (database, rows), cache, queue = await asyncio.gather(
        _check_database(request, fields, services),
        _timed(lambda: _check_cache(services)),
        _timed(lambda: _check_queue(services)),
    )
    checks = {"database": database, "cache": cache, "queue": queue} | _check_destinations(*rows)
    words = {check.status for check in checks.values()}
    word: Word = "fail" if database.status == "fail" else "pass" if words == {"pass"} else "warn"
    status = {"pass": 200, "warn": 207, "fail": 503}[word]
    fields_out = {"Cache-Control": "no-store"} | ({"Retry-After": "5"} if status == 503 else {})
    return respond(msgspec.json.encode(Health(word, checks)), status, headers=fields_out)


@get("/health/live")
async def live(request: Request[Any, Any, Any]) -> ASGIResponse:
    """This process answers."""
    headers.read_query(request.scope, ())
    return respond(msgspec.json.encode(Health("pass", {})), headers={"Cache-Control": "no-store"})


@get("/health/ready")
async def ready(request: Request[Any, Any, Any]) -> ASGIResponse:
    """This process can take work: PostgreSQL answers and has this release's schema."""
    headers.read_query(request.scope, ())
    services = services_of(request)
    check = await _timed(lambda: _check_schema(services))
    word: Word = "fail" if check.status == "fail" else "pass"
    fields_out = {"Cache-Control": "no-store"} | ({"Retry-After": "5"} if word == "fail" else {})
    body = msgspec.json.encode(Health(word, {"database": check}))
    return respond(body, 503 if word == "fail" else 200, headers=fields_out)


async def _timed(look: Callable[[], Awaitable[Check]]) -> Check:
    loop = asyncio.get_running_loop()
    started = loop.time()
    try:
        async with asyncio.timeout(PATIENCE):
            check = await look()
    except TimeoutError:
        check = Check("fail", f"no answer within {PATIENCE:g} s")
    except Unauthorized:
        raise
    except TrancheError as error:
        check = Check("fail", error.detail)
    except (RedisError, OSError, asyncpg.PostgresError) as error:
        check = Check("fail", str(error) or type(error).__name__)
    check.milliseconds = round((loop.time() - started) * 1000, 1)
    return check


async def _check_database(
    request: Request[Any, Any, Any], fields: Fields, services: Services
) -> tuple[Check, tuple[list[HealthRow], bool]]:
    rows: list[HealthRow] = []
    named = False

    async def look() -> Check:
        nonlocal named
        principal = await identify(request, fields, services)
        named = principal is not None
        check = await _check_schema(services)
        if check.status == "pass":
            await services.room.look()
            async with services.database.connection() as connection:
                rows.extend(await reading.read_health(connection, principal.tenant_id if principal else None))
        return check

    return await _timed(look), (rows, named)


async def _check_schema(services: Services) -> Check:
    async with services.database.connection() as connection:
        try:
            found = await reading.read_schema_version(connection)
        except asyncpg.UndefinedTableError:
            found = None
    wanted = await asyncio.to_thread(_head)
    if found == wanted:
        return Check("pass")
    return Check("fail", f"the schema is at {found or 'nothing'}, not {wanted}; run: tranche migrate")


@lru_cache(maxsize=1)
def _head() -> str:
    from app.db import migrate  # Alembic and SQLAlchemy: only asked for, and paid for, here

    return migrate.head()


async def _check_cache(services: Services) -> Check:
    await services.redis.ping()
    return Check("pass")


async def _check_queue(services: Services) -> Check:
    if await services.redis.exists(WORKER_KEY):
        return Check("pass")
    return Check("warn", "no worker was seen lately; imports are taken and will be synced once one is there")


def _check_destinations(rows: list[HealthRow], named: bool) -> dict[str, Check]:
    if named:
        return {f"destination:{row.tenant}/{row.name}": _check_destination(row) for row in rows}
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
