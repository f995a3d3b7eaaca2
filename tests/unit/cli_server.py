"""A stand-in for the API at the transport: it keeps the contract's promises and breaks what a test tells it to.

Idempotency is enforced, so that a client which doubles work or changes a body under a key is found out.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

KEY = "trn_test"
Decide = Callable[[dict[str, Any], int], dict[str, Any] | None]


@dataclass
class Seen:
    """One request for an import as it arrived."""

    key: str
    body: bytes
    at: float
    query: dict[str, str]
    request_id: str
    agent: str

    @property
    def items(self) -> list[dict[str, Any]]:
        return json.loads(self.body)["items"]


@dataclass
class FakeApi:
    """`decide(item, times_seen)` may give an item another outcome than ok; `answers` are given before anything else."""

    now: Callable[[], float] = lambda: 0.0
    decide: Decide = lambda item, seen: None
    answers: list[web.Response | None] = field(default_factory=list)
    max_items: int = 1000
    destination: str | None = None
    polls_until_settled: int = 0
    lost: dict[str, dict[str, Any]] = field(default_factory=dict)
    respond_async: bool = False
    seen: list[Seen] = field(default_factory=list)
    applied: list[str] = field(default_factory=list)
    """Ids in the order in which they were written: twice means twice."""
    contacts: dict[str, dict[str, Any]] = field(default_factory=dict)
    stored: dict[str, tuple[bytes, web.Response, bytes]] = field(default_factory=dict)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    times: dict[str, int] = field(default_factory=dict)
    hold: asyncio.Event | None = None
    flying: int = 0
    most_flying: int = 0
    polls: list[dict[str, str]] = field(default_factory=list)
    page_size: int = 2

    async def start(self) -> TestServer:
        app = web.Application(client_max_size=50_000_000, middlewares=[self.authenticate])
        self.routes(app)
        server = TestServer(app)
        await server.start_server(auto_decompress=False)
        return server

    def routes(self, app: web.Application) -> None:
        app.router.add_post("/v1/contacts:bulk", self.take)
        app.router.add_get("/v1/jobs", self.list_jobs)
        app.router.add_get("/v1/jobs/{job}", self.show_job)
        app.router.add_get("/v1/jobs/{job}/items", self.list_items)

    @web.middleware
    async def authenticate(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            return problem(401, "UNAUTHENTICATED", "the key is not known")
        return await handler(request)

    async def take(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        key = request.headers.get("Idempotency-Key", "")
        self.seen.append(
            Seen(
                key,
                body,
                self.now(),
                dict(request.query),
                request.headers.get("X-Request-ID", ""),
                request.headers["User-Agent"],
            )
        )
        self.flying += 1
        self.most_flying = max(self.most_flying, self.flying)
        try:
            if self.hold is not None:
                await self.hold.wait()
            if self.answers and (scripted := self.answers.pop(0)) is not None:
                return scripted
            return self.answer(request, key, body)
        finally:
            self.flying -= 1

    def answer(self, request: web.Request, key: str, body: bytes) -> web.Response:
        if not key:
            return problem(400, "IDEMPOTENCY_KEY_MISSING", "no Idempotency-Key")
        if key in self.stored:
            known, first, text = self.stored[key]
            if known != body:
                return problem(422, "IDEMPOTENCY_KEY_REUSED", "the key was used for another body")
            return web.Response(
                status=first.status,
                body=text,
                headers={"Idempotency-Replayed": "true"},
                content_type="application/json",
            )
        items = json.loads(body)["items"]
        if len(items) > self.max_items:
            return problem(413, "TOO_LARGE", f"more than {self.max_items} items")
        outcomes = [
            self.apply(i, item, dry=request.query.get("dry_run") == "true") for i, item in enumerate(items)
        ]
        job = str(uuid.uuid4())
        ok = [o for o in outcomes if o["status"] == "ok" and o["result"] != "unchanged"]
        self.jobs[job] = {"items": outcomes, "polls": 0, "ids": [o["id"] for o in ok]}
        status, answer = (
            207,
            {
                "job_id": job,
                "status_url": f"/v1/jobs/{job}",
                "items_url": f"/v1/jobs/{job}/items",
                "summary": {"total": len(outcomes)},
                "effects": {
                    "db": "ok",
                    **({self.destination: "pending" if ok else "skipped"} if self.destination else {}),
                },
                "items": outcomes,
            },
        )
        if self.respond_async:
            status = 202
            del answer["items"]
        text = json.dumps(answer).encode()
        response = web.Response(status=status, body=text, content_type="application/json")
        self.stored[key] = (body, response, text)
        return response

    def apply(self, index: int, item: dict[str, Any], *, dry: bool) -> dict[str, Any]:
        key = item.get("id", "")
        self.times[key] = self.times.get(key, 0) + 1
        other = self.decide(item, self.times[key])
        if other is not None:
            return {"index": index, "id": key, "retry_after_seconds": 0, **other}
        before = self.contacts.get(key)
        result = "created" if before is None else "unchanged" if before == item else "updated"
        if not dry and result != "unchanged":
            self.contacts[key] = item
            self.applied.append(key)
        return {"index": index, "id": key, "status": "ok", "result": result, "version": 1}

    async def list_jobs(self, request: web.Request) -> web.Response:
        start = int(request.query.get("cursor", 0))
        known = list(self.jobs)[::-1]
        page = [
            {"job_id": j, "state": "completed", "kind": "import"}
            for j in known[start : start + self.page_size]
        ]
        following = str(start + self.page_size) if start + self.page_size < len(known) else None
        return web.json_response({"jobs": page, "next_cursor": following})

    async def show_job(self, request: web.Request) -> web.Response:
        job = self.jobs.get(request.match_info["job"])
        if job is None:
            return problem(404, "NOT_FOUND", "no such job")
        self.polls.append(dict(request.headers))
        job["polls"] += 1
        settled = job["polls"] > self.polls_until_settled
        counts: dict[str, int] = {}
        for key in job["ids"]:
            state = self.lost.get(key, {}).get("state", "ok") if settled else "pending"
            counts[state] = counts.get(state, 0) + 1
        bad = any(o["status"] != "ok" for o in job["items"]) or {"failed", "dead"} & set(counts)
        state = "syncing" if not settled else "completed_with_failures" if bad else "completed"
        tag = f'"{state}"'
        headers = {"ETag": tag, **({} if settled else {"Retry-After": "2"})}
        if request.headers.get("If-None-Match") == tag:
            return web.Response(status=304, headers=headers)
        effects = {self.destination: counts} if self.destination else {}
        document = {"job_id": request.match_info["job"], "state": state, "kind": "import", "effects": effects}
        return web.json_response(document, headers=headers)

    async def list_items(self, request: web.Request) -> web.Response:
        job = self.jobs[request.match_info["job"]]
        start = int(request.query.get("cursor", 0))
        wanted = request.query.get("status")
        known = [
            {
                **o,
                "destinations": {self.destination: self.lost.get(o["id"], {"state": "ok"})}
                if o.get("id") in job["ids"]
                else {},
            }
            for o in job["items"]
        ]
        if there := request.query.get("destination"):
            chosen = [o for o in known if o["destinations"].get(there, {}).get("state") == wanted]
        else:
            chosen = [o for o in known if wanted in (None, o["status"])]
        size = int(request.query.get("limit", self.page_size))
        page = chosen[start : start + size]
        following = str(start + size) if start + size < len(chosen) else None
        return web.json_response({"items": page, "next_cursor": following})


def problem(status: int, code: str, detail: str, **headers: str) -> web.Response:
    return web.json_response(
        {
            "type": "about:blank",
            "title": code,
            "status": status,
            "code": code,
            "detail": detail,
            "request_id": "r-1",
        },
        status=status,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
        content_type="application/problem+json",
    )


def fail(code: str, detail: str = "") -> dict[str, Any]:
    return {
        "status": "failed",
        "error_code": code,
        "errors": [{"code": code, "pointer": "/email", "detail": detail}],
    }


def wait(code: str, seconds: float) -> dict[str, Any]:
    return {"status": "retry", "error_code": code, "retry_after_seconds": seconds, "errors": []}


@dataclass
class FakeClock:
    """Sleeping takes no time and moves this clock."""

    time: float = 1000.0
    naps: list[float] = field(default_factory=list)

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.time += seconds
        await asyncio.sleep(0)
