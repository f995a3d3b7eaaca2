"""Clients as good ones are: they insist under the same key, heed a wait, poll, and write down all they see."""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections.abc import Sequence
from typing import Any, Final

import aiohttp
import msgspec

from tests.chaos.evidence import FINISHED, PASSING
from tests.chaos.journal import Journal
from tests.chaos.resources import Place, Type
from tests.chaos.stage import Stage, Tenant

_TIMEOUT: Final = 3.0
_POLL: Final = 0.08
_NETWORK: Final = (aiohttp.ClientError, OSError, TimeoutError)


class Item(msgspec.Struct, kw_only=True):
    """An item of a request as its client knows it. `mark` stands in the content, and in no other item's; a deletion has
    none."""

    id: str
    mark: str = ""
    poison: bool = False
    """It must fail, whatever stands beside it."""
    fields: dict[str, Any] = {}


class Request(msgspec.Struct, kw_only=True):
    """An import under one key, as it is sent again and again until there is an answer."""

    type: str
    key: str
    kind: str
    body: bytes
    items: list[Item] = []
    content_type: str = "application/json"
    query: str = ""
    prefer: str = ""
    expect: str = "batch"
    """`batch`, or the one status with which it must be refused."""
    atomic: bool = False
    dry_run: bool = False
    last_wins: bool = False

    @property
    def name(self) -> str:
        """The key means something only together with the type."""
        return f"{self.type}/{self.key}"

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.query.encode() + b"\0" + self.body).hexdigest()


class Round:
    """What the clients of one round share."""

    def __init__(self, stage: Stage, tenant: Tenant, journal: Journal, routes: set[tuple[str, str]]) -> None:
        self.stage = stage
        self.tenant = tenant
        self.journal = journal
        self.routes = routes
        """(method, path) of what the running API offers."""
        self.requests: list[Request] = []
        self.jobs: list[str] = []
        """Acknowledged, in the order in which the clients learned of them."""
        self.imports: dict[str, str] = {}
        """Name → job of imports that were answered with 202, as soon as that is known."""
        self.versions: dict[Place, int] = {}
        self.added: dict[str, dict[str, Any]] = {}
        """By type, the fields that the tenant has added to it, or tried to."""
        self.over = False
        """The faults are over: what is asked now is asked for the record."""

    def can(self, method: str, path: str) -> bool:
        return (method, path) in self.routes

    async def ask(
        self, method: str, path: str, **options: Any
    ) -> tuple[int, aiohttp.typedefs.CIMultiDictProxy[str], bytes]:
        headers = {"Authorization": f"Bearer {self.tenant.key}"} | options.pop("headers", {})
        timeout = aiohttp.ClientTimeout(total=10 if self.over else _TIMEOUT)
        async with self.stage.session.request(
            method, self.stage.url + path, headers=headers, timeout=timeout, **options
        ) as answer:
            return answer.status, answer.headers, await answer.read()

    # imports

    async def send(self, request: Request, *, until: float) -> dict[str, Any] | None:
        """Insist until there is an answer, or it is `until`; the answer's body if it is one of a batch."""
        self.note(request)
        while True:
            answer = await self.send_once(request)
            if answer is not None and answer[0] not in PASSING:
                return self._learn(request, *answer)
            if time.monotonic() > until:
                return None
            await asyncio.sleep(0.1)

    def note(self, request: Request) -> None:
        self.requests.append(request)
        items = [{"index": n} | msgspec.to_builtins(item) for n, item in enumerate(request.items)]
        fields = {n: getattr(request, n) for n in ("type", "kind", "expect", "atomic", "dry_run", "last_wins")}
        self.journal.note("request", key=request.name, **fields, sha256=request.sha256, items=items)

    async def send_once(self, request: Request) -> tuple[int, bytes] | None:
        headers = {"Idempotency-Key": request.key, "Content-Type": request.content_type}
        if request.prefer:
            headers["Prefer"] = request.prefer
        try:
            path = f"/v1/{request.type}:bulk{request.query}"
            status, fields, body = await self.ask("POST", path, headers=headers, data=request.body)
        except _NETWORK as error:
            self.journal.note("broken", key=request.name, error=f"{type(error).__name__}: {error}")
            return None
        self.journal.note(
            "answer",
            key=request.name,
            sha256=request.sha256,
            status=status,
            replayed=fields.get("Idempotency-Replayed") == "true",
            body=body.decode(),
            final=self.over,
        )
        return status, body

    def _learn(self, request: Request, status: int, body: bytes) -> dict[str, Any] | None:
        if status not in (202, 207):
            return None
        told: dict[str, Any] = msgspec.json.decode(body)
        self.follow(told["job_id"])
        if status == 202:
            self.imports[request.name] = told["job_id"]
        for item in told.get("items", ()):
            if item.get("version"):
                place = (request.type, item["id"])
                self.versions[place] = max(self.versions.get(place, 0), item["version"])
        return told

    def follow(self, job_id: str) -> None:
        """Poll this job from now on."""
        if job_id not in self.jobs:
            self.jobs.append(job_id)

    # types and records

    async def declare(self, type: Type, field: dict[str, Any], *, until: float) -> bool:
        """Add an optional field to a type, and insist until there is an answer; whether it came in time."""
        # Whether an earlier one was heard is not known: what was ever added is declared again.
        added = self.added[type.name] = self.added.get(type.name, {}) | field
        while True:
            body = type.declare(added)
            try:
                status, _, raw = await self.ask("PUT", f"/v1/resource-types/{type.name}", json=body)
                self.journal.note("asked", what="declare", job_id=None, status=status, body=raw.decode())
                if status in (200, 201):
                    return True
            except _NETWORK as error:
                self.journal.note("asked", what="declare", job_id=None, status=None, body=str(error))
            if time.monotonic() > until:
                return False
            await asyncio.sleep(0.1)
            added = self.added[type.name]

    async def read(self, type: str, ids: Sequence[str]) -> None:
        """All records of a type, as they are listed and exported, and the history of some; for the record."""
        listed: list[dict[str, Any]] = []
        cursor: str | None = ""
        while cursor is not None:
            page = msgspec.json.decode(await self._read(f"/v1/{type}?limit=500" + (cursor and f"&cursor={cursor}")))
            listed += page["records"]
            cursor = page["next_cursor"]
        self.journal.note("records", type=type, how="list", records=listed)
        lines = (await self._read(f"/v1/{type}:export", Accept="application/x-ndjson")).splitlines()
        self.journal.note("records", type=type, how="export", records=[msgspec.json.decode(line) for line in lines])
        for record_id in ids:
            page = msgspec.json.decode(await self._read(f"/v1/{type}/{record_id}/history?limit=500"))
            self.journal.note("history", type=type, record_id=record_id, versions=page.get("versions", []))

    async def _read(self, path: str, **headers: str) -> bytes:
        """The answer; that of a record that never was is a 404."""
        status, _, body = await self.ask("GET", path, headers=headers)
        if status == 200 or (status == 404 and path.partition("?")[0].endswith("/history")):
            return body
        self.journal.note("asked", what="read", job_id=None, status=status, body=body.decode())
        return b'{"records": [], "next_cursor": null}' if "?" in path else b""

    # jobs

    async def act(self, what: str, job_id: str) -> dict[str, Any] | None:
        """Ask something of a job (`cancel`, `undo`, `retry`), and write down what came of it."""
        body = {"json": {}} if what == "retry" else {}
        try:
            status, _, raw = await self.ask("POST", f"/v1/jobs/{job_id}/{what}", **body)
        except _NETWORK as error:
            self.journal.note("asked", what=what, job_id=job_id, status=None, body=str(error))
            return None
        self.journal.note("asked", what=what, job_id=job_id, status=status, body=raw.decode())
        told: dict[str, Any] = msgspec.json.decode(raw)
        if status in (200, 201, 202) and "job_id" in told:
            self.follow(told["job_id"])
        return told

    async def replay(self) -> None:
        """Have every dead letter sent again that is open."""
        try:
            status, _, raw = await self.ask("POST", "/v1/dead-letters/replay", json={"all": True})
        except _NETWORK as error:
            self.journal.note("asked", what="replay", job_id=None, status=None, body=str(error))
            return
        self.journal.note("asked", what="replay", job_id=None, status=status, body=raw.decode())
        if status == 202:
            self.follow(msgspec.json.decode(raw)["job_id"])

    async def look(self, job_id: str) -> str | None:
        """One poll of a job and of its first items."""
        try:
            status, _, body = await self.ask("GET", f"/v1/jobs/{job_id}")
            if status != 200:
                return None
            job = msgspec.json.decode(body)
            self.journal.note("job", **{name: job[name] for name in ("job_id", "state", "summary", "effects")})
            status, _, body = await self.ask("GET", f"/v1/jobs/{job_id}/items?limit=30")
            if status == 200:
                self.journal.note("items", job_id=job_id, final=False, items=msgspec.json.decode(body)["items"])
        except _NETWORK:
            return None
        return str(job["state"])

    async def poll(self) -> None:
        """Look at every job that is not finished, for ever."""
        done: set[str] = set()
        while True:
            for job_id in [job for job in self.jobs if job not in done]:
                if await self.look(job_id) in FINISHED:
                    done.add(job_id)
                await asyncio.sleep(0.01)
            await asyncio.sleep(_POLL)

    async def list_items(self, job_id: str) -> None:
        """Every item, for the record."""
        items: list[dict[str, Any]] = []
        cursor = ""
        while True:
            status, _, body = await self.ask("GET", f"/v1/jobs/{job_id}/items?limit=1000{cursor}")
            if status != 200:
                self.journal.note("asked", what="items", job_id=job_id, status=status, body=body.decode())
                return
            page = msgspec.json.decode(body)
            items += page["items"]
            if not page["next_cursor"]:
                break
            cursor = f"&cursor={page['next_cursor']}"
        self.journal.note("items", job_id=job_id, final=True, items=items)

    async def settle(self, pending: Sequence[Request], seconds: float = 20) -> list[str]:
        """Insist on what was never answered; the keys that stay unanswered."""
        left = []
        for request in pending:
            until = time.monotonic() + seconds
            while True:
                answer = await self.send_once(request)
                if answer is not None and answer[0] not in PASSING:
                    self._learn(request, *answer)
                    break
                if time.monotonic() > until:
                    left.append(request.name)
                    break
                await asyncio.sleep(0.05)
        return left


def chance_of(seed: int) -> random.Random:
    return random.Random(seed)
