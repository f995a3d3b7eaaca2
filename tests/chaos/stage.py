"""Tranche as processes with a fault proxy on every line between them, kept over many rounds."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import asyncpg
import msgspec
from redis.asyncio import Redis

from app.auth import service as auth_service
from app.destinations import service
from app.embedded import Child, Engines
from app.kit.encryption import Vault
from app.migrations.runner import migrate
from app.sandbox import KINDS
from app.settings import Settings
from tests.acceptance.harness import Part, environment, free_port
from tests.chaos.proxy import Proxy
from tests.chaos.receiver import Receiver, receiving
from tests.chaos.resources import Type
from tests.conftest import LOOPBACK, quick

WORKERS: Final = ("w1", "w2")
CRMS: Final = ("crm_a", "crm_b")
READY_SECONDS: Final = 45.0
OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "hubspot": {},
    "salesforce": {"default_last_name": "Nameless", "fields": {"company": "Company__c"}},
    "http": {
        "read_path": "/{type}/read",
        "archive_path": "/{type}/archive",
        # "optional" believes a 2xx without results: the most that an answer can be misread by.
        "results": "optional",
        "idempotent": True,
    },
}
"""Of the destination, by its kind."""

_SURPRISE: Final = re.compile(r'"exception"|"level":"(error|critical)"|panicked')
"""In a log: that something is away is foreseen, and told in a warning of one line. (arq, whose tasks die with Redis and
are not waited for, writes tracebacks of its own.)"""
_MOVES: Final = (Path(__file__).parent / "moves.sql").read_text("utf-8")


def fast(database_url: str, redis_url: str) -> Settings:
    """Settings under which a whole outage, with all its waits, fits a round of some seconds."""
    return quick(
        database_url,
        redis_url,
        log_level="info",
        sweep_interval=0.25,
        db_connect_timeout=1.0,
        db_acquire_timeout=1.5,
        db_statement_timeout=3.0,
        db_lock_timeout=1.0,
        db_idle_in_transaction_timeout=3.0,
        receive_lease=1.5,
        max_sync_items=80,
        import_chunk_items=40,
        chunk_size=20,
        delivery_lease=5.8,
        delivery_attempts=10,
        delivery_backoff_base=0.1,
        delivery_backoff_cap=0.4,
        crm_connect_timeout=0.4,
        crm_total_timeout=0.8,
        reconcile_grace=0.4,
        breaker_window=5.0,
        breaker_min_calls=6,
        breaker_open=0.3,
        breaker_open_cap=0.8,
        breaker_permit=1.5,
        replay_rate=500.0,
        saga_interval=0.2,
        webhook_timeout=0.6,
        webhook_waits="0.1,0.2,0.3,0.4,0.4,0.4",
        webhook_private="127.0.0.0/8",
    )


class Tenant(msgspec.Struct, frozen=True):
    """One round's own: nothing of another round can be mistaken for its."""

    name: str
    tenant_id: int
    key: str
    destinations: dict[str, int]
    """Of each sandbox the id of the destination behind it."""
    secret: str
    """Of its webhook endpoint."""


class Stage:
    """An API, two workers, two sandboxes, PostgreSQL and Redis, each reached through a proxy of its own."""

    receiver: Receiver

    def __init__(self, folder: Path, engines: Engines, *, bug: str = "") -> None:
        self.folder = folder
        self.engines = engines
        self.bug = bug
        """A planted bug (`tests.chaos.planted`) that API and workers start with."""
        self.settings = fast(*engines.app_urls)
        self.proxies: dict[str, Proxy] = {}
        self.parts: dict[str, Part] = {}
        self._ports = {name: free_port() for name in ("api", *CRMS)}
        self.kinds = dict.fromkeys(CRMS, "hubspot")
        """What stands at each place of a CRM."""
        self._starts = 0
        self._rounds = 0

    @property
    def url(self) -> str:
        """Of the API, as clients reach it."""
        return f"http://127.0.0.1:{self.proxies['front'].port}"

    def sandbox(self, crm: str) -> str:
        """The sandbox itself, for its own routes."""
        return f"http://127.0.0.1:{self._ports[crm]}"

    def ledger(self, crm: str) -> Path:
        return self.folder / f"ledger-{crm}-{self.kinds[crm]}.jsonl"

    async def set_kinds(self, wanted: dict[str, str]) -> None:
        """Put CRMs of these kinds in place, or a HubSpot where a kind is not known."""
        for crm, kind in wanted.items():
            known = kind if kind in KINDS else "hubspot"
            if known != self.kinds[crm]:
                await self.kill(crm)
                self.kinds[crm] = known
                self.start(crm)
        await self.all_ready()

    async def open(self, stack: AsyncExitStack) -> None:
        self.session = await stack.enter_async_context(
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(5), connector=aiohttp.TCPConnector(limit=0))
        )
        self.receiver = await stack.enter_async_context(receiving())
        postgres, redis = self.engines.postgres.port, self.engines.valkey.port
        targets = {"front": self._ports["api"], "pg_api": postgres, "pg_w1": postgres, "pg_w2": postgres}
        targets |= {"redis": redis} | {crm: self._ports[crm] for crm in CRMS}
        for name, port in targets.items():
            self.proxies[name] = await stack.enter_async_context(Proxy(name, port))
        stack.push_async_callback(self.close)
        for name in (*CRMS, "api", *WORKERS):
            self.start(name)
        await self.all_ready()

    async def close(self) -> None:
        for name, part in self.parts.items():
            with suppress(ProcessLookupError):
                os.killpg(part.pid, signal.SIGCONT)
            await part.child.stop(3 if name in CRMS else 5)

    # the parts

    def start(self, name: str) -> None:
        """Start a part anew, unless it runs."""
        known = self.parts.get(name)
        if known is not None and known.child.returncode is None:
            return
        words = {
            "api": ["serve", "--port", str(self._ports["api"])],
            **{worker: ["worker"] for worker in WORKERS},
            **{
                crm: [
                    "sandbox-crm",
                    *("--field", "*"),
                    *("--kind", self.kinds[crm]),
                    *("--port", str(self._ports[crm])),
                    *("--ledger", str(self.ledger(crm))),
                ]
                for crm in CRMS
            },
        }[name]
        planted = self.bug and name not in CRMS
        launcher = ["tests.chaos.planted", self.bug, "--"] if planted else ["app.cli.main"]
        self._starts += 1
        log = self.folder / f"{name}-{self._starts}.log"
        log.touch()
        argv = [sys.executable, "-m", *launcher, *words]
        child = Child.spawn(argv, name=name, env=self._environment(name), log=log)
        self.parts[name] = Part(child, log)

    def _environment(self, name: str) -> dict[str, str]:
        database = "pg_api" if name == "api" else f"pg_{name}"
        settings = self.settings
        if name not in CRMS:
            settings = msgspec.structs.replace(
                settings,
                database_url=_by_way_of(settings.database_url, self.proxies[database].port),
                redis_url=_by_way_of(settings.redis_url, self.proxies["redis"].port),
            )
        # A killed API leaves its counters behind: here, not in the folder of everybody.
        return environment(settings) | {"TMPDIR": str(self.folder)}

    async def kill(self, name: str) -> None:
        """`kill -9` to all of a part."""
        await self.parts[name].child.kill()

    def signal(self, name: str, number: signal.Signals) -> None:
        """To every process of a part."""
        with suppress(ProcessLookupError):
            os.killpg(self.parts[name].pid, number)

    async def all_ready(self) -> None:
        """Every part runs and answers."""
        for name in (*CRMS, "api", *WORKERS):
            self.signal(name, signal.SIGCONT)
            self.start(name)
        await asyncio.gather(*(self._ready(name) for name in (*CRMS, "api", *WORKERS)))

    async def _ready(self, name: str) -> None:
        limit = time.monotonic() + READY_SECONDS
        while not await self._is_ready(name):
            if time.monotonic() > limit:
                raise RuntimeError(f"{name} is not ready: {self.parts[name].text()[-2000:]}")
            self.start(name)
            await asyncio.sleep(0.03)

    async def _is_ready(self, name: str) -> bool:
        if name in WORKERS:
            return "worker_started" in self.parts[name].text()
        url = f"http://127.0.0.1:{self._ports[name]}"
        try:
            async with self.session.get(url + ("/health/ready" if name == "api" else "/__sandbox__/health")) as answer:
                return answer.status == 200
        except (aiohttp.ClientError, OSError):
            return False

    def log_sizes(self) -> dict[Path, int]:
        """How much API and workers have said until now."""
        return {log: log.stat().st_size for log in self.folder.glob("*.log") if not log.name.startswith("crm_")}

    def surprises(self, since: dict[Path, int]) -> list[str]:
        """What they have said since then of errors that nobody foresaw."""
        found = []
        for log in self.log_sizes():
            with log.open("rb") as file:
                file.seek(since.get(log, 0))
                lines = file.read().decode("utf-8", "replace").splitlines()
            found += [f"{log.name}: {line}" for line in lines if _SURPRISE.search(line)]
        return found

    # what every round needs

    @asynccontextmanager
    async def database(self) -> AsyncIterator[asyncpg.Connection[Any]]:
        """Past every proxy, as the owner."""
        connection = await asyncpg.connect(self.engines.urls.database_url, timeout=5, command_timeout=20)
        try:
            yield connection
        finally:
            await connection.close()

    async def flush_redis(self) -> None:
        with suppress(Exception):
            async with Redis.from_url(self.settings.redis_url, socket_timeout=1) as redis:
                await redis.flushall()

    async def new_tenant(self, seed: int, types: Sequence[Type]) -> Tenant:
        """A tenant with a key and these types, and a destination at an account of its own in each sandbox."""
        self._rounds += 1
        name = f"round-{seed}-{os.getpid()}-{self._rounds}"
        async with self.database() as connection:
            key = await auth_service.create_key(connection, name, list(auth_service.SCOPES))
            tenant_id = await auth_service.find_tenant(connection, name)
            for crm in CRMS:
                new = service.NewDestination(
                    name=crm.removeprefix("crm_"),
                    kind=self.kinds[crm],
                    options=OPTIONS[self.kinds[crm]],
                    base_url=f"http://127.0.0.1:{self.proxies[crm].port}/portal/{name}",
                    token="pat-chaos",
                )
                vault = Vault(self.settings.secret_key)
                await service.add_destination(connection, vault, tenant_id, new, private=LOOPBACK)
            rows = await connection.fetch(
                "SELECT name, destination_id FROM destinations WHERE tenant_id = $1", tenant_id
            )
        destinations = {f"crm_{row['name']}": row["destination_id"] for row in rows}
        for one in types:
            if one.schema:
                await self._declare(one, key)
        return Tenant(name, tenant_id, key, destinations, await self._add_endpoint(name, key))

    async def _declare(self, type: Type, key: str) -> None:
        url, fields = f"{self.url}/v1/resource-types/{type.name}", {"Authorization": f"Bearer {key}"}
        async with self.session.put(url, json=type.declare({}), headers=fields) as answer:
            assert answer.status == 201, await answer.text()

    async def _add_endpoint(self, name: str, key: str) -> str:
        """An endpoint that is told of everything; its secret."""
        url, fields = f"{self.url}/v1/webhook-endpoints", {"Authorization": f"Bearer {key}"}
        async with self.session.post(url, json={"url": self.receiver.url(name)}, headers=fields) as answer:
            assert answer.status == 201, await answer.text()
            secret: str = (await answer.json())["secret"]
            return secret

    async def misbehave(self, crm: str, fault: str, parameters: dict[str, Any]) -> None:
        with suppress(aiohttp.ClientError, OSError):
            url = f"{self.sandbox(crm)}/__sandbox__/faults/{fault}"
            async with self.session.put(url, json=parameters) as answer:
                assert answer.status == 200, await answer.text()

    async def behave(self, crm: str, fault: str = "") -> None:
        with suppress(aiohttp.ClientError, OSError):
            url = f"{self.sandbox(crm)}/__sandbox__/faults" + (f"/{fault}" if fault else "")
            async with self.session.delete(url):
                pass

    async def heal(self) -> None:
        """Every fault is over, every part is there."""
        for proxy in self.proxies.values():
            proxy.heal()
        await self.engines.restart()
        await self.all_ready()
        await asyncio.gather(*(self.behave(crm) for crm in CRMS))

    async def forget_effects(self) -> None:
        """The sandboxes begin anew, so that their ledgers do not grow over all rounds."""
        for crm in CRMS:
            async with self.session.post(f"{self.sandbox(crm)}/__sandbox__/reset") as answer:
                assert answer.status == 200


def _by_way_of(url: str, port: int) -> str:
    """The same server, through a proxy."""
    parts = urlsplit(url)
    credentials = parts.netloc.rpartition("@")[0]
    return urlunsplit(parts._replace(netloc=f"{credentials}@127.0.0.1:{port}"))


@asynccontextmanager
async def opened(folder: Path, *, bug: str = "") -> AsyncIterator[Stage]:
    """A stage with engines of its own; everything is stopped on leaving."""
    random.seed()  # for free ports alone
    folder.mkdir(parents=True)  # never into the remains of another stage
    async with Engines(folder / "engines") as engines, AsyncExitStack() as stack:
        await migrate(engines.urls.database_url)
        connection = await asyncpg.connect(engines.urls.database_url)
        try:
            await connection.execute(_MOVES)
        finally:
            await connection.close()
        stage = Stage(folder, engines, bug=bug)
        await stage.open(stack)
        yield stage
