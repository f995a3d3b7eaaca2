"""Workbooks on their way to items: the body is kept in a file, a process reads it, and its rows come out as they come.

A workbook can be read only once all of it is there, and what reads it may take much memory and time for few bytes. So
each is read by a process of its own, of which few run at a time; whoever finds none waits.
"""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncGenerator
from typing import IO, Final

import structlog

from app.errors import Invalid, MalformedRequest, Overloaded, TooLarge, TrancheError
from app.files.readers import Form
from app.files.workbook.process import Extraction
from app.files.workbook.protocol import Ask, Why, WorkbookError
from app.settings import PREFIX, Settings

log = structlog.get_logger()

_SOON: Final = 1.0
_FULL: Final = 10.0
"""Seconds after which another workbook may have left room."""


class Workbooks:
    """Reads the workbooks of one process of the API."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._places = asyncio.Semaphore(settings.workbook_processes)

    async def read(
        self, stream: IO[bytes], form: Form, *, atomic: bool, at_once: int | None = None
    ) -> AsyncGenerator[bytes]:
        """The rows of the workbook in this file, for the reader of its form; to be closed (`aclosing`).

        `at_once`: bytes, uncompressed; a larger workbook raises `_Later`.

        Raises:
            Overloaded: no process could be started.
            MalformedRequest: it is no workbook, or is damaged.
            TooLarge: it exceeds a limit.
            Invalid: it has no such sheet.
        """
        ask = self._ask(form, atomic=atomic, at_once=at_once)
        async with self._places:
            try:
                extraction = await asyncio.to_thread(Extraction, stream, ask)
            except OSError as error:
                log.error("workbook_process_not_started", error=error)
                raise Overloaded(retry_after=_SOON) from error
            try:
                while block := await asyncio.to_thread(extraction.read):
                    yield block
            except WorkbookError as error:
                raise _refuse(error) from error
            finally:
                # Ends a thread that waits for it as well.
                extraction.end()
                await asyncio.to_thread(extraction.close)

    async def unfold(self, body: bytes, form: Form, *, atomic: bool) -> bytes | None:
        """The rows of a workbook that is answered at once, as one body for the reader of its form; raises as `read`.

        None: it is too large for that.
        """
        most = self._settings.max_sync_bytes
        found: list[bytes] = []
        size = 0
        with tempfile.TemporaryFile(prefix="tranche-workbook-") as stream:
            keep_workbook(stream, body)
            try:
                async with contextlib.aclosing(self.read(stream, form, atomic=atomic, at_once=most)) as rows:
                    async for block in rows:
                        found.append(block)
                        size += len(block)
                        if size > most:
                            return None
            except _Later:
                return None
        return b"".join(found)

    def _ask(self, form: Form, *, atomic: bool, at_once: int | None) -> Ask:
        settings = self._settings
        most, remedy = settings.max_workbook_bytes, f", or ask an operator to raise {PREFIX}MAX_WORKBOOK_BYTES"
        if atomic and settings.max_atomic_bytes < most:
            most, remedy = settings.max_atomic_bytes, ", or send it without atomic=true"
        return Ask(
            sheet=form.sheet or "",
            most_bytes=most,
            remedy=remedy,
            most_inflation=settings.max_inflation,
            memory=settings.workbook_memory,
            at_once=at_once,
            typed=bool(form.decimal or form.date_format),
        )


def keep_workbook(stream: IO[bytes], data: bytes) -> None:
    """Write these bytes of a workbook to its file. Raises `Overloaded`: there is no room."""
    try:
        stream.write(data)
        stream.flush()
    except OSError as error:
        log.error("workbook_not_kept", error=error)
        raise Overloaded(
            "The folder for temporary files has no room for the workbook; send it later, or save the sheet as CSV and "
            "send that.",
            retry_after=_FULL,
        ) from error


class _Later(Exception):
    """The workbook is too large to be read at once."""


def _refuse(error: WorkbookError) -> TrancheError | _Later:
    detail = error.detail[:1].upper() + error.detail[1:] + "."
    if error.why is Why.LATER:
        return _Later()
    if error.why is Why.TOO_LARGE:
        return TooLarge(detail)
    return Invalid(error.detail) if error.why is Why.NO_SHEET else MalformedRequest(detail)
