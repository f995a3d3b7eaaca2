"""Spans by the SDK of OpenTelemetry, sent as OTLP over HTTP. Imported only where that is installed and wanted.

All but the endpoint is set by OpenTelemetry's own variables: `OTEL_SERVICE_NAME`, `OTEL_TRACES_SAMPLER`,
`OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_BSP_…` and so on.
"""

import asyncio
import logging
import os
import time
from types import TracebackType
from typing import Final

import structlog
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
)

from app.release import read_version
from app.tracing.context import TraceContext
from app.tracing.spans import Attributes, Kind, Span

log = structlog.get_logger()

_PATH: Final = "/v1/traces"
_QUIET: Final = 60.0
"""Seconds between lines that say that spans cannot be sent."""
_KINDS: Final = {kind: SpanKind[kind.name] for kind in Kind}
_ENTRIES: Final = (Kind.SERVER, Kind.CONSUMER)
"""Their parents are in other processes."""


class RecordedSpan(Span):
    """A span that OpenTelemetry records."""

    __slots__ = ("_dropped", "_recorded")
    recorded = True

    def __init__(self, recorded: trace.Span) -> None:
        super().__init__(None)
        self._recorded = recorded
        self._dropped = False
        at = recorded.get_span_context()
        state = at.trace_state.to_header()
        self._context = TraceContext(
            trace.format_trace_id(at.trace_id), trace.format_span_id(at.span_id), int(at.trace_flags), state
        )

    def note(self, attributes: Attributes) -> None:
        self._recorded.set_attributes(_named(attributes))

    def rename(self, name: str) -> None:
        self._recorded.update_name(name)

    def fail(self, code: str) -> None:
        self._recorded.set_attribute("error.type", code)
        self._recorded.set_status(Status(StatusCode.ERROR))

    def drop(self) -> None:
        self._dropped = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # The name alone: the message of an exception may repeat people's data.
        if kind is not None and not issubclass(kind, asyncio.CancelledError):
            self.fail(kind.__name__)
        if not self._dropped:
            self._recorded.end()


class Exporter:
    """Records the spans of this process and sends them from a thread, in batches. What cannot be sent is lost."""

    def __init__(self, endpoint: str, service: str) -> None:
        _report_in_our_log()
        attributes = {"service.version": read_version()}
        if "OTEL_SERVICE_NAME" not in os.environ:
            attributes["service.name"] = service
        url = endpoint.rstrip("/")
        self._provider = TracerProvider(resource=Resource.create(attributes), shutdown_on_exit=False)
        exporter = OTLPSpanExporter(endpoint=url if url.endswith(_PATH) else url + _PATH)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("tranche", read_version())

    def start(self, name: str, kind: Kind, parent: TraceContext | None, attributes: Attributes) -> Span:
        within, links = Context(), []
        if parent is not None:
            at = _convert(parent, is_remote=kind in _ENTRIES)
            within = trace.set_span_in_context(NonRecordingSpan(at), within)
            links = [Link(at)] if kind is Kind.CONSUMER else []
        return RecordedSpan(
            self._tracer.start_span(name, context=within, kind=_KINDS[kind], attributes=_named(attributes), links=links)
        )

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()


def _named(attributes: Attributes) -> dict[str, str | int]:
    return {name: value for name, value in attributes.items() if value is not None}


def _convert(parent: TraceContext, *, is_remote: bool) -> SpanContext:
    return SpanContext(
        int(parent.trace_id, 16),
        int(parent.span_id, 16),
        is_remote=is_remote,
        trace_flags=TraceFlags(parent.flags),
        trace_state=TraceState.from_header([parent.state]) if parent.state else None,
    )


class _Report(logging.Handler):
    """What OpenTelemetry complains about, in our log: once a minute, for it complains about every batch."""

    due = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        now = time.monotonic()
        if now >= self.due:
            self.due = now + _QUIET
            log.warning("traces_not_sent", reason=record.getMessage()[:500])


def _report_in_our_log() -> None:
    theirs = logging.getLogger("opentelemetry")
    if not any(isinstance(handler, _Report) for handler in theirs.handlers):
        theirs.addHandler(_Report(logging.WARNING))
        theirs.propagate = False
