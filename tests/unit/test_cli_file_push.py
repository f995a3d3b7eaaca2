"""`tranche push --mode file` against a server that keeps the contract, or breaks off at the worst moment."""

from __future__ import annotations

import json
import random
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app.cli.client.body import open_body
from app.cli.client.errors import CanceledError, ClientError, RefusedError, UsageError
from app.cli.client.failed_file import write_failed
from app.cli.client.file_push import FileOptions, push_file
from app.cli.client.http import Answer
from app.cli.client.reader import ReadOptions, open_source
from app.cli.client.results import Results
from app.cli.client.summary import Outcome, as_document
from tests.unit.cli_file_server import FileApi
from tests.unit.cli_server import KEY, FakeClock, fail, problem, wait
from tests.unit.test_cli_push import Said


class FilePusher:
    """Pushes whole files of one temporary folder to one fake API."""

    def __init__(self, api: FileApi, clock: FakeClock, url: str, folder: Path) -> None:
        self.api, self.clock, self.url, self.folder = api, clock, url, folder
        self.results = Results()
        self.display = Said()
        self.name = "in.csv"

    def write(self, content: bytes | str, name: str = "in.csv") -> None:
        self.name = name
        (self.folder / name).write_bytes(content.encode() if isinstance(content, str) else content)

    def write_rows(self, count: int, note: str = "") -> None:
        noise = random.Random(7)
        rows = [f"c{i},user{i}@b.example,{note or noise.randbytes(20).hex()}" for i in range(count)]
        self.write("\n".join(["id,email,first_name", *rows]) + "\n")

    async def push(
        self,
        *,
        patience: float = 300,
        run: str = "run-1",
        mark: str = "mark",
        key: str = KEY,
        params: list[tuple[str, str]] | None = None,
        atomic: bool = False,
        dry_run: bool = False,
        **read: Any,
    ) -> Outcome:
        self.results = Results()
        options = ReadOptions(**read)
        self.source, body = open_body(open_source(str(self.folder / self.name), options), options.delimiter)
        file_options = FileOptions(
            url=self.url, key=key, run=run, mark=mark, params=params or [], patience=patience, atomic=atomic,
            dry_run=dry_run,
        )  # fmt: skip
        return await push_file(
            self.source,
            body,
            file_options,
            self.results,
            self.display,
            clock=self.clock,
            rng=random.Random(1),
        )

    def failed_lines(self) -> list[str]:
        """Without the header; a row that cannot be parsed stands there as it was."""
        target = self.folder / "failed.csv"
        write_failed(str(target), self.source, self.results)
        return target.read_text().splitlines()[1:]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def pusher(tmp_path: Path, clock: FakeClock) -> AsyncIterator[FilePusher]:
    api = FileApi(now=clock.now)
    server = await api.start()
    yield FilePusher(api, clock, str(server.make_url("")).rstrip("/"), tmp_path)
    await server.close()


async def test_a_file_is_one_request_and_every_row_arrives_once(pusher: FilePusher) -> None:
    pusher.write_rows(3_000)
    pusher.api.polls_until_decided = 3
    outcome = await pusher.push(params=[("map", "first_name:last_name")])
    told = as_document(outcome, pusher.results)
    assert outcome.exit_code == 0
    assert (told["mode"], told["total"], told["results"]["created"]) == ("file", 3_000, 3_000)
    assert [(u.content_type, u.encoding, u.query) for u in pusher.api.uploads] == [
        ("text/csv", "", [("map", "first_name:last_name")])
    ]
    assert len(pusher.api.applied) == 3_000


async def test_a_large_file_travels_compressed_unless_it_would_pass_for_a_bomb(pusher: FilePusher) -> None:
    pusher.write_rows(30_000, "the same text again and again")
    await pusher.push()
    pusher.write(b"id,email\nc1,a@b.example\n" + b",\n" * 2_000_000)
    await pusher.push(run="run-2")
    first, second = pusher.api.uploads
    assert (first.encoding, second.encoding) == ("zstd", "")
    assert first.size < 1_000_000
    assert len(pusher.api.applied) == 30_001


async def test_an_upload_that_broke_is_sent_again_under_the_same_key(pusher: FilePusher) -> None:
    pusher.write_rows(20_000)
    pusher.api.cut = 2
    outcome = await pusher.push()
    assert outcome.exit_code == 0
    assert len({u.key for u in pusher.api.uploads}) == 1
    assert [u.whole for u in pusher.api.uploads] == [False, False, True]
    assert sorted(pusher.api.times.values()) == [1] * 20_000


async def test_a_lost_answer_is_asked_for_and_not_sent_for(pusher: FilePusher) -> None:
    pusher.write_rows(100)
    pusher.api.lose_answers = 1
    assert (await pusher.push()).exit_code == 0
    assert len(pusher.api.uploads) == 1
    assert pusher.results.ok == {"created": 100}


async def test_the_remains_of_a_dead_upload_are_waited_for(pusher: FilePusher) -> None:
    """The server cannot know at once that a client died: until it gives up, the key is taken."""
    pusher.write_rows(20_000)
    pusher.api.cut, pusher.api.receiving = 1, 5
    assert (await pusher.push()).exit_code == 0
    first, second = pusher.api.uploads
    assert second.at - first.at >= 10
    assert any("still open at the server" in text for text in pusher.display.texts)


async def test_the_same_run_finds_its_job_without_sending(pusher: FilePusher) -> None:
    pusher.write_rows(50)
    pusher.api.decide = lambda item, seen: (
        wait("LOCK_TIMEOUT", 4) if item["id"] == "c9" and seen == 1 else None
    )
    await pusher.push()
    sent = len(pusher.api.uploads)
    outcome = await pusher.push()
    assert outcome.exit_code == 0
    assert len(pusher.api.uploads) == sent == 2, "the repetition of the waiting rows is found as well"
    assert pusher.results.ok == {"created": 50}
    assert pusher.results.retry == 0
    assert pusher.results.replayed == 2


async def test_only_waiting_rows_go_again_and_not_before_the_told_time(pusher: FilePusher) -> None:
    pusher.write_rows(200)
    slow = {"c3": 60.0, "c77": 45.0}
    pusher.api.decide = lambda item, seen: (
        wait("RATE_LIMIT", slow[item["id"]])
        if item["id"] in slow and seen < 3
        else fail("INVALID_EMAIL", "no")
        if item["id"] == "c77"
        else None
    )
    outcome = await pusher.push(params=[("map", "first_name:company")], mapping=("first_name=company",))
    first, second, third = pusher.api.uploads
    assert [json.loads(bytes(p))["id"] for p in second.pieces] == ["c3", "c77"]  # type: ignore[arg-type]
    assert (second.content_type, second.query) == ("application/x-ndjson", [])
    assert min(second.at - first.at, third.at - second.at) >= 60
    assert pusher.api.contacts["c3"]["company"]
    assert outcome.exit_code == 1
    assert [c.lines for c in pusher.results.clusters()] == [[79]]
    assert (pusher.results.ok["created"], pusher.results.failed, pusher.results.retry) == (199, 1, 0)


async def test_patience_ends_with_what_is_left(pusher: FilePusher) -> None:
    pusher.write_rows(20)
    pusher.api.decide = lambda item, seen: wait("RATE_LIMIT", 500) if item["id"] == "c4" else None
    outcome = await pusher.push(patience=120)
    told = as_document(outcome, pusher.results)
    assert (outcome.exit_code, told["succeeded"], told["retry"], told["all_sent"]) == (3, 19, 1, True)
    assert told["failures"][0]["lines"] == [6]


async def test_a_job_that_nobody_works_at_says_so_when_patience_ends(pusher: FilePusher) -> None:
    pusher.write_rows(20)
    pusher.api.polls_until_decided, pusher.api.processed_at_most = 1_000, 0
    pusher.api.waiting = {"code": "NO_WORKER", "detail": "no worker has been seen yet"}
    outcome = await pusher.push(patience=20)
    told = as_document(outcome, pusher.results)
    assert outcome.exit_code == 3
    assert "is still running: no worker has been seen yet" in told["trouble"]


async def test_a_job_that_moves_is_followed_however_long_it_takes(pusher: FilePusher) -> None:
    pusher.write_rows(100)
    pusher.api.polls_until_decided = 99
    assert (await pusher.push(patience=5)).exit_code == 0
    assert pusher.clock.now() > 1_090


async def test_nobody_home_ends_with_patience(tmp_path: Path, clock: FakeClock) -> None:
    pusher = FilePusher(FileApi(), clock, "http://127.0.0.1:1", tmp_path)
    pusher.write_rows(3)
    outcome = await pusher.push(patience=60)
    assert (outcome.exit_code, outcome.all_sent) == (3, False)
    assert "cannot reach" in outcome.trouble


async def test_a_refusal_before_the_body_went_out_is_told_and_no_broken_pipe(pusher: FilePusher) -> None:
    pusher.write_rows(60_000)
    pusher.api.refusals = [problem(413, "REQUEST_TOO_LARGE", "too much of it")]
    with pytest.raises(RefusedError, match="too much of it"):
        await pusher.push()
    assert pusher.api.applied == []


async def test_a_server_that_is_busy_is_asked_later(pusher: FilePusher) -> None:
    pusher.write_rows(60_000)
    pusher.api.refusals = [
        problem(503, "OVERLOADED", "", Retry_After="7"),
        problem(409, "IDEMPOTENCY_KEY_IN_USE", "", Retry_After="9"),
    ]
    assert (await pusher.push()).exit_code == 0
    assert pusher.clock.now() >= 1_016


async def test_a_wrong_key_is_told_before_anything_is_sent(pusher: FilePusher) -> None:
    pusher.write_rows(3)
    with pytest.raises(RefusedError) as caught:
        await pusher.push(key="trn_secret_value")
    assert "401" in caught.value.detail
    assert "trn_secret_value" not in caught.value.detail
    assert pusher.api.arrived == 0


async def test_a_job_that_failed_says_why(pusher: FilePusher) -> None:
    pusher.write_rows(3)
    detail = "byte 0xE9 is no UTF-8; send it with charset=windows-1252"
    pusher.api.ending = {"state": "failed", "error": {"code": "MALFORMED_REQUEST", "detail": detail}}
    outcome = await pusher.push()
    assert (outcome.exit_code, outcome.over) == (2, True)
    assert "MALFORMED_REQUEST" in outcome.trouble
    assert "--encoding windows-1252" in outcome.trouble
    pusher.api.ending = {"state": "failed", "error": {"code": "INTERNAL", "detail": "x"}}
    assert (await pusher.push()).exit_code == 1


async def test_a_job_that_was_canceled_tells_what_was_left(pusher: FilePusher) -> None:
    pusher.write_rows(5)
    summary = {"total": 2, "succeeded": 2, "failed": 0, "retry": 0}
    progress = {"items": 5, "processed": 2, "not_processed": 3, "bytes_received": 1}
    pusher.api.ending = {
        "state": "canceled",
        "summary": summary,
        "results": {"created": 2},
        "progress": progress,
    }
    outcome = await pusher.push()
    told = as_document(outcome, pusher.results)
    assert (outcome.exit_code, outcome.over, told["complete"]) == (1, True, False)
    assert (told["succeeded"], told["not_processed"]) == (2, 3)
    assert "3 were not processed" in outcome.trouble


async def test_a_cancel_in_the_middle_of_the_upload_ends_it(pusher: FilePusher) -> None:
    pusher.write_rows(5)
    pusher.api.refusals = [problem(409, "JOB_CANCELED", "")]
    with pytest.raises(CanceledError) as caught:
        await pusher.push()
    assert caught.value.exit_code == 1


MESSY = (
    "\n\nid,email,first_name\n"
    "c0,bad@b.example,Ann\n"
    ",,\n"
    "\n"
    'c1,a@b.example,"two\nlines"\n'
    "c2,short\n"
    '"x"y,a@b.example,z\n'
    "   ,,\n"
    "c3,a@b.example,nul\0\n"
    "c4,bad@b.example,Bob,surplus\n"
    "c5,bad@b.example,Eve\r\n"
    "c6,a@b.example,ok\rc7,bad@b.example,Mac\n"
    'c8,a@b.example,"never closed\n'
    "c9,bad@b.example,last"
)


async def test_the_rows_of_a_messy_file_are_counted_as_the_server_counts_them(pusher: FilePusher) -> None:
    pusher.write(MESSY)
    pusher.api.decide = lambda item, seen: (
        fail("INVALID_EMAIL", "no") if item.get("email", "").startswith("bad") else None
    )
    outcome = await pusher.push()
    assert outcome.exit_code == 1
    failed = pusher.failed_lines()
    assert [line.split(",")[3] for line in failed if line.startswith("INVALID_EMAIL")] == [
        "c0",
        "c5",
        "c7",
        "c9",
    ]
    told = [line for line in failed if line.startswith("INVALID_FIELD")]
    lines = [line for c in pusher.results.clusters() if c.code == "INVALID_FIELD" for line in c.lines]
    assert lines == [9, 10, 13, 17]
    assert [f"line {number}:" in text for number, text in zip(lines, told, strict=True)] == [True] * 4


async def test_ndjson_lines_are_counted_as_the_server_counts_them(pusher: FilePusher) -> None:
    lines = [
        b'{"id":"c0","email":"bad"}',
        b" \t",
        b"",
        b"\x0c",
        b'{"id":"c1",\r"email":"bad"}\r',
        b"{broken",
        b'{"id":"c2","email":"\xff"}',
        "\u2028".encode(),
        b'{"id":"c3","email":"bad"}',
    ]
    pusher.write(b"\n".join(lines), "in.ndjson")
    pusher.api.decide = lambda item, seen: fail("INVALID_EMAIL", "no") if item["email"] == "bad" else None
    assert (await pusher.push()).exit_code == 1
    target = pusher.folder / "failed.ndjson"
    write_failed(str(target), pusher.source, pusher.results)
    reasons = [json.loads(line) for line in Path(f"{target}.reasons.ndjson").read_text().splitlines()]
    assert [r["source_line"] for r in reasons if r["errors"][0]["error_code"] == "INVALID_EMAIL"] == [1, 5, 9]
    assert len(reasons) == 7


@pytest.mark.parametrize(
    ("count", "content_type"), [(3, "application/json"), (10_001, "application/x-ndjson")]
)
async def test_json_goes_as_json_while_the_server_takes_it(
    pusher: FilePusher, count: int, content_type: str
) -> None:
    items = [{"id": f"c{i}", "email": "a@b.example"} for i in range(count)]
    pusher.write(json.dumps(items, indent=1), "in.json")
    assert (await pusher.push()).exit_code == 0
    assert pusher.api.uploads[0].content_type == content_type
    assert len(pusher.api.applied) == count


@pytest.mark.parametrize(
    ("codec", "read", "content_type"),
    [
        ("utf-8-sig", {}, "text/csv"),
        ("utf-16", {}, "text/csv; charset=utf-16"),
        ("utf-32", {}, "text/csv"),
        ("cp1252", {"encoding": "windows-1252"}, "text/csv; charset=windows-1252"),
        ("utf-16-le", {"encoding": "utf-16-le"}, "text/csv; charset=utf-16le"),
        ("cp1250", {"encoding": "cp1250"}, "text/csv"),
        ("latin-1", {"encoding": "latin-1"}, "text/csv"),
    ],
)
async def test_every_encoding_arrives(
    pusher: FilePusher, codec: str, read: dict[str, str], content_type: str
) -> None:
    pusher.write("id,email,first_name\nc1,a@b.example,Zoë\n".encode(codec))
    assert (await pusher.push(**read)).exit_code == 0
    assert pusher.api.uploads[0].content_type == content_type
    assert pusher.api.contacts["c1"]["first_name"] == "Zoë"


async def test_text_that_is_none_in_the_told_encoding_is_refused_here(pusher: FilePusher) -> None:
    pusher.write(b"id,email\nc1,\xff\xff@b.example\n" * 3)
    with pytest.raises(UsageError, match="--encoding"):
        await pusher.push(encoding="shift_jis")
    assert pusher.api.applied == []


async def test_a_delimiter_can_be_told_if_it_is_the_one_that_will_be_found(pusher: FilePusher) -> None:
    pusher.write("id;email\nc1;a@b.example\n")
    assert (await pusher.push(delimiter=";")).exit_code == 0
    pusher.write("id\x1femail\nc1\x1fa@b.example\n")
    with pytest.raises(UsageError, match="--mode batch"):
        await pusher.push(delimiter="\x1f")


async def test_a_file_that_changes_while_it_is_sent_is_not_imported(
    pusher: FilePusher, monkeypatch: pytest.MonkeyPatch
) -> None:
    pusher.write_rows(50_000)
    path = pusher.folder / pusher.name

    class Growing(Said):
        def show_upload(self, position: int, size: int) -> None:
            with path.open("a") as out:
                out.write("late,a@b.example,x\n")

    pusher.display = Growing()
    with pytest.raises(UsageError, match="has changed"):
        await pusher.push()
    assert not any(upload.whole for upload in pusher.api.uploads)
    assert pusher.api.applied == []


async def test_rows_that_cannot_be_matched_are_not_guessed(pusher: FilePusher) -> None:
    pusher.write_rows(5)
    pusher.api.decide = lambda item, seen: fail("INVALID_EMAIL") if item["id"] == "c2" else None
    pusher.api.ending = {"progress": {"items": 6, "processed": 6, "not_processed": 0, "bytes_received": 1}}
    with pytest.raises(ClientError, match="the server read 6 rows"):
        await pusher.push()


async def test_atomic_is_all_again_when_only_time_was_against_it(pusher: FilePusher) -> None:
    pusher.write_rows(4)
    pusher.api.decide = lambda item, seen: (
        None if seen > 1 else wait("LOCK_TIMEOUT", 3) if item["id"] == "c1" else fail("ATOMIC_ABORTED")
    )
    outcome = await pusher.push(params=[("atomic", "true")], atomic=True)
    assert outcome.exit_code == 0
    assert [len(upload.pieces) for upload in pusher.api.uploads] == [4, 4]
    assert len({upload.key for upload in pusher.api.uploads}) == 2
    assert pusher.results.ok == {"created": 4}


async def test_atomic_is_not_tried_again_when_a_row_is_bad(pusher: FilePusher) -> None:
    pusher.write_rows(4)
    pusher.api.decide = lambda item, seen: (
        wait("LOCK_TIMEOUT", 3) if item["id"] == "c1" else fail("INVALID_EMAIL")
    )
    outcome = await pusher.push(params=[("atomic", "true")], atomic=True)
    assert outcome.exit_code == 1
    assert len(pusher.api.uploads) == 1


async def test_memory_does_not_grow_with_the_file(pusher: FilePusher) -> None:
    """Most of what is measured is the stand-in server's."""
    pusher.write_rows(100_000)
    options = ReadOptions()
    _, body = open_body(open_source(str(pusher.folder / pusher.name), options), None)
    assert body.size > 5_000_000
    tracemalloc.start()
    try:
        assert sum(map(len, body.pieces())) == body.size
        assert tracemalloc.get_traced_memory()[1] < 1_500_000
    finally:
        tracemalloc.stop()


def test_a_conflict_passes_only_when_it_says_so() -> None:
    assert Answer(409, {}, b"").is_final
    assert not Answer(409, {"Retry-After": "1"}, b"").is_final
