"""The stand-in API of `cli_server`, for bodies that arrive in a stream: read by the service's own machines."""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import zstandard
from aiohttp import web

from app.domain.envelope import split_json
from app.domain.files.columns import parse_mapping
from app.domain.files.pieces import WORDING, Family, Form, open_reader
from app.domain.files.text import CHARSETS
from app.domain.rows import Piece, Unfit
from tests.unit.cli_server import FakeApi, problem

FAMILIES = {"text/csv": Family.CSV, "application/x-ndjson": Family.NDJSON, "application/json": Family.JSON}


@dataclass
class Upload:
    """One body, or its beginning."""

    key: str
    query: list[tuple[str, str]]
    content_type: str
    encoding: str
    at: float
    size: int = 0
    pieces: list[Piece] = field(default_factory=list)
    whole: bool = False


@dataclass
class FileApi(FakeApi):
    """`cut` breaks so many uploads in the middle; `refusals` are answered before a body was read."""

    uploads: list[Upload] = field(default_factory=list)
    keys: dict[str, dict[str, Any]] = field(default_factory=dict)
    cut: int = 0
    lose_answers: int = 0
    refusals: list[web.Response] = field(default_factory=list)
    receiving: int = 0
    """Questions for which the key of a broken upload is said to be still running."""
    polls_until_decided: int = 0
    processed_at_most: int | None = None
    """Items that a running job gets to, however often it is asked; `None`: one more with each question."""
    ending: dict[str, Any] | None = None
    """What jobs come to instead of being completed."""
    waiting: dict[str, str] | None = None
    """What jobs that are not finished wait for."""
    arrived: int = 0
    """Bytes."""
    stuck: asyncio.Event | None = None
    """Uploads stop in the middle until it is set."""

    def routes(self, app: web.Application) -> None:
        super().routes(app)
        app.router.add_get("/v1/idempotency-keys/{key}", self.show_key)
        app.router.add_post("/v1/jobs/{job}/cancel", self.cancel)

    async def show_key(self, request: web.Request) -> web.Response:
        found = self.keys.get(request.match_info["key"])
        if found is None:
            return problem(404, "NOT_FOUND", "no such key")
        if found["state"] == "running":
            self.receiving -= 1
            if self.receiving < 0:
                del self.keys[request.match_info["key"]]
                return problem(404, "NOT_FOUND", "no such key")
        return web.json_response(found)

    async def take(self, request: web.Request) -> web.StreamResponse:
        if "respond-async" not in request.headers.get("Prefer", ""):
            return await super().take(request)
        if self.refusals:
            return self.refusals.pop(0)
        upload = Upload(
            request.headers["Idempotency-Key"],
            list(request.query.items()),
            request.headers["Content-Type"],
            request.headers.get("Content-Encoding", ""),
            self.now(),
        )
        self.uploads.append(upload)
        self.keys[upload.key] = {"key": upload.key, "state": "running"}
        try:
            await self._receive(request, upload)
        except BaseException:
            if not self.receiving:
                self.keys.pop(upload.key, None)
            raise
        upload.whole = True
        answer = self._accept(upload, request)
        if self.lose_answers:
            self.lose_answers -= 1
            _cut(request)
        return answer

    async def _receive(self, request: web.Request, upload: Upload) -> None:
        form = _read_form(request)
        whole = b""
        reader = None if form.family is Family.JSON else open_reader(form)
        async for data in self._inflate(request, upload):
            whole += data if reader is None else b""
            upload.pieces += [] if reader is None else reader.feed(data)
            if self.cut and upload.size > 100_000:
                self.cut -= 1
                _cut(request)
            if self.stuck is not None and upload.size > 100_000:
                await self.stuck.wait()
        upload.pieces += split_json(whole, max_items=10_000) if reader is None else reader.finish()

    async def _inflate(self, request: web.Request, upload: Upload) -> AsyncIterator[bytes]:
        machine = zstandard.ZstdDecompressor().decompressobj()
        async for data in request.content.iter_any():
            upload.size += len(data)
            self.arrived += len(data)
            yield machine.decompress(data) if upload.encoding == "zstd" else data

    def _accept(self, upload: Upload, request: web.Request) -> web.Response:
        outcomes = [self._decide(i, piece, upload) for i, piece in enumerate(upload.pieces)]
        job = str(uuid.uuid4())
        ok = [o for o in outcomes if o["status"] == "ok" and o["result"] != "unchanged"]
        self.jobs[job] = {"items": outcomes, "polls": 0, "ids": [o["id"] for o in ok], "file": True}
        self.keys[upload.key] = {"key": upload.key, "state": "completed", "job_id": job, "status": 202}
        return web.json_response({"job_id": job, "state": "queued"}, status=202)

    def _decide(self, index: int, piece: Piece, upload: Upload) -> dict[str, Any]:
        if isinstance(piece, Unfit):
            errors = [{"code": e.code, "pointer": e.pointer, "detail": e.detail} for e in piece.errors]
            return {"index": index, "status": "failed", "error_code": errors[0]["code"], "errors": errors}
        try:
            item = json.loads(bytes(piece))
        except ValueError:
            return {"index": index, "status": "failed", "error_code": "INVALID_FIELD", "errors": []}
        if not isinstance(item, dict):
            return {"index": index, "status": "failed", "error_code": "INVALID_FIELD", "errors": []}
        return self.apply(index, item, dry=("dry_run", "true") in upload.query)

    async def show_job(self, request: web.Request) -> web.Response:
        job = self.jobs.get(request.match_info["job"])
        if job is None or not job.get("file"):
            return await super().show_job(request)
        job["polls"] += 1
        if job["polls"] <= self.polls_until_decided:
            processed = job["polls"] if self.processed_at_most is None else self.processed_at_most
            state, outcomes = "running", job["items"][:processed]
        else:
            state, outcomes = "completed", job["items"]
            if any(o["status"] != "ok" for o in outcomes):
                state = "completed_with_failures"
        document = self._describe(request.match_info["job"], job, state, outcomes)
        return web.json_response(
            document | (self.ending or {}),
            headers={} if state.startswith("completed") else {"Retry-After": "1"},
        )

    def _describe(
        self, job_id: str, job: dict[str, Any], state: str, outcomes: list[dict[str, Any]]
    ) -> dict[str, Any]:
        by_status = [o["status"] for o in outcomes]
        results = [o["result"] for o in outcomes if o["status"] == "ok"]
        return {
            "job_id": job_id,
            "state": state,
            "kind": "import",
            "waiting": self.waiting if state == "running" else None,
            "summary": {
                "total": len(outcomes),
                "succeeded": by_status.count("ok"),
                "failed": by_status.count("failed"),
                "retry": by_status.count("retry"),
            },
            "results": {name: results.count(name) for name in set(results)},
            "effects": {},
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

    async def cancel(self, request: web.Request) -> web.Response:
        job = self.jobs[request.match_info["job"]]
        if job.get("canceled") is None and job["polls"] > self.polls_until_decided:
            return problem(409, "JOB_NOT_CANCELABLE", "nothing left to cancel")
        self.ending = {"state": "canceled"}
        return web.json_response({})


def _read_form(request: web.Request) -> Form:
    sent = request.headers["Content-Type"]
    charset = re.search(r"charset=([\w-]+)", sent)
    return Form(
        family=FAMILIES[sent.partition(";")[0]],
        charset=CHARSETS[charset[1] if charset else "utf-8"],
        mapping=parse_mapping([v for n, v in request.query.items() if n == "map"], WORDING),
    )


def _cut(request: web.Request) -> None:
    """What a client sees of a server that was killed."""
    assert request.transport is not None
    request.transport.abort()
    raise ConnectionResetError
