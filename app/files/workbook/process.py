"""A process that reads a workbook, as the one sees it that started it."""

import os
import subprocess
import sys
from signal import SIGABRT, SIGKILL, SIGXCPU
from typing import IO, Final, Self

from app.files.workbook.package import SAVE
from app.files.workbook.protocol import NO_MEMORY, TOO_MANY, Ask, Refusal, Why, WorkbookError, decode_first, encode

_BLOCK: Final = 65_536
_HELD: Final = 10_000_000
"""Bytes: the first line is never as long."""
_CSV: Final = "save the sheet as CSV and send that"


class Extraction:
    """The rows of a sheet as lines (`app.files.workbook.protocol`); to be closed (`with`), which ends the process.

    `stream` is a file of the system, and has the workbook. `read` waits for the process, so it is for a thread.
    """

    def __init__(self, stream: IO[bytes], ask: Ask) -> None:
        stream.flush()
        stream.seek(0)
        # Nothing of this process's environment is for one that reads what anybody has sent.
        environment = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LANG") if name in os.environ}
        self._memory, self._inflation = ask.memory, ask.most_inflation
        self._begun = False
        self._process = subprocess.Popen(  # noqa: S603 - of what was sent, only a name of a sheet is an argument
            [sys.executable, "-P", "-m", "app.files.workbook.extract", encode(ask).decode()],
            stdin=stream,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )

    def read(self) -> bytes:
        """The next bytes; empty at the end.

        Raises:
            WorkbookError: the workbook or the sheet cannot be read.
        """
        out = self._process.stdout
        assert out is not None
        if not self._begun:
            self._begun = True
            line = out.readline(_HELD)
            if line:
                first = decode_first(line)
                if isinstance(first, Refusal):
                    raise WorkbookError(first.why, first.detail)
                return line
        block: bytes = out.read1(_BLOCK)  # type: ignore[attr-defined]  # of a BufferedReader
        if not block:
            self._check(self._process.wait())
        return block

    def _check(self, code: int) -> None:
        if code in (NO_MEMORY, -SIGABRT, -SIGKILL):
            raise WorkbookError(
                Why.TOO_LARGE, f"the workbook takes more than {self._memory:,} bytes of memory to be read; {_CSV}"
            )
        if code == TOO_MANY:
            raise WorkbookError(
                Why.TOO_LARGE,
                f"the rows of the sheet are more than {self._inflation:g} times as large as the workbook; {_CSV}",
            )
        if code == -SIGXCPU:
            raise WorkbookError(Why.TOO_LARGE, f"the workbook takes too long to be read; {_CSV}")
        if code:
            raise WorkbookError(Why.UNREADABLE, f"the workbook is damaged (reading it ended with {code}); {SAVE}")

    def end(self) -> None:
        """End the process, whatever it does; a `read` that waits for it returns."""
        self._process.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """No `read` may be waiting."""
        self.end()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
