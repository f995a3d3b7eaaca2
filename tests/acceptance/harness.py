"""Tranche as an operator runs it: every part a process of its own, started by its command, spoken to over HTTP."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Self, TypeVar

import aiohttp
import asyncpg
import msgspec
import psutil

from app.auth import service
from app.cli.local import place
from app.embedded import Child
from app.embedded.state import PORTS, is_free
from app.settings import PREFIX, Settings
from tests import stored
from tests.conftest import as_owner
from tests.jobs.conftest import Sandbox, people

__all__ = ["Answer", "Installation", "Part", "Sandbox", "changed_effects", "people", "processes", "until"]

T = TypeVar("T")
START_SECONDS = 90.0
_keys = itertools.count(1)
_ports_taken: set[int] = set()


class Answer(msgspec.Struct):
    """An HTTP answer, whole."""

    status: int
    headers: Any
    body: bytes

    def json(self) -> Any:
        return msgspec.json.decode(self.body)


class Part:
    """One running command of ours."""

    def __init__(self, child: Child, log: Path) -> None:
        self.child = child
        self.log = log

    @property
    def pid(self) -> int:
        return self.child.pid

    def text(self) -> str:
        return self.log.read_text("utf-8", "replace")

    async def says(self, text: str, seconds: float = START_SECONDS) -> str:
        """Its output, once that holds `text`."""

        async def look() -> str:
            assert self.child.returncode is None or text in self.text(), f"ended without {text!r}: {self.text()}"
            return self.text() if text in self.text() else ""

        return await until(look, seconds)

    async def ends(self, seconds: float = START_SECONDS) -> int:
        return await asyncio.wait_for(self.child.wait(), seconds)


def free_port() -> int:
    """A port nobody has, outside the ephemeral range: no client's own end can take it between two starts."""
    while True:
        port = random.choice(PORTS)
        if port not in _ports_taken and is_free(port):
            _ports_taken.add(port)
            return port


def environment(settings: Settings, **more: str) -> dict[str, str]:
    """This process's environment with the settings, and no other `TRANCHE_` variable."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    plain = Settings()
    given = {
        PREFIX + name.upper(): str(getattr(settings, name))
        for name in Settings.__struct_fields__
        if getattr(settings, name) != getattr(plain, name)
    }
    return kept | given | more


def start(folder: Path, name: str, words: Iterable[str], env: dict[str, str]) -> Part:
    """Start `tranche WORDS`; its output goes to a file of its own in `folder`."""
    log = folder / f"{name}-{next(_keys)}.log"
    log.touch()
    argv = [sys.executable, "-m", "app.cli.main", *words]
    return Part(Child.spawn(argv, name=name, env=env, log=log), log)


async def run(folder: Path, words: Iterable[str], env: dict[str, str], seconds: float = 120) -> tuple[int, str]:
    """Run a command to its end: exit code and output."""
    part = start(folder, "command", words, env)
    try:
        return await part.ends(seconds), part.text()
    finally:
        await part.child.kill()


class Installation:
    """One tenant `acme`, synced to one sandbox CRM: the API, workers and the sandbox as processes."""

    def __init__(self, settings: Settings, folder: Path, owner_url: str = "") -> None:
        self.owner_url = owner_url or as_owner(settings.database_url)
        """The database as its owner, for evidence and for what no service may do."""
        self.settings = msgspec.structs.replace(settings, log_level="info")
        self.folder = folder
        self.port = free_port()
        self.sandbox_port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.key = ""
        self.parts: list[Part] = []
        self.quiet = False

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=False), timeout=aiohttp.ClientTimeout(120)
        )
        self.sandbox = Sandbox(f"http://127.0.0.1:{self.sandbox_port}", self._session)
        try:
            self.start("sandbox", "sandbox-crm", "--field", "*", "--port", str(self.sandbox_port))
            async with place.connection(self.settings) as connection:
                self.key = await service.create_key(connection, "acme", list(service.SCOPES))
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop every part; what they said is shown when the test fails."""
        await self._session.close()
        for part in reversed(self.parts):
            await part.child.stop(5)
        for part in [] if self.quiet else self.parts:
            print(f"--- {part.log.name}\n{part.text()[-3000:]}")

    def start(self, name: str, *words: str, **changes: Any) -> Part:
        env = environment(msgspec.structs.replace(self.settings, **changes))
        part = start(self.folder, name, words, env)
        self.parts.append(part)
        return part

    async def command(self, *words: str, **more: str) -> tuple[int, str]:
        """Run a command of the client to its end: exit code and output."""
        client = {"TRANCHE_URL": self.url, "TRANCHE_API_KEY": self.key, "XDG_STATE_HOME": str(self.folder / "state")}
        return await run(self.folder, words, environment(self.settings, **(client | more)))

    async def start_api(self, *, workers: int = 1, **changes: Any) -> Part:
        """The API; at its first start the sandbox becomes the destination `hubspot`, over HTTP."""
        part = self.start("api", "serve", "--port", str(self.port), "--workers", str(workers), **changes)
        await self._await_answer(f"{self.url}/health/ready", part)
        await self._await_answer(f"{self.sandbox.base_url}/__sandbox__/health")
        new = {"name": "hubspot", "kind": "hubspot", "base_url": self.sandbox.base_url, "token": "pat-test"}
        answer = await self.ask("POST", "/v1/destinations", json=new)
        assert answer.status in (201, 409), answer
        return part

    async def start_worker(self, **changes: Any) -> Part:
        part = self.start("worker", "worker", **changes)
        await part.says("worker_started")
        return part

    async def start_both(self, **changes: Any) -> tuple[Part, Part]:
        """The API and a worker; the settings are the worker's."""
        return await asyncio.gather(self.start_api(), self.start_worker(**changes))

    async def _await_answer(self, url: str, part: Part | None = None) -> None:
        async def look() -> bool:
            assert part is None or part.child.returncode is None, part.text()
            with suppress(aiohttp.ClientError):
                async with self._session.get(url) as answer:
                    return answer.status == 200
            return False

        await until(look, START_SECONDS)

    # the API, as a client sees it

    async def ask(self, method: str, path: str, **options: Any) -> Answer:
        headers = {"Authorization": f"Bearer {self.key}"} | options.pop("headers", {})
        async with self._session.request(method, self.url + path, headers=headers, **options) as answer:
            return Answer(answer.status, answer.headers, await answer.read())

    async def get(self, path: str, status: int = 200) -> Any:
        answer = await self.ask("GET", path)
        assert answer.status == status, answer
        return answer.json()

    async def push(self, items: list[dict[str, Any]], *, key: str | None = None, wait: float = 0) -> Answer:
        """One attempt at an import, under a key of its own unless one is given."""
        headers = {"Idempotency-Key": key or f"key-{next(_keys)}"}
        if wait:
            headers["Prefer"] = f"wait={wait:g}"
        return await self.ask("POST", "/v1/contacts:bulk", headers=headers, json={"items": items})

    async def imported(self, items: list[dict[str, Any]], *, key: str | None = None) -> str:
        """The job of an import in which every item is ok."""
        answer = await self.push(items, key=key)
        assert answer.status == 207, answer
        body = answer.json()
        assert body["summary"]["succeeded"] == len(items), body
        return str(body["job_id"])

    async def insist(self, items: list[dict[str, Any]], *, key: str, seconds: float = 60) -> tuple[Answer, int]:
        """What a good client does: the same key until there is an answer. Returns it with the broken attempts."""
        broken = 0
        async with asyncio.timeout(seconds):
            while True:
                try:
                    answer = await self.push(items, key=key)
                except aiohttp.ClientConnectorError:
                    await asyncio.sleep(0.05)
                    continue
                except (aiohttp.ClientError, OSError):
                    broken += 1
                    await asyncio.sleep(0.02)
                    continue
                if answer.status not in (409, 429, 503):
                    return answer, broken
                await asyncio.sleep(float(answer.headers["Retry-After"]))

    async def job(self, job_id: str) -> dict[str, Any]:
        return dict(await self.get(f"/v1/jobs/{job_id}"))

    async def counts(self, job_id: str) -> dict[str, int]:
        """A job's items by state at the sandbox, without the zeros."""
        effects = (await self.job(job_id))["effects"]["hubspot"]
        return {state: count for state, count in effects.items() if count}

    async def finished(self, job_id: str, seconds: float = 60) -> dict[str, Any]:
        async def look() -> dict[str, Any] | None:
            job = await self.job(job_id)
            return job if job["finished_at"] else None

        return await until(look, seconds)

    async def all_synced(self, seconds: float = 60) -> None:
        """Every job has ended and every contact's newest version is known to be at the sandbox."""

        async def look() -> bool:
            return not await self.rows("SELECT FROM jobs WHERE finished_at IS NULL")

        await until(look, seconds)
        behind = await self.rows(
            """SELECT r.record_id, r.version, s.synced_version
            FROM records r LEFT JOIN record_syncs s ON s.tenant_id = r.tenant_id AND s.record_id = r.record_id
            WHERE s.synced_version IS DISTINCT FROM r.version"""
        )
        assert behind == []

    async def rows(self, query: str, *arguments: Any) -> list[dict[str, Any]]:
        """Evidence from behind the API."""
        connection = await asyncpg.connect(self.owner_url)
        try:
            return [dict(row) for row in await connection.fetch(query, *arguments)]
        finally:
            await connection.close()

    async def versions_are_true(self) -> None:
        """Each record has as many versions in its history as it tells, one for each."""
        found: dict[str, list[int]] = {}
        for row in await self.history():
            found.setdefault(row["record_id"], []).append(row["version"])
        held = {row["record_id"]: list(range(1, row["version"] + 1)) for row in await self.contacts()}
        assert {record_id: sorted(versions) for record_id, versions in found.items()} == held

    async def contacts(self) -> list[dict[str, Any]]:
        return await self._read(stored.contacts)

    async def history(self) -> list[dict[str, Any]]:
        return await self._read(stored.history)

    async def _read(self, read: Callable[[Any], Awaitable[list[dict[str, Any]]]]) -> list[dict[str, Any]]:
        connection = await asyncpg.connect(self.owner_url)
        try:
            return await read(connection)
        finally:
            await connection.close()


@asynccontextmanager
async def installation(settings: Settings, folder: Path, owner_url: str = "") -> AsyncIterator[Installation]:
    async with Installation(settings, folder, owner_url) as made:
        yield made


async def until(look: Callable[[], Awaitable[T | None]], seconds: float = 60, *, every: float = 0.03) -> T:
    """The first true thing that `look` returns."""
    limit = time.monotonic() + seconds
    while True:
        found = await look()
        if found:
            return found
        assert time.monotonic() < limit, f"still not so after {seconds:g} s"
        await asyncio.sleep(every)


def changed_effects(effects: Iterable[dict[str, Any]], *fields: str) -> Counter[tuple[str, ...]]:
    """How often the sandbox was made to hold the same thing: effects by key and these properties."""
    return Counter((e["key"], *(e["properties"].get(field, "") for field in fields)) for e in effects)


def processes(folder: Path) -> list[psutil.Process]:
    """Every live process that was told of a folder, by its command line, working folder or environment."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            told = [*process.cmdline(), process.cwd(), *process.environ().values()]
            if any(str(folder) in word for word in told):
                found.append(process)
    return found
