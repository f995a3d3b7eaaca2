"""Awaits the end of work that a service has accepted and not done, by asking for the state of its task."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final, Literal

import msgspec

from app.destinations.expressions import Finder, TooLong
from app.destinations.http_options import HttpOptions, Task
from jobs.crm.exchange import Answer, Connection
from jobs.crm.http.refusals import found
from jobs.crm.http.requests import Requests
from jobs.crm.port import Headers
from jobs.outbound.messages import retry_after

FIRST_WAIT: Final = 0.25
LONGEST_WAIT: Final = 2.0
_ASK_AGAIN: Final = frozenset({404, 408, 425, 429, 502, 503, 504})
"""A task may not be known yet where it is asked for, and what fails for a moment says nothing of it."""

State = Literal["done", "failed", "open"]


class Ended(msgspec.Struct, frozen=True):
    """What became of the work, and the answer that says so; `open`: nobody knows, within the time of the call."""

    state: State
    answer: Answer


class Tasks:
    """Of one destination."""

    def __init__(
        self,
        options: HttpOptions,
        requests: Requests,
        connection: Connection,
        now: Callable[[], datetime],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._task = options.task
        self._requests = requests
        self._connection = connection
        self._now = now
        self._sleep = sleep

    async def end(self, answer: Answer, headers: Headers, began: float) -> Ended | None:
        """`None`: the answer has no task. `began`, by `time.monotonic()`: of the call, whose total timeout is that of
        the whole."""
        task = self._task
        task_id = "" if task is None else _text_at(answer, task.id)
        if task is None or not task_id:
            return None
        path = self._requests.task_path(task_id)
        deadline = began + self._connection.timeouts.total
        wait, last, slowest = FIRST_WAIT, answer, answer.seconds
        while True:
            asked = retry_after(last.headers, self._now())
            wait = wait if asked is None else max(asked, FIRST_WAIT)
            if time.monotonic() + wait >= deadline:
                return Ended("open", answer)
            await self._sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)
            left = max(deadline - time.monotonic(), 0.1)
            polled = await self._connection.call(
                "GET", path, None, headers, headers=self._requests.headers(), seconds=left
            )
            if not isinstance(polled, Answer):
                continue
            last, slowest = polled, max(slowest, polled.seconds)
            state = _state(task, polled)
            if state != "open":
                # How long the work took says nothing about the health of the service.
                return Ended(state, msgspec.structs.replace(polled, status=200, seconds=slowest))
            if not polled.well and polled.status not in _ASK_AGAIN:
                return Ended("open", answer)


def _state(task: Task, answer: Answer) -> State:
    word = _text_at(answer, task.state).strip().casefold() if answer.well else ""
    if word in {name.casefold() for name in task.done}:
        return "done"
    return "failed" if word in {name.casefold() for name in task.failed} else "open"


def _text_at(answer: Answer, path: str) -> str:
    """A text, a number or a boolean of the body; empty if there is none."""
    try:
        value = found(answer.json(), path, Finder())
    except TooLong:
        return ""
    return str(value) if isinstance(value, str | int) else ""
