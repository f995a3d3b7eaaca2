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
from app.files.csv_mapping import ColumnNames
from app.files.readers import Contents, Form, keep, open_reader
from app.files.workbook.process import Extraction
from app.files.workbook.protocol import Ask, Why, WorkbookError
from app.resources.decoding import Piece
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

    async def cut(
        self, body: bytes, form: Form, names: ColumnNames, *, atomic: bool, max_items: int
    ) -> Contents | None:
        """The items of a whole body; None: there are more, or it is too large to be answered at once.

        Raises:
            HeaderError: the columns cannot be used.
            And what `read` does.
        """
        reader = open_reader(form, names)
        pieces: list[Piece] = []
        lines: list[int] = []
        with tempfile.TemporaryFile(prefix="tranche-workbook-") as stream:
            keep_workbook(stream, body)
            rows = self.read(stream, form, atomic=atomic, at_once=self._settings.max_sync_bytes)
            try:
                async with contextlib.aclosing(rows):
                    async for block in rows:
                        for found in reader.read(block):
                            pieces += found.pieces
                            lines += found.lines
                            if len(pieces) > max_items:
                                return None
                            await asyncio.sleep(0)
            except _Later:
                return None
        for _ in reader.read(None):
            pass
        return Contents(pieces, keep(form, reader), lines, reader.grid)

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
