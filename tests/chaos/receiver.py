"""Where webhooks of all rounds go: notes what it is told, and gives bad answers while things are broken."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
from aiohttp import web

from tests.chaos.journal import Journal

LATE: Final = 0.9
"""Seconds after which a late answer comes: nobody waits for it any more."""
_MOODS: Final = ("ok", "refuse", "late", "hang_up")


class _Guest(msgspec.Struct):
    """A round that is being played."""

    journal: Journal
    chance: random.Random
    trouble: float
    """Probability of a bad answer."""


class Receiver:
    """An endpoint for each round, by the name of its tenant."""

    def __init__(self) -> None:
        self.port = 0
        self._guests: dict[str, _Guest] = {}

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.port}/{name}"

    def attend(self, name: str, journal: Journal, seed: int) -> None:
        """Note what this round's endpoint is told, and misbehave as the seed will have it."""
        chance = random.Random(f"tranche chaos {seed}: receiver")
        self._guests[name] = _Guest(journal, chance, chance.choice((0.0, 0.2, 0.5)))

    def behave(self, name: str) -> None:
        self._guests[name].trouble = 0.0

    def leave(self, name: str) -> None:
        """The round is over, and its journal closed."""
        self._guests.pop(name, None)

    async def _hear(self, request: web.Request) -> web.StreamResponse:
        guest = self._guests.get(request.match_info["name"])
        if guest is None:
            return web.Response(status=204)
        body = await request.text()
        mood = guest.chance.choice(_MOODS[1:]) if guest.chance.random() < guest.trouble else "ok"
        told: dict[str, Any] = {
            "event_id": request.headers.get("webhook-id", ""),
            "timestamp": request.headers.get("webhook-timestamp", ""),
            "signature": request.headers.get("webhook-signature", ""),
            "body": body,
            "mood": mood,
        }
        guest.journal.note("hook", **told)
        if mood == "late":
            await asyncio.sleep(LATE)
        if mood == "hang_up" and request.transport is not None:
            request.transport.close()
        return web.Response(status=503 if mood == "refuse" else 204)


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    application = web.Application()
    application.router.add_post("/{name}", receiver._hear)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        receiver.port = runner.addresses[0][1]
        yield receiver
    finally:
        await runner.cleanup()
