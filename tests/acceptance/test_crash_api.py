"""The API dies between commit and answer, or at any other moment: the same key tells what became of it."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import aiohttp
import psutil
import pytest

from tests.acceptance.harness import Answer, Installation, changed_effects, people, until


async def test_killed_between_commit_and_answer(tranche: Installation) -> None:
    """The request is held after its commit when everything of the API dies: the same key brings its answer."""
    api, _ = await tranche.start_both()
    await tranche.sandbox.misbehave(latency={"latency": 0.7})
    items = people(40, phone="040 1")
    held = asyncio.create_task(tranche.push(items, key="import-1", wait=1))

    async def committed() -> bool:
        answer = await tranche.ask("GET", "/v1/idempotency-keys/import-1")
        return answer.status == 200 and "job_id" in answer.json()

    await until(committed, every=0.01)
    assert not held.done()
    await api.child.kill()
    try:
        await held
    except (aiohttp.ClientError, OSError):
        pass
    else:
        raise AssertionError("the API was to die before it answered")

    await tranche.start_api()
    answer, _ = await tranche.insist(items, key="import-1")
    assert answer.status == 207
    assert answer.headers["Idempotency-Replayed"] == "true"
    again = await tranche.push(items, key="import-1")
    assert again.body == answer.body
    (job,) = (await tranche.get("/v1/jobs"))["jobs"]
    assert job["job_id"] == answer.json()["job_id"]
    assert (await tranche.finished(job["job_id"]))["state"] == "completed"
    assert {item["version"] for item in answer.json()["items"]} == {1}
    assert await tranche.rows("SELECT DISTINCT version FROM records") == [{"version": 1}]
    await tranche.versions_are_true()
    effects = changed_effects(await tranche.sandbox.effects())
    assert len(effects) == 40
    assert set(effects.values()) == {1}


async def test_killed_again_and_again_under_a_stream_of_imports(tranche: Installation) -> None:
    """20 imports by clients that insist, 5 kills: each key is answered, each item applied once and synced."""
    api, _ = await tranche.start_both()
    chance = random.Random(20)
    answered: list[tuple[Answer, int]] = []
    for n in range(5):
        # Four at a time, with 30 contacts that all imports share and 100 of each one's own.
        clients = [
            asyncio.create_task(
                tranche.insist(people(30, phone=f"040 {i}") + people(100, start=1000 + 100 * i), key=f"import-{i}")
            )
            for i in range(4 * n, 4 * n + 4)
        ]
        await asyncio.sleep(chance.uniform(0.01, 0.12))
        await api.child.kill()
        api = await tranche.start_api()
        answered += await asyncio.gather(*clients)
    answers = [answer for answer, _ in answered]
    assert [answer.status for answer in answers] == [207] * 20
    assert all(answer.json()["summary"]["succeeded"] == 130 for answer in answers)
    assert sum(broken for _, broken in answered) > 0, "no kill hit a request under way"
    jobs = (await tranche.get("/v1/jobs"))["jobs"]
    assert {job["job_id"] for job in jobs} == {answer.json()["job_id"] for answer in answers}
    assert len(jobs) == 20
    await tranche.all_synced()
    await tranche.versions_are_true()
    versions = await tranche.rows("SELECT version, count(*) FROM records GROUP BY version ORDER BY version")
    assert [dict(row) for row in versions] == [{"version": 1, "count": 2000}, {"version": 20, "count": 30}]
    effects = await tranche.sandbox.effects()
    assert set(changed_effects(effects, "phone").values()) == {1}
    there = await tranche.sandbox.contacts()
    here = await tranche.rows("SELECT record_id AS record_id, coalesce(document ->> 'phone', '') AS phone FROM records")
    assert {row["record_id"]: row["phone"] for row in here} == {
        key: contact["properties"].get("phone", "") for key, contact in there.items()
    }


async def test_no_serving_process_outlives_its_master(tranche: Installation) -> None:
    """Only the master is killed: what serves goes too, nobody keeps the port, and a new start takes it."""
    api = await tranche.start_api(workers=2)
    serving = [p for p in psutil.Process(api.pid).children(recursive=True) if "serve" in p.cmdline()]
    assert len(serving) == 2
    os.kill(api.pid, signal.SIGKILL)

    async def gone() -> bool:
        return not any(_lives(process) for process in serving)

    # Not a word to the child before that: reaping it would end its group.
    await until(gone)
    assert await api.ends() == -signal.SIGKILL
    await tranche.start_api()
    await tranche.imported(people(1))


async def test_a_lost_signal_keeps_no_serving_process(tmp_path: Path) -> None:
    """The kernel's signal may come while nobody listens to it."""
    child = """
import os, signal, sys, threading, time
from app.cli.local import server
server._KILL_TIMEOUT = server._LOOK = 0.2
signal.signal(signal.SIGTERM, signal.SIG_IGN)
threading.Thread(target=server.follow, args=(os.getppid(),), daemon=True).start()
open(sys.argv[1], "w").write(str(os.getpid()))
time.sleep(600)
"""
    note = tmp_path / "pid"
    parent = "import subprocess, sys; subprocess.run([sys.executable, '-c', *sys.argv[1:]])"
    starter = subprocess.Popen([sys.executable, "-c", parent, child, str(note)])

    async def begun() -> bool:
        return note.exists() and note.read_text() != ""

    await until(begun)
    serving = psutil.Process(int(note.read_text()))
    starter.kill()
    starter.wait()

    async def gone() -> bool:
        return not _lives(serving)

    await until(gone)


@pytest.mark.parametrize("after", [0.0, 0.2, 0.4])
async def test_nothing_outlives_a_master_killed_while_starting(tranche: Installation, after: float) -> None:
    """Its serving process has begun to load and does not listen to anybody yet: it goes all the same."""
    api = tranche.start("api", "serve", "--port", str(tranche.port))

    async def forked() -> list[psutil.Process]:
        return psutil.Process(api.pid).children()

    serving = await until(forked, every=0.002)
    await asyncio.sleep(after)
    os.kill(api.pid, signal.SIGKILL)

    async def gone() -> bool:
        return not any(_lives(process) for process in serving)

    await until(gone)


async def test_a_stop_while_starting_is_heard(tranche: Installation) -> None:
    api = tranche.start("api", "serve", "--port", str(tranche.port))

    async def forked() -> list[psutil.Process]:
        return psutil.Process(api.pid).children()

    await until(forked, every=0.002)
    await asyncio.sleep(0.1)
    api.child.send_signal(signal.SIGTERM)
    assert await api.ends() == 0


async def test_sigterm_answers_what_is_under_way(tranche: Installation) -> None:
    """A request that is held when the API is told to stop still gets its answer."""
    api = await tranche.start_api()
    held = asyncio.create_task(tranche.push(people(1), key="held", wait=2))

    async def committed() -> bool:
        return (await tranche.ask("GET", "/v1/idempotency-keys/held")).status == 200

    await until(committed, every=0.01)
    api.child.send_signal(signal.SIGTERM)
    answer = await held
    assert answer.status == 207
    assert await api.ends() == 0


def _lives(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False
