"""A stand-in for the API at the transport: it keeps the contract's promises and breaks what a test tells it to.

Bodies are read, and failed items given back, by the service's own code. Idempotency is enforced, so that a client which
doubles work or changes a body under a key is found out.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import zstandard
from aiohttp import web
from aiohttp.test_utils import TestServer

from app.files.encoding import CHARSETS
from app.files.failed_rows_file import CsvWriter, NdjsonWriter, Note
from app.files.readers import WORDING, CsvReader, Family, Form, Kept, keep, open_reader
from app.resources.decoding import Noted, Piece, UnreadablePiece
from tests.types import NAMES

KEY = "trn_test"
Decide = Callable[[dict[str, Any], int], dict[str, Any] | None]
FAMILIES = {"text/csv": Family.CSV, "application/x-ndjson": Family.NDJSON}


@dataclass
class Upload:
    """One body, or its beginning."""

    key: str
    query: list[tuple[str, str]]
    headers: dict[str, str]
    at: float
    size: int = 0
    pieces: list[Piece] = field(default_factory=list)
    kept: Kept | None = None
    whole: bool = False

    @property
    def content_type(self) -> str:
        return self.headers["Content-Type"]

    @property
    def ids(self) -> list[str]:
        return [json.loads(_item_of(piece) or b"{}").get("id") for piece in self.pieces]


@dataclass
class FakeApi:
    """`decide(item, times_seen)` may give an item another outcome than ok."""

    now: Callable[[], float] = lambda: 0.0
    decide: Decide = lambda item, seen: None
    refusals: list[web.Response] = field(default_factory=list)
    """Given before a body was read."""
    answers: list[web.Response] = field(default_factory=list)
    """Given after a body was read and dropped."""
    at_once: int = 1000
    """Items up to which an import is answered with 207."""
    destination: str | None = None
    polls_until_settled: int = 0
    polls_until_decided: int = 0
    processed_at_most: int | None = None
    """Items that a running job gets to, however often it is asked; `None`: one more with each question."""
    lost: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What became of these ids at the destination."""
    ending: dict[str, Any] | None = None
    """What jobs come to instead of being completed."""
    waiting: dict[str, str] | None = None
    """What jobs that are not finished wait for."""
    cut: int = 0
    """Uploads that break in the middle."""
    lose_answers: int = 0
    broken_downloads: int = 0
    receiving: int = 0
    """Questions for which the key of a broken upload is said to be still running."""
    hold: asyncio.Event | None = None
    """Answers wait until it is set; what they tell of is done."""
    stuck: asyncio.Event | None = None
    """Uploads stop in the middle until it is set."""
    page_size: int = 2
    uploads: list[Upload] = field(default_factory=list)
    keys: dict[str, dict[str, Any]] = field(default_factory=dict)
    digests: dict[str, bytes] = field(default_factory=dict)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    applied: list[str] = field(default_factory=list)
    """Ids in the order in which they were written: twice means twice."""
    contacts: dict[str, dict[str, Any]] = field(default_factory=dict)
    times: Counter[str] = field(default_factory=Counter)
    polls: list[dict[str, str]] = field(default_factory=list)
    arrived: int = 0
    """Bytes."""

    async def start(self) -> TestServer:
        app = web.Application(client_max_size=50_000_000, middlewares=[self.authenticate])
        app.router.add_post("/v1/contacts:bulk", self.take)
        app.router.add_get("/v1/jobs", self.list_jobs)
        app.router.add_get("/v1/jobs/{job}", self.show_job)
        app.router.add_get("/v1/jobs/{job}/items", self.list_items)
        app.router.add_post("/v1/jobs/{job}/cancel", self.cancel)
        app.router.add_get("/v1/idempotency-keys/{key}", self.show_key)
        server = TestServer(app)
        await server.start_server(auto_decompress=False)
        return server

    @web.middleware
    async def authenticate(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            return problem(401, "UNAUTHENTICATED", "the key is not known")
        return await handler(request)

    async def show_key(self, request: web.Request) -> web.Response:
        found = self.keys.get(request.match_info["key"])
        if found is not None and found["state"] == "running":
            self.receiving -= 1
            if self.receiving < 0:
                del self.keys[request.match_info["key"]]
                found = None
        return problem(404, "NOT_FOUND", "no such key") if found is None else web.json_response(found)

    async def take(self, request: web.Request) -> web.StreamResponse:
        if self.refusals:
            return self.refusals.pop(0)
        upload = Upload(
            request.headers["Idempotency-Key"], list(request.query.items()), dict(request.headers), self.now()
        )
        self.uploads.append(upload)
        known = self.keys.setdefault(upload.key, {"key": upload.key, "state": "running"})
        try:
            digest = await self._receive(request, upload)
        except BaseException:
            if not self.receiving and "job_id" not in known:
                self.keys.pop(upload.key, None)
            raise
        upload.whole = True
        if self.answers:
            del self.keys[upload.key]
            return self.answers.pop(0)
        if "job_id" in known:
            if self.digests[upload.key] != digest:
                return problem(422, "IDEMPOTENCY_KEY_REUSED", "another body")
            headers = {"Idempotency-Replayed": "true"}
            return web.json_response({"job_id": known["job_id"]}, status=known["status"], headers=headers)
        self.digests[upload.key] = digest
        answer = self._accept(upload)
        if self.hold is not None:
            await self.hold.wait()
        if self.lose_answers:
            self.lose_answers -= 1
            _cut(request)
        return answer

    async def _receive(self, request: web.Request, upload: Upload) -> bytes:
        form, digest = _read_form(upload), hashlib.sha256()
        reader = open_reader(form, NAMES)
        async for data in self._inflate(request, upload):
            digest.update(data)
            upload.pieces += reader.feed(data)
            if self.cut and upload.size > 100_000:
                self.cut -= 1
                _cut(request)
            if self.stuck is not None and upload.size > 100_000:
                await self.stuck.wait()
        upload.pieces += reader.finish()
        upload.kept = keep(form, reader)
        assert not isinstance(reader, CsvReader) or reader.columns is not None
        return digest.digest()

    async def _inflate(self, request: web.Request, upload: Upload) -> AsyncIterator[bytes]:
        machine = zstandard.ZstdDecompressor().decompressobj()
        async for data in request.content.iter_any():
            upload.size += len(data)
            self.arrived += len(data)
            yield machine.decompress(data) if "Content-Encoding" in upload.headers else data

    def _accept(self, upload: Upload) -> web.Response:
        dry = ("dry_run", "true") in upload.query
        outcomes = [self._apply(i, piece, dry=dry) for i, piece in enumerate(upload.pieces)]
        job = str(uuid.uuid4())
        ok = [o for o in outcomes if o["status"] == "ok" and o["result"] != "unchanged"]
        self.jobs[job] = {"items": outcomes, "upload": upload, "polls": 0, "ids": [o["id"] for o in ok]}
        status = 207 if len(outcomes) <= self.at_once else 202
        self.keys[upload.key] = {"key": upload.key, "state": "completed", "job_id": job, "status": status}
        return web.json_response({"job_id": job, "state": "queued"}, status=status)

    def _apply(self, index: int, piece: Piece, *, dry: bool) -> dict[str, Any]:
        if isinstance(piece, UnreadablePiece):
            errors = [{"code": e.code, "pointer": e.pointer, "detail": e.detail} for e in piece.errors]
            return {"index": index, "status": "failed", "error_code": errors[0]["code"], "errors": errors}
        try:
            item = json.loads(_item_of(piece))
        except ValueError:
            item = None
        if not isinstance(item, dict):
            return {"index": index, "status": "failed", "error_code": "INVALID_FIELD", "errors": []}
        key = item.get("id", "")
        self.times[key] += 1
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
        end = start + self.page_size
        page = [{"job_id": j, "state": "completed", "kind": "import"} for j in known[start:end]]
        following = str(end) if end < len(known) else None
        return web.json_response({"jobs": page, "next_cursor": following})

    async def show_job(self, request: web.Request) -> web.Response:
        job = self.jobs.get(request.match_info["job"])
        if job is None:
            return problem(404, "NOT_FOUND", "no such job")
        self.polls.append(dict(request.headers))
        job["polls"] += 1
        outcomes, state = job["items"], "completed"
        if job["polls"] <= self.polls_until_decided:
            processed = job["polls"] if self.processed_at_most is None else self.processed_at_most
            state, outcomes = "running", job["items"][:processed]
        counts = self._count_effects(job)
        if state == "completed" and counts.get("pending"):
            state = "syncing"
        elif state == "completed" and (any(o["status"] != "ok" for o in outcomes) or {"failed", "dead"} & set(counts)):
            state = "completed_with_failures"
        document = self._describe(request.match_info["job"], job, state, outcomes, counts)
        document |= {} if state == "syncing" else self.ending or {}
        headers = {} if document["state"] == "completed" else {"Retry-After": "1"}
        headers["ETag"] = tag = f'"{hashlib.sha256(json.dumps(document).encode()).hexdigest()}"'
        if request.headers.get("If-None-Match") == tag:
            return web.Response(status=304, headers=headers)
        return web.json_response(document, headers=headers)

    def _count_effects(self, job: dict[str, Any]) -> dict[str, int]:
        settled = job["polls"] > self.polls_until_decided + self.polls_until_settled
        states = (self.lost.get(key, {}).get("state", "ok") if settled else "pending" for key in job["ids"])
        return dict(Counter(states))

    def _describe(
        self, job_id: str, job: dict[str, Any], state: str, outcomes: list[dict[str, Any]], counts: dict[str, int]
    ) -> dict[str, Any]:
        by_status = Counter(o["status"] for o in outcomes)
        return {
            "job_id": job_id,
            "state": state,
            "kind": "import",
            "waiting": self.waiting if state == "running" else None,
            "summary": {
                "total": len(outcomes),
                "succeeded": by_status["ok"],
                "failed": by_status["failed"],
                "retry": by_status["retry"],
            },
            "results": dict(Counter(o["result"] for o in outcomes if o["status"] == "ok")),
            "effects": {self.destination: counts} if self.destination and counts else {},
            "progress": {
                "items": len(job["items"]),
                "processed": len(outcomes),
                "not_processed": len(job["items"]) - len(outcomes),
                "bytes_received": 1,
                "items_per_second": 1234.5,
                "expected_seconds": 75 if state == "running" else None,
            },
            "error": None,
        }

    async def list_items(self, request: web.Request) -> web.StreamResponse:
        job = self.jobs[request.match_info["job"]]
        there, wanted = request.query.get("destination"), request.query.get("status")
        known = [
            {
                **o,
                "destinations": {self.destination: self.lost.get(o["id"], {"state": "ok"})}
                if self.destination and o.get("id") in job["ids"]
                else {},
            }
            for o in job["items"]
        ]
        if there:
            chosen = [o for o in known if o["destinations"].get(there, {}).get("state") == wanted]
        else:
            chosen = [o for o in known if wanted in (None, o["status"])]
        if request.query.get("sent") == "true":
            return await self._give_back(request, job["upload"], chosen)
        start = int(request.query.get("cursor", 0))
        end = start + int(request.query.get("limit", self.page_size))
        following = str(end) if end < len(chosen) else None
        return web.json_response({"items": chosen[start:end], "next_cursor": following})

    async def _give_back(
        self, request: web.Request, upload: Upload, chosen: list[dict[str, Any]]
    ) -> web.StreamResponse:
        media_type = request.headers["Accept"]
        writer = CsvWriter(NAMES, upload.kept) if media_type == "text/csv" else NdjsonWriter()
        rows = ((_note(o), upload.pieces[o["index"]], o.get("id")) for o in chosen)
        body = writer.encode_header() + writer.encode_rows(rows)
        response = web.StreamResponse(headers={"Content-Type": media_type})
        await response.prepare(request)
        if self.broken_downloads:
            self.broken_downloads -= 1
            await response.write(body[: len(body) // 2])
            _cut(request)
        await response.write(body)
        return response

    async def cancel(self, request: web.Request) -> web.Response:
        job = self.jobs[request.match_info["job"]]
        if self.ending is None and job["polls"] > self.polls_until_decided:
            return problem(409, "JOB_NOT_CANCELABLE", "nothing left to cancel")
        self.ending = {"state": "canceled"}
        return web.json_response({})


def _item_of(piece: Piece) -> bytes:
    if isinstance(piece, UnreadablePiece):
        return b""
    return piece.item if isinstance(piece, Noted) else bytes(piece)


def _note(outcome: dict[str, Any]) -> Note:
    errors = outcome.get("errors") or [{"detail": ""}]
    lost = next((d for d in outcome["destinations"].values() if d["state"] in ("failed", "dead")), {})
    code = outcome.get("error_code") or lost.get("error_code", "")
    return Note(code, errors[0]["detail"] or lost.get("detail", ""), outcome.get("retry_after_seconds", 0))


def _read_form(upload: Upload) -> Form:
    charset = re.search(r"charset=([\w-]+)", upload.content_type)
    maps = [value for name, value in upload.query if name == "map"]
    ignored = [value for name, value in upload.query if name == "ignore"]
    return Form(
        family=FAMILIES[upload.content_type.partition(";")[0]],
        charset=CHARSETS[charset[1] if charset else "utf-8"],
        mapping=NAMES.parse_mapping(maps, WORDING, ignored),
    )


def _cut(request: web.Request) -> None:
    """What a client sees of a server that was killed."""
    assert request.transport is not None
    request.transport.abort()
    raise ConnectionResetError


def problem(status: int, code: str, detail: str, **headers: str) -> web.Response:
    return web.json_response(
        {"type": "about:blank", "title": code, "status": status, "code": code, "detail": detail, "request_id": "r-1"},
        status=status,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
        content_type="application/problem+json",
    )


def fail(code: str, detail: str = "") -> dict[str, Any]:
    return {"status": "failed", "error_code": code, "errors": [{"code": code, "pointer": "/email", "detail": detail}]}


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
