"""Sending of spans for as long as a process works, where the settings say where to."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from app.errors import SettingsError
from app.settings import Settings
from app.tracing import spans

_CLOSING: Final = 5.0
"""Seconds that the last spans of a process have to be sent."""


def check(settings: Settings) -> None:
    """
    Raises:
        SettingsError: spans are to be sent, and what sends them is not installed.
    """
    if settings.otlp_endpoint:
        try:
            from app.tracing import otlp  # noqa: F401
        except ModuleNotFoundError as error:
            raise SettingsError(
                "TRANCHE_OTLP_ENDPOINT is set: install tranche[otel], which sends traces, or unset it."
            ) from error


@asynccontextmanager
async def exporting(settings: Settings, service: str) -> AsyncIterator[None]:
    """Record this process's spans and send them, if the settings say where.

    Raises:
        SettingsError: see `check`.
    """
    if not settings.otlp_endpoint:
        yield
        return
    check(settings)
    from app.tracing.otlp import Exporter

    exporter = Exporter(settings.otlp_endpoint, service)
    spans.record_with(exporter.start)
    try:
        yield
    finally:
        spans.record_with(None)
        # Not a thread of the event loop's, which would wait for it when it ends, however long that takes.
        closing = threading.Thread(target=exporter.close, daemon=True)
        closing.start()
        await asyncio.to_thread(closing.join, _CLOSING)
