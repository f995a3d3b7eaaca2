"""What happened, as frozen records; hooks decide where they go (the log now, metrics beside it)."""

import logging
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Final, TextIO

import asyncpg
import msgspec
import structlog

from app.settings import Settings

_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all events; the field names are the names in the log."""

    name: ClassVar[str] = "event"
    logged: ClassVar[bool] = True
    """False: it is only counted; there are too many of them for a line each."""

    @property
    def level(self) -> int:
        return logging.INFO


class RequestServed(Event, frozen=True, kw_only=True):
    """One HTTP request, answered: never an item, a body or a secret."""

    name: ClassVar[str] = "request"

    method: str
    route: str
    """The template, so that a thousand jobs are one route."""
    status: int
    milliseconds: float
    tenant_id: int | None = None
    items: int | None = None
    code: str | None = None
    """Of the problem that was answered."""
    key: str | None = None
    """Of what use the Idempotency-Key was: new, replayed, conflict, mismatch or expired."""
    read: str | None = None
    """What was read: a job, item, record or destination."""
    source: str | None = None
    """Where that came from: the primary, or a fallback."""

    @property
    def level(self) -> int:
        if self.code == "OVERLOADED":  # many of them: `imports_shed` says it once
            return logging.DEBUG
        if self.status >= 500:
            return logging.WARNING
        # Probes, and polls that found nothing new, come by the thousand and tell nothing.
        quiet = self.status == 304 or self.route.startswith("/health")
        return logging.DEBUG if quiet else logging.INFO


UNROUTED: Final = "(none)"
"""The route of a request that matched none, or was refused before it was looked for."""


class RequestShed(Event, frozen=True, kw_only=True):
    """Imports were not served because the service is overloaded. Those refused on arrival come by the thousand: they
    are one event twice a second, and have no event as requests beside."""

    name: ClassVar[str] = "request_shed"
    logged: ClassVar[bool] = False

    reason: str
    """`arrival`: refused at once; `newest`: refused while it waited, as the last of the longest queue; `deadline`: its
    time was over; `client_gone`: nobody waits for the answer any more."""
    tenant_id: int | None = None
    """Of one that was refused later than on arrival."""
    count: int = 1


class ImportsShed(Event, frozen=True, kw_only=True):
    """Imports were not served since this was said last: once in ten seconds."""

    name: ClassVar[str] = "imports_shed"

    count: int
    waiting: int
    limit: int

    @property
    def level(self) -> int:
        return logging.WARNING


class QueueSampled(Event, frozen=True, kw_only=True):
    """How a process accepts imports, twice a second."""

    logged: ClassVar[bool] = False

    limit: int
    waiting: int


class FallbackRead(Event, frozen=True, kw_only=True):
    """PostgreSQL did not answer a read, and something else did; once a second for each source."""

    name: ClassVar[str] = "fallback_read"

    kind: str
    source: str
    """`none`: nothing did."""
    recent: int
    """Reads of the last minute with this source."""

    @property
    def level(self) -> int:
        return logging.WARNING


class LimitExceeded(Event, frozen=True, kw_only=True):
    """A rate limit refused items or requests, within a second."""

    name: ClassVar[str] = "rate_limit_exceeded"

    scope: str
    """Whose limit: key, tenant, address, service."""
    policy: str
    """Of what: items, requests."""
    refused: int
    tenant_id: int | None = None

    @property
    def level(self) -> int:
        return logging.WARNING


class LimitsAlone(Event, frozen=True, kw_only=True):
    """Redis is away, or back: this process keeps the rate limits by itself, or with all others again."""

    name: ClassVar[str] = "rate_limits_alone"

    alone: bool
    processes: int
    """By how many the limits are divided."""
    reason: str | None = None

    @property
    def level(self) -> int:
        return logging.WARNING if self.alone else logging.INFO


class RowsPruned(Event, frozen=True, kw_only=True):
    """Rows past their time were removed, of all tenants."""

    name: ClassVar[str] = "rows_pruned"

    kind: str
    rows: int


class ItemsDecided(Event, frozen=True, kw_only=True):
    """Items of an import were decided, in a request or by a worker."""

    logged: ClassVar[bool] = False

    counts: Mapping[tuple[str, str], int]
    """By status and error code, which is empty where there is none."""


class ProcessSampled(Event, frozen=True, kw_only=True):
    """How a process is, twice a second."""

    logged: ClassVar[bool] = False

    lag: float
    """Seconds by which the event loop was late."""
    connections: int
    """To PostgreSQL, in use."""
    acquired: int
    """Connections that somebody asked for, since the last sample."""
    waited: float
    """Seconds for which they were waited for."""


class RedisMissed(Event, frozen=True, kw_only=True):
    """Something was decided by this process alone, because Redis is away."""

    logged: ClassVar[bool] = False

    part: str


class RedisAway(Event, frozen=True, kw_only=True):
    """A worker could not reach Redis for some more seconds."""

    logged: ClassVar[bool] = False

    seconds: float


class DestinationEvent(Event, frozen=True, kw_only=True):
    """Something happened at a destination."""

    kind: str
    destination: str | None = None
    """Its name, if the operator allows that (`TRANCHE_METRICS_DESTINATIONS`)."""


class CallMade(DestinationEvent, frozen=True, kw_only=True):
    """A call to a CRM ended."""

    logged: ClassVar[bool] = False

    operation: str
    outcome: str
    seconds: float
    verdicts: Sequence[tuple[str, str]] = ()
    """What it says about each circuit that it passed: `connection` or `crm`, and `ok` or `failed`."""


class CircuitChanged(DestinationEvent, frozen=True, kw_only=True):
    """A circuit opened, half-opened or closed."""

    name: ClassVar[str] = "circuit_changed"

    circuit: str
    scope: str
    """`connection` or `crm`."""
    before: str
    after: str
    opens: int
    retry_after: float
    """Seconds that it stays open."""
    reason: str

    @property
    def level(self) -> int:
        return logging.WARNING


class DeliveryAttempted(DestinationEvent, frozen=True, kw_only=True):
    """An attempt at a delivery is recorded. Of what a CRM says, code and status alone: the rest may repeat what it was
    sent, which is people's data."""

    name: ClassVar[str] = "delivery_attempted"

    tenant_id: int
    destination_id: int
    delivery_id: int
    job_id: str
    request_id: str
    attempt: int
    outcome: str
    """`ok`, `failed` (all is settled, not all of it well), `retry`, `unknown`, or `postponed` (nothing was sent)."""
    items: Mapping[str, int]
    """That were open before, by their states now."""
    age: float
    """Seconds since the commit that caused the delivery."""
    seconds: float
    """That the attempt took."""
    wait: float | None
    """Before the next attempt; none: the delivery is done."""
    codes: Mapping[str, int]
    status: int | None
    job_state: str | None


class DriftFound(Event, frozen=True, kw_only=True):
    """A verification has found records in which a destination differs."""

    name: ClassVar[str] = "drift_found"

    kind: str
    destination: str | None
    """Its name in metrics, if it has one there."""
    tenant_id: int
    destination_id: int
    job_id: str
    counts: Mapping[str, int]
    """Records by what is the matter with them: missing, different, unknown."""


class AccessTokenAsked(Event, frozen=True, kw_only=True):
    """A token endpoint was asked for an access token of a destination."""

    name: ClassVar[str] = "access_token_asked"

    kind: str
    outcome: str
    """`ok`; `refused`: not before somebody changes the credentials; `failed`: no answer, or one that says later."""
    seconds: float


class WebhookAttempted(Event, frozen=True, kw_only=True):
    """A webhook was called."""

    name: ClassVar[str] = "webhook_attempted"

    tenant_id: int
    endpoint_id: int
    event_id: str
    attempt: int
    state: str
    """Of the message then."""
    status: int | None
    seconds: float

    @property
    def level(self) -> int:
        return logging.WARNING if self.state in ("failed", "dead") else logging.INFO


class SagaMoved(Event, frozen=True, kw_only=True):
    """A saga began, or did or undid a step; `state` is where it is then."""

    name: ClassVar[str] = "saga_moved"

    tenant_id: int
    workflow: str
    subject: str
    state: str
    saga_id: str | None = None
    step: str | None = None
    reason: str | None = None
    began: bool | None = None

    @property
    def level(self) -> int:
        return logging.ERROR if self.state == "failed" else logging.INFO


_log: Final = structlog.get_logger()


def write_log(event: Event) -> None:
    if not event.logged or not _log.is_enabled_for(event.level):
        return
    fields = {k: v for k, v in msgspec.structs.asdict(event).items() if v is not None}
    _log.log(event.level, event.name, **fields)


HOOKS: Final[list[Callable[[Event], None]]] = [write_log]


def emit(event: Event) -> None:
    for hook in HOOKS:
        hook(event)


def configure(settings: Settings) -> None:
    """Set the log's level and shape for this process; lines go to stderr."""
    # Its pool writes a traceback a second while PostgreSQL is away; `app.kit.postgres.database` logs that once.
    logging.getLogger("asyncpg.pool").setLevel(logging.CRITICAL)
    people = settings.log_format == "console"
    shape: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=_print_exception)]
        if people
        else [
            structlog.processors.ExceptionRenderer(lambda info: format_exception(info[1])),
            structlog.processors.JSONRenderer(serializer=_encode),
        ]
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _describe_errors,
            *shape,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS.get(settings.log_level.lower(), logging.INFO)),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )


def describe(error: BaseException) -> str:
    """An error in one line that holds nobody's data.

    PostgreSQL names the failing row in its detail, and the offending value in what it says of wrong data and broken
    constraints (classes 22 and 23): of those only the state is kept.
    """
    name = type(error).__name__
    if isinstance(error, asyncpg.PostgresError):
        state = str(getattr(error, "sqlstate", None) or "")
        said = "" if state[:2] in ("", "22", "23") else f": {error.args[0]}" if error.args else ""
        return f"{name} ({state}){said}"
    if isinstance(error, asyncpg.InterfaceError) and isinstance(error, ValueError):
        return name  # its message repeats the argument that does not fit
    return str(error) or name


def format_exception(error: BaseException) -> str:
    """A traceback with each error of the chain described by `describe`."""
    parts = []
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None:
        parts.append(f"{format_exception(cause)}\n\nThen:\n\n")
    parts.append("Traceback (most recent call last):\n")
    parts += traceback.format_tb(error.__traceback__)
    said = describe(error)
    name = type(error).__name__
    parts.append(said if said.startswith(name) else f"{name}: {said}")
    if isinstance(error, BaseExceptionGroup):
        parts += [f"\n\nOne of them:\n\n{format_exception(inner)}" for inner in error.exceptions]
    return "".join(parts)


def _print_exception(file: TextIO, info: structlog.typing.ExcInfo) -> None:
    file.write(f"\n{format_exception(info[1])}")


def _describe_errors(_: object, __: str, fields: structlog.typing.EventDict) -> structlog.typing.EventDict:
    error = fields.get("error")
    if isinstance(error, BaseException):
        fields["error"] = describe(error)
    return fields


def _encode(value: object, **_: object) -> str:
    return msgspec.json.encode(value, enc_hook=str).decode()
