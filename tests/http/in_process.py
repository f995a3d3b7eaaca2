"""The application, called as a server calls it, without a socket: for tests that send very many requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from litestar import Litestar
from multidict import CIMultiDict

from app.main import create_app
from app.settings import Settings
from tests.http.conftest import Answer, Api


@asynccontextmanager
async def in_process(settings: Settings, key: str | None = None) -> AsyncIterator[InProcess]:
    """The service with its connections to the engines."""
    app = create_app(settings)
    async with app.lifespan():
        yield InProcess(app, key)


class InProcess(Api):
    def __init__(self, app: Litestar, key: str | None = None) -> None:
        self.app = app
        self.key = key

    def as_key(self, key: str | None) -> InProcess:
        return InProcess(self.app, key)

    async def request(
        self, method: str, path: str, *, headers: dict[str, str] | None = None, data: Any = None
    ) -> Answer:
        sent = {} if self.key is None else {"Authorization": f"Bearer {self.key}"}
        fields = [(k.lower().encode(), v.encode()) for k, v in (sent | (headers or {})).items()]
        if data is not None:
            fields.append((b"content-length", str(len(data)).encode()))
        return await self.send(method, path.encode(), fields, data or b"")

    async def send(
        self, method: str, target: bytes, fields: Iterable[tuple[bytes, bytes]], body: bytes, piece: int = 1 << 16
    ) -> Answer:
        """`target`: path and query as they stand in the request line; the body arrives in pieces of this size."""
        raw, _, query = target.partition(b"?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": raw.decode("latin-1"),
            "raw_path": raw,
            "query_string": query,
            "root_path": "",
            "headers": list(fields),
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
            "state": {},
        }
        pieces = [body[at : at + piece] for at in range(0, len(body), piece)] or [b""]
        answered = asyncio.Event()
        started: dict[str, Any] = {}
        parts: list[bytes] = []

        async def receive() -> Any:
            if not pieces:
                await answered.wait()
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                started.update(message)
            else:
                parts.append(message.get("body", b""))
                if not message.get("more_body"):
                    answered.set()

        await self.app(scope, receive, send)
        headers = CIMultiDict((k.decode("latin-1"), v.decode("latin-1")) for k, v in started["headers"])
        return Answer(started["status"], headers, b"".join(parts))
