"""A CRM in the hands of a test: it answers a call when the test says so, so that calls at a time can be counted."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import pytest

from jobs.crm.port import SentRecord
from jobs.delivery import clients
from tests.jobs.delivery.test_hard_times import Answer, Script, well

_STABLE = 0.4
"""Seconds without a new call after which no more are expected."""


class Gate:
    """Calls wait at it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.script = Script()
        monkeypatch.setitem(clients.ADAPTERS, "hubspot", self.script.connect)
        self.held: deque[asyncio.Future[Answer]] = deque()
        self.is_open = False

    async def push(self, contacts: list[SentRecord]) -> Any:
        """What the script does with a call while the gate is in use."""
        if self.is_open:
            return await well(contacts)
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.held.append(answer)
        return await (await answer)(contacts)

    def release(self, count: int, answer: Answer = well) -> None:
        """The first of those that wait."""
        for _ in range(count):
            self.held.popleft().set_result(answer)

    def open(self) -> None:
        """For all who wait and will come."""
        self.is_open = True
        self.release(len(self.held))

    async def holds(self, count: int) -> None:
        """Until so many wait."""
        async with asyncio.timeout(45):
            while len(self.held) < count:
                await asyncio.sleep(0.01)

    async def stable(self) -> int:
        """How many wait, once there is one and no more come."""
        await self.holds(1)
        count = 0
        while count != len(self.held):
            count = len(self.held)
            await asyncio.sleep(_STABLE)
        return count
