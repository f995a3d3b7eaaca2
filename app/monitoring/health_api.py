"""`/health`: what works and what does not, engine by engine (in the shape of draft-inadarei-api-health-check)."""

import math
from functools import partial
from typing import Final

from app.auth.authorization import identify, is_operator
from app.errors import TrancheError, Unauthorized
from app.http.headers import Fields
from app.http.operation import EVERYBODY, Access, Answer, Call, Reply, operation
from app.http.principal import Principal
from app.http.reads import Reads
from app.kit.postgres.database import Database
from app.monitoring import queries
from app.monitoring.checks import Check, Checks, Health, Word, timed
from app.monitoring.engines import Engines
from app.monitoring.queries import HealthRow
from app.settings import Settings

_operation: Final = partial(operation, "GET", tag="health", offers=())
LONG_UNKNOWN: Final = 60
"""Seconds within which an item whose answer was lost is settled while its CRM is well."""


class _OptionalKey(Access):
    """Everybody; a key shows more, and a wrong one is refused."""

    security = ({}, {"apiKey": []})
    errors = (401,)

    async def admit(self, call: Call) -> Principal | None:
        """
        Raises:
            Unauthorized: the key is no good.
        """
        settings = call.resources[Settings]
        if call.fields.one("authorization") is None or _is_operator(call.fields, settings):
            return None
        try:
            return await identify(call)
        except Unauthorized:
            raise
        except TrancheError:
            return None  # it cannot be found out now, which the checks will tell


def _is_operator(fields: Fields, settings: Settings) -> bool:
    return is_operator(fields, settings.metrics_token) or is_operator(fields, settings.operator_token)


_FAILING: Final = Answer("PostgreSQL is away: nothing works.", 503, Health, headers=("RetryAfter",), cache="no-store")


@_operation(
    "/health",
    access=_OptionalKey(),
    answers=(
        Answer("All well.", cache="no-store"),
        Answer("Degraded: imports are accepted and stored.", 207, cache="no-store"),
        _FAILING,
    ),
)
async def read_health(
    fields: Fields, principal: Principal | None, settings: Settings, database: Database, engines: Engines, reads: Reads
) -> Reply[Health]:
    """Every engine and destination.

    Without a key: the engines, checked within the last seconds. With a key, there is a check for each destination of
    its tenant; the operator's token (`TRANCHE_METRICS_TOKEN`) sees them counted.
    """
    if fields.one("authorization") is None:
        return _answer(await engines.look(recent=True) | _check_reads(reads))
    operator = principal is None and _is_operator(fields, settings)
    checks = await engines.look(recent=False) | _check_reads(reads)
    if checks["database"].status == "pass" and (operator or principal is not None):
        rows: list[HealthRow] = []

        async def read() -> Check:
            async with database.connection() as connection:
                rows.extend(await queries.read_health(connection, principal.tenant_id if principal else None))
            return Check("pass")

        checks["database"] = await timed(read)
        named = {f"destination:{row.tenant}/{row.name}": _check_destination(row) for row in rows}
        checks |= _count_destinations(rows) if operator else named
    return _answer(checks)


def _check_reads(reads: Reads) -> Checks:
    """What this process answered from fallbacks in the last minute, if anything: it may have been old."""
    counts = {str(source): count for source, count in reads.count_recent().items()}
    if not counts:
        return {}
    return {
        "reads": Check("warn", "PostgreSQL did not answer them; fallbacks did, with older documents", counts=counts)
    }


def _answer(checks: Checks) -> Reply[Health]:
    words = {check.status for check in checks.values()}
    word: Word = "fail" if checks["database"].status == "fail" else "pass" if words == {"pass"} else "warn"
    status = {"pass": 200, "warn": 207, "fail": 503}[word]
    return Reply(Health(word, checks), status, {"Retry-After": "5"} if status == 503 else {})


@_operation("/health/live", access=EVERYBODY, answers=Answer("It does.", cache="no-store"))
async def read_liveness() -> Health:
    """Whether the process runs.

    Checks nothing else, so that an outage elsewhere does not restart a healthy process.
    """
    return Health("pass", {})


@_operation("/health/ready", access=EVERYBODY, answers=(Answer("It can.", cache="no-store"), _FAILING))
async def read_readiness(engines: Engines) -> Reply[Health]:
    """Whether it can accept work.

    PostgreSQL answers, has this release's schema, and can be written to.
    """
    return _answer(await engines.look_at_schema(recent=True))


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
