"""What happened, as frozen records; hooks decide where they go (the log now, metrics beside it)."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import ClassVar, Final

import msgspec
import structlog

from app.settings import Settings

_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all events; the field names are the names in the log."""

    name: ClassVar[str] = "event"

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

    @property
    def level(self) -> int:
        if self.status >= 500:
            return logging.WARNING
        # Probes, and polls that found nothing new, come by the thousand and tell nothing.
        quiet = self.status == 304 or self.route.startswith("/health")
        return logging.DEBUG if quiet else logging.INFO


_log: Final = structlog.get_logger()


def write_log(event: Event) -> None:
    fields = {k: v for k, v in msgspec.structs.asdict(event).items() if v is not None}
    _log.log(event.level, event.name, **fields)


HOOKS: Final[list[Callable[[Event], None]]] = [write_log]


def emit(event: Event) -> None:
    for hook in HOOKS:
        hook(event)


def configure(settings: Settings) -> None:
    """Set the log's level and shape for this process; lines go to stderr."""
    # Its pool writes a traceback a second while PostgreSQL is away, which `app.db.pool` tells in one word.
    logging.getLogger("asyncpg.pool").setLevel(logging.CRITICAL)
    people = settings.log_format == "console"
    shape: list[structlog.typing.Processor] = (
        [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        ]
        if people
        else [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=_encode),
        ]
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *shape,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            _LEVELS.get(settings.log_level.lower(), logging.INFO)
        ),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )


def _encode(value: object, **_: object) -> str:
    return msgspec.json.encode(value, enc_hook=str).decode()
