"""Spans: what a process did, for how long and because of what.

Without `tranche[otel]` and `TRANCHE_OTLP_ENDPOINT` none is recorded; a span then only hands the trace on. Attributes
are names of routes, codes, counts and ids of ours: never contents, never what somebody answered.
"""

from collections.abc import Callable, Mapping
from enum import StrEnum
from types import TracebackType
from typing import ClassVar

from app.tracing import context
from app.tracing.context import TraceContext

Attributes = Mapping[str, str | int | None]
"""`None`: it has none of this name."""


class Kind(StrEnum):
    """How a span relates to others, as OpenTelemetry has it."""

    SERVER = "server"
    PRODUCER = "producer"
    CONSUMER = "consumer"
    """It does work that was stored; it is linked to what stored it, and continues its trace."""
    CLIENT = "client"


class Span:
    """One operation, from its start to the end of its `with` block. This one is not recorded."""

    __slots__ = ("_context", "_parent")
    recorded: ClassVar[bool] = False

    def __init__(self, parent: TraceContext | None) -> None:
        self._parent = parent
        self._context: TraceContext | None = None

    @property
    def context(self) -> TraceContext:
        """What others continue from."""
        if self._context is None:
            self._context = context.begin() if self._parent is None else self._parent.child()
        return self._context

    def note(self, attributes: Attributes) -> None:
        """Add what is known now."""

    def rename(self, name: str) -> None:
        """It is known better now what this is."""

    def fail(self, code: str) -> None:
        """It did not go well: an error code, a status or the name of an exception."""

    def drop(self) -> None:
        """There was nothing to do: nobody needs to see this."""

    def __enter__(self) -> "Span":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End it."""


Start = Callable[[str, Kind, TraceContext | None, Attributes], Span]
_start: Start | None = None


def record_with(start: Start | None) -> None:
    """How this process's spans are recorded from now on; `None`: they are not."""
    global _start
    _start = start


def span(name: str, kind: Kind, parent: TraceContext | None, attributes: Attributes) -> Span:
    """Begin a span, for a `with` statement; without a parent it begins a trace."""
    return Span(parent) if _start is None else _start(name, kind, parent, attributes)


def messaging(operation: str, type: str, items: int) -> dict[str, str | int | None]:
    """Attributes of work on a batch of so many items, by the conventions for messaging; `type`: `send` or `process`."""
    return {
        "messaging.system": "tranche",
        "messaging.operation.name": operation,
        "messaging.operation.type": type,
        "messaging.batch.message_count": items,
    }
