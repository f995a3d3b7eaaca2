"""A large import under fire: every part of Tranche is killed at random moments, and nothing may come of it.

The same file is imported undisturbed first. What stands in PostgreSQL and at the CRM afterwards is the measure for
every round: contacts and history row by row, outcomes item by item, each contact once at the CRM in its final state.
"""

from __future__ import annotations

import asyncio
import csv
import itertools
import random
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import aiohttp
import asyncpg
import msgspec
import psutil

from app.embedded import Engines
from app.kit.compression import unpack
from app.kit.postgres.database import UNREACHABLE
from tests.acceptance.harness import Answer, Installation, Part, changed_effects, until

TARGET: Final = "/v1/contacts:bulk"
QUICK: Final = {"receive_lease": 2.0, "delivery_lease": 6.0, "crm_total_timeout": 4.0}
"""Waits that fit a round: for a body whose API was killed, and for deliveries whose worker was."""
WORKERS: Final = 2
RECEIVING, PROCESSING = "receiving", "processing"
_TABLES: Final = """TRUNCATE records, record_versions, jobs, job_chunks, deliveries, effects, record_syncs,
    staged_chunks, staged_repeats, idempotency_keys, dead_letters"""


def write_people(path: Path, count: int, *, seed: int, faulty: float = 0.01, repeated: float = 0.0) -> Path:
    """A CSV of `count` rows with random ids in no order.

    Some e-mails are none. Of the repeated rows half are equal to an earlier one and half differ from it, wherever
    in the file that stands.
    """
    chance = random.Random(seed)
    rows: list[list[str]] = []
    for n in range(count):
        if rows and chance.random() < repeated:
            row = list(chance.choice(rows))
            if chance.random() < 0.5:
                row[2] = f"Again {n}"
        else:
            name = f"{chance.getrandbits(64):016x}"
            email = f"{name} at example.com" if chance.random() < faulty else f"{name}@example.com"
            row = [name, email, f"First {n}", "Baxter, Esq.", f"040 {n:06}", "Chile"]
        rows.append(row)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "email", "first_name", "last_name", "phone", "country"])
        writer.writerows(rows)
    return path


def peak(pid: int) -> float:
    """Most megabytes (10^6 bytes) that the largest process of a tree ever held, with what it shares with others."""
    tree = [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    return max(_high_water(each) for each in tree)


def _high_water(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0


class Evidence(msgspec.Struct):
    """What an import left behind, whatever its job was called and whenever it ran."""

    contacts: dict[str, str]
    """Every field but the job and the times, by id."""
    history: dict[int, str]
    """Every field but the job and the times, by item."""
    outcomes: list[Any]
    """Of every item, in order."""
    effects: Counter[tuple[str, ...]]
    """How often the CRM was made to hold something."""
    summary: dict[str, Any]

    def differences(self, other: Evidence) -> list[str]:
        """In words; empty if they are the same."""
        found = []
        for name in ("contacts", "history", "effects"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                keys = [key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key)]
                shown = [(key, mine.get(key), theirs.get(key)) for key in keys[:3]]
                found.append(f"{name}: {len(keys)} differ, such as {shown}")
        if self.outcomes != other.outcomes:
            pairs = [pair for pair in zip(self.outcomes, other.outcomes, strict=False) if pair[0] != pair[1]]
            lengths = (len(self.outcomes), len(other.outcomes))
            found.append(f"outcomes: {len(pairs)} of {lengths} differ, such as {pairs[:3]}")
        if self.summary != other.summary:
            found.append(f"summary: {self.summary} and {other.summary}")
        return found


class Times(msgspec.Struct):
    """Seconds of an undisturbed run."""

    receiving: float
    processing: float
    syncing: float


class Round(msgspec.Struct):
    """What one disturbed run went through."""

    kills: Counter[tuple[str, str]]
    """By part, and by the phase that the import was in when it was hit."""
    attempts: int
    """Requests until the client had its 202."""
    seconds: float
    """Until all was at the CRM."""
    differences: list[str]


class Ordeal:
    """One installation whose API, workers, PostgreSQL and Valkey are killed and started again."""

    def __init__(self, tranche: Installation, engines: Engines, *, seed: int) -> None:
        tranche.settings = msgspec.structs.replace(tranche.settings, **QUICK)
        self._tranche = tranche
        self._engines = engines
        self._chance = random.Random(seed)
        self._running: dict[str, Part] = {}
        self._phase = ""
        self._number = 0
        self._entered: dict[str, asyncio.Event] = {}
        self._engine_at_work = asyncio.Lock()
        """Starting engines starts both, so nobody may kill one, or start it as well, before that is done."""

    async def start(self) -> None:
        self._running["API"] = await self._tranche.start_api()
        for n in range(1, WORKERS + 1):
            self._running[f"worker {n}"] = await self._tranche.start_worker()

    async def undisturbed(self, path: Path, **query: str) -> tuple[Evidence, Times]:
        await self._clear()
        times, _ = await self._import(path, query)
        return await self._gather(), times

    async def disturbed(self, path: Path, measure: Evidence, times: Times, **query: str) -> Round:
        """One round: every part is killed at least once while the file arrives or is processed."""
        await self._clear()
        kills: Counter[tuple[str, str]] = Counter()
        began = time.monotonic()
        killers = [asyncio.create_task(self._kill(name, times, kills)) for name in self._victims()]
        try:
            _, attempts = await self._import(path, query, killers)
        finally:
            for killer in killers:
                killer.cancel()
            await asyncio.gather(*killers, return_exceptions=True)
        seconds = time.monotonic() - began
        return Round(kills, attempts, seconds, measure.differences(await self._gather()))

    # what the client does

    async def _import(
        self, path: Path, query: Mapping[str, str], killers: list[asyncio.Task[None]] | None = None
    ) -> tuple[Times, int]:
        """From the first attempt until everything is at the CRM, and every killer is through."""
        self._number += 1
        moments = [time.monotonic()]
        self._enter(RECEIVING)
        answer, attempts = await self._insist(path, f"ordeal-{self._number}", query)
        assert answer.status == 202, answer
        job_id = answer.json()["job_id"]
        moments.append(time.monotonic())
        self._enter(PROCESSING)

        async def applied() -> bool:
            return bool(await self._rows("SELECT FROM jobs WHERE job_id = $1 AND applied_at IS NOT NULL", job_id))

        await until(applied, 120)
        moments.append(time.monotonic())
        self._enter("syncing")
        if killers:
            await asyncio.gather(*killers)

        async def settled() -> bool:
            return not await self._rows("SELECT FROM jobs WHERE finished_at IS NULL")

        await until(settled, 120, every=0.1)
        moments.append(time.monotonic())
        return Times(*(b - a for a, b in itertools.pairwise(moments))), attempts

    async def _insist(self, path: Path, key: str, query: Mapping[str, str]) -> tuple[Answer, int]:
        """The same key until there is an answer that is not "later"."""
        headers = {"Content-Type": "text/csv", "Idempotency-Key": key, "Prefer": "respond-async"}
        for attempt in range(1, 200):
            try:
                with path.open("rb") as file:
                    answer = await self._tranche.ask("POST", TARGET, headers=headers, params=dict(query), data=file)
            except (aiohttp.ClientError, OSError):
                await asyncio.sleep(0.1)
                continue
            if answer.status not in (409, 429, 503):
                return answer, attempt
            await asyncio.sleep(float(answer.headers["Retry-After"]))
        raise AssertionError("no answer after 200 attempts")

    async def _rows(self, query: str, *arguments: Any) -> list[dict[str, Any]]:
        """Evidence from behind the API, through PostgreSQL's own absences."""
        while True:
            with suppress(*UNREACHABLE, asyncpg.PostgresError):
                return await self._tranche.rows(query, *arguments)
            await asyncio.sleep(0.1)

    # what befalls it

    def _victims(self) -> list[str]:
        return [*self._running, "PostgreSQL", "Valkey"]

    def _enter(self, phase: str) -> None:
        self._phase = phase
        if phase == RECEIVING:
            self._entered = {name: asyncio.Event() for name in (RECEIVING, PROCESSING)}
        if phase in self._entered:
            self._entered[phase].set()

    async def _kill(self, name: str, times: Times, kills: Counter[tuple[str, str]]) -> None:
        """Strike once or twice, at moments that an undisturbed run would spend in the phases chosen."""
        phases = {RECEIVING: times.receiving, PROCESSING: times.processing}
        for phase in sorted(self._chance.sample(sorted(phases), self._chance.choice((1, 1, 2))), reverse=True):
            delay = self._chance.uniform(0, phases[phase])
            await self._entered[phase].wait()
            await asyncio.sleep(delay)
            kills[name, self._phase] += 1
            away = self._chance.uniform(0, 0.5)
            await self._strike(name, away)

    async def _strike(self, name: str, away: float) -> None:
        if name in ("PostgreSQL", "Valkey"):
            engine = self._engines.postgres if name == "PostgreSQL" else self._engines.valkey
            async with self._engine_at_work:
                await engine.kill()
            await asyncio.sleep(away)
            async with self._engine_at_work:
                await self._engines.restart()
        else:
            await self._running[name].child.kill()
            await asyncio.sleep(away)
            self._running[name] = self._tranche.start(*self._command(name))

    def _command(self, name: str) -> tuple[str, ...]:
        return ("api", "serve", "--port", str(self._tranche.port)) if name == "API" else ("worker", "worker")

    # what is left behind

    async def _clear(self) -> None:
        await self._tranche.rows(_TABLES)
        await self._tranche.sandbox.reset("ledger,contacts,concurrency")

    async def _gather(self) -> Evidence:
        rows = self._tranche.rows
        contacts = {row["record_id"]: _timeless(row) for row in await self._tranche.contacts()}
        history = [(row["item_index"], _timeless(row)) for row in await self._tranche.history()]
        assert len(dict(history)) == len(history), "an item is in the history of two jobs"
        chunks = await rows("SELECT first_index, item_count, outcomes FROM job_chunks ORDER BY first_index")
        outcomes: list[Any] = []
        for chunk in chunks:
            assert chunk["first_index"] == len(outcomes), "outcomes are missing, or stand twice"
            outcomes += msgspec.json.decode(unpack(chunk["outcomes"]))
        jobs = await rows(
            """SELECT state, items, total, succeeded, failed, retry, results FROM jobs
            WHERE state NOT IN ('canceled', 'failed')"""
        )
        assert len(jobs) == 1, jobs

        async def swept() -> bool:
            return not await rows("SELECT FROM staged_chunks UNION ALL SELECT FROM staged_repeats")

        await until(swept, 60, every=0.2)
        return Evidence(
            contacts=contacts,
            history=dict(history),
            outcomes=outcomes,
            effects=changed_effects(await self._tranche.sandbox.effects(), "email", "firstname", "phone"),
            summary=jobs[0],
        )


def _timeless(row: dict[str, Any]) -> str:
    """A stored row without its job and the times."""
    left_out = ("job_id", "prev_job_id", "created_at", "updated_at", "changed_at")
    kept = {name: value for name, value in row.items() if name not in left_out}
    return repr(kept | {"first": row["prev_job_id"] is None})
