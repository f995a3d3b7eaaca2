"""Everything of one installation as child processes: engines, API, worker and, if wanted, the sandbox CRM."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Final, Self

import aiohttp
import msgspec
import structlog

from app.audit.queries import OPERATOR
from app.auth import service as auth_service
from app.auth import sessions
from app.cli.local import place
from app.cli.local.server import claim_port
from app.destinations import service as destination_service
from app.embedded import Child, EngineError, Engines
from app.errors import Conflict
from app.kit.encryption import Vault
from app.kit.postgres.database import Connection
from app.migrations.runner import migrate
from app.settings import Settings
from app.vocabulary.addresses import parse_networks

log = structlog.get_logger()

READY_SECONDS: Final = 30.0
STOP_SECONDS: Final = 20.0
_RESTART_PAUSE: Final = 0.5
_HOST: Final = "127.0.0.1"
_LOOPBACK: Final = "127.0.0.0/8"
"""Where the sandbox is: with it, destinations may be on this machine."""
_PORT_SECONDS: Final = 2.0
"""How long the remains of one that was killed may still hold a port."""
TENANT: Final = "default"
SANDBOX: Final = "hubspot"
"""Name of the destination of the sandbox CRM."""


def own_command(*words: str) -> list[str]:
    """`tranche WORDS` of this very installation, whatever the current folder holds.

    Without -P, Python would look there first, and many a project has a package named `app` of its own.
    """
    return [sys.executable, "-P", "-m", "app.cli.main", *words]


class Stack:
    """Starts the parts in order, keeps them running, stops them in reverse order.

    Engines that the settings name are used as they are; the embedded ones fill the gaps.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        port: int,
        sandbox_port: int | None = None,
        sandbox_fields: tuple[str, ...] = ("*",),
        workers: int = 1,
        log_dir: Path | None = None,
    ) -> None:
        self.folder: Final = Path(settings.data_dir).absolute()
        if sandbox_port:
            networks = ",".join(filter(None, (settings.destination_private, _LOOPBACK)))
            settings = msgspec.structs.replace(settings, destination_private=networks)
        self.settings = settings
        self.url: Final = f"http://{_HOST}:{port}"
        self.sandbox_url: Final = f"http://{_HOST}:{sandbox_port}" if sandbox_port else None
        self.first_key: str | None = None
        """The API key that was made because there was none; shown once."""
        self.console_url: str | None = None
        """The console, signed in once; `None`: there is none, or no key that may see it."""
        self._port = port
        self._sandbox_port = sandbox_port
        self._sandbox_fields = sandbox_fields
        self._workers = workers
        self._log_dir = log_dir
        self._engines: Engines | None = None
        self._children: dict[str, Child] = {}

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _start(self) -> None:
        settings = self.settings
        # Before anything is started, let alone made: the engines take seconds, and a folder once begun stays.
        claim_port(_HOST, self._port, "--port", timeout=_PORT_SECONDS)
        if self._sandbox_port:
            claim_port(_HOST, self._sandbox_port, "--sandbox-port", timeout=_PORT_SECONDS)
        if not (settings.database_url and settings.redis_url):
            self._engines = Engines(self.folder, user=settings.engine_user)
            owner = await self._engines.start()
            urls = self._engines.app_urls
            if not settings.database_url:
                settings = msgspec.structs.replace(settings, database_owner_url=owner.database_url)
            settings = msgspec.structs.replace(
                settings,
                database_url=settings.database_url or urls.database_url,
                redis_url=settings.redis_url or urls.redis_url,
            )
        if not settings.secret_key:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            settings = msgspec.structs.replace(settings, secret_key=place.secret_key(self.folder))
        self.settings = settings
        await migrate(settings.database_owner_url or settings.database_url)
        await self._furnish()
        for part in self._parts():
            self._spawn(part)
        await self._await_ready()

    async def _link_console(self, connection: Connection, tenant_id: int) -> str | None:
        found = await auth_service.list_keys(connection, tenant_id)
        good = await auth_service.find_good_keys(connection, [(tenant_id, key.key_id) for key in found])
        keys = [key for key in found if (tenant_id, key.key_id) in good and "admin" in key.scopes]
        if not keys:
            return None
        opened = await sessions.open_session(
            connection, tenant_id, keys[0].key_id, seconds=sessions.LINK_SECONDS, actor=OPERATOR
        )
        # By this name browsers keep its cookie without TLS.
        return f"http://localhost:{self._port}/console#{opened.secret}"

    async def _furnish(self) -> None:
        """A first key, and the sandbox as a destination."""
        async with place.connection(self.settings) as connection:
            tenant_id = await auth_service.ensure_tenant(connection, TENANT)
            if not await auth_service.list_keys(connection, tenant_id):
                self.first_key = await auth_service.create_key(connection, TENANT, list(auth_service.SCOPES))
            if self.settings.console:
                self.console_url = await self._link_console(connection, tenant_id)
            if not self.sandbox_url:
                return
            known = await destination_service.list_destinations(connection, tenant_id)
            found = next((destination for destination in known if destination.name == SANDBOX), None)
            if found is not None and found.base_url != self.sandbox_url:
                raise Conflict(
                    f"The destination {SANDBOX!r} is {found.base_url}, not this sandbox; choose its old port "
                    "(--sandbox-port), or remove it: tranche destinations remove hubspot"
                )
            if found is None:
                new = destination_service.NewDestination(
                    name=SANDBOX,
                    kind="hubspot",
                    base_url=self.sandbox_url,
                    token="sandbox",  # noqa: S106
                )
                private = parse_networks(self.settings.destination_private)
                vault = Vault(self.settings.secret_key)
                await destination_service.add_destination(connection, vault, tenant_id, new, private=private)

    def _parts(self) -> dict[str, list[str]]:
        """The words that start each part, in starting order."""
        parts = {
            "api": ["serve", "--port", str(self._port), "--workers", str(self._workers), "--quiet"],
            "worker": ["worker", "--quiet"],
        }
        if self._sandbox_port:
            ledger = str(self.folder / "sandbox-ledger.jsonl")
            fields = [word for name in self._sandbox_fields for word in ("--field", name)]
            where = ["--port", str(self._sandbox_port), "--ledger", ledger]
            parts["sandbox"] = ["sandbox-crm", *where, *fields, "--quiet"]
        return parts

    def _spawn(self, name: str) -> None:
        environment = os.environ | {
            "TRANCHE_DATABASE_URL": self.settings.database_url,
            "TRANCHE_DATABASE_OWNER_URL": "",  # neither serves nor works as the owner
            "TRANCHE_REDIS_URL": self.settings.redis_url,
            "TRANCHE_SECRET_KEY": self.settings.secret_key,
            "TRANCHE_DATA_DIR": str(self.folder),
            "TRANCHE_DESTINATION_PRIVATE": self.settings.destination_private,
        }
        self._children[name] = Child.spawn(
            own_command(*self._parts()[name]),
            name=name,
            env=environment,
            log=self._log_dir / f"{name}.log" if self._log_dir else None,
        )

    async def _await_ready(self) -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(2)) as session:
            wanted = [f"{self.url}/health/ready"]
            if self.sandbox_url:
                wanted.append(f"{self.sandbox_url}/__sandbox__/health")
            try:
                async with asyncio.timeout(READY_SECONDS):
                    for url in wanted:
                        while not await _answers(session, url):
                            self._check_children()
                            await asyncio.sleep(0.05)
            except TimeoutError:
                raise EngineError(f"{self.url} was not ready after {READY_SECONDS:.0f} s; see the log above.") from None

    def _check_children(self) -> None:
        for child in self._children.values():
            if child.returncode is not None:
                raise EngineError(f"the {child.name} ended with {child.returncode} while starting; see the log above.")

    async def supervise(self) -> None:
        """Start again whatever part or engine ends; raises when an engine cannot be started any more."""
        tasks = {asyncio.create_task(child.wait()): name for name, child in self._children.items()}
        engine = asyncio.create_task(self._engines.died()) if self._engines else None
        try:
            while True:
                done, _ = await asyncio.wait([*tasks, *([engine] if engine else [])], return_when="FIRST_COMPLETED")
                if self._engines is not None and engine is not None and engine in done:
                    done.remove(engine)
                    log.warning("engine_ended", engine=engine.result(), log=str(self.folder / "log"))
                    await asyncio.sleep(_RESTART_PAUSE)
                    await self._engines.restart()
                    engine = asyncio.create_task(self._engines.died())
                for task in done:
                    name = tasks.pop(task)  # type: ignore[arg-type]
                    log.warning("part_ended", part=name, returncode=task.result())
                    await asyncio.sleep(_RESTART_PAUSE)
                    self._spawn(name)
                    tasks[asyncio.create_task(self._children[name].wait())] = name
        finally:
            for task in [*tasks, *([engine] if engine else [])]:
                task.cancel()

    async def stop(self) -> None:
        """The API first, so that nothing new comes in; the engines last."""
        order = [self._children.pop(name) for name in ("api", "worker", "sandbox") if name in self._children]
        for child in order:
            await child.stop(STOP_SECONDS)
        if self._engines is not None:
            await self._engines.stop()
            self._engines = None


async def _answers(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url) as answer:
            return answer.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False
