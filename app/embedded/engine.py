"""What both engines are: a server with a folder, a password and a log, in a process of ours; and how to end those in
its folder that nobody supervises any more."""

import asyncio
import contextlib
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Final

import psutil

from app.embedded.errors import EngineError
from app.embedded.identity import Identity
from app.embedded.process import Child, size, tail

ENVIRONMENT: Final = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
"""Nothing of the caller's: a PGDATA or PGPORT of his would reach the engine."""


class Engine(ABC):
    """One server in a folder of the data folder. `user`: the system user that runs it where we are root."""

    name: ClassVar[str]
    """Of its process."""
    title: ClassVar[str]
    """For messages."""
    folder: ClassVar[str]
    stop_signal: ClassVar[signal.Signals]
    stop_grace: ClassVar[float]
    ready_timeout: ClassVar[float]
    """Seconds, both."""

    def __init__(self, data_dir: Path, *, user: str) -> None:
        self._data_dir = data_dir
        self._folder = data_dir / self.folder
        self._password_file = data_dir / f"{self.folder}.password"
        self._log = data_dir / "log" / f"{self.folder}.log"
        self._password = b""
        self._identity: Identity | None = None
        self.user = user
        self.child: Child | None = None
        self.port = 0

    @abstractmethod
    async def prepare(self) -> None:
        """Stop what is left of an earlier run, and see to folder and password."""

    @abstractmethod
    async def start(self, port: int) -> None:
        """Start and return when it serves.

        Raises:
            EngineError: it ended or was not ready in time; the message has the end of its log.
        """

    async def stop(self) -> None:
        """Shut down in good order, and SIGKILL when that takes too long."""
        if self.child is not None:
            await self.child.stop(self.stop_grace)
            await self._ended()

    async def kill(self) -> None:
        """SIGKILL to all of it, as the machine's failure would."""
        if self.child is not None:
            await self.child.kill()
            await self._ended()

    async def clear(self) -> None:
        """End every process of it in the folder, whoever started it."""
        await evict(self._folder, self.name, self.stop_signal, self.stop_grace)

    async def _ended(self) -> None:
        self.child = None

    async def _launch(self, argv: Sequence[str | Path], *, reach: Sequence[Path], stdin: bytes = b"") -> None:
        """Start the server, and wait until it is ready."""
        start = size(self._log)
        self.child = child = Child.spawn(
            argv,
            name=self.name,
            env=ENVIRONMENT,
            cwd=self._folder,
            stdin=stdin,
            log=self._log,
            stop_signal=self.stop_signal,
            identity=self._identity,
            reach=reach,
        )
        try:
            async with asyncio.timeout(self.ready_timeout):
                while not await self._is_ready(child.pid):
                    if child.returncode is not None:
                        raise EngineError(f"{self.title} did not start: {tail(self._log, start)}")
                    await asyncio.sleep(0.01)
        except TimeoutError:
            await self.stop()
            raise EngineError(f"{self.title} was not ready within {self.ready_timeout:g} s, see {self._log}") from None

    @abstractmethod
    async def _is_ready(self, pid: int) -> bool:
        """Whether our own process serves, with its data loaded."""


async def evict(folder: Path, name: str, stop_signal: signal.Signals, grace: float) -> None:
    """End what runs in `folder`: `stop_signal` to the oldest, `grace` seconds later SIGKILL to all.

    The process table is asked, never a pid file: a stale file, a pid that now belongs to another program and a zombie
    cannot mislead it. psutil compares start times before it signals, so no other process is hit in error.

    Raises:
        EngineError: something is still there after that.
    """
    found = sorted(_find_residents(folder, name), key=lambda process: process.create_time())
    if not found:
        return
    with contextlib.suppress(psutil.NoSuchProcess):
        found[0].send_signal(stop_signal)
    await _await_end(found, grace)
    left = list(_find_residents(folder, name))
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    if alive := await _await_end(left, 5.0):
        raise EngineError(f"{name} (process {alive[0].pid}) was left in {folder} and cannot be stopped")


def _find_residents(folder: Path, name: str) -> Iterator[psutil.Process]:
    """The live processes called `name` whose working folder is `folder`."""
    home = folder.resolve()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.name() == name and Path(process.cwd()) == home:
                yield process


async def _await_end(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    limit = time.monotonic() + seconds
    while True:
        alive = [process for process in processes if _is_alive(process)]
        if not alive or time.monotonic() >= limit:
            return alive
        await asyncio.sleep(0.01)


def _is_alive(process: psutil.Process) -> bool:
    # A zombie is as good as gone; in a container whose first process never reaps it stays for ever.
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
