"""`tranche push --mode file` and what follows its job, as processes: exit codes, streams, what is left behind."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.cli_file_server import FileApi
from tests.unit.cli_server import fail, wait
from tests.unit.test_cli_commands import Shell, eventually


class FileShell(Shell):
    api: FileApi


@pytest.fixture
async def shell(tmp_path: Path) -> AsyncIterator[FileShell]:
    api = FileApi()
    server = await api.start()
    yield FileShell(api, str(server.make_url("")).rstrip("/"), tmp_path)
    if api.stuck is not None:
        api.stuck.set()
    await server.close()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["push", "in.csv", "--atomic"], "--atomic is for --mode file"),
        (["push", "in.csv", "--mode", "file", "--batch-size", "10"], "--batch-size is for --mode batch"),
        (["push", "in.csv", "--mode", "file", "--concurrency", "2"], "--concurrency is for --mode batch"),
        (["push", "in.csv", "--mode", "file", "--map", "x=a:b"], "colon"),
        (["jobs", "items", "x", "--failed", "--csv", "--limit", "2"], "--limit"),
    ],
)
async def test_options_that_mean_nothing_are_refused(
    shell: FileShell, arguments: list[str], words: str
) -> None:
    (shell.home / "in.csv").write_text("id,email,x\nc1,a@b.example,y\n")
    code, _, err = await shell.run(*arguments)
    assert code == 2
    assert words in err
    assert shell.api.uploads == []


async def test_failed_rows_are_1_in_the_file_and_told_with_their_lines(shell: FileShell) -> None:
    shell.write(500)
    shell.api.decide = lambda item, seen: fail("INVALID_EMAIL", "no") if item["id"] == "c2" else None
    code, out, err = await shell.run("push", "in.csv", "--mode", "file", "--failed-out", "failed.csv")
    assert code == 1, err
    assert "499" in out
    assert "line 4" in out
    assert "c2,user2@b.example" in (shell.home / "failed.csv").read_text()
    assert shell.journals == []


async def test_a_push_killed_in_its_upload_goes_on_under_its_key(shell: FileShell) -> None:
    shell.write(20_000)
    shell.api.stuck = asyncio.Event()
    process = await shell.start("push", "in.csv", "--mode", "file")
    await eventually(lambda: shell.api.arrived > 100_000)
    process.send_signal(signal.SIGKILL)
    await process.communicate()
    shell.api.stuck.set()
    await eventually(lambda: shell.api.keys == {})
    code, out, err = await shell.run("push", "in.csv", "--mode", "file", "--json")
    told = json.loads(out)
    assert (code, told["resumed"], told["results"]["created"]) == (0, True, 20_000), err
    assert len({upload.key for upload in shell.api.uploads}) == 1
    assert set(shell.api.times.values()) == {1}


async def test_patience_is_3_and_the_next_run_finds_the_job(shell: FileShell) -> None:
    shell.write(3)
    shell.api.decide = lambda item, seen: wait("RATE_LIMIT", 30) if item["id"] == "c1" else None
    arguments = ("push", "in.csv", "--mode", "file", "--patience", "1", "--json")
    assert (await shell.run(*arguments))[0] == 3
    code, out, _ = await shell.run(*arguments)
    told = json.loads(out)
    assert (code, told["resumed"], told["requests"], told["retry"]) == (3, True, 0, 1)
    assert len(shell.api.uploads) == 1


async def test_a_dry_run_leaves_nothing(shell: FileShell) -> None:
    shell.write(3)
    code, _, err = await shell.run("push", "in.csv", "--mode", "file", "--dry-run")
    assert code == 0, err
    assert shell.api.uploads[0].query == [("dry_run", "true")]
    assert (shell.api.applied, shell.journals) == ([], [])


async def test_a_canceled_job_is_1_and_forgotten(shell: FileShell) -> None:
    shell.write(3)
    shell.api.ending = {"state": "canceled"}
    code, _, err = await shell.run("push", "in.csv", "--mode", "file", "-q")
    assert code == 1
    assert "was canceled" in err
    assert shell.journals == [], "pushing the file again is a new import"


async def test_jobs_cancel_says_what_was_done_and_what_is_too_late(shell: FileShell) -> None:
    shell.write(5)
    shell.api.polls_until_decided, shell.api.processed_at_most = 10_000, 3
    process = await shell.start("push", "in.csv", "--mode", "file")
    await eventually(lambda: bool(shell.api.jobs) and next(iter(shell.api.jobs.values()))["polls"] >= 1)
    job = next(iter(shell.api.jobs))
    code, out, err = await shell.run("jobs", "cancel", job)
    assert code == 0, err
    assert "what was applied stays (3 items); 0 failed, 2 not processed" in out
    await process.communicate()
    assert process.returncode == 1
    assert (await shell.run("jobs", "wait", job))[0] == 1
    shell.api.polls_until_decided, shell.api.ending = 0, None
    code, _, err = await shell.run("jobs", "cancel", job)
    assert code == 2
    assert "nothing left to cancel" in err


async def test_jobs_wait_shows_where_the_job_stands(shell: FileShell) -> None:
    shell.write(8)
    await shell.run("push", "in.csv", "--mode", "file")
    shell.api.polls_until_decided = 10_000
    job = next(iter(shell.api.jobs))
    code, out, _ = await shell.run("jobs", "wait", job, "--patience", "1")
    assert code == 3
    assert "running" in out
    code, _, err = await shell.run("jobs", "wait", job, "--patience", "1", "--json")
    assert (code, err) == (3, "")
