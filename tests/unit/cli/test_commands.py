"""`tranche push` and `tranche jobs` as processes: exit codes, streams, resuming after a kill."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.unit.cli.fake_server import KEY, FakeApi, fail, problem, wait

PROGRAM = """
import sys
from app.cli.jobs import jobs_group
from app.cli.push import push_command
import rich_click as click
main = click.Group("tranche", commands=[push_command, jobs_group])
main(prog_name="tranche")
"""


class Shell:
    """Runs the commands against a fake API, with a home of their own."""

    def __init__(self, api: FakeApi, url: str, home: Path) -> None:
        self.api, self.url, self.home = api, url, home

    async def start(self, *arguments: str, **environ: str) -> Process:
        known = {name: value for name, value in os.environ.items() if not name.startswith(("TRANCHE_", "XDG_"))}
        known |= {"HOME": str(self.home), "TRANCHE_URL": self.url, "TRANCHE_API_KEY": KEY, "COLUMNS": "200"}
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            PROGRAM,
            *arguments,
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            env=known | environ,
            cwd=self.home,
            # A shell's background job ignores SIGINT, and so would its children.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    async def run(self, *arguments: str, stdin: bytes = b"", **environ: str) -> tuple[int, str, str]:
        process = await self.start(*arguments, **environ)
        out, err = await process.communicate(stdin)
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()

    def write(self, count: int, name: str = "in.csv") -> None:
        rows = [f"c{i},user{i}@b.example" for i in range(count)]
        (self.home / name).write_text("\n".join(["id,email", *rows]) + "\n")

    @property
    def journals(self) -> list[Path]:
        return list((self.home / ".local/state/tranche").glob("*.json"))


@pytest.fixture
async def shell(tmp_path: Path) -> AsyncIterator[Shell]:
    api = FakeApi()
    server = await api.start()
    yield Shell(api, str(server.make_url("")).rstrip("/"), tmp_path)
    if api.hold is not None:
        api.hold.set()
    await server.close()


async def eventually(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come to pass")


async def test_all_ok_is_0_and_the_summary_tells_it(shell: Shell) -> None:
    shell.write(12)
    code, out, err = await shell.run("push", "in.csv")
    assert code == 0, err
    assert "created" in out
    assert "12" in out
    assert KEY not in out + err
    assert shell.journals == []


async def test_the_same_file_again_is_a_new_import(shell: Shell) -> None:
    shell.write(12)
    await shell.run("push", "in.csv")
    code, out, _ = await shell.run("push", "in.csv", "--json")
    told = json.loads(out)
    assert (code, told["results"]["unchanged"], told["replayed"], told["resumed"]) == (0, 12, 0, False)


async def test_failed_rows_are_1_and_in_the_file(shell: Shell) -> None:
    shell.write(5)
    shell.api.decide = lambda item, seen: fail("INVALID_EMAIL", "no") if item["id"] == "c2" else None
    code, out, err = await shell.run("push", "in.csv", "--json", "--failed-out", "failed.csv")
    told = json.loads(out)
    assert (code, err) == (1, "")
    assert (told["failed"], told["failed_rows"], told["failed_out"]) == (1, 1, "failed.csv")
    assert told["failures"][0] == {
        "destination": None,
        "status": "failed",
        "code": "INVALID_EMAIL",
        "count": 1,
        "lines": [4],
        "detail": "/email: no",
        "reasons": [{"detail": "/email: no", "count": 1, "lines": [4]}],
    }
    rows = list(csv.DictReader(io.StringIO((shell.home / "failed.csv").read_text())))
    assert [(row["id"], row["error_code"]) for row in rows] == [("c2", "INVALID_EMAIL")]
    assert shell.journals == []


async def test_the_table_shows_what_failed_where(shell: Shell) -> None:
    shell.write(5)
    shell.api.decide = lambda item, seen: fail("INVALID_EMAIL", "[bold]\x1b[31mno") if item["id"] == "c2" else None
    _, out, _ = await shell.run("push", "in.csv")
    assert "INVALID_EMAIL" in out
    assert "line 4" in out
    assert "[bold]" in out, "text from a server is not markup"
    assert "\x1b[31m" not in out, "nor may it steer the terminal"


@pytest.mark.parametrize(
    ("arguments", "environ", "words"),
    [
        (["push", "none.csv"], {}, "none.csv"),
        (["push", "in.csv"], {"TRANCHE_API_KEY": ""}, "TRANCHE_API_KEY"),
        (["push", "in.csv"], {"TRANCHE_API_KEY": "trn_wrong"}, "401"),
        (["push", "in.csv", "--url", "localhost:8000"], {}, "--url"),
        (["push", "in.csv", "--map", "Key=id"], {}, "'Key'"),
        (["push", "in.csv", "--map", "id=frist_name"], {}, '--map "id=first_name"'),
        (["push", "in.csv", "--ignore", "Key"], {}, "'Key'"),
        (["push", "in.csv", "--map", "email=a:b"], {}, "colon"),
        (["push", "in.csv", "--failed-out", "in.csv"], {}, "is the file being pushed"),
        (["push", "in.csv", "--failed-out", "no/such/place.csv"], {}, "cannot be written"),
        (["push", "in.csv", "--nonsense"], {}, "nonsense"),
    ],
)
async def test_usage_and_authentication_are_2_with_a_reason(
    shell: Shell, arguments: list[str], environ: dict[str, str], words: str
) -> None:
    shell.write(2)
    code, _, err = await shell.run(*arguments, **environ)
    assert code == 2
    assert words in err
    assert "Traceback" not in err
    assert "trn_wrong" not in err
    assert shell.api.applied == []


async def test_a_timeout_is_3_and_the_next_run_goes_on(shell: Shell) -> None:
    shell.write(3)
    shell.api.decide = lambda item, seen: wait("RATE_LIMIT", 30) if item["id"] == "c1" else None
    code, out, _ = await shell.run("push", "in.csv", "--timeout", "0.5", "--failed-out", "left.csv")
    assert code == 3
    assert "run the same command again" in out
    assert "RATE_LIMIT" in (shell.home / "left.csv").read_text()
    assert len(shell.journals) == 1
    code, out, _ = await shell.run("push", "in.csv", "--timeout", "0.5", "--json")
    assert (code, json.loads(out)["resumed"]) == (3, True)
    assert shell.api.applied == ["c0", "c2"]
    _, out, _ = await shell.run("push", "in.csv", "--timeout", "0.5", "--json", "--fresh")
    assert json.loads(out)["resumed"] is False


async def test_killed_and_started_again_it_resumes_without_a_duplicate(shell: Shell) -> None:
    """In its upload, and when the server has the file but its response is lost."""
    shell.write(20_000)
    shell.api.stuck = asyncio.Event()
    process = await shell.start("push", "in.csv")
    await eventually(lambda: shell.api.arrived > 100_000)
    process.send_signal(signal.SIGKILL)
    await process.communicate()
    shell.api.stuck.set()
    await eventually(lambda: shell.api.keys == {})
    shell.api.hold = asyncio.Event()
    process = await shell.start("push", "in.csv")
    await eventually(lambda: len(shell.api.applied) == 20_000)
    process.send_signal(signal.SIGKILL)
    await process.communicate()
    shell.api.hold.set()
    shell.api.hold = None
    code, out, err = await shell.run("push", "in.csv")
    assert code == 0
    assert "resuming the push of in.csv" in err
    assert "the server had the file from the earlier run" in out
    assert len(shell.api.uploads) == 2
    assert len({upload.key for upload in shell.api.uploads}) == 1
    assert set(shell.api.times.values()) == {1}
    assert shell.journals == []


async def test_a_refused_file_leaves_no_memory_of_a_push(shell: Shell) -> None:
    shell.write(3)
    shell.api.answers = [problem(415, "UNSUPPORTED", "no")]
    assert (await shell.run("push", "in.csv"))[0] == 2
    assert shell.journals == []


async def test_options_of_the_way_it_was_sent_before_are_taken_and_do_nothing(shell: Shell) -> None:
    shell.write(3)
    words = ("--mode", "batch", "--batch-size", "2", "--concurrency", "1")
    code, _, err = await shell.run("push", "in.csv", *words)
    assert code == 0
    assert all(f"{word} has no effect" in err for word in words[::2])
    assert len(shell.api.uploads) == 1


async def test_a_dry_run_leaves_nothing(shell: Shell) -> None:
    shell.write(3)
    code, _, err = await shell.run("push", "in.csv", "--dry-run")
    assert code == 0, err
    assert shell.api.uploads[0].query == [("dry_run", "true")]
    assert (shell.api.applied, shell.journals) == ([], [])


async def test_options_become_the_query(shell: Shell) -> None:
    shell.write(3)
    options = ("--on-duplicate", "last_wins", "--consistency", "all_destinations", "--atomic")
    assert (await shell.run("push", "in.csv", *options))[0] == 0
    assert shell.api.uploads[0].query == [
        ("on_duplicate", "last_wins"),
        ("consistency", "all_destinations"),
        ("atomic", "true"),
    ]


async def test_a_canceled_job_is_1_and_forgotten(shell: Shell) -> None:
    shell.write(3)
    shell.api.ending = {"state": "canceled"}
    code, _, err = await shell.run("push", "in.csv", "-q")
    assert code == 1
    assert "was canceled" in err
    assert shell.journals == [], "pushing the file again is a new import"


async def test_a_changed_file_is_another_run(shell: Shell) -> None:
    shell.write(2)
    shell.api.decide = lambda item, seen: wait("RATE_LIMIT", 30)
    await shell.run("push", "in.csv", "--timeout", "0")
    shell.write(3)
    _, out, _ = await shell.run("push", "in.csv", "--timeout", "0", "--json")
    assert json.loads(out)["resumed"] is False


async def test_two_pushes_of_one_file_at_a_time_are_refused(shell: Shell) -> None:
    shell.write(2)
    shell.api.hold = asyncio.Event()
    process = await shell.start("push", "in.csv")
    await eventually(lambda: len(shell.api.uploads) == 1)
    code, _, err = await shell.run("push", "in.csv")
    assert code == 2
    assert "pushed already by another process" in err
    shell.api.hold.set()
    await process.communicate()
    assert process.returncode == 0


async def test_ctrl_c_is_130_with_a_hint(shell: Shell) -> None:
    shell.write(2)
    shell.api.hold = asyncio.Event()
    process = await shell.start("push", "in.csv")
    await eventually(lambda: len(shell.api.uploads) == 1)
    process.send_signal(signal.SIGINT)
    _, err = await process.communicate()
    assert process.returncode == 130
    assert b"Run the same command again" in err
    assert b"Traceback" not in err
    assert len(shell.journals) == 1


async def test_a_named_run_is_answered_as_before(shell: Shell) -> None:
    shell.write(4)
    await shell.run("push", "in.csv", "--run", "nightly")
    _, out, _ = await shell.run("push", "in.csv", "--run", "nightly", "--json")
    told = json.loads(out)
    assert (told["results"]["created"], told["replayed"]) == (4, 1)
    assert len(shell.api.applied) == 4


async def test_a_state_folder_that_cannot_be_made_is_no_reason_to_fail(shell: Shell) -> None:
    shell.write(2)
    (shell.home / "file").write_text("")
    code, _, err = await shell.run("push", "in.csv", XDG_STATE_HOME=str(shell.home / "file"))
    assert code == 0
    assert "cannot be resumed" in err


async def test_standard_input_and_quiet(shell: Shell) -> None:
    code, out, err = await shell.run("push", "-", "-q", stdin=b'{"id":"1","email":"a@b.example"}\n')
    assert (code, out, err) == (0, "", "")
    assert shell.api.applied == ["1"]


async def test_jobs_list_show_and_wait(shell: Shell) -> None:
    shell.write(6)
    for _ in range(3):
        await shell.run("push", "in.csv")
    ids = list(shell.api.jobs)[::-1]
    code, out, _ = await shell.run("jobs", "list", "--json")
    assert code == 0
    assert [json.loads(line)["job_id"] for line in out.splitlines()] == ids
    _, out, _ = await shell.run("jobs", "list", "--limit", "1")
    assert ids[0] in out
    assert ids[1] not in out
    code, out, _ = await shell.run("jobs", "show", ids[0], "--json")
    assert (code, json.loads(out)["state"]) == (0, "completed")
    assert "completed" in (await shell.run("jobs", "show", ids[0]))[1]
    assert (await shell.run("jobs", "wait", ids[0]))[0] == 0
    code, _, err = await shell.run("jobs", "show", "none")
    assert code == 2
    assert "no such job" in err


async def test_jobs_wait_shows_failures_and_a_timeout(shell: Shell) -> None:
    shell.write(2)
    shell.api.destination = "hubspot"
    shell.api.lost = {"c1": {"state": "failed", "error_code": "DESTINATION_REJECTED", "detail": "no"}}
    await shell.run("push", "in.csv", "--no-wait")
    job = next(iter(shell.api.jobs))
    assert (await shell.run("jobs", "wait", job))[0] == 1
    shell.api.polls_until_settled = 10_000
    assert (await shell.run("jobs", "wait", job, "--timeout", "1"))[0] == 3


@pytest.mark.parametrize(
    ("options", "words"),
    [(["--failed", "--csv", "--limit", "2"], "--limit"), (["--ndjson"], "--ndjson goes with --failed")],
)
async def test_jobs_items_options_that_mean_nothing_are_refused(shell: Shell, options: list[str], words: str) -> None:
    code, _, err = await shell.run("jobs", "items", "x", *options)
    assert code == 2
    assert words in err


async def test_jobs_items_gives_failed_items_back_as_they_were_sent(shell: Shell) -> None:
    (shell.home / "in.ndjson").write_text('{"id":"1","email":"a@b.example"}\n{"id":"2",  "email":null}\n')
    shell.api.decide = lambda item, seen: fail("INVALID_EMAIL", "no") if item["email"] is None else None
    await shell.run("push", "in.ndjson")
    job = next(iter(shell.api.jobs))
    code, out, err = await shell.run("jobs", "items", job, "--status", "failed", "--failed", "--ndjson")
    assert (code, out) == (0, '{"id":"2",  "email":null}\n'), err


async def test_jobs_items_walks_all_pages(shell: Shell) -> None:
    shell.write(7)
    shell.api.destination = "hubspot"
    shell.api.lost = {"c1": {"state": "dead", "error_code": "RETRIES_EXHAUSTED", "detail": "8 attempts"}}
    shell.api.decide = lambda item, seen: fail("INVALID_EMAIL", "=no") if item["id"] == "c5" else None
    await shell.run("push", "in.csv")
    job = next(iter(shell.api.jobs))
    _, out, _ = await shell.run("jobs", "items", job, "--json")
    assert [json.loads(line)["id"] for line in out.splitlines()] == [f"c{i}" for i in range(7)]
    _, out, _ = await shell.run("jobs", "items", job, "--failed", "--json")
    assert [json.loads(line)["id"] for line in out.splitlines()] == ["c1", "c5"]
    _, out, _ = await shell.run("jobs", "items", job, "--status", "failed", "--csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [(row["id"], row["error_code"], row["detail"]) for row in rows] == [("c5", "INVALID_EMAIL", "/email: =no")]
    _, out, _ = await shell.run("jobs", "items", job, "--limit", "3")
    assert len(out.splitlines()) == 3


MESSY = "Kundennummer,Email,Vorname,Telefon,Ort,Intern\n7,a@b.example,Ann,030 1234,Bonn,x\n"


async def test_a_preview_shows_what_becomes_of_each_column_and_sends_nothing(shell: Shell) -> None:
    (shell.home / "in.csv").write_text(MESSY)
    options = ("--map", "Kundennummer=id", "--ignore", "Intern", "--preview")
    code, out, err = await shell.run("push", "in.csv", *options, TRANCHE_API_KEY="")
    assert (code, err) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    assert ["Kundennummer", "id", "7"] in lines
    assert ["Vorname", "first_name", "Ann"] in lines
    assert ["Ort", "attribute", "Ort", "Bonn"] in lines
    assert ["Intern", "ignored", "x"] in lines
    code, out, _ = await shell.run("push", "in.csv", *options, "--json")
    assert {"column": "Telefon", "becomes": "phone", "example": "030 1234"} in json.loads(out)["columns"]
    assert shell.api.applied == []


async def test_the_first_lines_of_a_push_say_what_the_columns_are(shell: Shell) -> None:
    (shell.home / "in.csv").write_text(MESSY)
    code, _, err = await shell.run("push", "in.csv", "--map", "Kundennummer=id", "--ignore", "Intern")
    assert code == 0, err
    first = err.splitlines()[:3]
    assert first[0] == "columns: Kundennummer → id, Email → email, Vorname → first_name, Telefon → phone"
    assert first[1:] == ["attributes: Ort", "ignored: Intern"]
    assert shell.api.applied == ["7"]


async def test_all_reasons_are_in_the_summary(shell: Shell) -> None:
    (shell.home / "in.csv").write_text("id,email\n1\n2,a@b.example,x\n3\n")
    code, out, _ = await shell.run("push", "in.csv")
    assert code == 1
    assert "lines 2, 4: the row has 1 cells" in out
    assert "line 3: the row has 3 cells" in out


async def test_a_file_of_a_header_alone_is_remarked(shell: Shell) -> None:
    (shell.home / "in.csv").write_text("id,email\n")
    code, out, _ = await shell.run("push", "in.csv")
    assert code == 0
    assert "the file has no rows" in out


@pytest.mark.parametrize("text", ['{"contacts":[{"id":"1"}]}', '{\n "contacts": [\n {"id":"1"}\n ]\n}'])
async def test_items_under_another_name_are_told_how_to_be_called(shell: Shell, text: str) -> None:
    (shell.home / "in.json").write_text(text)
    code, _, err = await shell.run("push", "in.json")
    assert code == 2
    assert 'unknown member "contacts"' in err
    assert '{"items": [...]}' in err


async def test_one_column_can_be_the_id_and_the_address(shell: Shell) -> None:
    (shell.home / "in.csv").write_text("Email,Name\na@b.example,Ann\n")
    code, _, err = await shell.run("push", "in.csv")
    assert code == 2
    assert err.count("--map") == 1
    assert '--map "Email=id"' in err
    code, _, err = await shell.run("push", "in.csv", "--map", "Email=id")
    assert code == 0, err
    assert "Email → id, email" in err
    assert shell.api.applied == ["a@b.example"]


async def test_what_was_trimmed_is_in_the_summary(shell: Shell) -> None:
    (shell.home / "in.csv").write_text('id,email\n" 1",a@b.example\n2,c@d.example\n1.0E+05,e@f.example\n')
    code, out, err = await shell.run("push", "in.csv")
    assert code == 0, err
    assert "warning TRIMMED" in out
    assert "/id: white space around the value was left out; line 2" in out
    assert "warning NUMBER_FORMAT" in out
    assert shell.api.applied == ["1", "2", "1.0E+05"]
    code, out, _ = await shell.run("push", "in.csv", "--json")
    assert json.loads(out)["warnings"][0] == {"code": "TRIMMED", "pointer": "/id", "count": 1, "lines": [2]}


async def test_the_named_encoding_has_the_same_file_imported(shell: Shell) -> None:
    (shell.home / "in.csv").write_bytes(b"id,email,first_name\nx,a@b.example,Zo\xeb\n")
    code, _, err = await shell.run("push", "in.csv", "--encoding", "windows-1252")
    assert code == 0, err
    assert shell.api.applied == ["x"]


async def test_jobs_cancel_says_what_was_done_and_what_is_too_late(shell: Shell) -> None:
    shell.write(5)
    shell.api.polls_until_decided, shell.api.processed_at_most = 10_000, 3
    process = await shell.start("push", "in.csv")
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


async def test_jobs_wait_shows_where_the_job_stands(shell: Shell) -> None:
    shell.write(8)
    await shell.run("push", "in.csv")
    shell.api.polls_until_decided = 10_000
    job = next(iter(shell.api.jobs))
    code, out, _ = await shell.run("jobs", "wait", job, "--timeout", "1")
    assert code == 3
    assert "running" in out
    code, _, err = await shell.run("jobs", "wait", job, "--timeout", "1", "--json")
    assert (code, err) == (3, "")
