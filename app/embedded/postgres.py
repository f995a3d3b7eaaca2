"""The embedded PostgreSQL: made once, then started on the same folder for ever."""

import asyncio
import shutil
import signal
import tempfile
from pathlib import Path
from typing import Final

import asyncpg

from app.embedded import secrets, state
from app.embedded.binaries import PostgresInstall, find_postgres
from app.embedded.engine import ENVIRONMENT, Engine, evict
from app.embedded.errors import EngineError
from app.embedded.identity import choose, give, require_name
from app.embedded.process import Child, size, tail
from app.migrations.privileges import APP, privileges

ROLE: Final = "tranche"
"""Owns the cluster and every table. The service is given the role `APP`, which owns nothing."""
DATABASE: Final = "tranche"
INIT_TIMEOUT: Final = 120.0


class Postgres(Engine):
    """One cluster. SIGINT is its fast shutdown: clients are cut off, no data is."""

    name = "postgres"
    title = "PostgreSQL"
    folder = "postgres"
    stop_signal = signal.SIGINT
    stop_grace = 15.0
    ready_timeout = 120.0  # recovery after a crash replays at most `max_wal_size`
    _install: PostgresInstall
    """Found by `prepare`."""

    def __init__(self, data_dir: Path, *, user: str) -> None:
        super().__init__(data_dir, user=user)
        self._app_password_file = data_dir / "postgres.app.password"
        self._app_password = b""

    @property
    def url(self) -> str:
        """As the owner, a superuser: for migrations."""
        return self._url(ROLE, self._password)

    @property
    def app_url(self) -> str:
        """As the role that serves and works."""
        return self._url(APP, self._app_password)

    def _url(self, role: str, password: bytes) -> str:
        return f"postgresql://{role}:{password.hex()}@{state.HOST}:{self.port}/{DATABASE}"

    async def prepare(self) -> None:
        """Make the cluster if there is none yet.

        Only a finished cluster ever gets its final name, so one whose making was interrupted is made anew.
        """
        version = self._folder / "PG_VERSION"
        self._install = await asyncio.to_thread(find_postgres, int(version.read_text()) if version.exists() else None)
        self._identity = choose(self._folder, self.user)
        if not version.exists():
            await self._create()
            return
        await self.clear()
        give(self._folder, self._identity)
        if not self._password_file.exists():
            await self._change_password()
        self._password = secrets.load_or_create(self._password_file)

    async def start(self, port: int) -> None:
        self.port = port
        settings = {
            "listen_addresses": state.HOST,
            "port": port,
            "unix_socket_directories": "",
            "max_connections": 100,
            "shared_buffers": "192MB",
            "max_wal_size": "2GB",
            "min_wal_size": "160MB",
            "wal_compression": self._install.wal_compression,
            "checkpoint_timeout": "15min",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "password_encryption": "scram-sha-256",
            "jit": "off",
            "logging_collector": "off",
            "log_line_prefix": "%m [%p] ",
        }
        options = (word for key, value in settings.items() for word in ("-c", f"{key}={value}"))
        server = self._install.program("postgres")
        await self._launch([server, "-D", self._folder, *options], reach=self._reach(self._folder))
        try:
            await self._admit_app()
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            await self.stop()
            raise EngineError(f"PostgreSQL came up and refused its owner: {error}, see {self._log}") from error

    async def _admit_app(self) -> None:
        """See that the service's role is there and has this password: the folder may be of an older release, or the
        file with the password lost."""
        self._app_password = secrets.load_or_create(self._app_password_file)
        try:
            await (await asyncpg.connect(self.app_url, timeout=self.ready_timeout)).close()
            return
        except (asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError):
            pass
        owner = await asyncpg.connect(self.url, timeout=self.ready_timeout)
        try:
            async with owner.transaction():
                known = await owner.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", APP)
                verb = "ALTER" if known else "CREATE"
                await owner.execute(f"{verb} ROLE {APP} LOGIN PASSWORD '{self._app_password.hex()}'")
                await owner.execute(privileges(ROLE))
        finally:
            await owner.close()

    async def clear(self) -> None:
        await super().clear()
        # With none left the file is stale; PostgreSQL itself would only ask whether any process has that pid.
        (self._folder / "postmaster.pid").unlink(missing_ok=True)

    async def _ended(self) -> None:
        # Each backend leads a session of its own, so they are not in the postmaster's group and may linger.
        await evict(self._folder, self.name, signal.SIGKILL, 0.0)
        await super()._ended()

    async def _is_ready(self, pid: int) -> bool:
        # What pg_ctl --wait reads: line 1 is the pid, line 8 the state.
        try:
            lines = (self._folder / "postmaster.pid").read_text().splitlines()
        except (FileNotFoundError, UnicodeDecodeError):
            return False
        return len(lines) >= 8 and lines[0].strip() == str(pid) and lines[7].strip() == "ready"

    def _reach(self, folder: Path) -> list[Path]:
        return [self._install.program("postgres"), self._install.root / "share", folder]

    async def _create(self) -> None:
        require_name(self._identity)
        for leftover in self._data_dir.glob("postgres.new-*"):
            await evict(leftover / "data", self.name, signal.SIGKILL, 0.0)
            shutil.rmtree(leftover, ignore_errors=True)
        self._password = secrets.load_or_create(self._password_file)
        workshop = Path(tempfile.mkdtemp(prefix="postgres.new-", dir=self._data_dir))
        secrets.write_private(workshop / "password", self._password.hex().encode())
        give(workshop, self._identity)
        data = workshop / "data"
        initdb = self._install.program("initdb")
        await self._run(
            [
                initdb,
                f"--pgdata={data}",
                f"--username={ROLE}",
                f"--pwfile={workshop / 'password'}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
                "--data-checksums",
                "--no-sync",
                "--no-instructions",
            ],
            folder=workshop,
        )
        await self._single_user(data, f"CREATE DATABASE {DATABASE}", "-F")
        await self._run([initdb, f"--pgdata={data}", "--sync-only"], folder=workshop)
        try:
            data.rename(self._folder)  # replaces an empty folder, never somebody's data
        except OSError as error:
            raise EngineError(f"{self._folder} is no PostgreSQL cluster, move it away: {error}") from error
        secrets.sync_folder(self._data_dir)
        shutil.rmtree(workshop)

    async def _change_password(self) -> None:
        """The password file is lost: whoever owns the folder may set a new password.

        The file is written last; an interruption before that leads here again.
        """
        password = self._password_file.with_name("postgres.password.new")
        secret = secrets.load_or_create(password)
        await self._single_user(self._folder, f"ALTER ROLE {ROLE} PASSWORD '{secret.hex()}'")
        password.replace(self._password_file)

    async def _single_user(self, data: Path, statement: str, *options: str) -> None:
        await self._run(
            [self._install.program("postgres"), "--single", "-j", *options, "-D", data, "postgres"],
            folder=data,
            stdin=f"{statement};\n\n".encode(),
        )

    async def _run(self, argv: list[str | Path], *, folder: Path, stdin: bytes = b"") -> None:
        """Run a program to its end; `EngineError` with the end of its log unless it exits 0."""
        start, reach = size(self._log), self._reach(folder)
        child = Child.spawn(
            argv, env=ENVIRONMENT, cwd=folder, stdin=stdin, log=self._log, identity=self._identity, reach=reach
        )
        try:
            code = await asyncio.wait_for(child.wait(), INIT_TIMEOUT)
        except TimeoutError:
            raise EngineError(f"{child.name} did not finish within {INIT_TIMEOUT:g} s, see {self._log}") from None
        finally:
            await child.kill()
        if code != 0:
            raise EngineError(f"{child.name} failed with exit code {code}: {tail(self._log, start)}")
