"""The embedded Valkey, with an append-only file so that a restart forgets nothing."""

import asyncio
import signal
from pathlib import Path

from app.embedded import secrets, state
from app.embedded.binaries import find_valkey
from app.embedded.engine import Engine
from app.embedded.errors import EngineError
from app.embedded.identity import choose, give


class Valkey(Engine):
    """One server. Upon SIGTERM it writes out its file."""

    name = "valkey-server"
    title = "Valkey"
    folder = "valkey"
    stop_signal = signal.SIGTERM
    stop_grace = 10.0
    ready_timeout = 60.0  # it reads its whole append-only file first
    _server: Path
    """Found by `prepare`."""

    @property
    def url(self) -> str:
        return f"redis://:{self._password.hex()}@{state.HOST}:{self.port}/0"

    async def prepare(self) -> None:
        self._server = find_valkey()
        self._identity = choose(self._folder, self.user)
        self._folder.mkdir(mode=0o700, exist_ok=True)
        await self.clear()
        give(self._folder, self._identity)
        self._password = secrets.load_or_create(self._password_file)

    async def start(self, port: int) -> None:
        self.port = port
        try:
            await self._start()
        except EngineError as error:
            if "append only file" not in error.detail.lower():
                raise
            # PostgreSQL is the truth and Valkey a memory of it: better an empty one than none.
            number = sum(1 for _ in self._folder.glob("appendonlydir.damaged-*")) + 1
            (self._folder / "appendonlydir").rename(self._folder / f"appendonlydir.damaged-{number}")
            await self._start()

    async def _start(self) -> None:
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
        # By standard input: in the argument list everybody could read the password.
        lines = "".join(f"{key} {value}\n" for key, value in config.items())
        await self._launch([self._server, "-"], reach=[self._server, self._folder], stdin=lines.encode())

    async def _is_ready(self, pid: int) -> bool:
        """It answers on the port, where another program might."""
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
