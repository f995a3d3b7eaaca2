"""The embedded Valkey, with an append-only file so that a restart forgets nothing."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Final

from app.embedded import residents, secrets, state
from app.embedded.binaries import find_valkey
from app.embedded.errors import EngineError
from app.embedded.identity import Identity, choose, give
from app.embedded.process import Child, deadline, size, tail

READY_TIMEOUT: Final = 60.0
"""Seconds; it reads its whole append-only file first."""
STOP_GRACE: Final = 10.0


class Valkey:
    """One server in `data_dir/valkey`."""

    name: Final = "valkey-server"

    def __init__(self, data_dir: Path, *, user: str) -> None:
        self._folder = data_dir / "valkey"
        self._password_file = data_dir / "valkey.password"
        self._log = data_dir / "log" / "valkey.log"
        self.user = user
        self._password = b""
        self._server: Path | None = None
        self._identity: Identity | None = None
        self.child: Child | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"redis://:{self._password.hex()}@{state.HOST}:{self.port}/0"

    async def prepare(self) -> None:
        """Stop what is left of an earlier run and see to folder and password."""
        self._server = find_valkey()
        self._identity = choose(self._folder, self.user)
        self._folder.mkdir(mode=0o700, exist_ok=True)
        await self.clear()
        give(self._folder, self._identity)
        self._password = secrets.load_or_create(self._password_file)

    async def start(self, port: int) -> None:
        """Start and return when it has loaded its data.

        Raises:
            EngineError: it ended or was not ready in time; the message has the end of its log.
        """
        self.port = port
        try:
            await self._start()
        except EngineError as error:
            if "append only file" not in error.detail.lower():
                raise
            # PostgreSQL is the truth and Valkey a memory of it: better an empty one than none.
            self._set_aside()
            await self._start()

    async def _start(self) -> None:
        assert self._server is not None, "prepare first"
        config = {
            "port": self.port,
            "bind": state.HOST,
            "protected-mode": "yes",
            "requirepass": self._password.hex(),
            "daemonize": "no",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": '""',
            "maxmemory-policy": "noeviction",
        }
        start = size(self._log)
        # By standard input: in the argument list everybody could read the password.
        self.child = Child.spawn(
            [self._server, "-"],
            name=self.name,
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"},
            cwd=self._folder,
            stdin="".join(f"{key} {value}\n" for key, value in config.items()).encode(),
            log=self._log,
            identity=self._identity,
            reach=[self._server, self._folder],
        )
        limit = deadline(READY_TIMEOUT)
        while not await self._is_ready(self.child.pid):
            if self.child.returncode is not None:
                raise EngineError(f"Valkey did not start: {tail(self._log, start)}")
            if deadline(0) > limit:
                await self.stop()
                raise EngineError(f"Valkey was not ready within {READY_TIMEOUT:g} s, see {self._log}")
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """SIGTERM, upon which it writes out its file, then SIGKILL."""
        if self.child is not None:
            await self.child.stop(STOP_GRACE)
            self.child = None

    async def kill(self) -> None:
        """SIGKILL."""
        if self.child is not None:
            await self.child.kill()
            self.child = None

    async def clear(self) -> None:
        """End every Valkey process in the folder."""
        await residents.evict(self._folder, self.name, signal.SIGTERM, STOP_GRACE)

    def _set_aside(self) -> None:
        number = sum(1 for _ in self._folder.glob("appendonlydir.damaged-*")) + 1
        (self._folder / "appendonlydir").rename(self._folder / f"appendonlydir.damaged-{number}")

    async def _is_ready(self, pid: int) -> bool:
        """Whether our own process answers on the port (another program might), with its data loaded."""
        try:
            async with asyncio.timeout(2.0):
                reader, writer = await asyncio.open_connection(state.HOST, self.port)
                try:
                    writer.write(f"AUTH {self._password.hex()}\r\nPING\r\nINFO server\r\nQUIT\r\n".encode())
                    answer = await reader.read(-1)
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return False
        return b"\r\n+PONG\r\n" in answer and f"process_id:{pid}\r\n".encode() in answer
