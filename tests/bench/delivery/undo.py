"""Undo of an import of 10,000 contacts while 1,000 of them are being changed: `python -m tests.bench.delivery.undo`.

Real processes on embedded engines with fsync on: one API process, two workers, two sandbox CRMs. Exactly the contacts
that nobody changed must be restored, here and at both CRMs; one that was changed after it was restored keeps both.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import uvloop

from app.embedded import Engines
from app.migrations.runner import migrate
from app.settings import Settings
from tests.acceptance.harness import Installation, free_port, until
from tests.bench.rig import until_ready
from tests.conftest import SECRET_KEY
from tests.jobs.conftest import Sandbox

WORKERS = 2
_BATCH = 1_000
_CHANGES = 50
"""Contacts of one change."""


class Contest(msgspec.Struct, frozen=True):
    """What happened while the undo was at work."""

    undo: dict[str, Any]
    changed: set[str]
    milliseconds: list[float]
    """Of each change, until its answer."""
    delivered: float
    """Seconds from the asking until both CRMs had everything."""


class Field:
    """The installation, and what the measurement asks of it."""

    def __init__(self, tranche: Installation, sandboxes: list[Sandbox]) -> None:
        self.tranche = tranche
        self.sandboxes = sandboxes

    async def push(self, items: list[dict[str, Any]]) -> list[str]:
        """Import in batches that are answered at once; the jobs."""
        starts = range(0, len(items), _BATCH)
        return [(await self._post(items[start : start + _BATCH]))["job_id"] for start in starts]

    async def push_whole(self, items: list[dict[str, Any]]) -> str:
        """Import as one job."""
        job_id: str = (await self._post(items, {"Prefer": "respond-async"}))["job_id"]
        return job_id

    async def _post(self, items: list[dict[str, Any]], more: dict[str, str] | None = None) -> dict[str, Any]:
        headers = {"Idempotency-Key": f"undo-{random.getrandbits(64):x}"} | (more or {})
        answer = await self.tranche.ask("POST", "/v1/contacts:bulk", json={"items": items}, headers=headers)
        assert answer.status in (202, 207), answer
        return dict(answer.json())

    async def finished(self, job_id: str, seconds: float = 300) -> dict[str, Any]:
        async def look() -> dict[str, Any] | None:
            job = (await self.tranche.ask("GET", f"/v1/jobs/{job_id}")).json()
            return job if job["finished_at"] else None

        return dict(await until(look, seconds, every=0.1))

    async def failed(self, job_id: str) -> set[str]:
        """Contacts that the undo left alone."""
        found: set[str] = set()
        url = f"/v1/jobs/{job_id}/items?status=failed&limit=1000"
        cursor = ""
        while True:
            page = (await self.tranche.ask("GET", url + cursor)).json()
            for item in page["items"]:
                assert item["error_code"] == "VERSION_CONFLICT", item
                found.add(item["id"])
            if page["next_cursor"] is None:
                return found
            cursor = f"&cursor={page['next_cursor']}"

    async def contacts(self) -> dict[str, tuple[str | None, str | None, str | None]]:
        """First name, company and phone of each contact that there is."""
        rows = [row for row in await self.tranche.contacts() if not row["deleted"]]
        return {row["record_id"]: (row["first_name"], row["company"], row["phone"]) for row in rows}


def person(number: int, **fields: Any) -> dict[str, Any]:
    return {"id": f"c{number:06}", "email": f"c{number:06}@example.com"} | fields


async def contest(field: Field, import_id: str, numbers: list[int]) -> Contest:
    """The undo, and changes of these contacts at the same time."""
    milliseconds: list[float] = []
    jobs: list[str] = []
    began = time.time()
    asked = await field.tranche.ask("POST", f"/v1/jobs/{import_id}/undo")
    assert asked.status == 202, asked
    undo_id = asked.json()["job_id"]
    for start in range(0, len(numbers), _CHANGES):
        part = [person(number, phone="+49 30 123456") for number in numbers[start : start + _CHANGES]]
        sent = time.perf_counter()
        jobs += await field.push(part)
        milliseconds.append((time.perf_counter() - sent) * 1000)
    undo = await field.finished(undo_id)
    for job_id in jobs:
        await field.finished(job_id)
    changed = {f"c{number:06}" for number in numbers}
    return Contest(undo, changed, milliseconds, time.time() - began)


async def check(field: Field, told: Contest, count: int, created: int) -> tuple[int, int, int]:
    """Restored and untouched, restored and then changed, changed and left; raises where anything is otherwise."""
    left = await field.failed(told.undo["job_id"])
    assert left <= told.changed, "the undo left contacts that nobody had changed"
    expected: dict[str, tuple[str | None, str | None, str | None]] = {}
    for number in range(count):
        id_ = f"c{number:06}"
        phone = "+49 30 123456" if id_ in told.changed else None
        if id_ in left:
            expected[id_] = ("new", "new", phone)
        elif number >= created:
            expected[id_] = ("old", None, phone)
        elif phone is not None:  # created anew by the change, after its creation was undone
            expected[id_] = (None, None, phone)
    assert await field.contacts() == expected, "contacts are not what they must be"
    for sandbox in field.sandboxes:
        held = {
            id_: tuple(contact["properties"].get(name) or None for name in ("firstname", "company", "phone"))
            for id_, contact in (await sandbox.contacts()).items()
        }
        wrong = {id_ for id_ in {*held, *expected} if held.get(id_) != expected.get(id_)}
        assert not wrong, f"{len(wrong)} contacts differ at {sandbox.base_url}, such as {sorted(wrong)[:5]}"
    return count - len(told.changed), len(told.changed - left), len(left)


async def measure(field: Field, count: int, changes: int, created: int) -> None:
    old = [person(number, first_name="old") for number in range(created, count)]
    for job_id in await field.push(old):
        await field.finished(job_id)
    imported = await field.push_whole([person(number, first_name="new", company="new") for number in range(count)])
    job = await field.finished(imported)
    assert job["state"] == "completed", job
    numbers = random.Random(4).sample(range(count), changes)
    told = await contest(field, imported, numbers)
    restored, both, left = await check(field, told, count, created)
    undo = told.undo
    seconds = _seconds(undo["applied_at"]) - _seconds(undo["created_at"])
    synced = _seconds(undo["finished_at"]) - _seconds(undo["created_at"])
    print(f"| undo of {count:,} contacts, {created:,} of them created by it, {changes:,} changed meanwhile | |")
    print("|---|---|")
    print(f"| restored here, seconds after it was asked | {seconds:.2f} |")
    print(f"| … and at both CRMs | {synced:.2f} |")
    print(f"| every change at both CRMs, seconds after | {told.delivered:.2f} |")
    print(f"| restored, nobody changed them | {restored:,} |")
    print(f"| restored, and changed after that | {both:,} |")
    print(f"| changed before, left as they are, told by whom | {left:,} |")
    print(f"| wrong, here or at a CRM | 0 of 3 times {count:,} |")
    middle, worst = statistics.median(told.milliseconds), max(told.milliseconds)
    print(f"| a change of {_CHANGES} contacts meanwhile, ms: median, longest | {middle:.0f}, {worst:.0f} |")


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


async def main(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="tranche-undo-", dir=arguments.folder) as name:
        os.chmod(name, 0o711)  # as root the engines run as somebody else
        folder = Path(name)
        async with Engines(folder / "engines") as engines, aiohttp.ClientSession() as session:
            await migrate(engines.urls.database_url)
            settings = Settings(
                database_url=engines.urls.database_url,
                redis_url=engines.urls.redis_url,
                secret_key=SECRET_KEY,
                destination_private="127.0.0.0/8",
            )
            async with Installation(settings, folder) as tranche:
                tranche.quiet = True
                await tranche.start_api()
                port = free_port()
                tranche.start("sandbox-other", "sandbox-crm", "--field", "*", "--port", str(port))
                other = Sandbox(f"http://127.0.0.1:{port}", session)
                await until_ready(f"{other.base_url}/__sandbox__/health")
                new = {"name": "other", "kind": "hubspot", "base_url": other.base_url, "token": "pat-test"}
                answer = await tranche.ask("POST", "/v1/destinations", json=new)
                assert answer.status == 201, answer
                await asyncio.gather(*(tranche.start_worker() for _ in range(WORKERS)))
                field = Field(tranche, [tranche.sandbox, other])
                await measure(field, arguments.contacts, arguments.changes, arguments.created)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contacts", type=int, default=10_000)
    parser.add_argument("--changes", type=int, default=1_000)
    parser.add_argument("--created", type=int, default=2_000, help="contacts that the import creates")
    parser.add_argument("--folder", type=Path, help="for data")
    uvloop.run(main(parser.parse_args()))
