"""A server that gives one prepared answer to everything, for what no stand-in would say."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web


class Script:
    url: str
    status: int = 200
    body: object = None
    raw: bytes | None = None
    """Sent instead of `body`, as it is."""
    headers: dict[str, str]

    def __init__(self) -> None:
        self.headers = {}
        self.answers: list[tuple[int, object]] = []
        """Given first, one a call."""
        self.asked: list[web.Request] = []
        self.bodies: list[Any] = []
        """As JSON, where they are that."""
        self.contents: list[bytes] = []

    async def answer(self, request: web.Request) -> web.Response:
        content = await request.read()
        self.asked.append(request)
        self.contents.append(content)
        other = request.content_type.endswith(("ndjson", "gzip"))
        self.bodies.append(json.loads(content) if content and not other else None)
        status, body = self.answers.pop(0) if self.answers else (self.status, self.body)
        if self.raw is not None:
            return web.Response(body=self.raw, status=status, headers=self.headers)
        return web.json_response(body, status=status, headers=self.headers)


@contextlib.asynccontextmanager
async def scripted() -> AsyncIterator[Script]:
    script = Script()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", script.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.5)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    script.url = f"http://127.0.0.1:{site.port}"
    try:
        yield script
    finally:
        await runner.cleanup()
