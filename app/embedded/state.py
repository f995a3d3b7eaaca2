"""The contents of a data folder: its owner and where its engines listen.

lock                 held (flock) by the one supervisor; holds its process id
run.json             while the engines are up: their URLs, for other commands
ports.json           the ports of last time, taken again when they are free
postgres.password    of the owner, raw bytes; the URL carries them in hex
postgres.app.password  of the role that serves and works
valkey.password
postgres/ valkey/    the data
log/                 what the engines print
"""

import asyncio
import fcntl
import os
import random
import socket
import time
from pathlib import Path
from typing import Final

import msgspec
import psutil

from app.embedded.errors import EngineError, FolderInUseError
from app.embedded.secrets import replace_private

HOST: Final = "127.0.0.1"
PORTS: Final = range(15_000, 32_000)
"""Below every system's ephemeral range: a client that reconnects all the time to a dead engine's port could
otherwise be given that very port as its own, connect to itself and keep the engine from coming back."""


class Run(msgspec.Struct, frozen=True):
    """Engines that are up, as `run.json` describes them."""

    database_url: str
    """As the role that serves and works."""
    redis_url: str
    pid: int
    """Of the supervisor."""
    owner_url: str = ""
    """The database as its owner, for migrations."""


def read_run(data_dir: Path) -> Run | None:
    """The engines that are up in a data folder; `None` when nobody runs them now, whatever files are left."""
    try:
        run = msgspec.json.decode((data_dir / "run.json").read_bytes(), type=Run)
        lock = (data_dir / "lock").open("rb")
    except (OSError, ValueError):
        return None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return run if psutil.pid_exists(run.pid) else None
        return None


def write_run(data_dir: Path, run: Run) -> None:
    replace_private(data_dir / "run.json", msgspec.json.format(msgspec.json.encode(run)))


class Lock:
    """The exclusive right to a data folder; the kernel takes it back however its holder dies."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / "lock"
        self._handle: int | None = None

    @property
    def held(self) -> bool:
        return self._handle is not None

    async def acquire(self) -> None:
        """Take it, or raise `FolderInUseError` that names the holder."""
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        # A reader of run.json holds it for a moment; only a supervisor holds it longer.
        limit = time.monotonic() + 0.5
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() < limit:
                    await asyncio.sleep(0.01)
                    continue
                holder = os.pread(handle, 32, 0).decode("ascii", "replace").strip() or "unknown"
                os.close(handle)
                raise FolderInUseError(
                    f"The engines in {self._path.parent} are run by process {holder}: "
                    "stop that one, or choose another folder (--data-dir)."
                ) from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        self._handle = handle

    def release(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def choose_port(data_dir: Path, engine: str, *, again: bool = False) -> int:
    """A port of a data folder that is free now: the same at every start, so long as nobody else took it.

    Args:
        engine: under which name it is remembered.
        again: the remembered one turned out to be taken.

    Raises:
        EngineError: no port is free.
    """
    path = data_dir / "ports.json"
    try:
        known = msgspec.json.decode(path.read_bytes(), type=dict[str, int])
    except (OSError, ValueError):
        known = {}
    candidates = [] if again or engine not in known else [known[engine]]
    candidates += random.sample(PORTS, 200)
    others = {port for name, port in known.items() if name != engine}
    for port in candidates:
        if port not in others and is_free(port):
            if known.get(engine) != port:
                replace_private(path, msgspec.json.encode(known | {engine: port}))
            return port
    raise EngineError(f"no free port for {engine} on {HOST}")


def is_free(port: int) -> bool:
    """Whether a server could listen on the port now; connections of the past that linger do not matter."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True
