"""Sends the batches of a file, several at a time, and sends again what the server marked `retry`."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from app.cli.client.batches import Batch, make_key
from app.cli.client.clock import Clock, Patience
from app.cli.client.errors import PatienceError, RefusedError, TooLargeError
from app.cli.client.http import Answer, Api
from app.cli.client.jobs import fetch_items, wait_until_decided
from app.cli.client.results import Note, Results, SentJob
from app.cli.client.rows import Row
from app.cli.client.wire import Accepted, Imported, Item, read
from app.domain.outcomes import Consistency, ErrorCode, ItemStatus

ROUTE: Final = "/v1/contacts:bulk"


class SendOptions(msgspec.Struct, frozen=True, kw_only=True):
    run: str
    """Identity of the run; part of every idempotency key."""
    on_duplicate: str = "fail"
    consistency: str = Consistency.NONE
    dry_run: bool = False
    concurrency: int = 4
    await_effects: bool = True

    @property
    def params(self) -> dict[str, str]:
        params = {}
        if self.on_duplicate != "fail":
            params["on_duplicate"] = self.on_duplicate
        if self.consistency != Consistency.NONE:
            params["consistency"] = self.consistency
        if self.dry_run:
            params["dry_run"] = "true"
        return params


class _Decided(msgspec.Struct, frozen=True):
    items: list[Item]
    job_id: str | None
    awaits_effects: bool
    replayed: bool


class Uploader:
    """One pass over the batches of a file.

    Rows with one `id` are never in flight together: a batch waits until the earlier one that shares a key with it is
    decided, retries included. Without that, the order of a file's rows would be left to chance.
    """

    def __init__(
        self,
        api: Api,
        batches: Iterator[Batch],
        results: Results,
        options: SendOptions,
        *,
        clock: Clock,
        patience: Patience,
        moved: Callable[[], None] = lambda: None,
    ) -> None:
        self._api = api
        self._source = batches
        self._results = results
        self._options = options
        self._clock = clock
        self._patience = patience
        self._moved = moved
        self._query = "&".join(f"{k}={v}" for k, v in sorted(options.params.items()))
        self._flying: dict[asyncio.Task[_Decided], Batch] = {}
        self._keys: dict[str, frozenset[str]] = {}
        self._halves: deque[Batch] = deque()
        self._held: Batch | None = None
        self._waiting: list[tuple[float, int, Batch]] = []
        self._order = itertools.count()
        self._exhausted = False
        self._stopped = False
        self._unanswered = False
        self.trouble = ""
        """Why it stopped before the end; empty when every row is decided or only waits to be sent again."""

    @property
    def all_answered(self) -> bool:
        """Whether every row of the file has got an answer, if only that it should be sent again."""
        return self._exhausted and not (self._unanswered or self._halves or self._held)

    @property
    def complete(self) -> bool:
        """Whether every row is decided for good."""
        return self.all_answered and not (self._waiting or self._stopped)

    async def run(self) -> None:
        """Send everything, until all is decided or patience ended (then `complete` is false).

        Raises:
            RefusedError: the server refused a whole request for good.
        """
        try:
            while True:
                self._launch()
                if self._exhausted and not self._first_pass_open():
                    self._patience.start_last_wait()
                if self._flying:
                    await self._wait_for_news()
                elif self._stopped or not self._waiting:
                    return
                else:
                    delay = self._waiting[0][0] - self._clock.now()
                    if delay > self._patience.left():
                        self._stopped = True
                        self.trouble = f"rows are to be sent again in {delay:.0f} s only"
                        return
                    await self._clock.sleep(max(0.0, delay))
        finally:
            for task in self._flying:
                task.cancel()
            await asyncio.gather(*self._flying, return_exceptions=True)

    def _first_pass_open(self) -> bool:
        return bool(self._halves or self._held) or any(batch.attempt == 0 for batch in self._flying.values())

    def _launch(self) -> None:
        while len(self._flying) < self._options.concurrency and (batch := self._next()) is not None:
            self._keys[batch.name] = batch.keys()
            self._flying[asyncio.create_task(self._send(batch))] = batch

    def _next(self) -> Batch | None:
        if self._stopped:
            return None
        if self._waiting and self._waiting[0][0] <= self._clock.now():
            return heapq.heappop(self._waiting)[2]
        if self._halves:
            return None if self._is_blocked(self._halves[0]) else self._halves.popleft()
        batch, self._held = self._held, None
        # Rows that wait are held in memory: when many do, the server is behind, and reading on would only add to them.
        if batch is None and not self._exhausted and len(self._waiting) < 2 * self._options.concurrency:
            batch = next(self._source, None)
            self._exhausted = batch is None
        if batch is not None and self._is_blocked(batch):
            self._held, batch = batch, None
        return batch

    def _is_blocked(self, batch: Batch) -> bool:
        keys = batch.keys()
        return any(not keys.isdisjoint(busy) for busy in self._keys.values())

    async def _wait_for_news(self) -> None:
        waits: set[asyncio.Task[_Decided] | asyncio.Task[None]] = set(self._flying)
        alarm = None
        if self._waiting and len(self._flying) < self._options.concurrency and not self._stopped:
            alarm = asyncio.create_task(self._clock.sleep(max(0.0, self._waiting[0][0] - self._clock.now())))
            waits.add(alarm)
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if alarm is not None:
                alarm.cancel()
        for task in [task for task in self._flying if task.done()]:
            self._take(self._flying.pop(task), task)
        self._moved()

    def _take(self, batch: Batch, task: asyncio.Task[_Decided]) -> None:
        del self._keys[batch.name]
        try:
            decided = task.result()
        except PatienceError as error:
            self._stopped = True
            self._unanswered |= batch.attempt == 0
            self.trouble = error.detail
        except TooLargeError as error:
            self._split(batch, error)
        else:
            self._settle(batch, decided)

    def _split(self, batch: Batch, error: TooLargeError) -> None:
        if len(batch.rows) > 1:
            self._halves.extend(batch.halve())
            return
        row = batch.rows[0]
        self._uncount_retries(batch)
        self._results.failed += 1
        self._results.add(
            [Note(row.number, row.line, "", ItemStatus.FAILED, ErrorCode.ITEM_TOO_LARGE, error.detail)]
        )

    def _uncount_retries(self, batch: Batch) -> None:
        if batch.attempt:
            self._results.retry -= len(batch.rows)
            self._results.forget(row.number for row in batch.rows)

    def _settle(self, batch: Batch, decided: _Decided) -> None:
        results = self._results
        self._patience.renew()
        self._uncount_retries(batch)
        results.replayed += decided.replayed
        notes = []
        again: dict[int, list[tuple[Row, float]]] = {}
        for row, item in zip(batch.rows, decided.items, strict=True):
            if item.status == ItemStatus.OK:
                results.ok[item.result or "ok"] += 1
                continue
            wait = item.retry_after_seconds or 0.0
            code = item.error_code or (item.errors[0].code if item.errors else "")
            notes.append(Note(row.number, row.line, "", item.status, code, item.detail, wait))
            if item.status == ItemStatus.RETRY:
                results.retry += 1
                # By magnitude: nobody waits twice as long as told, and a batch does not fall apart into single rows.
                again.setdefault(math.ceil(wait).bit_length(), []).append((row, wait))
            else:
                results.failed += 1
        results.add(notes)
        self._remember_job(batch, decided)
        for group, members in sorted(again.items()):
            self._postpone(batch.repeat([row for row, _ in members], group), max(wait for _, wait in members))

    def _postpone(self, batch: Batch, told: float) -> None:
        wait = max(told, self._api.back_off(batch.attempt - 1)) if told < 1.0 else told
        self._keys[batch.name] = batch.keys()
        heapq.heappush(self._waiting, (self._clock.now() + wait, next(self._order), batch))

    def _remember_job(self, batch: Batch, decided: _Decided) -> None:
        if decided.job_id is None:
            return
        numbers = array("Q", [row.number for row in batch.rows])
        lines = array("Q", [row.line for row in batch.rows])
        job = SentJob(decided.job_id, numbers, lines)
        job.awaited = decided.awaits_effects and self._options.await_effects and not self._options.dry_run
        self._results.jobs.append(job)

    async def _send(self, batch: Batch) -> _Decided:
        body = batch.encode()
        answer = await self._api.call(
            "POST",
            ROUTE,
            params=self._options.params,
            headers={
                "Content-Type": "application/json",
                "Idempotency-Key": make_key(self._options.run, batch.name, self._query, body),
            },
            body=body,
        )
        self._results.requests += 1
        return await self._read(answer, len(batch.rows))

    async def _read(self, answer: Answer, count: int) -> _Decided:
        replayed = answer.headers.get("Idempotency-Replayed", "").lower() == "true"
        if answer.status != 202:
            imported = read(answer.body, Imported, self._api.url)
            items, job_id, awaits = imported.items, imported.job_id, imported.awaits_effects
        else:
            job_id = read(answer.body, Accepted, self._api.url).job_id
            await wait_until_decided(self._api, job_id, self._clock, self._patience)
            items = [item async for item in fetch_items(self._api, job_id)]
            items.sort(key=lambda item: item.index)
            awaits = True
        check_complete(items, count, self._api.url)
        return _Decided(items, job_id, awaits, replayed)


def check_complete(items: list[Item], count: int, url: str) -> None:
    """Every item sent must be answered for, once and in order.

    Raises:
        RefusedError: an outcome is missing, so that nobody could say what became of a row.
    """
    if [item.index for item in items] != list(range(count)):
        raise RefusedError(f"{url} told {len(items)} outcomes for {count} items; is the address right?")
