"""Both embedded engines as one thing that is started, stopped, killed and found again."""

import asyncio
import os
import stat
from pathlib import Path
from typing import Final, NamedTuple, Self

from app.embedded import identity, state
from app.embedded.engine import Engine
from app.embedded.errors import EngineError
from app.embedded.postgres import Postgres
from app.embedded.valkey import Valkey

PORT_ATTEMPTS: Final = 5
LOG_LIMIT: Final = 20_000_000
"""Bytes; a longer log is set aside at the next start, and the one before it dropped."""


class Urls(NamedTuple):
    """Where the engines listen; both carry their password."""

    database_url: str
    redis_url: str


class Engines:
    """PostgreSQL and Valkey on 127.0.0.1 with their data in one folder.

    Nothing here is bound to an event loop: `asyncio.run(engines.start())` and later
    `asyncio.run(engines.stop())` is fine. Start from the main thread (see `app.embedded.process`).

    What an earlier supervisor left running is stopped and started anew rather than adopted: only a child of
    ours is sure to end with us.
    """

    def __init__(self, data_dir: Path, *, user: str = identity.SHARED) -> None:
        """
        Args:
            data_dir: made when it is not there.
            user: as root, the system user that runs them, made when there is none; data of another user than
                root or `nobody` stays his.
        """
        self._data_dir = data_dir.absolute()
        self._lock = state.Lock(self._data_dir)
        self._user = user
        self.postgres: Final = Postgres(self._data_dir, user=user)
        self.valkey: Final = Valkey(self._data_dir, user=user)

    @property
    def urls(self) -> Urls:
        """As PostgreSQL's owner; the same from `start` to `stop`, whatever is killed and restarted between."""
        return Urls(self.postgres.url, self.valkey.url)

    @property
    def app_urls(self) -> Urls:
        """As the role that serves and works, and owns nothing."""
        return Urls(self.postgres.app_url, self.valkey.url)

    async def start(self) -> Urls:
        """Start both at once and return when both answer.

        Raises:
            FolderInUseError: another supervisor holds the folder.
            EngineMissingError: the wheels are not installed.
            EngineError: an engine did not come up; neither is then left running.
        """
        try:
            await self._start()
        except PermissionError as error:
            raise EngineError(
                f"{error.filename} is closed to this process (user {os.geteuid()}): choose another folder "
                "(--data-dir), or start as the user who made this one."
            ) from error
        return self.urls

    async def _start(self) -> None:
        self._make_folder()
        (self._data_dir / "log").mkdir(mode=0o700, exist_ok=True)
        await self._lock.acquire()
        try:
            (self._data_dir / "run.json").unlink(missing_ok=True)
            for log in ("postgres.log", "valkey.log"):
                self._rotate(self._data_dir / "log" / log)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._first_start(self.postgres))
                group.create_task(self._first_start(self.valkey))
            self._publish()
        except BaseException as error:
            await self.stop()
            if isinstance(error, BaseExceptionGroup):
                raise error.exceptions[0] from None
            raise

    def _make_folder(self) -> None:
        made = not self._data_dir.exists()
        self._data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.geteuid() != 0:
            return
        user = identity.ensure(self._user)
        self.postgres.user = self.valkey.user = user
        found = self._data_dir.stat()
        if made or (found.st_uid == 0 and stat.S_IMODE(found.st_mode) in (0o711, 0o710)):
            # The engines' user has to pass through, and nobody else.
            whom = identity.choose(self._data_dir / "postgres", user)
            assert whom is not None
            os.chown(self._data_dir, -1, whom.gid)
            self._data_dir.chmod(0o710)

    async def stop(self) -> None:
        """Stop both, each within a bounded time, and give the folder back. Harmless when nothing runs."""
        if not self._lock.held:
            return
        try:
            (self._data_dir / "run.json").unlink(missing_ok=True)
            await asyncio.gather(self.postgres.stop(), self.valkey.stop())
        finally:
            self._lock.release()

    async def died(self) -> str:
        """Wait until an engine ends by itself and return its name; `restart` brings it back."""
        children = [engine.child for engine in (self.postgres, self.valkey) if engine.child is not None]
        if not children:
            raise EngineError("no engine is running")
        waits = {asyncio.create_task(child.wait()): child.name for child in children}
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waits:
                task.cancel()
        return waits[done.pop()]

    async def restart(self) -> None:
        """Start what has ended again, each on its port."""
        for engine in (self.postgres, self.valkey):
            if engine.child is None or engine.child.returncode is not None:
                await engine.clear()
                await engine.start(engine.port)
                self._publish()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stop()

    async def _first_start(self, engine: Engine) -> None:
        await engine.prepare()
        for attempt in range(1, PORT_ATTEMPTS + 1):
            port = state.choose_port(self._data_dir, engine.name, again=attempt > 1)
            try:
                await engine.start(port)
                return
            except EngineError as error:
                # Between choosing and binding another program may have taken the port.
                if "address already in use" not in error.detail.lower() or attempt == PORT_ATTEMPTS:
                    raise

    def _publish(self) -> None:
        if self.postgres.child is None or self.valkey.child is None:
            return
        state.write_run(self._data_dir, state.Run(*self.app_urls, os.getpid(), self.postgres.url))

    @staticmethod
    def _rotate(log: Path) -> None:
        if log.exists() and log.stat().st_size > LOG_LIMIT:
            log.replace(log.with_suffix(".log.1"))
