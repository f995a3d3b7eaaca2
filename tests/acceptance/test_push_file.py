"""`tranche push` of large files between real processes: the client dies, the API dies, the file is a mess."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.harness import Installation, Part, environment, free_port, start, until

pytestmark = pytest.mark.slow

ROWS = 20_000


class SlowRoad:
    """A way to the API on which bodies move slowly, so that something can happen to one."""

    def __init__(self, to: int) -> None:
        self._to = to
        self.port = free_port()
        self.clear = asyncio.Event()
        """Set: as fast as it goes."""
        self._ends: set[asyncio.StreamWriter] = set()

    @contextlib.asynccontextmanager
    async def built(self) -> AsyncIterator[SlowRoad]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        try:
            yield self
        finally:
            server.close()

    def cut(self) -> None:
        """What is under way is lost, as it is when a machine goes."""
        for end in self._ends:
            end.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            there = await asyncio.open_connection("127.0.0.1", self._to)
            self._ends |= {writer, there[1]}
            await asyncio.gather(self._move(reader, there[1], slow=True), self._move(there[0], writer))
        writer.close()

    async def _move(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, slow: bool = False) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(8_192):
                writer.write(data)
                await writer.drain()
                if slow and len(data) == 8_192:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self.clear.wait(), 0.1)
        writer.close()


class Person:
    """Somebody with a shell and a folder."""

    def __init__(self, tranche: Installation, folder: Path, port: int | None = None) -> None:
        self.tranche, self.folder = tranche, folder
        self.url = f"http://127.0.0.1:{port or tranche.port}"

    def write(self, count: int, *, extra: str = "") -> str:
        path = self.folder / "customers.csv"
        with path.open("w", newline="") as out:
            rows = csv.writer(out)
            rows.writerow(["Customer Id", "E-Mail", "First Name", "City"])
            rows.writerows([f"c{i}", f"c{i}@example.com", f"Name {i}", f"Town {i * i}"] for i in range(count))
            out.write(extra)
        return str(path)

    def start(self, *words: str) -> Part:
        env = environment(
            self.tranche.settings,
            TRANCHE_URL=self.url,
            TRANCHE_API_KEY=self.tranche.key,
            XDG_STATE_HOME=str(self.folder / "state"),
        )
        return start(self.folder, "push", words, env)

    def push(self, file: str, *words: str) -> Part:
        return self.start("push", file, "--map", "Customer Id=id", "--json", *words)

    async def pushed(self, part: Part, seconds: float = 90) -> tuple[int, dict[str, Any]]:
        try:
            code = await part.ends(seconds)
        finally:
            await part.child.kill()
        found = [line for line in part.text().splitlines() if line.startswith("{")]
        assert found, part.text()
        return code, json.loads(found[-1])

    async def run(self, *words: str) -> tuple[int, str]:
        part = self.start(*words)
        try:
            return await part.ends(60), part.text()
        finally:
            await part.child.kill()


async def job_in(tranche: Installation, *states: str) -> dict[str, Any]:
    """The newest job, once it is in one of these states."""

    async def look() -> dict[str, Any] | None:
        jobs = (await tranche.get("/v1/jobs"))["jobs"]
        return jobs[0] if jobs and jobs[0]["state"] in states else None

    return await until(look, 30, every=0.01)


async def everything_arrived_once(tranche: Installation, count: int) -> None:
    assert await tranche.rows("SELECT version, count(*) FROM records GROUP BY version") == [
        {"version": 1, "count": count}
    ]
    made = [(row["version"], row["record_id"]) for row in await tranche.history()]
    assert (len(made), len(set(made)), {version for version, _ in made}) == (count, count, {1})


async def test_the_client_is_killed_while_it_uploads_and_while_the_server_works(
    tranche: Installation, folder: Path
) -> None:
    await tranche.start_api()
    async with SlowRoad(tranche.port).built() as road:
        person = Person(tranche, folder, road.port)
        file = person.write(ROWS)
        first = person.push(file, "--no-wait")
        torn = await job_in(tranche, "receiving")
        await first.child.kill()
        road.cut()
        assert (await tranche.finished(torn["job_id"]))["state"] == "canceled"

        road.clear.set()
        second = person.push(file, "--no-wait")
        job = await job_in(tranche, "queued")
        await second.child.kill()

        third = person.push(file, "--no-wait")
        await tranche.start_worker()
        await job_in(tranche, "running", "syncing", "completed")
        await third.child.kill()
        code, told = await person.pushed(person.push(file, "--no-wait"))
    assert (code, told["resumed"], told["results"]["created"]) == (0, True, ROWS)
    assert [j["job_id"] for j in told["jobs"]] == [job["job_id"]]
    assert told["requests"] == 0, "what the server has is not sent again"
    await everything_arrived_once(tranche, ROWS)


async def test_the_api_is_killed_while_it_receives(tranche: Installation, folder: Path) -> None:
    api = await tranche.start_api(receive_lease=3.0)
    await tranche.start_worker()
    async with SlowRoad(tranche.port).built() as road:
        person = Person(tranche, folder, road.port)
        client = person.push(person.write(ROWS), "--no-wait", "--timeout", "60")
        await job_in(tranche, "receiving")
        await api.child.kill()
        road.clear.set()
        await tranche.start_api(receive_lease=3.0)
        code, told = await person.pushed(client)
    assert (code, told["results"]["created"], told["requests"]) == (0, ROWS, 2)
    await everything_arrived_once(tranche, ROWS)


async def test_a_messy_file_its_failed_rows_and_their_correction(tranche: Installation, folder: Path) -> None:
    await tranche.start_both()
    person = Person(tranche, folder)
    extra = (
        ",,,\r\n\r\n"
        'm1,m1@example.com,"two\nlines",Rome\r\n'
        "m2,not an address,Ann,=1+1\r\n"
        "m3,m3@example.com\r\n"
        "m4,m4@example.com,-Eve,Oslo,surplus\r\n"
        "m5,m5@example.com,Bob,Paris"
    )
    await tranche.sandbox.misbehave(reject={"emails": ["c7@example.com"]})
    failed = folder / "failed.csv"
    code, told = await person.pushed(person.push(person.write(3_000, extra=extra), "--failed-out", str(failed)))
    assert (code, told["succeeded"], told["failed"]) == (1, 3_002, 3)
    assert {(c["destination"], c["code"], *c["lines"]) for c in told["failures"]} == {
        ("hubspot", "DESTINATION_REJECTED", 9),
        (None, "INVALID_EMAIL", 3006),
        (None, "INVALID_FIELD", 3007, 3008),
    }
    code, from_server = await person.run("jobs", "items", told["jobs"][0]["job_id"], "--failed", "--csv")
    assert code == 0
    (folder / "server.csv").write_text(from_server)
    with failed.open(newline="") as stream, (folder / "server.csv").open(newline="") as other:
        header, *rows = csv.reader(stream)
        mapped, *same = csv.reader(other)
        assert mapped[3:] == ["id", "E-Mail", "First Name", "City"], "it is pushed without --map"
        assert [row[3:] for row in same] == [row[3:] for row in rows]
    code, told = await person.pushed(person.start("push", str(folder / "server.csv"), "--json"))
    assert (code, told["succeeded"], told["failed"]) == (1, 1, 3), "nothing was fixed yet"
    assert [row[3] for row in rows] == ["c7", "m2", "m3", "m4"]
    rows[0][4], rows[1][4] = "seven@example.com", "m2@example.com"
    rows[2] += ["Cleo", "Cairo"]
    rows[3].pop()
    with failed.open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])
    code, told = await person.pushed(person.push(str(failed)))
    assert (code, told["succeeded"], told["effects"]["hubspot"]) == (0, 4, {"ok": 4})
    found = await tranche.get("/v1/contacts/m2")
    assert (found["first_name"], found["attributes"]) == ("Ann", {"City": "=1+1"})
    assert await tranche.rows("SELECT count(*) AS n FROM records") == [{"n": 3_005}]


async def test_atomic_is_all_or_nothing_for_a_file(tranche: Installation, folder: Path) -> None:
    await tranche.start_both()
    person = Person(tranche, folder)
    code, told = await person.pushed(
        person.push(person.write(2_500, extra="bad,none,x,y\r\n"), "--atomic", "--no-wait")
    )
    assert (code, told["succeeded"], told["failed"]) == (1, 0, 2_501)
    assert await tranche.rows("SELECT FROM records LIMIT 1") == []
    code, told = await person.pushed(person.push(person.write(2_500), "--atomic", "--no-wait"))
    assert (code, told["results"]["created"]) == (0, 2_500)


async def test_a_refused_upload_says_why(tranche: Installation, folder: Path) -> None:
    """The server takes the rest of a refused body for a while only, then it closes: no broken pipe is shown."""
    await tranche.start_api(max_file_bytes=300_000, max_sync_bytes=300_000)
    file, chance = folder / "large.csv", random.Random(1)
    with file.open("w") as out:
        out.write("Customer Id,email,first_name\n")
        out.writelines(f"c{i},c{i}@example.com,{chance.randbytes(1_500).hex()}\n" for i in range(25_000))
    person = Person(tranche, folder)
    code, told = await person.pushed(person.push(str(file)))
    assert code == 2
    assert "413" in told["error"]
    assert "300000" in told["error"]


async def test_a_job_is_canceled_from_the_shell(tranche: Installation, folder: Path) -> None:
    await tranche.start_api()
    person = Person(tranche, folder)
    client = person.push(person.write(2_000), "--no-wait")
    job = (await job_in(tranche, "queued"))["job_id"]
    code, out = await person.run("jobs", "cancel", job)
    assert (code, "nothing of it was applied" in out) == (0, True), out
    code, told = await person.pushed(client)
    assert (code, told["not_processed"], told["complete"]) == (1, 2_000, False)
    assert "was canceled" in told["trouble"]
    assert (await person.run("jobs", "wait", job))[0] == 1
    assert "CANCELED" in (await person.run("jobs", "show", job))[1]
