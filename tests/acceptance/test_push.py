"""`tranche push` against a whole installation: real engines, API, worker and the stand-in CRM, all processes."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from app.cli.local.stack import TENANT, Stack
from app.settings import Settings

pytestmark = pytest.mark.slow


class House:
    """A running installation and a person with a shell."""

    def __init__(self, stack: Stack, session: aiohttp.ClientSession, folder: Path) -> None:
        self.stack, self.session, self.folder = stack, session, folder
        self.environ = os.environ | {
            "TRANCHE_URL": stack.url,
            "TRANCHE_API_KEY": stack.first_key or "",
            "XDG_STATE_HOME": str(folder / "state"),
        }

    def write(self, name: str, rows: list[list[str]]) -> None:
        with (self.folder / name).open("w", newline="") as out:
            csv.writer(out).writerows([["Customer Id", "E-Mail", "First Name", "City"], *rows])

    async def start(self, *words: str) -> Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "app.cli.main", *words, stdout=PIPE, stderr=PIPE, env=self.environ, cwd=self.folder
        )

    async def run(self, *words: str) -> tuple[int, str, str]:
        process = await self.start(*words)
        out, err = await process.communicate()
        return process.returncode or 0, out.decode(), err.decode()

    async def push(self, *words: str) -> tuple[int, dict[str, Any]]:
        code, out, err = await self.run("push", *words, "--map", "Customer Id=id", "--json", "--timeout", "60")
        assert out, err
        return code, json.loads(out)

    async def effects(self) -> list[dict[str, Any]]:
        async with self.session.get(f"{self.stack.sandbox_url}/__sandbox__/ledger") as answer:
            return list((await answer.json())["effects"])

    async def misbehave(self, **faults: Any) -> None:
        async with self.session.put(f"{self.stack.sandbox_url}/__sandbox__/faults", json=faults) as answer:
            answer.raise_for_status()

    async def count_jobs(self) -> int:
        headers = {"Authorization": f"Bearer {self.stack.first_key}"}
        async with self.session.get(f"{self.stack.url}/v1/jobs?limit=1000", headers=headers) as answer:
            return len((await answer.json())["jobs"])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    settings = Settings(data_dir=str(tmp_path / "data"), log_level="warning")
    (tmp_path / "data").mkdir()
    async with (
        Stack(settings, port=free_port(), sandbox_port=free_port(), log_dir=tmp_path) as stack,
        aiohttp.ClientSession() as session,
    ):
        yield House(stack, session, tmp_path)


def people(count: int) -> list[list[str]]:
    return [[f"c{i}", f"c{i}@example.com", f"Name {i}", f"Town {i}"] for i in range(count)]


async def test_a_file_its_repetition_and_its_correction(house: House) -> None:
    rows = people(250)
    rows[7][1] = "not an address"
    rows[200] = ["c200", "c200@example.com"]
    house.write("in.csv", rows)
    code, told = await house.push("in.csv", "--failed-out", "failed.csv")
    assert (code, told["results"]["created"], told["failed"]) == (1, 248, 2)
    assert {(c["code"], *c["lines"]) for c in told["failures"]} == {("INVALID_EMAIL", 9), ("INVALID_FIELD", 202)}
    assert told["effects"] == {"hubspot": {"ok": 248}}
    assert len(await house.effects()) == 248

    failed = (house.folder / "failed.csv").read_text()
    assert next(csv.DictReader(io.StringIO(failed)))["Customer Id"] == "c7"
    fixed = failed.replace("not an address", "c7@example.com").replace("c200@example.com", "c200@example.com,Ann,Rome")
    (house.folder / "failed.csv").write_text(fixed)
    code, told = await house.push("failed.csv")
    assert (code, told["results"]["created"]) == (0, 2)

    house.write("in.csv", people(7))
    code, told = await house.push("in.csv")
    assert (code, told["results"]["unchanged"], told["effects"]) == (0, 7, {})
    rows = people(7)
    rows[3][1] = "new@example.com"
    house.write("in.csv", rows)
    before = len(await house.effects())
    code, told = await house.push("in.csv")
    assert (code, told["results"]["updated"], told["results"]["unchanged"]) == (0, 1, 6)
    assert len(await house.effects()) == before + 1


async def test_what_the_crm_refuses_is_a_failed_row(house: House) -> None:
    await house.misbehave(reject={"emails": ["c2@example.com"]})
    house.write("in.csv", people(5))
    code, told = await house.push("in.csv", "--failed-out", "failed.csv")
    assert (code, told["succeeded"], told["failed"]) == (1, 5, 0)
    assert told["effects"] == {"hubspot": {"ok": 4, "failed": 1}}
    rows = list(csv.DictReader((house.folder / "failed.csv").open()))
    assert [(row["Customer Id"], row["error_code"]) for row in rows] == [("c2", "DESTINATION_REJECTED")]
    job = told["jobs"][0]["job_id"]
    assert (await house.run("jobs", "wait", job))[0] == 1
    _, out, _ = await house.run("jobs", "items", job, "--failed", "--json")
    assert [json.loads(line)["id"] for line in out.splitlines()] == ["c2"]
    _, out, _ = await house.run("jobs", "list", "--json")
    assert json.loads(out.splitlines()[0])["job_id"] == job


async def test_killed_in_the_middle_it_resumes_and_doubles_nothing(house: House) -> None:
    """Once as soon as the server has the file, and once while it waits for the CRM."""
    house.write("in.csv", people(6_000))
    await house.misbehave(status={"code": 503, "seconds": 3})
    for jobs in (1, 1):
        process = await house.start("push", "in.csv", "--map", "Customer Id=id", "--json")
        while await house.count_jobs() < jobs:
            await asyncio.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        await process.communicate()
    code, told = await house.push("in.csv")
    assert (code, told["resumed"]) == (0, True)
    assert (told["replayed"], told["requests"]) == (1, 0)
    assert told["results"]["created"] == 6_000, "anything sent twice would be unchanged"
    assert await house.count_jobs() == 1
    assert len(await house.effects()) == 6_000


async def test_what_does_not_fit_the_limit_is_delivered_in_the_time_that_was_said(house: House) -> None:
    """A batch meets a bucket of which part is left: some are ok, one fails, the rest arrives by itself."""
    data = ("--data-dir", str(house.folder / "data"))
    code, key, err = await house.run("keys", "create", "--tenant", TENANT, "--limit", "items=20/10", *data)
    assert code == 0, err
    house.environ["TRANCHE_API_KEY"] = key.strip()
    items = [{"id": f"f{n}", "email": f"f{n}@example.com"} for n in range(35)]
    items[12]["email"] = "nobody"
    answers = []
    for part, name in ((items[:10], "first"), (items[10:], "founding")):
        headers = {"Authorization": f"Bearer {key.strip()}", "Idempotency-Key": name}
        async with house.session.post(
            f"{house.stack.url}/v1/contacts:bulk", json={"items": part}, headers=headers
        ) as answer:
            assert answer.status == 207
            assert answer.headers["RateLimit-Policy"].endswith('"items";q=20;w=10')
            answers.append((await answer.json())["items"])
    statuses = [item["status"] for item in answers[1]]
    assert statuses[:10] == ["ok", "ok", "failed", *["ok"] * 7]
    assert statuses[-1] == "retry"
    assert answers[1][-1]["error_code"] == "RATE_LIMIT"
    assert answers[1][-1]["retry_after_seconds"] > 1
    rows = people(30)
    rows[2][1] = "nobody"
    house.write("limited.csv", rows)
    began = asyncio.get_running_loop().time()
    code, told = await house.push("limited.csv")
    took = asyncio.get_running_loop().time() - began
    assert (code, told["succeeded"], told["failed"]) == (1, 29, 1)
    # The bucket is all but empty when it begins, and 2 rows fit a second.
    assert 8 <= took <= 50
