"""Who holds which key, as this process learned from the database."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from typing import Final

from app import admin
from app.admin import Principal
from app.db.pool import Database
from app.http.flights import Flights

RECENT: Final = 1.0
"""Seconds for which a poller's key is taken as it last was."""
MOST: Final = 1_000


class Principals:
    """Keys that were good a moment ago, by their digest; a bad one is looked up each time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: OrderedDict[bytes, tuple[float, Principal]] = OrderedDict()
        self._looking: Flights[bytes, Principal | None] = Flights()

    async def find(self, secret: str, *, recent: bool) -> Principal | None:
        """Who holds this key; `None`: nobody. `recent`: an answer of the last second is good enough."""
        digest = hashlib.sha256(secret.encode()).digest()
        if not recent:
            principal = await self._ask(secret)
            if principal is None:
                self._known.pop(digest, None)
            return principal
        until, known = self._known.get(digest, (0.0, None))
        left = until - asyncio.get_running_loop().time()
        if known is not None and left > 0:
            if left < RECENT / 2:
                # Asked for ahead of time, once for all: else all who come just then would wait.
                self._looking.start(digest, lambda: self._learn(secret, digest))
            return known
        return await self._looking.share(digest, lambda: self._learn(secret, digest))

    async def close(self) -> None:
        await self._looking.close()

    async def _ask(self, secret: str) -> Principal | None:
        async with self._database.connection() as connection:
            return await admin.authenticate(connection, secret)

    async def _learn(self, secret: str, digest: bytes) -> Principal | None:
        asked = asyncio.get_running_loop().time()
        principal = await self._ask(secret)
        if principal is None:
            self._known.pop(digest, None)
        else:
            self._known[digest] = (asked + RECENT, principal)
            if len(self._known) > MOST:
                self._known.popitem(last=False)
        return principal
